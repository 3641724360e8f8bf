// Package endtoend holds raw transfers against the time to first token: where a
// TTFT went, and which share of it the wire explains.
package endtoend

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/ttft"
)

// Tolerance is how far the bytes of a raw row may be from those that an engine
// moved for the two to count as the same transfer: a part of a block of a short
// prompt.
const Tolerance = 0.02

// Result is a record of TTFT held against a raw one, a Row each arm, prompt
// length and load.
type Result struct {
	Raw       *analysis.Analysis
	Rows      []Row
	Requests  int
	Invalid   int
	Simulated bool // the engines were stand-ins
}

// Row is one condition of the TTFT run.
type Row struct {
	Arm, Path, Level string
	Tokens, N        int
	TTFT             stats.Summary // of block medians, ns
	// Parts are what the TTFT consists of, in the order of time.
	Parts []Part
	// FromEngines: the parts come from the engines' own counts.
	FromEngines bool
	// Bytes is what NIXL moved for a request, 0 for none; Descs its descriptors
	// after merging (smallest and largest).
	Bytes            int64
	MinDesc, MaxDesc int64
	// Rungs are the same bytes over everything that was measured, fastest first.
	Rungs []Rung
	// Base is the unified arm at the same prompt length and load, if any, and
	// Increment what the row takes more than it.
	Base      string
	Increment *Increment
}

// Part is a share of the TTFT.
type Part struct {
	Name, Words string
	MedianNs    float64
	Share       stats.Share
}

// Kinds of rungs.
const (
	Ceiling = "ceiling" // memcpy, plain TCP
	RawRung = "raw"     // a transport of the raw record
	NIXL    = "nixl"    // what the engine's connector took
	TTFT    = "ttft"
)

// Rung is the time of the same bytes on one level of the ladder.
type Rung struct {
	Name, Kind string
	MedianNs   float64
	CI         *stats.Interval
	Bytes      int64
	// Share is the part of the TTFT that this transfer explains; nil for the TTFT
	// itself, and with fewer than 3 blocks.
	Share *stats.Share
	// OfIncrement is the same of the increment over the unified arm.
	OfIncrement *stats.Share
}

// Increment is how much longer the first token takes than on the unified arm,
// by the differences of the blocks.
type Increment struct {
	MedianNs float64
	CI       *stats.Interval
	Units    []float64
}

// ErrNothing: no request of the TTFT record counts.
var ErrNothing = errors.New("no valid request")

// Analyze reads the request lines of tt and holds them against raw.
func Analyze(raw *analysis.Analysis, tt *record.Record) (*Result, error) {
	lines := tt.Requests
	res, err := ttft.Analyze(lines, tt.Conditions, tt.Run.Seed)
	if err != nil {
		return nil, fmt.Errorf("record %s: %w", tt.Path, err)
	}
	out := &Result{Raw: raw, Requests: res.Requests, Invalid: res.Invalid, Simulated: res.Simulated || tt.Run.Simulated}
	byCond := map[int][]record.Request{}
	for _, l := range lines {
		if l.Phase == record.PhaseMeasure && l.Valid {
			byCond[l.Condition] = append(byCond[l.Condition], l)
		}
	}
	units := map[int][]stats.Unit{}
	for _, r := range res.Rows {
		if r.TTFT == nil {
			continue
		}
		u, err := blocks(byCond[r.Condition.ID], func(l record.Request) (float64, bool) { return float64(l.TTFTNs), true })
		if err != nil {
			return nil, err
		}
		units[r.Condition.ID] = u
	}
	for _, r := range res.Rows {
		if r.TTFT == nil {
			continue
		}
		row, err := newRow(r, byCond[r.Condition.ID], units[r.Condition.ID])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Arm, err)
		}
		for _, b := range res.Rows {
			if b.Path == record.PathUnified && r.Path != record.PathUnified && b.Tokens == r.Tokens && b.Level == r.Level && b.TTFT != nil {
				if err := row.increment(b.Arm, units[b.Condition.ID], units[r.Condition.ID]); err != nil {
					return nil, err
				}
				break
			}
		}
		if err := row.ladder(raw, byCond[r.Condition.ID], stats.Values(units[r.Condition.ID])); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Arm, err)
		}
		out.Rows = append(out.Rows, row)
	}
	if len(out.Rows) == 0 {
		return nil, fmt.Errorf("%w in %s (%d requests)", ErrNothing, tt.Path, res.Requests)
	}
	return out, nil
}

// blocks are the medians of a value of requests over blocks.
func blocks(lines []record.Request, of func(record.Request) (float64, bool)) ([]stats.Unit, error) {
	var ss []stats.Sample
	for _, l := range lines {
		if v, ok := of(l); ok {
			ss = append(ss, stats.Sample{Block: l.Block, Value: v})
		}
	}
	if len(ss) == 0 {
		return nil, nil
	}
	return stats.BlockMedians(ss)
}

// minShare is the fewest units for a share with its interval.
const minShare = 3

func newRow(r ttft.Row, lines []record.Request, units []stats.Unit) (Row, error) {
	row := Row{Arm: r.Arm, Path: r.Path, Level: r.Level, Tokens: r.Tokens, N: r.N, TTFT: *r.TTFT}
	if r.Moved != nil {
		row.Bytes, row.MinDesc, row.MaxDesc = int64(math.Round(r.Moved.Bytes)), r.Moved.MinDesc, r.Moved.MaxDesc
	}
	row.FromEngines = r.Split != nil && r.Split.Engine > 0
	for _, p := range parts(row.FromEngines) {
		us, err := blocks(lines, func(l record.Request) (float64, bool) {
			if l.Split == nil || row.FromEngines && !l.Split.Engine {
				return 0, false
			}
			return float64(p.of(l.Split)), true
		})
		if err != nil {
			return row, err
		}
		if len(us) == 0 {
			continue
		}
		part := Part{Name: p.name, Words: p.words}
		if part.MedianNs, err = stats.Median(stats.Values(us)); err != nil {
			return row, err
		}
		if part.MedianNs == 0 && p.optional {
			continue
		}
		xs, ys, _, err := stats.PairUnits(us, units)
		if err != nil {
			return row, err
		}
		if part.Share, err = share(xs, ys, true); err != nil {
			return row, err
		}
		row.Parts = append(row.Parts, part)
	}
	return row, nil
}

