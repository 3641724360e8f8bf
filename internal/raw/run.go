package raw

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/xferbench/xferbench/cgo/clock"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/peer"
	"github.com/xferbench/xferbench/internal/providers"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/schedule"
	"github.com/xferbench/xferbench/internal/spec"
	"github.com/xferbench/xferbench/internal/transport"
	"github.com/xferbench/xferbench/internal/version"
)

// Job is a plan to run.
type Job struct {
	Plan *Plan
	// Argv is the command line for the record; tokens of peers are cut out of it.
	Argv []string
	// Isolation is what the record says of this process's network; see
	// [Plan.Isolable].
	Isolation string
	// Resumed is the record that the run goes on with; nil: a new one.
	Resumed *record.Record
	// Launch is the one of several that this process is; nil: not one of several.
	Launch *schedule.Launch
	// Launches is the command that does one; see [schedule.Launches.Argv].
	Launches []string

	Record   *record.Writer // nil: none
	JSON     io.Writer      // the record's lines as well; nil: none
	Progress func(Progress)
	Tune     func(record.Tune) error // told each step of --tune; its error ends the run
}

// Progress is where a run stands.
type Progress struct {
	schedule.Progress
	Condition   record.Condition // that runs next
	BytesPerSec float64          // of the condition so far
}

// Run measures. The record in memory has every line that was written, also with an
// error; its last line is the End. It is nil when nothing was.
func Run(ctx context.Context, j Job) (*record.Record, error) {
	s := &session{job: j, p: j.Plan, spec: j.Plan.spec, rec: &record.Record{}, start: clock.Now(), gate: schedule.NewGate(j.Resumed)}
	if j.Record != nil {
		s.rec.Path = j.Record.Path()
	}
	s.sink = &record.Sink{Record: s.rec, File: j.Record, Stream: j.JSON}
	if j.Resumed != nil {
		// Append keeps the first run line; the rest continues it.
		*s.rec = *j.Resumed
		s.rec.End = nil
		s.start -= time.Now().UnixNano() - s.rec.Run.StartUnixNs
	}
	var err error
	if s.spec.Design.Launches > 1 && j.Launch == nil {
		err = s.launches(ctx)
	} else {
		err = s.run(ctx)
	}
	if errors.Is(err, schedule.ErrOther) {
		return nil, err
	}
	err = errors.Join(err, s.sumUp())
	if cause := context.Cause(ctx); ctx.Err() != nil && errors.Is(cause, fault.ErrInterrupted) {
		err = errors.Join(cause, unless(err, fault.ErrInterrupted, context.Canceled))
	}
	return s.rec, errors.Join(err, s.close(err))
}

// unless is err, or nil when it says no more than one of known.
func unless(err error, known ...error) error {
	for _, k := range known {
		if errors.Is(err, k) {
			return nil
		}
	}
	return err
}

// sumUp appends the figures and verdicts of what was measured, for readers of
// the record that do not compute their own.
func (s *session) sumUp() error {
	if s.job.Launch != nil || len(s.rec.Samples) == 0 {
		return nil
	}
	a, err := analysis.Live(s.rec)
	if err != nil {
		return err
	}
	for _, l := range analysis.Summaries(a) {
		if err := s.write(l); err != nil {
			return err
		}
	}
	for _, l := range analysis.Comparisons(a) {
		if err := s.write(l); err != nil {
			return err
		}
	}
	return nil
}

type session struct {
	job   Job
	p     *Plan
	spec  *spec.Spec
	rec   *record.Record
	sink  *record.Sink // of rec
	start int64
	gate  *schedule.Gate
}

// write appends a line to the record in memory, on disk and on stdout, once it is
// known to be of this record's experiment.
func (s *session) write(l record.Line) error {
	lines, err := s.gate.Take(l)
	if err != nil {
		return err
	}
	return s.append(lines)
}

func (s *session) append(lines []record.Line) error {
	for _, l := range lines {
		if err := s.sink.Write(l); err != nil {
			return err
		}
	}
	return nil
}

