// Package analysis works out what a record says: a row of figures for each
// condition, verdicts on pairs, cost models over sizes, and what limits them.
// [Of] reads raw transfers, [OfRequests] those of a TTFT run, and [NewLadder]
// holds the one against the other. [Compare] and [NewHistory] hold records of one
// kind against each other, and [Runs.Judge] against a threshold. It formats nothing but the sentences of
// warnings.
//
// Times are nanoseconds, sizes bytes and rates bytes per second throughout.
package analysis

import (
	"errors"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// Level is the confidence of all intervals.
const Level = 0.95

// Relevant is the relative difference that a guideline counts as one that
// matters.
const Relevant = 0.05

// Emulated are the words that stand beside every number of an emulated device.
const Emulated = "emulated device, not a measurement"

// CutFile is the warning about a record of which [record.Record.Cut] is set.
const CutFile = "the compressed file ends early: it was cut off while it was written or copied; what it holds is here"

// Analysis is what a run says. Slices follow the order of the record.
type Analysis struct {
	Record *record.Record
	// Live: the run may still go on, so that a missing end line means nothing.
	Live bool
	Rows []*Row
	// Pairs are comparisons of rows that differ in the provider only.
	Pairs []Pair
	// Brackets compare the fragmented with the merged shape of one provider: the
	// range in which the transfer of an engine lies.
	Brackets []Pair
	// Chance is of the verdicts on Pairs and Brackets together.
	Chance   Chance
	Models   []Model
	Pieces   []PieceModel
	Guides   []Guide
	Warnings []Warning

	unfitted []Warning // about models that could not be fitted
}

// Warning is what limits the figures and what to do about it.
type Warning struct {
	Code string // stable, lower case with dashes
	Text string // a sentence without its full stop
}

// Row is one condition with its figures.
type Row struct {
	record.Condition
	// Label names the row among the others: provider, op, shape, and what
	// else differs in this run.
	Label string
	// N counts the samples behind the figures, in Blocks blocks of Iters each;
	// Iters is 0 when blocks differ. Launches counts fresh processes.
	N, Blocks, Iters, Launches int
	// Samples are those of the measure phase in time order.
	Samples []Transfer
	// Cold are the transport's first transfer and the condition's first one,
	// which no figure holds.
	Cold []record.Sample
	// Units are the independent observations: medians of blocks, or of launches
	// when there are several.
	Units []stats.Unit
	// MedianNs is the median of Units and CI its interval, nil with too few.
	MedianNs     float64
	CI           *stats.Interval
	MinNs, MaxNs float64
	// P95 is guarded: see [stats.Quantile].
	P95      stats.QuantileResult
	SumBytes uint64
	SumNs    int64
	// Rate is SumBytes over SumNs in bytes per second.
	Rate   float64
	PostNs float64 // median time to post
	// PostPerDesc is PostNs over the descriptors.
	PostPerDesc float64
	// CPUPerByte and PeerCPUPerByte are CPU time over payload (ns/byte, which
	// is s/GB), 0 when not counted.
	CPUPerByte, PeerCPUPerByte float64
	CPUNs, PeerCPUNs           int64
	EAgain                     uint64
	// Checked counts samples whose data were verified, Failed those that
	// did not pass, in the cold phase too.
	Checked, Failed int
	Bound           *Bound
	Steady          stats.Steady
	Path            *Path
	// Emulated rows are no measurements.
	Emulated bool
}

// Transfer is what a row keeps of a sample: see [record.Sample].
type Transfer struct {
	Launch, Block, Iteration int
	BeginNs, PostNs, TotalNs int64
}

// Valid tells whether the row has samples and no data check failed.
func (r *Row) Valid() bool { return r.N > 0 && r.Failed == 0 }

// HasSpeed tells whether the row may carry a speed: it is valid and a measurement.
func (r *Row) HasSpeed() bool { return r.Valid() && !r.Emulated }

// Check is the outcome of the data checks: "ok", "FAILED", "off", or "part" when
// only some samples were checked.
func (r *Row) Check() string {
	switch {
	case r.Failed > 0:
		return "FAILED"
	case r.Checked == 0:
		return "off"
	case r.Checked < r.N:
		return "part"
	}
	return "ok"
}

// Bound is the upper bound that a row is held against.
type Bound struct {
	// Kind is "socket" (the plain TCP row of the same run) or "line" (the sum of
	// the NICs' link speeds).
	Kind string
	Rate float64 // bytes per second, at the median of the socket row
	// Share is the row's bytes over its median time, over Rate.
	Share float64
}

// Path is what the NICs counted while the row's transfers ran.
type Path struct {
	PayloadBytes uint64
	// Counters are the moves of byte counters added up over blocks, largest first.
	Counters []record.Counter
	// Ratio is the largest counter over the payload; 0 with no counter.
	Ratio float64
	// Context switches by side.
	Voluntary, Involuntary, PeerVoluntary, PeerInvoluntary int64
}

// Of analyses a record.
func Of(rec *record.Record) (*Analysis, error) { return of(rec, false) }

// Live analyses the record of a run that has yet to write its end line.
func Live(rec *record.Record) (*Analysis, error) { return of(rec, true) }

func of(rec *record.Record, live bool) (*Analysis, error) {
	if rec == nil {
		return nil, errors.New("nothing to analyse: no record")
	}
	a := &Analysis{Record: rec, Live: live}
	if err := a.rows(); err != nil {
		return nil, err
	}
	a.bounds()
	if err := a.compare(); err != nil {
		return nil, err
	}
	a.models()
	a.warn()
	return a, nil
}

// Emulated tells whether any row is one of an emulated device.
func (a *Analysis) Emulated() bool {
	return slices.ContainsFunc(a.Rows, func(r *Row) bool { return r.Emulated })
}

// Failed tells whether any data check failed.
func (a *Analysis) Failed() bool {
	return slices.ContainsFunc(a.Rows, func(r *Row) bool { return r.Failed > 0 })
}

// Row is the row of the condition id, nil when there is none.
func (a *Analysis) Row(id int) *Row {
	for _, r := range a.Rows {
		if r.ID == id {
			return r
		}
	}
	return nil
}

// memoryOnly tells whether a condition's bytes never meet a NIC.
func memoryOnly(c record.Condition) bool {
	p := strings.ToLower(c.Provider)
	return c.API == "memcpy" || strings.Contains(p, "shm") || strings.Contains(p, "cuda_ipc") || strings.Contains(p, "cma") || p == "ucx:self"
}