// share is part over whole, without an interval where units are too few.
func share(part, whole []float64, paired bool) (stats.Share, error) {
	if min(len(part), len(whole)) < minShare {
		p, err := stats.Median(part)
		if err != nil {
			return stats.Share{}, err
		}
		w, err := stats.Median(whole)
		if err != nil {
			return stats.Share{}, err
		}
		return stats.Share{Value: p / w, NPart: len(part), NWhole: len(whole), Paired: paired}, nil
	}
	if paired {
		return stats.SharePaired(part, whole, analysis.Level)
	}
	return stats.ShareUnpaired(part, whole, analysis.Level)
}

type part struct {
	name, words string
	of          func(*record.Split) int64
	optional    bool // left out when it is zero
}

func parts(engines bool) []part {
	ps := []part{
		{"wait", "sent later than intended", func(s *record.Split) int64 { return s.Wait }, true},
		{"prefill", "the prefill engine's queue and computing", func(s *record.Split) int64 { return s.Prefill }, false},
		{"hand-over", "from the prefill engine's answer to the decode request", func(s *record.Split) int64 { return s.HandOver }, true},
		{"decode queue", "handshake, transfer and the wait for its end", func(s *record.Split) int64 { return s.DecodeQueue }, true},
		{"one token", "the decode engine's pass over the last prompt token", func(s *record.Split) int64 { return s.OneToken }, true},
		{"network", "HTTP, the API servers", func(s *record.Split) int64 { return s.Network }, true},
	}
	if !engines {
		ps[1].words, ps[3].words = "the whole leg of the prefill engine, with HTTP", "the whole leg of the decode engine, with HTTP"
	}
	return ps
}

// increment is the row's TTFT less the unified arm's, block by block.
func (row *Row) increment(base string, bs, rs []stats.Unit) error {
	as, xs, _, err := stats.PairUnits(bs, rs)
	if err != nil || len(as) == 0 {
		return err
	}
	d := make([]float64, len(as))
	for i := range as {
		d[i] = xs[i] - as[i]
	}
	sum, err := stats.Summarize(d, analysis.Level)
	if err != nil {
		return err
	}
	row.Base, row.Increment = base, &Increment{MedianNs: sum.Median, CI: sum.CI, Units: d}
	return nil
}

// ladder collects the transfers of the same bytes.
func (row *Row) ladder(raw *analysis.Analysis, lines []record.Request, whole []float64) error {
	if row.Bytes == 0 {
		return nil
	}
	add := func(g Rung, units []float64, paired bool) error {
		sh, err := share(units, whole, paired && len(units) == len(whole))
		if err != nil {
			return err
		}
		g.Share = &sh
		if inc := row.Increment; inc != nil && inc.MedianNs > 0 {
			of, err := share(units, inc.Units, false)
			if err != nil && !errors.Is(err, stats.ErrNotFinite) {
				return err
			}
			if err == nil {
				g.OfIncrement = &of
			}
		}
		row.Rungs = append(row.Rungs, g)
		return nil
	}
	for _, r := range raw.Rows {
		if !r.HasSpeed() || math.Abs(float64(r.Bytes)/float64(row.Bytes)-1) > Tolerance {
			continue
		}
		g := Rung{Name: r.Label, Kind: RawRung, MedianNs: r.MedianNs, CI: r.CI, Bytes: int64(r.Bytes)}
		if r.Ceiling {
			g.Kind = Ceiling
		}
		if err := add(g, stats.Values(r.Units), false); err != nil {
			return err
		}
	}
	us, err := blocks(lines, func(l record.Request) (float64, bool) {
		if l.Moved == nil || l.Moved.Transfers == 0 {
			return 0, false
		}
		return float64(l.Moved.XferNs) / float64(l.Moved.Transfers), true
	})
	if err != nil {
		return err
	}
	if len(us) > 0 {
		sum, err := stats.Summarize(stats.Values(us), analysis.Level)
		if err != nil {
			return err
		}
		if err := add(Rung{Name: "NIXL transfer", Kind: NIXL, MedianNs: sum.Median, CI: sum.CI, Bytes: row.Bytes}, stats.Values(us), true); err != nil {
			return err
		}
	}
	row.Rungs = append(row.Rungs, Rung{Name: "first token", Kind: TTFT, MedianNs: row.TTFT.Median, CI: row.TTFT.CI, Bytes: row.Bytes})
	slices.SortStableFunc(row.Rungs, func(x, y Rung) int {
		switch {
		case x.MedianNs < y.MedianNs:
			return -1
		case x.MedianNs > y.MedianNs:
			return 1
		}
		return 0
	})
	return nil
}

// Wire are the raw transports' rungs: without ceilings.
func (row *Row) Wire() []Rung {
	return slices.DeleteFunc(slices.Clone(row.Rungs), func(r Rung) bool { return r.Kind != RawRung })
}

// Connector is NIXL's rung, nil when nothing was counted.
func (row *Row) Connector() *Rung {
	for i, r := range row.Rungs {
		if r.Kind == NIXL {
			return &row.Rungs[i]
		}
	}
	return nil
}
