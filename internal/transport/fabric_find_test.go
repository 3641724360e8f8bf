package transport

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/internal/testenv"
)

func TestParseFabric(t *testing.T) {
	for name, want := range map[string][]string{
		"efa": {"efa"}, "efa-direct": {"efa"}, "tcp": {"tcp", "net"}, "net": {"net"}, "tcp;ofi_rxm": {"tcp;ofi_rxm"},
		"tcp-rxm": {"tcp;ofi_rxm"}, "shm": {"shm"}, "sockets": {"sockets"}, "verbs": {"verbs;ofi_rxm"},
		"fabric:udp;ofi_rxd": {"udp;ofi_rxd"}, "fabric:cxi": {"cxi"},
	} {
		p, err := parseFabric(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []string
		for _, c := range p.candidates {
			got = append(got, c.provider)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	for _, name := range []string{"", "fabric:", "EFA", "tcp ", "ucx"} {
		if _, err := parseFabric(name); err == nil || !strings.Contains(err.Error(), "efa-direct") {
			t.Errorf("%q: %v, want an error that lists the names", name, err)
		}
	}
}

func FuzzParseFabric(f *testing.F) {
	f.Add("tcp")
	f.Add("fabric:udp;ofi_rxd")
	f.Fuzz(func(t *testing.T, name string) {
		p, err := parseFabric(name)
		if err == nil && (p.name != name || len(p.candidates) == 0 || p.candidates[0].provider == "") {
			t.Errorf("%q was read as %+v", name, p)
		}
	})
}

// The hints of NIXL's plugin for efa; research: nixl libfabric_common.cpp.
func TestFabricHints(t *testing.T) {
	efa, direct, tcp := fabricProviders["efa"][0], fabricProviders["efa-direct"][0], fabricProviders["tcp"][0]
	want := fabricWant{ops: []loop.Op{loop.Read}, bind: "127.0.0.1"}
	const dc = fabric.DeliveryComplete
	h := efa.hints(want, dc, fabric.NoSends)
	if h.Mode != fabric.ModeContext || h.MRMode != fabric.MRLocal|fabric.MRVirtAddr|fabric.MRAllocated|fabric.MRProvKey|fabric.MRHMEM ||
		h.Source != "" || !h.AutoProgress || h.Caps != fabric.LocalComm|fabric.RemoteComm {
		t.Errorf("efa: %+v", h)
	}
	want.noShared = true
	if h := direct.hints(want, dc, fabric.NoSends); h.Mode != 0 || h.Caps != fabric.RemoteComm || h.Fabric != "efa-direct" {
		t.Errorf("efa-direct without shared memory: %+v", h)
	}
	if h := tcp.hints(want, fabric.RemoteCount, fabric.Slots); h.Source != "127.0.0.1" || h.AutoProgress || h.Mode != 0 || h.MRMode != 0 || h.Caps != 0 ||
		h.Landing != fabric.RemoteCount || h.Sends != fabric.Slots {
		t.Errorf("tcp: %+v", h)
	}
	f := fabricFound{candidate: efa, want: want}
	if c := f.endpoint(true, 9); c != (fabric.EndpointConfig{Initiator: true, Depth: 9, QueueSize: 12288, RNRRetries: 7, NoSharedMemory: true}) {
		t.Errorf("an endpoint of efa: %+v", c)
	}
	f.candidate = tcp
	if c := f.endpoint(false, 9); c != (fabric.EndpointConfig{Depth: 9}) {
		t.Errorf("an endpoint of tcp: %+v", c)
	}
}

func TestFabricAllowed(t *testing.T) {
	for _, c := range []struct {
		list, provider string
		want           bool
	}{
		{"efa", "efa", true}, {"efa", "tcp", false}, {"^efa", "efa", false}, {"^efa", "tcp", true}, {"tcp,efa", "efa", true},
		{"tcp", "tcp;ofi_rxm", true}, {"tcp;ofi_rxm", "tcp;ofi_rxm", true}, {"verbs", "tcp;ofi_rxm", false}, {"EFA", "efa", true},
		{"^ofi_rxm", "tcp;ofi_rxm", false},
	} {
		if got := fabricAllowed(c.list, c.provider); got != c.want {
			t.Errorf("FI_PROVIDER=%s lets %s through: %v, want %v", c.list, c.provider, got, c.want)
		}
	}
}

// What FI_PROVIDER hides of a provider's candidates, and how to let it through.
func TestFabricHiding(t *testing.T) {
	for _, c := range []struct{ list, provider, what, next string }{
		{"tcp", "tcp", "net", "add net to it"},
		{"net", "tcp", "tcp", "add tcp to it"},
		{"shm", "tcp", "tcp and net", "add tcp and net to it"},
		{"tcp,net", "tcp", "", ""},
		{"^net", "tcp", "net", "take net out of it"},
		{"^tcp", "tcp;ofi_rxm", "tcp;ofi_rxm", "take tcp out of it"},
		{"^ofi_rxm", "tcp;ofi_rxm", "tcp;ofi_rxm", "take ofi_rxm out of it"},
		{"shm", "verbs", "verbs;ofi_rxm", "add verbs to it"},
		{"", "shm", "shm", "unset FI_PROVIDER"},
	} {
		p, err := parseFabric(c.provider)
		if err != nil {
			t.Fatal(err)
		}
		what, next := fabricHiding(c.list, p.candidates)
		if what != c.what || !strings.Contains(next, c.next) {
			t.Errorf("FI_PROVIDER=%s and %s: hides %q, %q; want %q, %q", c.list, c.provider, what, next, c.what, c.next)
		}
	}
}

// A variable hides the provider: said so, with the way out.
func TestFabricHidden(t *testing.T) {
	needFabric(t)
	if os.Getenv("FI_PROVIDER") == "" {
		// libfabric reads the variable once, so a process of its own is needed.
		cmd := exec.Command(testenv.Self(t), "-test.run=^TestFabricHidden$")
		cmd.Env = append(os.Environ(), "FI_PROVIDER=shm")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	_, err := findFabric(needFabric(t), "sockets", fabricWant{ops: []loop.Op{loop.Read}, bind: "127.0.0.1"})
	if !errors.Is(err, errHidden) || !errors.Is(fabricError(err), ErrUnavailable) || !strings.Contains(err.Error(), "FI_PROVIDER=shm") ||
		!strings.Contains(err.Error(), "unset it") {
		t.Errorf("%v, want one that names FI_PROVIDER", err)
	}
}
