package analysis

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// sameBytes is how far the bytes of a raw row may be from those that an engine
// moved for the two to count as the same transfer: a part of a block of a short
// prompt.
const sameBytes = 0.02

// Ladder is a TTFT run held against raw transfers, a row each arm, prompt
// length and load: where a TTFT went, and which share of it the wire explains.
type Ladder struct {
	Raw      *Analysis
	Requests *Requests
	Rows     []LadderRow
}

// LadderRow is one condition of the TTFT run that has a valid request.
type LadderRow struct {
	*RequestRow
	// Parts are what the TTFT consists of, in the order of time.
	Parts []Part
	// FromEngines: the parts come from the engines' own counts.
	FromEngines bool
	// Bytes is what NIXL moved for a request, 0 for none.
	Bytes int64
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
	RungCeiling = "ceiling" // memcpy, plain TCP
	RungRaw     = "raw"     // a transport of the raw record
	RungNIXL    = "nixl"    // what the engine's connector took
	RungTTFT    = "ttft"
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

// ErrNoRequest is matched by the error for a TTFT record of which no request
// counts.
var ErrNoRequest = errors.New("no valid request")

// NewLadder holds the requests of a TTFT run against raw transfers.
func NewLadder(raw *Analysis, tt *Requests) (*Ladder, error) {
	out := &Ladder{Raw: raw, Requests: tt}
	for _, r := range tt.Rows {
		if r.TTFT == nil {
			continue
		}
		row, err := newLadderRow(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Arm, err)
		}
		for _, b := range tt.Rows {
			if b.Path == record.PathUnified && r.Path != record.PathUnified && b.Tokens == r.Tokens && b.Load == r.Load && b.TTFT != nil {
				if err := row.increment(b); err != nil {
					return nil, err
				}
				break
			}
		}
		if err := row.ladder(raw); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Arm, err)
		}
		out.Rows = append(out.Rows, row)
	}
	if len(out.Rows) == 0 {
		return nil, fmt.Errorf("%w in %s (%d requests)", ErrNoRequest, tt.Record.Path, tt.N)
	}
	return out, nil
}

// minShare is the fewest units for a share with its interval.
const minShare = 3

func newLadderRow(r *RequestRow) (LadderRow, error) {
	row := LadderRow{RequestRow: r}
	if r.Moved != nil {
		row.Bytes = int64(math.Round(r.Moved.Bytes))
	}
	row.FromEngines = r.Split != nil && r.Split.Engine > 0
	for _, p := range ladderParts(row.FromEngines) {
		_, us, err := row.units(func(l record.Request) (float64, bool) {
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
		xs, ys, _, err := stats.PairUnits(us, r.Units)
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
		return stats.SharePaired(part, whole, Level)
	}
	return stats.ShareUnpaired(part, whole, Level)
}

type ladderPart struct {
	name, words string
	of          func(*record.Split) int64
	optional    bool // left out when it is zero
}

func ladderParts(engines bool) []ladderPart {
	ps := []ladderPart{
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
func (row *LadderRow) increment(base *RequestRow) error {
	as, xs, _, err := stats.PairUnits(base.Units, row.Units)
	if err != nil || len(as) == 0 {
		return err
	}
	d := make([]float64, len(as))
	for i := range as {
		d[i] = xs[i] - as[i]
	}
	sum, err := stats.Summarize(d, Level)
	if err != nil {
		return err
	}
	row.Base, row.Increment = base.Arm, &Increment{MedianNs: sum.Median, CI: sum.CI, Units: d}
	return nil
}

// ladder collects the transfers of the same bytes.
func (row *LadderRow) ladder(raw *Analysis) error {
	if row.Bytes == 0 {
		return nil
	}
	for _, r := range raw.Rows {
		if !r.HasSpeed() || math.Abs(float64(r.Bytes)/float64(row.Bytes)-1) > sameBytes {
			continue
		}
		g := Rung{Name: r.Label, Kind: RungRaw, MedianNs: r.MedianNs, CI: r.CI, Bytes: int64(r.Bytes)}
		if r.Ceiling {
			g.Kind = RungCeiling
		}
		if err := row.add(g, stats.Values(r.Units), false); err != nil {
			return err
		}
	}
	if err := row.connector(); err != nil {
		return err
	}
	row.Rungs = append(row.Rungs, Rung{Name: "first token", Kind: RungTTFT, MedianNs: row.TTFT.Median, CI: row.TTFT.CI, Bytes: row.Bytes})
	slices.SortStableFunc(row.Rungs, func(x, y Rung) int { return cmp.Compare(x.MedianNs, y.MedianNs) })
	return nil
}

// connector adds what NIXL's transfers took.
func (row *LadderRow) connector() error {
	_, us, err := row.units(func(l record.Request) (float64, bool) {
		if l.Moved == nil || l.Moved.Transfers == 0 {
			return 0, false
		}
		return float64(l.Moved.XferNs) / float64(l.Moved.Transfers), true
	})
	if err != nil || len(us) == 0 {
		return err
	}
	sum, err := stats.Summarize(stats.Values(us), Level)
	if err != nil {
		return err
	}
	return row.add(Rung{Name: "NIXL transfer", Kind: RungNIXL, MedianNs: sum.Median, CI: sum.CI, Bytes: row.Bytes}, stats.Values(us), true)
}

// add puts a rung on the ladder, with its share of the TTFT and of the increment.
// Units that are paired are of the same requests as the row's.
func (row *LadderRow) add(g Rung, units []float64, paired bool) error {
	whole := stats.Values(row.Units)
	sh, err := share(units, whole, paired && len(units) == len(whole))
	if err != nil {
		return err
	}
	g.Share = &sh
	if inc := row.Increment; inc != nil && inc.MedianNs > 0 {
		of, err := share(units, inc.Units, false)
		switch {
		case err == nil:
			g.OfIncrement = &of
		case !errors.Is(err, stats.ErrNotFinite): // the increments may be zero on average
			return err
		}
	}
	row.Rungs = append(row.Rungs, g)
	return nil
}

// Wire are the raw transports' rungs: without ceilings.
func (row *LadderRow) Wire() []Rung {
	return slices.DeleteFunc(slices.Clone(row.Rungs), func(r Rung) bool { return r.Kind != RungRaw })
}

// Connector is NIXL's rung, nil when nothing was counted.
func (row *LadderRow) Connector() *Rung {
	for i, r := range row.Rungs {
		if r.Kind == RungNIXL {
			return &row.Rungs[i]
		}
	}
	return nil
}