// close writes the End, even after a run that failed before its first line.
func (s *session) close(cause error) error {
	if err := s.append(s.gate.Rest()); err != nil {
		return err
	}
	s.gate = nil
	if s.rec.Run.Schema == 0 {
		return nil
	}
	kind := fault.KindOf(cause)
	e := record.End{Status: record.StatusOK, EndUnixNs: time.Now().UnixNano(), ExitCode: kind.ExitCode()}
	if cause != nil {
		e.Status, e.Error = record.StatusFailed, cause.Error()
	}
	if kind == fault.Interrupted {
		e.Status = record.StatusInterrupted
	}
	if err := s.write(e); err != nil && !errors.Is(cause, err) {
		return err
	}
	return nil
}

// launches runs the plan in processes of their own.
func (s *session) launches(ctx context.Context) error {
	if err := s.fits(); err != nil {
		return err
	}
	l := schedule.Launches{Spec: s.spec, Isolation: s.job.Isolation, Resumed: s.job.Resumed, Argv: s.job.Launches, Write: s.write,
		Run: func(r *record.Run) { r.Argv = redact(s.job.Argv) }}
	return l.Do(ctx)
}

// header is the run line, without the peer.
func (s *session) header() (record.Run, error) {
	h := host.Root("").Inventory()
	h.CPUs = runtime.NumCPU()
	h.GPUs = providers.GPUs()
	text, err := s.spec.Redacted().JSON()
	return record.Run{Schema: record.Schema, ID: s.id(), Kind: s.spec.Workload, StartUnixNs: time.Now().UnixNano(),
		ToolVersion: version.Version, ToolCommit: version.Commit, Argv: redact(s.job.Argv), Seed: *s.spec.Seed,
		Host: h, Env: host.Environment(os.Environ()), Spec: text, Design: s.design(), Launches: s.spec.Design.Launches, Isolation: s.job.Isolation}, err
}

func (s *session) design() *record.Design {
	d := s.spec.Design
	out := &record.Design{Blocks: *d.Blocks, MinBlocks: *d.MinBlocks, BudgetNs: int64(d.Budget), Order: "random",
		UntilCIPpm: int64(d.UntilCI * 1e6), Iterations: d.Iterations, Reuse: s.spec.Raw.Reuse, Unchecked: s.spec.Raw.NoVerify}
	if d.RoundRobin {
		out.Order = "round-robin"
	}
	return out
}

// id is a new run's, or that of the run that this one goes on with.
func (s *session) id() string {
	if s.job.Resumed != nil {
		return s.job.Resumed.Run.ID
	}
	return rand.Text()[:12]
}

// redact replaces the token of a peer.
func redact(argv []string) []string {
	out := slices.Clone(argv)
	for i, a := range out {
		if address, token, ok := strings.Cut(a, "#"); ok && len(token) >= 40 {
			out[i] = address + "#…"
		}
	}
	return out
}

func (s *session) run(ctx context.Context) (err error) {
	line, err := s.header()
	if err != nil {
		return err
	}
	if err := s.fits(); err != nil {
		return errors.Join(s.write(line), err)
	}
	client, child, err := s.connect(ctx)
	if err != nil {
		return errors.Join(s.write(line), err)
	}
	side := &transport.Side{}
	defer func() { err = errors.Join(err, side.Sweep()) }()
	defer func() { err = s.end(client, child, err) }()
	if l := client.Local; l.To4() == nil && l.IsLinkLocalUnicast() && s.unbound() {
		// Of an interface's own scope: a library's address does not carry it over.
		return errors.Join(s.write(line), fault.Usagef("the peer was reached over a link-local address (this side's is %s), which transports cannot use: name the peer by another, or give --bind addresses on both sides", l))
	}
	ctx = client.Context()
	line.Host.Address = client.Local.String()
	their, err := client.Inventory(ctx)
	if err != nil {
		return errors.Join(s.write(line), err)
	}
	their.Address = client.Remote.String()
	line.Peer = &their
	if err := s.write(line); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, side.Close()) }()
	for i := range s.p.transports {
		s.p.transports[i].SameHost = client.SameHost
		if len(s.p.transports[i].Bind) == 0 {
			s.p.transports[i].Bind = []string{client.Local.String()}
		}
	}
	return s.measure(ctx, side, client)
}

// fits refuses what this host's memory cannot hold before anything is started;
// the peer of another host looks at its own.
func (s *session) fits() error {
	local := s.p.where.ssh == nil && s.p.where.address == ""
	m, _, err := transport.Requests(s.p.memory, s.p.peerMemory, s.p.moves(), s.p.transports, local)
	if err != nil {
		return err
	}
	return transport.Fits("", m)
}

