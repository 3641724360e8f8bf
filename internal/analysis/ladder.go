package analysis

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

// Ladder is a TTFT run held against raw transfers, a row each arm, prompt
// length and load: where a TTFT went, and which share of it the wire explains.
type Ladder struct {
	Raw      *Analysis
	Requests *Requests
	Rows     []LadderRow
}

// LadderRow is one condition of the TTFT run that has a valid request. All its
// figures are medians of units, their ratios and their differences.
type LadderRow struct {
	*RequestRow
	// Parts are what the TTFT consists of, in the order of time.
	Parts []Part
	// FromEngines: the parts come from the engines' own counts.
	FromEngines bool
	// Bytes is what NIXL moved for a request, 0 for none.
	Bytes int64
	// Rungs are the same bytes in the order of the path: ceilings, raw rows that may
	// be the engines' transfer, NIXL's count, the first token.
	Rungs []Rung
	// Others are raw rows of the same bytes that are not it, with the fields that
	// differ, and OtherBytes counts valid rows of other bytes.
	Others     []Rung
	OtherBytes int
	// Unknown are fields that one of the records lacks, so that no row was held to them.
	Unknown []string
	// Transport is the one that the engines used: stated by the user, or as the record
	// has it; "" where it is not known.
	Transport string
	Stated    bool
	// Used is the raw row that is the engines' transfer; nil with none or several.
	Used *Rung
	// Without is the TTFT with a wire that takes no time: less Used.
	Without *stats.Estimate
	// Base is the unified arm at the same prompt length and load, if any, and
	// Increment what the row takes more than it.
	Base      string
	Increment *stats.Estimate
	// Steps are the waterfall from memory to the TTFT, and Causes what the record has
	// to explain steps that no transfer does.
	Steps  []Step
	Causes []Cause

	engines engines
	base    *RequestRow
	queue   []stats.Unit // the decode engine's queue, by its own count
}

// Part is a share of the TTFT.
type Part struct {
	Name     string
	MedianNs float64
	Share    *stats.Share
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
	// Differs are the fields in which a raw row is not what the engines used; it has
	// no share then.
	Differs []Mismatch
	// Share is the part of the TTFT that this transfer explains; nil for the TTFT
	// itself and for what is not the engines' transfer.
	Share *stats.Share

	row   *Row // of the raw record
	units []stats.Unit
}

// ErrNoRequest is matched by the error for a TTFT record of which no request
// counts.
var ErrNoRequest = errors.New("no valid request")

// ErrTransport is matched by the error for a stated transport that does not fit
// the records.
var ErrTransport = errors.New("not a transport of these engines")

// NewLadder holds the requests of a TTFT run against raw transfers. transports
// states over which provider of the raw record an arm's engines moved the KV cache,
// by arm; the one of "" is for all arms of which the record does not say it.
func NewLadder(raw *Analysis, tt *Requests, transports map[string]string) (*Ladder, error) {
	out := &Ladder{Raw: raw, Requests: tt}
	if err := checkTransports(raw, tt, transports); err != nil {
		return nil, err
	}
	for _, r := range tt.Rows {
		if r.TTFT == nil {
			continue
		}
		row, err := newLadderRow(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Arm, err)
		}
		row.engines = newEngines(r, &tt.Record.Run, stated(r, transports))
		row.Transport, row.Stated = row.engines.uses(), row.engines.stated != ""
		for _, b := range tt.Rows {
			if b.Path == record.PathUnified && r.Path != record.PathUnified && b.Tokens == r.Tokens && b.Load == r.Load && b.TTFT != nil {
				if row.Increment, err = contrast(Level, plus(r.Units), minus(b.Units)); err != nil {
					return nil, fmt.Errorf("%s: %w", r.Arm, err)
				}
				row.Base, row.base = b.Arm, b
				break
			}
		}
		if err := row.ladder(raw); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Arm, err)
		}
		if err := row.waterfall(tt); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Arm, err)
		}
		out.Rows = append(out.Rows, row)
	}
	if len(out.Rows) == 0 {
		return nil, fmt.Errorf("%w in %s (%d requests)", ErrNoRequest, tt.Record.Path, tt.N)
	}
	return out, nil
}

// stated is the transport that the user states for a row's engines.
func stated(r *RequestRow, transports map[string]string) string {
	if t, ok := transports[r.Arm]; ok {
		return t
	}
	if s := r.Condition.Serving; s == nil || s.Provider == "" || providerNamed(s.Provider, transports[""]) {
		return transports[""]
	}
	return ""
}

// providerNamed tells whether a provider as a raw record names it, such as "tcp#2",
// is the one that engines used.
func providerNamed(provider, name string) bool {
	return name != "" && provider == providerOf(record.Condition{Provider: name})
}

