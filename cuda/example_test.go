package cuda_test

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/xferbench/xferbench/cuda"
)

// Copies bytes to the first device and back.
func Example() {
	driver, err := cuda.Load("")
	if errors.Is(err, cuda.ErrUnavailable) {
		fmt.Println("no GPU here:", err)
		return
	}
	if err == nil {
		err = roundTrip(driver, []byte("over and back"))
	}
	if err != nil {
		fmt.Println(err)
	}
}

func roundTrip(driver *cuda.Driver, data []byte) (err error) {
	ctx, err := driver.Retain(0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ctx.Close()) }()
	p, err := ctx.Alloc(uint64(len(data)))
	if errors.Is(err, cuda.ErrorOutOfMemory) {
		return fmt.Errorf("the device is full: %w", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ctx.Free(p)) }()
	if err := ctx.CopyToDevice(p, data); err != nil {
		return err
	}
	back := make([]byte, len(data))
	if err := ctx.CopyFromDevice(back, p); err != nil {
		return err
	}
	if !bytes.Equal(data, back) {
		return fmt.Errorf("%q came back as %q", data, back)
	}
	return nil
}
