package host_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/cuda"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv/cudafake"
	"github.com/xferbench/xferbench/nvml"
)

func TestNVMLGPUs(t *testing.T) {
	fake := &nvml.Fake{Sys: nvml.System{Driver: "550", Library: "12.550"},
		Devices: []nvml.GPU{{Index: 0, Name: "A10G", PCI: "ffff:00:1b.0", MemoryBytes: 24 << 30, PCIeMaxGen: 4, PCIeMaxWidth: 8, NVLinks: make([]nvml.NVLink, 3)}}}
	version, got, err := host.NVMLGPUs(fake)
	want := []host.GPU{{GPU: record.GPU{Name: "A10G", PCI: "ffff:00:1b.0", NUMA: -1, MemoryBytes: 24 << 30, Driver: "550"}, PCIeGen: 4, PCIeWidth: 8, NVLinks: 3}}
	if d := cmp.Diff(want, got); d != "" || err != nil || version != "12.550" {
		t.Error(d, err, version)
	}
	fake.Err = errors.New("lost")
	if _, _, err := host.NVMLGPUs(fake); err == nil {
		t.Error("the error was dropped")
	}
}

func TestCUDAGPUs(t *testing.T) {
	d, err := cuda.Load(cudafake.Build(t))
	if err != nil {
		t.Fatal(err)
	}
	got, err := host.CUDAGPUs(d)
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	want := record.GPU{Index: 1, Name: "Fake 1", PCI: "0000:10:1d.0", NUMA: got[1].NUMA, MemoryBytes: 40 << 30, Driver: "CUDA 12.4"}
	if d := cmp.Diff(want, got[1].GPU); d != "" {
		t.Error(d)
	}
}

// Where there is neither NVML nor libcuda, a run goes on without GPUs.
func TestGPUs(t *testing.T) {
	got := host.GPUs()
	if _, err := nvml.New(""); err != nil && len(got) > 0 {
		t.Logf("by libcuda: %+v", got)
	}
	for _, g := range got {
		if g.Name == "" || g.PCI == "" {
			t.Errorf("%+v", g)
		}
	}
	if a := host.GPUAddress(1 << 20); a != "" {
		t.Errorf("a device that is none is at %s", a)
	}
}
