package schedule

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/spec"
)

func session(t *testing.T) *Session {
	t.Helper()
	s := spec.Default(spec.Raw)
	s.Hosts.Peer = "node2:9#" + strings.Repeat("t", 43)
	if err := s.Complete(); err != nil {
		t.Fatal(err)
	}
	return &Session{Spec: s, Argv: []string{"xferbench", s.Hosts.Peer}}
}

// header writes the run line, as every workload does first.
func header(s *Session) error {
	l, err := s.Header()
	if err != nil {
		return err
	}
	return s.Write(l)
}

// The record begins with the spec and ends with how it ended; in between stand the
// lines as they came and those that sum up. Nothing in it gives access to the peer.
func TestSession(t *testing.T) {
	bad := errors.New("x")
	three := func(*record.Record) ([]record.Line, error) { return []record.Line{record.Summary{N: 3}}, nil }
	for name, tt := range map[string]struct {
		measure func(context.Context, *Session) error
		sum     func(*record.Record) ([]record.Line, error)
		status  string
		kind    fault.Kind
		lines   int // besides run and end
	}{
		"ok":                       {func(_ context.Context, s *Session) error { return s.Write(record.Event{Message: "e"}) }, three, record.StatusOK, fault.None, 2},
		"a failure":                {func(context.Context, *Session) error { return fault.Usagef("--x") }, three, record.StatusFailed, fault.Usage, 1},
		"a verdict":                {func(context.Context, *Session) error { return nil }, func(*record.Record) ([]record.Line, error) { return nil, fault.Errorf(fault.TooFew, "few") }, record.StatusFailed, fault.TooFew, 0},
		"a failure, and a verdict": {func(context.Context, *Session) error { return bad }, func(*record.Record) ([]record.Line, error) { return nil, fault.Errorf(fault.TooFew, "few") }, record.StatusFailed, fault.Internal, 0},
		"an interruption":          {func(ctx context.Context, _ *Session) error { <-ctx.Done(); return ctx.Err() }, three, record.StatusInterrupted, fault.Interrupted, 1},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			s := session(t)
			path := filepath.Join(t.TempDir(), "r.jsonl")
			var err error
			if s.File, err = record.Create(path); err != nil {
				t.Fatal(err)
			}
			var stream bytes.Buffer
			s.Stream = &stream
			rec, err := s.Do(ctx, Workings{SumUp: tt.sum, Measure: func(ctx context.Context) error {
				if err := header(s); err != nil {
					return err
				}
				if tt.kind == fault.Interrupted {
					cancel(fault.ErrInterrupted)
				}
				return tt.measure(ctx, s)
			}})
			cancel(nil)
			if got := fault.KindOf(err); got != tt.kind {
				t.Errorf("%v is of kind %v, want %v", err, got, tt.kind)
			}
			if err := s.File.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := record.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range []*record.Record{rec, again} {
				if r.End == nil || r.End.Status != tt.status || r.End.ExitCode != tt.kind.ExitCode() || len(r.Events)+len(r.Summaries) != tt.lines {
					t.Errorf("end %+v, %d lines", r.End, len(r.Events)+len(r.Summaries))
				}
				if there, err := spec.Parse(r.Run.Spec); err != nil || *there.Seed != *s.Spec.Seed || r.Run.Argv[1] != "node2:9#…" || there.Hosts.Peer != "node2:9#…" {
					t.Errorf("run %+v, %v", r.Run, err)
				}
			}
			if strings.Contains(stream.String(), "tttt") || strings.Count(stream.String(), "\n") != tt.lines+2 {
				t.Error(stream.String())
			}
		})
	}
}

// Each text is told once, and stands in the record as often as it came.
func TestLog(t *testing.T) {
	s := session(t)
	var told []string
	s.Log = func(e record.Event) { told = append(told, e.Message) }
	rec, err := s.Do(t.Context(), Workings{SumUp: func(*record.Record) ([]record.Line, error) { return nil, nil }, Measure: func(context.Context) error {
		return errors.Join(header(s), s.Write(record.Event{Message: "a"}), s.Write(record.Event{Message: "b"}), s.Write(record.Event{Message: "a"}))
	}})
	if err != nil || !slices.Equal(told, []string{"a", "b"}) || len(rec.Events) != 3 {
		t.Errorf("%v, told %v, %d events", err, told, len(rec.Events))
	}
}

// A run of another experiment writes nothing.
func TestOtherExperiment(t *testing.T) {
	s := session(t)
	s.Resumed = &record.Record{Path: "f", Run: record.Run{Schema: record.Schema, Kind: spec.TTFT}}
	var stream bytes.Buffer
	s.Stream = &stream
	rec, err := s.Do(t.Context(), Workings{Measure: func(context.Context) error { return header(s) }, SumUp: func(*record.Record) ([]record.Line, error) {
		t.Error("summed up")
		return nil, nil
	}})
	if rec != nil || !errors.Is(err, ErrOther) || stream.Len() != 0 {
		t.Errorf("%v, %v, wrote %q", rec, err, stream.String())
	}
}

// What is refused before the start is in a record that says what was asked for.
func TestRefused(t *testing.T) {
	s := session(t)
	rec, err := s.Do(t.Context(), Workings{Check: func() error { return fault.Usagef("too large") },
		Measure: func(context.Context) error { t.Error("measured"); return nil },
		SumUp:   func(*record.Record) ([]record.Line, error) { return nil, nil }})
	if fault.KindOf(err) != fault.Usage || rec.Run.Kind != spec.Raw || rec.End == nil || rec.End.ExitCode != 2 {
		t.Errorf("%v, run %+v, end %+v", err, rec.Run, rec.End)
	}
}

// Every launch has a seed of its own, which follows from the one that is printed.
func TestLaunchSeeds(t *testing.T) {
	s := session(t)
	seen := map[uint64]bool{s.Seed(): true}
	for i := range 4 {
		s.Launch = &Launch{Number: i}
		if i == 0 && s.Seed() != *s.Spec.Seed || i > 0 && seen[s.Seed()] {
			t.Errorf("launch %d has seed %d", i, s.Seed())
		}
		seen[s.Seed()] = true
	}
}
