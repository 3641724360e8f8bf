package loop_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/loop/looptest"
)

// A group measures transfers over lanes, here over two that move nothing. Those of
// package fabric come from Endpoint.Lane, those of package ucx from Worker.Lane.
func ExampleNewGroup() {
	var lanes []loop.Lane
	var plans []*loop.Plan
	for i := range uint64(2) {
		fake := looptest.New(looptest.Behaviour{})
		defer fake.Free()
		lanes = append(lanes, fake.Lane())
		plan, err := loop.NewPlan([]loop.Piece{{Local: i << 20, Remote: 0, Len: 1 << 20}, {Local: 2 << 20, Remote: 1 << 20, Len: 4096}})
		if err != nil {
			log.Fatal(err)
		}
		defer plan.Free()
		plans = append(plans, plan)
	}
	group, err := loop.NewGroup(lanes, loop.Config{Poll: loop.Yield, Timeout: 10 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	if err := group.Start(); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	samples, err := group.Transfer(ctx, loop.Write, plans, 3, 16)
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range samples {
		fmt.Printf("%d operations, %d bytes, took time: %v\n", s.Ops, s.Bytes, s.Total() > 0)
	}
	if err := group.Close(); err != nil { // before the lanes
		log.Fatal(err)
	}
	// Output:
	// 4 operations, 2105344 bytes, took time: true
	// 4 operations, 2105344 bytes, took time: true
	// 4 operations, 2105344 bytes, took time: true
}
