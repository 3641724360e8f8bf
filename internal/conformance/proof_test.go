package conformance

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/testenv/efaemu"
)

// TestOtherProof forces the proof of a WRITE's landing that a provider does not
// take by itself: data is right and proven with either. On emulated EFA, work
// lands and completes in random order, so that counting events by order fails.
func TestOtherProof(t *testing.T) {
	for _, c := range []struct {
		name      string
		providers []string
		proof     string
		landing   string
		systems   []*system
		efa       bool
	}{
		{"tcp", []string{"tcp", "tcp;ofi_rxm"}, "dc", "delivery-complete", []*system{host, debian13}, false},
		{"shm", []string{"shm", "sockets"}, "count", "remote-cq-count", []*system{host, debian13}, false},
		{"efa", []string{"efa"}, "count", "remote-cq-count", []*system{host}, true},
		{"efa", []string{"efa", "efa-direct"}, "count", "remote-cq-count", []*system{debian13}, true},
	} {
		for _, s := range c.systems {
			t.Run(c.name+" "+s.name, func(t *testing.T) {
				t.Parallel()
				var env []string
				number := 0
				if c.efa {
					n := emulate(t, efaemu.Options{Shuffle: 411, SendQueue: 16})
					env, number = n.env, n.number
				}
				p := start(t, s, bin, env, "--provider", strings.Join(c.providers, ","), "--op", "write", "--shape", strings.Join(shapes, ","),
					"--set", "write-landing="+c.proof, "--size", "3MB", "--no-ceiling", "--blocks", "2", "--min-blocks", "2", "--iterations", "3",
					"--record", filepath.Join(t.TempDir(), "r.jsonl"))
				pids := p.watch()
				p.want(0)
				noneLeft(t, pids, number)
				if t.Failed() {
					return
				}
				rec := p.read()
				if want := len(c.providers) * len(shapes); len(rec.Conditions) != want || rec.Samples.Len() != want*7 {
					t.Errorf("%d conditions and %d samples, want %d and %d", len(rec.Conditions), rec.Samples.Len(), want, want*7)
				}
				for _, cond := range rec.Conditions {
					if cond.Landing != c.landing {
						t.Errorf("%s: landing %q, want %q", cond.Name, cond.Landing, c.landing)
					}
				}
				for s := range rec.Samples.All() {
					if s.Verified == nil || !*s.Verified {
						t.Errorf("not verified: %+v", s)
					}
				}
			})
		}
	}
}

// TestManyEventsOfOneWrite: where the device takes shorter requests than the
// provider says, libfabric 2.1 raises several events with one datum. A WRITE
// that is counted must then fail rather than pass as landed too early.
func TestManyEventsOfOneWrite(t *testing.T) {
	t.Parallel()
	n := emulate(t, efaemu.Options{MaxRDMASize: 8192})
	p := start(t, debian13, bin, n.env, "--provider", "efa", "--op", "write", "--shape", "merged", "--set", "write-landing=count", "--size", "3MB",
		"--no-ceiling", "--blocks", "1", "--min-blocks", "1", "--timeout", "1s", "--record", filepath.Join(t.TempDir(), "r.jsonl"))
	p.want(3)
	if words := "data arrived that belongs to no transfer"; !strings.Contains(p.Errs.String(), words) {
		t.Errorf("stderr does not say %q:\n%s", words, p.Errs.String())
	}
	// Delivery complete does not count events.
	p = start(t, debian13, bin, n.env, "--provider", "efa", "--op", "write", "--shape", "merged", "--set", "write-landing=dc", "--size", "3MB",
		"--no-ceiling", "--blocks", "1", "--min-blocks", "1", "--record", filepath.Join(t.TempDir(), "r.jsonl"))
	p.want(0)
}