// checkTransports refuses a statement about an arm or a provider that is not there,
// or that the record of the engines contradicts.
func checkTransports(raw *Analysis, tt *Requests, transports map[string]string) error {
	for _, arm := range slices.Sorted(maps.Keys(transports)) {
		name := transports[arm]
		var names, arms, used []string
		for _, r := range raw.Rows {
			names = append(names, r.Provider, providerOf(r.Condition))
		}
		fits := false
		for _, r := range tt.Rows {
			if arms = append(arms, r.Arm); arm != "" && arm != r.Arm || r.Path == record.PathUnified {
				continue
			}
			if s := r.Condition.Serving; s != nil && s.Provider != "" && !providerNamed(s.Provider, name) {
				used = append(used, fmt.Sprintf("%s ran over %s", r.Arm, s.Provider))
				continue
			}
			fits = true
		}
		switch {
		case !slices.Contains(names, name):
			return fmt.Errorf("%w: %s has no transport %q; it has %s", ErrTransport, raw.Record.Path, name, words(names))
		case arm != "" && !slices.Contains(arms, arm):
			return fmt.Errorf("%w: %s has no arm %q; it has %s", ErrTransport, tt.Record.Path, arm, words(arms))
		case !fits:
			return fmt.Errorf("%w: %s, and in %s %s", ErrTransport, name, tt.Record.Path, words(used))
		}
	}
	return nil
}

// words is each word once, in order.
func words(ws []string) string {
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(ws))), ", ")
}

func newLadderRow(r *RequestRow) (LadderRow, error) {
	row := LadderRow{RequestRow: r}
	if r.Moved != nil {
		row.Bytes = int64(math.Round(r.Moved.Bytes))
	}
	row.FromEngines = r.Split != nil && r.Split.Engine > 0
	for _, p := range ladderParts {
		us, err := row.part(p)
		if err != nil {
			return row, err
		}
		if len(us) == 0 {
			continue
		}
		if p.name == partQueue && row.FromEngines {
			row.queue = us
		}
		part := Part{Name: p.name}
		if part.MedianNs, err = stats.Median(stats.Values(us)); err != nil {
			return row, err
		}
		if part.MedianNs == 0 && p.optional {
			continue
		}
		if part.Share, err = share(plus(us), plus(r.Units)); err != nil {
			return row, err
		}
		row.Parts = append(row.Parts, part)
	}
	return row, nil
}

// part are the units of a part of the TTFT, of the requests with the engines' own
// counts where there are such.
func (r *RequestRow) part(p ladderPart) ([]stats.Unit, error) {
	engines := r.Split != nil && r.Split.Engine > 0
	_, us, err := r.units(func(l record.Request) (float64, bool) {
		if l.Split == nil || engines && !l.Split.Engine {
			return 0, false
		}
		return float64(p.of(l.Split)), true
	})
	return us, err
}

// signed are units whose median counts with a sign; raw ones are of the raw record.
type signed struct {
	sign  float64
	units []stats.Unit
	raw   bool
}

func plus(us []stats.Unit) signed  { return signed{1, us, false} }
func minus(us []stats.Unit) signed { return signed{-1, us, false} }

func (g *Rung) plus() signed { return signed{1, g.units, g.row != nil} }

func (s signed) negative() signed {
	s.sign = -s.sign
	return s
}

// terms are medians of units. Units of one record with the same keys were measured
// in the same blocks.
func terms(all ...signed) []stats.Term {
	keys := func(a, b stats.Unit) bool { return a.Key == b.Key }
	out := make([]stats.Term, len(all))
	for i, s := range all {
		out[i] = stats.Term{Weight: s.sign, Values: stats.Values(s.units), Set: i}
		for j := range i {
			if all[j].raw == s.raw && slices.EqualFunc(all[j].units, s.units, keys) {
				out[i].Set = out[j].Set
				break
			}
		}
	}
	return out
}

func contrast(level float64, all ...signed) (*stats.Estimate, error) {
	e, err := stats.Contrast(terms(all...), level)
	return &e, err
}

func share(part, whole signed) (*stats.Share, error) {
	ts := terms(part, whole)
	s, err := stats.ShareOf(ts[:1], ts[1:], Level)
	return &s, err
}

type ladderPart struct {
	name     string
	of       func(*record.Split) int64
	optional bool // left out when it is zero
}

const partQueue = "decode queue"

// ladderParts are those of a TTFT, in the order of time. Without the engines' own
// counts prefill and decode queue are whole legs.
var ladderParts = []ladderPart{
	{"wait", func(s *record.Split) int64 { return s.Wait }, true},
	{"prefill", func(s *record.Split) int64 { return s.Prefill }, false},
	{"hand-over", func(s *record.Split) int64 { return s.HandOver }, true},
	{partQueue, func(s *record.Split) int64 { return s.DecodeQueue }, true},
	{"one token", func(s *record.Split) int64 { return s.OneToken }, true},
	{"network", func(s *record.Split) int64 { return s.Network }, true},
}

