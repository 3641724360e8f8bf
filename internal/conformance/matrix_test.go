package conformance

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv"
	"github.com/xferbench/xferbench/internal/testenv/efaemu"
)

var (
	ops    = []string{"read", "write", "send"}
	shapes = []string{"merged", "fragmented", "contiguous"}
)

// row is a line of the matrix: a transport, its rails and its libraries.
type row struct {
	provider string // as --provider has it
	profile  efaemu.Profile
	rails    int
	system   *system
	// declared says by operation what the platform cannot do, and why.
	declared map[string]string
}

func (r row) label() string {
	name := r.provider
	if r.profile != "" {
		name += " " + string(r.profile)
	}
	return fmt.Sprintf("%s x%d %s", name, r.rails, r.system.name)
}

// addressed reports whether a rail is a local IP address.
func (r row) addressed() bool {
	return slices.Contains([]string{"tcp", "tcp;ofi_rxm", "sockets", "socket"}, r.provider)
}

// Why a platform cannot fill a cell.
const (
	noRailsShared = "shared memory has no NICs to be rails"
	noRailsUCX    = "UCX spreads operations over interfaces by itself, and loopback is one"
	noDirect117   = "libfabric before 2.1 has no efa-direct"
	noDirectRMA   = "efa-direct emulates no RDMA, which this device lacks (it asks for read and write)"
	noLibrary     = "kernel sockets need no library: the other row is the same"
)

// all declares every operation.
func all(reason string) map[string]string {
	return map[string]string{"read": reason, "write": reason, "send": reason}
}

// allRows is the matrix.
func allRows() []row {
	var rows []row
	for _, s := range []*system{host, debian13} {
		for _, rails := range []int{1, 2} {
			second := func(reason string) map[string]string {
				if rails == 1 {
					return nil
				}
				return all(reason)
			}
			kernel := map[string]string(nil)
			if s == debian13 {
				kernel = all(noLibrary)
			}
			rows = append(rows,
				row{"socket", "", rails, s, kernel},
				row{"tcp", "", rails, s, nil},
				row{"tcp;ofi_rxm", "", rails, s, nil},
				row{"sockets", "", rails, s, nil},
				row{"shm", "", rails, s, second(noRailsShared)},
				row{"ucx:tcp", "", rails, s, second(noRailsUCX)},
				row{"ucx:shm", "", rails, s, second(noRailsShared)},
			)
			for _, p := range []efaemu.Profile{efaemu.P5, efaemu.P4d, efaemu.G5} {
				rows = append(rows, row{"efa", p, rails, s, nil})
			}
			for _, p := range []efaemu.Profile{efaemu.P5, efaemu.P4d, efaemu.G5} {
				direct := row{"efa-direct", p, rails, s, nil}
				switch {
				case s == host:
					direct.declared = all(noDirect117)
				case p != efaemu.P5:
					direct.declared = map[string]string{"read": noDirectRMA, "write": noDirectRMA}
				}
				rows = append(rows, direct)
			}
		}
	}
	return rows
}

// knobs are the devices' tempers: with one rail, queues of a few entries and
// work that is carried out, lands and completes in random order; with two, as
// they should be, so that each one's bytes can be told.
func (r row) knobs() efaemu.Options {
	o := efaemu.Options{Profile: r.profile, Devices: r.rails}
	if r.rails == 1 {
		o.Shuffle, o.SendQueue = 20261, 8
		if r.provider == "efa" {
			o.RNREvery = 9
		}
	}
	return o
}

// TestMatrix runs each row as one pair of processes, all its operations and
// shapes in one run, and holds every cell to the contract.
func TestMatrix(t *testing.T) {
	for _, r := range allRows() {
		t.Run(r.label(), func(t *testing.T) {
			t.Parallel()
			r.run(t)
		})
	}
}

