package nvml_test

import (
	"errors"
	"fmt"

	"github.com/xferbench/xferbench/nvml"
)

// Lists the GPUs of this host with what links them.
func Example() {
	lib, err := nvml.New("")
	if errors.Is(err, nvml.ErrUnavailable) {
		fmt.Println("no NVIDIA driver here:", err)
		return
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := errors.Join(list(lib), lib.Close()); err != nil {
		fmt.Println(err)
	}
}

func list(lib nvml.Interface) error {
	gpus, err := lib.GPUs()
	if errors.Is(err, nvml.ErrorGPUIsLost) {
		return fmt.Errorf("a GPU has fallen off the bus: %w", err)
	}
	if err != nil {
		return err
	}
	for _, g := range gpus {
		fmt.Printf("%d: %s at %s, %d NVLinks up\n", g.Index, g.Name, g.PCI, len(g.NVLinks))
	}
	return nil
}

// The same over fixed answers.
func ExampleFake() {
	fake := &nvml.Fake{Devices: []nvml.GPU{{Name: "NVIDIA A10G", PCI: "0000:00:1e.0"}}}
	if err := list(fake); err != nil {
		fmt.Println(err)
	}
	// Output: 0: NVIDIA A10G at 0000:00:1e.0, 0 NVLinks up
}
