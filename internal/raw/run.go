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
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/peer"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/transport"
	"github.com/xferbench/xferbench/internal/version"
)

// Output is where a run goes besides its caller.
type Output struct {
	Record   *record.Writer // nil: none
	JSON     io.Writer      // the record's lines as well; nil: none
	Progress func(transport.Progress)
	Tune     func(record.Tune) error // told each step of --tune; its error ends the run
}

// ErrInterrupted is the cause of a context that a person ended.
var ErrInterrupted = errors.New("interrupted")

// Run measures what o asks for. The record in memory has every line that was
// written, also with an error; its last line is the End. It is nil when nothing was.
func Run(ctx context.Context, o Options, out Output) (*record.Record, error) {
	p, err := o.plan()
	if err != nil {
		return nil, err
	}
	s := &session{o: o, p: p, out: out, rec: &record.Record{}, start: clock.Now()}
	if out.Record != nil {
		s.rec.Path = out.Record.Path()
	}
	if o.resumed != nil {
		// Append keeps the first run line; the rest continues it.
		*s.rec = *o.resumed
		s.rec.End = nil
		s.going = &going{r: o.resumed}
		s.start -= time.Now().UnixNano() - s.rec.Run.StartUnixNs
	}
	if o.Launches > 1 && o.Launch < 0 {
		err = s.launches(ctx)
	} else {
		err = s.run(ctx)
	}
	if errors.Is(err, errOther) {
		return nil, err
	}
	err = errors.Join(err, s.sumUp())
	if cause := context.Cause(ctx); ctx.Err() != nil && errors.Is(cause, ErrInterrupted) {
		err = errors.Join(cause, unless(err, ErrInterrupted, context.Canceled))
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
	if s.o.Launch >= 0 || len(s.rec.Samples) == 0 {
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
	o     Options
	p     *plan
	out   Output
	rec   *record.Record
	start int64
	going *going // nil: the record is a new one, or known to be of this experiment
}

// write appends a line to the record in memory, on disk and on stdout.
func (s *session) write(l record.Line) error {
	if s.going != nil {
		lines, err := s.going.take(l)
		if err != nil {
			return err
		}
		if s.going.known() {
			s.going = nil
		}
		for _, l := range lines {
			if err := s.append(l); err != nil {
				return err
			}
		}
		return nil
	}
	if c, ok := l.(record.Condition); ok && s.o.resumed != nil {
		if _, there := s.rec.Condition(c.ID); there {
			return nil
		}
	}
	return s.append(l)
}

func (s *session) append(l record.Line) error {
	if err := s.rec.Add(l); err != nil {
		return err
	}
	if s.out.Record != nil {
		if err := s.out.Record.Write(l); err != nil {
			return err
		}
	}
	if s.out.JSON == nil {
		return nil
	}
	b, err := record.Marshal(l)
	if err != nil {
		return err
	}
	_, err = s.out.JSON.Write(b)
	return err
}

// close writes the End, even after a run that failed before its first line.
func (s *session) close(cause error) error {
	if s.rec.Run.Schema == 0 || errors.Is(cause, errOther) {
		return nil
	}
	if s.going != nil {
		lines := s.going.held
		s.going = nil
		for _, l := range lines {
			if err := s.append(l); err != nil {
				return err
			}
		}
	}
	e := record.End{Status: record.StatusOK, EndUnixNs: time.Now().UnixNano(), ExitCode: ExitCode(cause)}
	if cause != nil {
		e.Status, e.Error = record.StatusFailed, cause.Error()
	}
	if errors.Is(cause, ErrInterrupted) {
		e.Status = record.StatusInterrupted
	}
	if err := s.write(e); err != nil && !errors.Is(cause, err) {
		return err
	}
	return nil
}

// ExitCode is the exit code that an error of Run stands for.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrInterrupted):
		return 130
	case mem.MoreFiles(err) != "":
		return 3 // whatever the descriptor was for
	case errors.Is(err, ErrUsage), errors.Is(err, transport.ErrTooLarge), errors.Is(err, transport.ErrRefused):
		return 2
	case errors.Is(err, transport.ErrUnavailable), errors.Is(err, transport.ErrUnsupported), errors.Is(err, transport.ErrTransfer), errors.Is(err, transport.ErrStranger),
		errors.Is(err, peer.ErrPeer), errors.Is(err, remote.ErrCrashed):
		return 3
	case errors.Is(err, transport.ErrData):
		return 4
	}
	return 1
}

