package mem_test

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/xferbench/xferbench/cgo/mem"
)

// A payload betrays any wrong byte: each is a function of its offset and a key.
func ExampleBuffer_Check() {
	ctx := context.Background()
	buffer, err := mem.New(mem.Host, 0, 1<<20)
	if err != nil {
		fmt.Println(err)
		return
	}
	key := mem.Key(42, 0) // of a seed and a number that grows
	err = buffer.Fill(ctx, buffer.Len(), key)
	if err == nil {
		buffer.Bytes()[4096] ^= 1
		err = buffer.Check(ctx, slices.Values([]mem.Span{{At: 0, From: 0, Len: 4096}, {At: 4096, From: 4096, Len: 64}}), key)
	}
	var wrong *mem.Mismatch
	if errors.As(err, &wrong) {
		fmt.Println(wrong)
	} else if err != nil {
		fmt.Println(err)
	}
	if err := buffer.Free(); err != nil {
		fmt.Println(err)
	}
	// Output: data check failed: piece 1, destination byte 4096 is not source byte 4096
}