// ladder collects the transfers of the same bytes and finds the engines' own.
func (row *LadderRow) ladder(raw *Analysis) error {
	if row.Bytes == 0 {
		return nil
	}
	ceilings, candidates := row.sort(raw)
	candidates, others := shape(candidates, row.Moved)
	row.Others = append(row.Others, others...)
	for _, g := range append(ceilings, candidates...) {
		var err error
		if g.Share, err = share(g.plus(), plus(row.Units)); err != nil {
			return err
		}
		row.Rungs = append(row.Rungs, g)
	}
	if err := row.connector(); err != nil {
		return err
	}
	row.Rungs = append(row.Rungs, Rung{Name: "first token", Kind: RungTTFT, MedianNs: row.TTFT.Median, CI: row.TTFT.CI, Bytes: row.Bytes, units: row.Units})
	if len(candidates) != 1 {
		return nil
	}
	row.Used = &row.Rungs[len(ceilings)]
	var err error
	row.Without, err = contrast(Level, plus(row.Units), row.Used.plus().negative())
	return err
}

// sort tells apart the raw rows of the engines' bytes: ceilings, those that may be
// the engines' transfer, fastest first, and the others, which it keeps.
func (row *LadderRow) sort(raw *Analysis) (ceilings, candidates []Rung) {
	unknown := map[string]bool{}
	for _, r := range raw.Rows {
		if !r.HasSpeed() {
			continue
		}
		if math.Abs(float64(r.Bytes)/float64(row.Bytes)-1) > sameBytes {
			row.OtherBytes++
			continue
		}
		g := Rung{Name: r.Label, Kind: RungRaw, MedianNs: r.MedianNs, CI: r.CI, Bytes: int64(r.Bytes), row: r, units: r.Units}
		var missing []string
		if ceiling(r) && !providerNamed(row.Transport, r.Provider) {
			g.Kind = RungCeiling
			g.Differs = row.engines.ceiling(r, &raw.Record.Run)
		} else {
			g.Differs, missing = row.engines.match(r, &raw.Record.Run)
			if r.MedianNs >= row.TTFT.Median {
				g.Differs = append(g.Differs, Mismatch{FieldTime, units.FormatNanos(r.MedianNs), units.FormatNanos(row.TTFT.Median)})
			}
		}
		switch {
		case len(g.Differs) > 0:
			row.Others = append(row.Others, g)
		case g.Kind == RungCeiling:
			ceilings = append(ceilings, g)
		default:
			candidates = append(candidates, g)
			for _, f := range missing {
				unknown[f] = true
			}
		}
	}
	for _, f := range joined {
		if unknown[f] {
			row.Unknown = append(row.Unknown, f)
		}
	}
	slices.SortStableFunc(ceilings, func(x, y Rung) int {
		return cmp.Or(cmp.Compare(pathOrder(x), pathOrder(y)), cmp.Compare(x.row.Descs, y.row.Descs))
	})
	slices.SortStableFunc(candidates, func(x, y Rung) int { return cmp.Compare(x.MedianNs, y.MedianNs) })
	return ceilings, candidates
}

// ceiling tells whether a row is one by its kind, whether or not it was asked for as a
// transport.
func ceiling(r *Row) bool { return r.Ceiling || r.API == "memcpy" || r.API == "socket" }

// pathOrder is the order of ceilings: memory first.
func pathOrder(g Rung) int {
	if g.row.API == "memcpy" {
		return 0
	}
	return 1
}

// connector adds what NIXL's transfers took.
func (row *LadderRow) connector() error {
	_, us, err := row.RequestRow.units(func(l record.Request) (float64, bool) {
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
	s, err := share(plus(us), plus(row.Units))
	if err != nil {
		return err
	}
	row.Rungs = append(row.Rungs, Rung{Name: "NIXL transfer", Kind: RungNIXL, MedianNs: sum.Median, CI: sum.CI, Bytes: row.Bytes, Share: s, units: us})
	return nil
}

// Wire are the raw rows that may be the engines' transfer, fastest first.
func (row *LadderRow) Wire() []Rung {
	return slices.DeleteFunc(slices.Clone(row.Rungs), func(r Rung) bool { return r.Kind != RungRaw })
}

// Connector is NIXL's rung, nil when nothing was counted.
func (row *LadderRow) Connector() *Rung { return row.rung(RungNIXL, "") }

// rung is the first rung of a kind, of a raw API if one is named; nil: none.
func (row *LadderRow) rung(kind, api string) *Rung {
	for i, r := range row.Rungs {
		if r.Kind == kind && (api == "" || r.row.API == api) {
			return &row.Rungs[i]
		}
	}
	return nil
}