// unbound reports whether some transport takes the control channel's address.
func (s *session) unbound() bool {
	return slices.ContainsFunc(s.p.transports, func(c transport.Config) bool { return len(c.Bind) == 0 })
}

func (s *session) measure(ctx context.Context, side *transport.Side, client transport.Peer) error {
	w, err := newWorkload(ctx, s.p, side, client, s.start, s.write)
	if err != nil {
		return err
	}
	if s.spec.Raw.Tune {
		if err := s.tune(ctx, w); err != nil {
			return err
		}
	}
	if err := w.open(ctx); err != nil {
		return err
	}
	earlier := schedule.Earlier(s.job.Resumed, -1)
	if l := s.job.Launch; l != nil {
		earlier = l.Earlier
		if l.Number > 0 {
			// Another order and payload for each launch, from the one seed.
			w.seed = mem.Key(w.seed, uint64(l.Number))
		}
	}
	d := s.spec.Design
	sch := schedule.Schedule{Conditions: len(s.p.cells), Seed: w.seed, RoundRobin: d.RoundRobin, Blocks: *d.Blocks, MinBlocks: *d.MinBlocks,
		Budget: d.Budget, UntilCI: float64(d.UntilCI), Reference: func(c int) bool { return s.p.cells[c].ceiling }, Earlier: earlier}
	if s.job.Progress != nil {
		sch.Progress = func(p schedule.Progress) {
			x := Progress{Progress: p, Condition: w.conditions[p.Condition]}
			if m := w.moved[p.Condition]; m.ns > 0 {
				x.BytesPerSec = float64(m.bytes) / float64(m.ns) * 1e9
			}
			s.job.Progress(x)
		}
	}
	if err := sch.Run(ctx, w); err != nil {
		return err
	}
	return w.checks()
}

// connect reaches the peer, starting it if need be.
func (s *session) connect(ctx context.Context) (*peer.Client, *peer.Child, error) {
	var child *peer.Child
	var err error
	w := s.p.where
	// A peer that this run starts loads what this side does.
	var args []string
	if l := s.spec.Raw.Libfabric; len(l) > 0 && l[0] != "" {
		args = append(args, "--libfabric="+l[0])
	}
	if l := s.spec.Raw.Libucp; len(l) > 0 && l[0] != "" {
		args = append(args, "--libucp="+l[0])
	}
	switch {
	case w.ssh != nil:
		child, err = peer.StartSSH(ctx, *w.ssh, s.spec.Raw.Timeout, args...)
	case w.address == "":
		child, err = peer.StartLocal(ctx, s.spec.Raw.Timeout, args...)
	}
	if err != nil {
		return nil, nil, err
	}
	if child != nil {
		w.address, w.secret = child.Address, child.Secret
	}
	c, err := peer.Dial(ctx, w.address, w.secret, s.spec.Raw.Timeout)
	if err != nil && w.ssh != nil {
		err = fmt.Errorf("%w; that is where ssh reached %s: this host must reach it directly too, on any port (or run serve there by hand, with --listen)", err, w.ssh.Target)
	}
	if err != nil && child != nil {
		err = errors.Join(err, child.Stop())
	}
	return c, child, err
}

// lostWait is how long a failure waits for the control channel to say
// that the peer is gone, and why: the better explanation.
const lostWait = time.Second

// end closes the peer, and explains a failure by what became of it.
func (s *session) end(c *peer.Client, child *peer.Child, cause error) error {
	if errors.Is(cause, transport.ErrTransfer) || errors.Is(cause, peer.ErrPeer) {
		t := time.NewTimer(lostWait)
		select {
		case <-c.Context().Done():
			if lost := context.Cause(c.Context()); errors.Is(lost, peer.ErrPeer) && !errors.Is(cause, lost) {
				cause = fmt.Errorf("%w (%w)", lost, cause)
			}
		case <-t.C:
		}
		t.Stop()
	}
	err := c.Close()
	if child != nil {
		err = errors.Join(err, child.Stop())
		if cause != nil {
			if w := child.Words(); w != "" {
				cause = fmt.Errorf("%w; the peer's last words: %s", cause, w)
			}
		}
	}
	if cause != nil && errors.Is(err, peer.ErrPeer) {
		err = nil // a lost peer cannot say goodbye; cause has the news
	}
	return errors.Join(cause, err)
}