func (r row) run(t *testing.T) {
	var run []string
	for _, op := range ops {
		if reason := r.declared[op]; reason != "" {
			for _, shape := range shapes {
				matrix.set(r.label(), op, shape, reason)
			}
			continue
		}
		run = append(run, op)
	}
	if len(run) == 0 {
		testenv.Declare(t, r.declared["read"])
	}
	var env []string
	number := 0
	if r.profile != "" {
		n := emulate(t, r.knobs())
		env, number = n.env, n.number
	}
	p := start(t, r.system, bin, env, r.args(filepath.Join(t.TempDir(), "r.jsonl"), run)...)
	for _, op := range run {
		for _, shape := range shapes {
			matrix.set(r.label(), op, shape, failed) // until the cell is checked
		}
	}
	pids := p.watch()
	p.want(0)
	noneLeft(t, pids, number)
	if t.Failed() {
		return
	}
	rec := p.read()
	if rec.End == nil || rec.End.Status != record.StatusOK || len(rec.Conditions) != len(run)*len(shapes) {
		t.Fatalf("end %+v, %d conditions, want %d", rec.End, len(rec.Conditions), len(run)*len(shapes))
	}
	if r.profile != "" && r.rails == 1 {
		r.refusals(t, rec)
	}
	whole := !t.Failed()
	for _, op := range ops {
		if reason := r.declared[op]; reason != "" {
			t.Run(op, func(t *testing.T) { testenv.Declare(t, reason) })
		}
	}
	for _, c := range rec.Conditions {
		ok := t.Run(c.Op+" "+c.Shape, func(t *testing.T) { r.check(t, rec, c) })
		if ok && whole {
			matrix.set(r.label(), c.Op, c.Shape, passed)
		}
	}
}

func (r row) args(rec string, run []string) []string {
	provider := r.provider
	args := []string{"--op", strings.Join(run, ","), "--shape", strings.Join(shapes, ","), "--size", "3MB", "--no-ceiling",
		"--blocks", "1", "--min-blocks", "1", "--iterations", "2", "--seed", "7", "--timeout", "30s", "--record", rec}
	if r.rails > 1 {
		if r.addressed() {
			provider += "@127.0.0.1+127.0.0.2"
		} else {
			args = append(args, "--rails", fmt.Sprint(r.rails))
		}
	}
	if r.profile != "" {
		// Deeper than the small queue.
		args = append(args, "--depth", "256")
	}
	return append(args, "--provider", provider)
}

// refusals holds that posts which a full queue refused were counted.
func (r row) refusals(t *testing.T, rec *record.Record) {
	t.Helper()
	var n uint64
	for s := range rec.Samples.All() {
		n += s.EAgain
	}
	if n == 0 {
		t.Error("no post was refused, with a queue of 8 entries and 256 operations in flight")
	}
}

// landing is what proves that op's data arrived.
func (r row) landing(op string) string {
	switch {
	case op == "read":
		return "local-completion"
	case op == "write" && strings.HasPrefix(r.provider, "ucx"):
		return "flush"
	case op == "write" && strings.HasPrefix(r.provider, "tcp"):
		return "remote-cq-count"
	case op == "write" && r.provider != "socket":
		return "delivery-complete"
	}
	return "target-ack"
}

