package raw

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/xferbench/xferbench/cgo/clock"
	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/peer"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/schedule"
	"github.com/xferbench/xferbench/internal/spec"
	"github.com/xferbench/xferbench/internal/transport"
)

// Job is a plan to run.
type Job struct {
	Plan *Plan
	schedule.Session
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
func Run(ctx context.Context, j *Job) (*record.Record, error) {
	j.Spec = j.Plan.spec
	s := &session{Job: j, p: j.Plan, spec: j.Plan.spec}
	s.start = clock.Now() - int64(s.Since())
	return s.Do(ctx, schedule.Workings{Check: s.fits, Measure: s.run, SumUp: sumUp})
}

// sumUp has the figures and verdicts of what was measured, for readers of the
// record that do not compute their own.
func sumUp(r *record.Record) ([]record.Line, error) {
	if r.Samples.Len() == 0 {
		return nil, nil
	}
	a, err := analysis.Live(r)
	if err != nil {
		return nil, err
	}
	return a.Lines(), nil
}

type session struct {
	*Job
	p     *Plan
	spec  *spec.Spec
	start int64 // clock.Now() at the record's start
}

func (s *session) run(ctx context.Context) (err error) {
	line, err := s.Header()
	if err != nil {
		return err
	}
	line.Host.CPUs, line.Host.GPUs = runtime.NumCPU(), host.GPUs()
	client, child, err := s.connect(ctx)
	if err != nil {
		return errors.Join(s.Write(line), err)
	}
	side := &transport.Side{}
	defer func() { err = errors.Join(err, side.Sweep()) }()
	defer func() { err = s.end(client, child, err) }()
	if l := client.Local; l.To4() == nil && l.IsLinkLocalUnicast() && s.unbound() {
		// Of an interface's own scope: a library's address does not carry it over.
		return errors.Join(s.Write(line), fault.Usagef("the peer was reached over a link-local address (this side's is %s), which transports cannot use: name the peer by another, or give --bind addresses on both sides", l))
	}
	ctx = client.Context()
	line.Host.Address = client.Local.String()
	their, err := client.Inventory(ctx)
	if err != nil {
		return errors.Join(s.Write(line), err)
	}
	their.Address = client.Remote.String()
	line.Peer = &their
	if err := s.Write(line); err != nil {
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
	if err := s.p.size(local); err != nil {
		return err
	}
	return transport.Fits("", s.p.memories[0].local)
}

// unbound reports whether some transport takes the control channel's address.
func (s *session) unbound() bool {
	return slices.ContainsFunc(s.p.transports, func(c transport.Config) bool { return len(c.Bind) == 0 })
}

func (s *session) measure(ctx context.Context, side *transport.Side, client transport.Peer) error {
	w, err := newWorkload(ctx, s.p, side, client, s.start, s.Write)
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
	w.seed = s.Seed()
	sch := s.Schedule(len(s.p.cells))
	sch.Reference = func(c int) bool { return s.p.cells[c].ceiling }
	if s.Progress != nil {
		sch.Progress = func(p schedule.Progress) {
			x := Progress{Progress: p, Condition: w.conditions[p.Condition]}
			if m := w.moved[p.Condition]; m.ns > 0 {
				x.BytesPerSec = float64(m.bytes) / float64(m.ns) * 1e9
			}
			s.Progress(x)
		}
	}
	if err := sch.Run(ctx, w); err != nil {
		return err
	}
	return w.checks()
}

// one is the value of a list of at most one.
func one(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// connect reaches the peer, starting it if need be.
func (s *session) connect(ctx context.Context) (*peer.Client, *peer.Child, error) {
	var child *peer.Child
	var err error
	w := s.p.where
	// A peer that this run starts loads what this side does.
	libs := peer.Libraries{Fabric: one(s.spec.Raw.Libfabric), UCP: one(s.spec.Raw.Libucp)}
	switch {
	case w.ssh != nil:
		child, err = peer.StartSSH(ctx, *w.ssh, s.spec.Raw.Timeout, libs)
	case w.address == "":
		child, err = peer.StartLocal(ctx, s.spec.Raw.Timeout, libs)
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