func (s *session) run(ctx context.Context) (err error) {
	h := s.inventory()
	line := record.Run{Schema: record.Schema, ID: s.id(), Kind: s.o.Kind, StartUnixNs: time.Now().UnixNano(),
		ToolVersion: version.Version, ToolCommit: version.Commit, Argv: redact(s.o.Argv), Seed: s.o.Seed,
		Host: h, Env: host.Environment(os.Environ()), Design: s.design(), Launches: s.o.Launches, Isolation: s.o.Isolation}
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
		return errors.Join(s.write(line), usage("the peer was reached over a link-local address (this side's is %s), which transports cannot use: name the peer by another, or give --bind addresses on both sides", l))
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

// id is a new run's, or that of the run that this one goes on with.
func (s *session) id() string {
	if s.o.resumed != nil {
		return s.o.resumed.Run.ID
	}
	return rand.Text()[:12]
}

// fits refuses what this host's memory cannot hold before anything is started;
// the peer of another host looks at its own.
func (s *session) fits() error {
	local := s.p.where.ssh == nil && s.p.where.address == ""
	m, _, err := transport.Requests(s.p.memory, s.p.peerMemory, s.p.specs, s.p.transports, local)
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
	r := &transport.Run{
		Local: side, Peer: client, Transports: s.p.transports, Labels: s.p.labels, Specs: s.p.specs,
		Schedule: transport.Schedule{Blocks: s.o.Blocks, MinBlocks: s.o.MinBlocks, Budget: s.o.Budget,
			Iterations: s.o.Iterations, RoundRobin: s.o.RoundRobin},
		Memory: s.p.memory, PeerMemory: s.p.peerMemory, Seed: s.o.Seed, SkipVerify: s.o.NoVerify,
		Reuse: s.o.Reuse, Start: s.start, Write: s.write, Progress: s.out.Progress,
	}
	if s.o.Tune {
		r.Prepare = func(ctx context.Context) error { return s.tune(ctx, r) }
	}
	if s.o.Launch > 0 {
		// Another order and payload for each launch, from the one seed.
		r.Seed = mem.Key(s.o.Seed, uint64(s.o.Launch))
	}
	if s.o.done != nil {
		r.Schedule.Skip = s.o.skip
		r.Before = s.o.resumed.Samples
	}
	r.Schedule.Enough = s.o.enough(r)
	return r.Do(ctx)
}

func (s *session) design() *record.Design {
	d := &record.Design{Blocks: s.o.Blocks, MinBlocks: s.o.MinBlocks, BudgetNs: int64(s.o.Budget), Order: "random",
		UntilCIPpm: int64(s.o.UntilCI * 1e6), Iterations: s.o.Iterations, Reuse: s.o.Reuse, Unchecked: s.o.NoVerify}
	if s.o.RoundRobin {
		d.Order = "round-robin"
	}
	return d
}

func (s *session) inventory() record.Host {
	h := host.Root("").Inventory()
	h.CPUs = runtime.NumCPU()
	h.GPUs = host.GPUs()
	return h
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

// connect reaches the peer, starting it if need be.
func (s *session) connect(ctx context.Context) (*peer.Client, *peer.Child, error) {
	var child *peer.Child
	var err error
	w := s.p.where
	// A peer that this run starts loads what this side does.
	var args []string
	if s.o.Libfabric != "" {
		args = append(args, "--libfabric="+s.o.Libfabric)
	}
	if s.o.Libucp != "" {
		args = append(args, "--libucp="+s.o.Libucp)
	}
	switch {
	case w.ssh != nil:
		child, err = peer.StartSSH(ctx, *w.ssh, s.o.Timeout, args...)
	case w.address == "":
		child, err = peer.StartLocal(ctx, s.o.Timeout, args...)
	}
	if err != nil {
		return nil, nil, err
	}
	if child != nil {
		w.address, w.secret = child.Address, child.Secret
	}
	c, err := peer.Dial(ctx, w.address, w.secret, s.o.Timeout)
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
