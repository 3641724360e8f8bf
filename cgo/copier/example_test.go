package copier_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/xferbench/xferbench/cgo/copier"
	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
)

// Times three copies of 1 MiB in 64 pieces.
func Example() {
	if err := measure(); err != nil {
		fmt.Println(err)
	}
	// Output: 3 copies, 1048576 bytes each
}

func measure() (err error) {
	const n = 1 << 20
	var address [2]uint64
	for i := range address {
		buffer, err := mem.New(mem.Host, 0, n)
		if err != nil {
			return err
		}
		defer buffer.Free()
		address[i] = buffer.Address()
	}
	lane, err := copier.New(address[0], address[1], n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lane.Close()) }()
	pieces := make([]loop.Piece, 64)
	for i := range pieces {
		at := uint64(i) * n / 64
		pieces[i] = loop.Piece{Local: at, Remote: at, Len: n / 64}
	}
	plan, err := loop.NewPlan(pieces)
	if err != nil {
		return err
	}
	defer plan.Free()
	group, err := loop.NewGroup([]loop.Lane{lane.Lane()}, loop.Config{Poll: loop.Yield})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, group.Close()) }() // before the lane
	if err := group.Start(); err != nil {
		return err
	}
	samples, err := group.Transfer(context.Background(), loop.Read, []*loop.Plan{plan}, 3, len(pieces))
	if err != nil {
		return err
	}
	fmt.Printf("%d copies, %d bytes each\n", len(samples), samples[0].Bytes)
	return nil
}