// check holds one cell to its contract.
func (r row) check(t *testing.T, rec *record.Record, c record.Condition) {
	if want := r.landing(c.Op); c.Landing != want || c.Transport.Landing[c.Op] != want {
		t.Errorf("landing %q, want %q", c.Landing, want)
	}
	emulated := r.profile != ""
	if c.Simulated != emulated || c.Transport.Simulated != emulated {
		t.Errorf("marked as emulated: %v and %v, want %v", c.Simulated, c.Transport.Simulated, emulated)
	}
	if c.Transport.Rails != r.rails || (emulated || r.addressed() && r.provider != "socket") && len(c.Transport.Devices) != r.rails {
		t.Errorf("%d rails on devices %+v, want %d", c.Transport.Rails, c.Transport.Devices, r.rails)
	}
	phases := map[string]int{}
	for s := range rec.Samples.All() {
		if s.Condition != c.ID {
			continue
		}
		phases[s.Phase]++
		if s.Verified == nil || !*s.Verified || s.Bytes != c.Bytes || s.Ops != uint64(c.Ops) || s.Simulated != emulated {
			t.Errorf("sample %+v of a condition of %d bytes and %d operations", s, c.Bytes, c.Ops)
		}
		if s.PostNs <= 0 || s.LocalNs < s.PostNs || s.TotalNs < s.LocalNs {
			t.Errorf("sample %+v: posted, locally complete and landed are out of order", s)
		}
	}
	if phases[record.PhaseMeasure] != 2 || phases[record.PhaseCold]+phases[record.PhaseWarmup] != 1 {
		t.Errorf("samples by phase: %v", phases)
	}
	paths := 0
	for _, p := range rec.Paths {
		if p.Condition == c.ID && p.Phase == record.PhaseMeasure {
			paths++
			r.checkPath(t, c, p)
		}
	}
	if paths != 1 {
		t.Errorf("%d lines of counters, want 1", paths)
	}
}

// checkPath holds what NICs counted to what the record says carried the bytes.
func (r row) checkPath(t *testing.T, c record.Condition, p record.Path) {
	t.Helper()
	if p.PayloadBytes != 2*c.Bytes {
		t.Errorf("payload of %d bytes, want twice %d", p.PayloadBytes, c.Bytes)
	}
	// by counter, of the initiator's side; both sides count into the same files.
	sum := map[string]uint64{}
	device := map[string]uint64{}
	for _, n := range p.Counters {
		if n.Side != "initiator" {
			continue
		}
		sum[n.Name] += n.Delta
		if n.Name == "tx_bytes" {
			device[n.Device] += n.Delta
		}
	}
	switch {
	case strings.Contains(r.provider, "shm"):
		return // no NIC
	case r.profile == "":
		if device["lo"] < p.PayloadBytes {
			t.Errorf("loopback moved %d bytes, less than the payload's %d", device["lo"], p.PayloadBytes)
		}
		return
	}
	var moved uint64
	for i := range r.rails {
		moved += device[efaemu.DeviceName(i)]
	}
	// Messages carry headers, and "receiver not ready" repeats packets.
	if moved < p.PayloadBytes || moved > 2*p.PayloadBytes {
		t.Errorf("the devices sent %d bytes for a payload of %d", moved, p.PayloadBytes)
	}
	for i := range r.rails {
		if share := float64(device[efaemu.DeviceName(i)]) / float64(moved); r.rails > 1 && (share < 0.45 || share > 0.55) {
			t.Errorf("rail %d carried %.3f of the bytes", i, share)
		}
	}
	if c.Op == "send" {
		return
	}
	counter := map[string]string{"read": "rdma_read_bytes", "write": "rdma_write_bytes"}[c.Op]
	words := c.Transport.Protocol[c.Op]
	switch rdma := sum[counter]; {
	case slices.Contains(c.Transport.Emulated, c.Op):
		if rdma != 0 || !strings.HasPrefix(words, "emulated") {
			t.Errorf("said to be emulated (%q), but the device counted %s = %d", words, counter, rdma)
		}
	case rdma < p.PayloadBytes || !strings.HasPrefix(words, "device RDMA"):
		t.Errorf("said to be %q, but the device counted %s = %d of %d", words, counter, rdma, p.PayloadBytes)
	}
	if want := r.emulates(c.Op, c.Transport.Version); slices.Contains(c.Transport.Emulated, c.Op) != want {
		t.Errorf("emulated: %v, want %v", !want, want)
	}
}

// emulates reports whether libfabric makes op of something else on the device;
// see the table of internal/testenv/efaemu/README.md, which its own tests prove.
func (r row) emulates(op, version string) bool {
	old := version == "1.17"
	switch r.profile {
	case efaemu.P5:
		return old && op == "write"
	case efaemu.P4d:
		return old || op == "write"
	}
	return true
}
