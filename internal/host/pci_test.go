package host_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/xferbench/xferbench/internal/host"
)

func TestPCIPath(t *testing.T) {
	root := t.TempDir()
	device := func(place, numa string) {
		dir := filepath.Join(root, "sys/devices", place)
		name := filepath.Base(place)
		err := errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(filepath.Join(root, "sys/bus/pci/devices"), 0o755),
			os.WriteFile(filepath.Join(dir, "numa_node"), []byte(numa+"\n"), 0o644),
			os.Symlink("../../../devices/"+place, filepath.Join(root, "sys/bus/pci/devices", name)))
		if err != nil {
			t.Fatal(err)
		}
	}
	// One switch (10:01.0 upstream, 11:0x.0 downstream), and a second below it.
	device("pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:00.0/0000:13:00.0", "0") // GPU
	device("pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:01.0/0000:14:00.0", "0") // NIC beside it
	device("pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:02.0/0000:15:00.0/0000:16:00.0/0000:17:00.0", "0")
	device("pci0000:10/0000:10:1c.0", "0")
	device("pci0000:20/0000:20:1c.0", "0")
	device("pci0000:a0/0000:a0:1c.0", "1")
	device("pci0000:b0/0000:b0:1c.0", "-1")
	for _, c := range []struct {
		a, b string
		want host.Path
	}{
		{"0000:13:00.0", "0000:13:00.0", host.Same},
		{"0000:13:00.0", "0000:14:00.0", host.PIX},
		{"0000:13:00.0", "0000:17:00.0", host.PXB},
		{"0000:13:00.0", "0000:10:1C.0", host.PHB},
		{"0000:13:00.0", "0000:20:1c.0", host.Node},
		{"0000:13:00.0", "0000:a0:1c.0", host.Sys},
		{"0000:b0:1c.0", "0000:a0:1c.0", host.Sys},
		{"0000:13:00.0", "0000:ff:00.0", host.Unknown},
		{"", "0000:13:00.0", host.Unknown},
	} {
		if got := host.Root(root).PCIPath(c.a, c.b); got != c.want {
			t.Errorf("%s to %s: %q, want %q", c.a, c.b, got, c.want)
		}
		if got := host.Root(root).PCIPath(c.b, c.a); got != c.want {
			t.Errorf("%s to %s: %q, want %q", c.b, c.a, got, c.want)
		}
	}
	if !(host.Same.Rank() < host.PIX.Rank() && host.PIX.Rank() < host.PXB.Rank() && host.PXB.Rank() < host.PHB.Rank() && host.PHB.Rank() < host.Node.Rank() &&
		host.Node.Rank() < host.Sys.Rank() && host.Sys.Rank() < host.Unknown.Rank()) {
		t.Error("ranks are out of order")
	}
}
