package transport

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/internal/testenv/hosttest"
)

// A GPU, a NIC below its switch, one on the same root, and one on another root.
func TestNearestFirst(t *testing.T) {
	files := map[string]string{}
	for bdf, place := range map[string]string{
		"0000:03:00.0": "pci0000:00/0000:00:01.0/0000:01:00.0/0000:03:00.0", // the GPU
		"0000:04:00.0": "pci0000:00/0000:00:01.0/0000:01:00.0/0000:04:00.0",
		"0000:05:00.0": "pci0000:00/0000:00:02.0/0000:05:00.0",
		"0000:80:00.0": "pci0000:80/0000:80:00.0",
	} {
		files["sys/devices/"+place+"/vendor"] = "0x15b3"
		files["sys/bus/pci/devices/"+bdf] = "-> ../../../devices/" + place
	}
	root := hosttest.Tree(t, files)
	for _, c := range []struct {
		nics    []string
		want    []string
		nearest int
	}{
		{[]string{"0000:80:00.0", "0000:05:00.0", "0000:04:00.0"}, []string{"0000:04:00.0", "0000:05:00.0", "0000:80:00.0"}, 1},
		{[]string{"", "0000:05:00.0"}, []string{"0000:05:00.0", ""}, 1},
		{[]string{"", "0000:99:00.0"}, []string{"", "0000:99:00.0"}, 0},
		{nil, nil, 0},
	} {
		var all []fabric.Interface
		for _, n := range c.nics {
			all = append(all, fabric.Interface{Attributes: fabric.Attributes{NIC: fabric.NIC{PCI: n}}})
		}
		nearest := nearestFirst(root, all, "0000:03:00.0")
		var got []string
		for _, i := range all {
			got = append(got, i.NIC.PCI)
		}
		if d := cmp.Diff(c.want, got); d != "" || nearest != c.nearest {
			t.Errorf("%v: %d nearest, want %d; %s", c.nics, nearest, c.nearest, d)
		}
	}
}
