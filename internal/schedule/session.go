package schedule

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/spec"
	"github.com/xferbench/xferbench/internal/version"
)

// Session is one start of a spec, of whatever workload: its record from the first
// line to the end, a record that it goes on with, and its launches.
type Session struct {
	Spec *spec.Spec // completed
	// Argv is the command line for the record; tokens of peers are cut out of it.
	Argv []string
	// Isolation is what the record says of this process's network.
	Isolation string
	// Resumed is the record that the run goes on with; nil: a new one.
	Resumed *record.Record
	// Launch is the one of several that this process is; nil: not one of several.
	Launch *Launch

	File   *record.Writer // which the caller closes; nil: none
	Stream io.Writer      // the record's lines as well; nil: none
	// Log, when set, is told of each event, and of each text once.
	Log func(record.Event)

	rec  *record.Record
	sink *record.Sink

	mu     sync.Mutex
	gate   *Gate
	logged map[string]bool
}

// Workings are what a workload does in a session.
type Workings struct {
	// Check, when set, refuses what cannot be run before anything is started, also
	// where launches do the measuring.
	Check func() error
	// Measure writes the run line, the conditions and what is measured.
	Measure func(context.Context) error
	// SumUp gives the lines that follow what was measured, such as summaries. Its
	// error is the result of a run that did not fail otherwise, such as too little
	// data; the lines are written all the same. It is not asked in a launch.
	SumUp func(*record.Record) ([]record.Line, error)
}

// Do runs the workload. The record in memory has every line that was written, also
// with an error; its last line is the End. It is nil when nothing was.
func (s *Session) Do(ctx context.Context, w Workings) (*record.Record, error) {
	s.rec, s.gate, s.logged = &record.Record{}, NewGate(s.Resumed), map[string]bool{}
	s.sink = &record.Sink{Record: s.rec, File: s.File, Stream: s.Stream}
	if s.File != nil {
		s.rec.Path = s.File.Path()
	}
	if s.Resumed != nil {
		// Append keeps the first run line; the rest continues it.
		*s.rec = *s.Resumed
		s.rec.End = nil
	}
	err := s.do(ctx, w)
	if errors.Is(err, ErrOther) {
		return nil, err
	}
	if s.Launch == nil && s.rec.Run.Schema != 0 {
		lines, verdict := w.SumUp(s.rec)
		for _, l := range lines {
			if werr := s.Write(l); werr != nil {
				if !errors.Is(err, werr) { // a record that fails does so at each line
					err = errors.Join(err, werr)
				}
				break
			}
		}
		if err == nil {
			err = verdict
		}
	}
	if cause := context.Cause(ctx); ctx.Err() != nil && errors.Is(cause, fault.ErrInterrupted) {
		if errors.Is(err, fault.ErrInterrupted) || errors.Is(err, context.Canceled) {
			err = nil // says no more
		}
		err = errors.Join(cause, err)
	}
	return s.rec, errors.Join(err, s.close(err))
}

func (s *Session) do(ctx context.Context, w Workings) error {
	if w.Check != nil {
		if err := w.Check(); err != nil {
			// The record says what was asked for.
			line, herr := s.Header()
			if herr == nil {
				herr = s.Write(line)
			}
			return errors.Join(err, herr)
		}
	}
	if s.Spec.Design.Launches == 1 || s.Launch != nil {
		return w.Measure(ctx)
	}
	l := Launches{Spec: s.Spec, Isolation: s.Isolation, Resumed: s.Resumed, Write: s.Write,
		Run: func(r *record.Run) { r.Argv = redact(s.Argv) }}
	return l.Do(ctx)
}

// Header is the run line, without the peer.
func (s *Session) Header() (record.Run, error) {
	text, err := s.Spec.Redacted().JSON()
	id := rand.Text()[:12]
	if s.Resumed != nil {
		id = s.Resumed.Run.ID
	}
	return record.Run{Schema: record.Schema, ID: id, Kind: s.Spec.Workload, StartUnixNs: time.Now().UnixNano(),
		ToolVersion: version.Version, ToolCommit: version.Commit, Argv: redact(s.Argv), Seed: *s.Spec.Seed,
		Host: host.Root("").Inventory(), Env: host.Environment(os.Environ()), Spec: text, Design: s.design(),
		Launches: s.Spec.Design.Launches, Isolation: s.Isolation, Simulated: s.Spec.TTFT != nil && s.Spec.TTFT.Sim}, err
}

func (s *Session) design() *record.Design {
	d := s.Spec.Design
	out := &record.Design{Blocks: *d.Blocks, MinBlocks: *d.MinBlocks, BudgetNs: int64(d.Budget), Order: "random",
		UntilCIPpm: int64(d.UntilCI * 1e6), Iterations: d.Iterations}
	if d.RoundRobin {
		out.Order = "round-robin"
	}
	if r := s.Spec.Raw; r != nil {
		out.Reuse, out.Unchecked = r.Reuse, r.NoVerify
	}
	if t := s.Spec.TTFT; t != nil {
		out.Concurrency = t.Concurrency
	}
	return out
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

// Write appends a line to the record, in memory and wherever it goes, once it is
// known to be of this record's experiment. It may be called by several goroutines.
func (s *Session) Write(l record.Line) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines, err := s.gate.Take(l)
	if err != nil {
		return err
	}
	return s.give(lines)
}

// give writes lines and tells of events; s.mu is held.
func (s *Session) give(lines []record.Line) error {
	for _, l := range lines {
		if e, is := l.(record.Event); is && s.Log != nil && !s.logged[e.Message] {
			s.logged[e.Message] = true
			s.Log(e)
		}
		if err := s.sink.Write(l); err != nil {
			return err
		}
	}
	return nil
}

// Since is how long ago the record began: 0 but for a record that is gone on with.
func (s *Session) Since() time.Duration {
	if s.Resumed == nil {
		return 0
	}
	return time.Since(time.Unix(0, s.Resumed.Run.StartUnixNs))
}

// Past is what an earlier start of this process's part has measured.
func (s *Session) Past() map[int]Past {
	if s.Launch != nil {
		return s.Launch.Earlier
	}
	return Earlier(s.Resumed, -1)
}

// Seed is the spec's, or, in a launch after the first, one of its own that follows
// from it: another order and payload for each.
func (s *Session) Seed() uint64 {
	if s.Launch == nil || s.Launch.Number == 0 {
		return *s.Spec.Seed
	}
	return mem.Key(*s.Spec.Seed, uint64(s.Launch.Number))
}

// Schedule is that of n conditions in the session's design. The caller adds what
// the workload knows.
func (s *Session) Schedule(n int) Schedule {
	d := s.Spec.Design
	return Schedule{Conditions: n, Seed: s.Seed(), RoundRobin: d.RoundRobin, Blocks: *d.Blocks, MinBlocks: *d.MinBlocks,
		Budget: d.Budget, UntilCI: float64(d.UntilCI), Earlier: s.Past()}
}

// close writes the End, even after a run that failed before its first line.
func (s *Session) close(cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := s.gate.Rest()
	s.gate = nil
	if err := s.give(rest); err != nil {
		return err
	}
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
	if err := s.give([]record.Line{e}); err != nil && !errors.Is(cause, err) {
		return err
	}
	return nil
}
