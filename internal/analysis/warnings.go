package analysis

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

func (r *Row) opWord() string { return strings.ToUpper(r.Op) }

// minPathRatio is the counted share of the payload below which bytes must
// have taken another way: headers only ever add.
const minPathRatio = 0.95

// maxPathRatio is the counted share of the payload above which more than headers
// and acknowledgements crossed the NIC, for payloads of at least minBusy.
const (
	maxPathRatio = 1.2
	minBusy      = 16 << 20
)

func (a *Analysis) warnf(code, format string, args ...any) {
	a.Warnings = append(a.Warnings, Warning{code, fmt.Sprintf(format, args...)})
}

// warn collects the warnings, the gravest first.
func (a *Analysis) warn() {
	for _, r := range a.Rows {
		if r.Failed > 0 {
			a.warnf("data-check-failed", "%s: %d of %d checks found wrong data, so the row has no speed; the transport or its settings corrupt data: repeat with another provider or library version", r.Label, r.Failed, r.Checked)
		}
	}
	if a.Emulated() {
		a.warnf("emulated-device", "rows marked EMULATED: %s; they show that the path works and say nothing about its speed", Emulated)
	}
	if a.Record.Cut {
		a.warnf("cut-file", "%s", CutFile)
	}
	switch end := a.Record.End; {
	case end == nil && a.Live:
	case end == nil:
		a.warnf("cut-off", "the record has no end line: the run was cut off; what it had measured is here")
	case end.Status != record.StatusOK:
		text := map[string]string{record.StatusFailed: "it failed", record.StatusInterrupted: "it was interrupted"}[end.Status]
		if end.Error != "" {
			text += ": " + end.Error
		}
		a.warnf("not-complete", "the run is not complete: %s", text)
	}
	a.few()
	for _, r := range a.Rows {
		if r.HasSpeed() {
			a.steady(r)
			a.first(r)
			a.path(r)
		}
	}
	a.excursions()
	a.busy()
	for _, p := range slices.Concat(a.Pairs, a.Brackets) {
		if p.Refused == "" {
			a.Warnings = append(a.Warnings, p.Warnings()...)
		}
		if p.Unpaired > 0 {
			a.warnf("unpaired-blocks", "%s and %s: %d blocks lack one of the two and are left out", p.A.Label, p.B.Label, p.Unpaired)
		}
	}
	a.Warnings = append(a.Warnings, a.unfitted...)
	for _, m := range a.Models {
		for _, w := range m.Cost.Warnings {
			a.warnf(w.Code, "%s: %s", m.Label, w.Text)
		}
	}
	for _, p := range a.Pieces {
		a.Warnings = append(a.Warnings, p.Warnings...)
	}
	a.events()
	a.Warnings = once(a.Warnings)
}

// few warns of rows without an interval, all in one sentence.
func (a *Analysis) few() {
	least, rows, launches := 0, 0, false
	for _, r := range a.Rows {
		if r.N > 0 && len(r.Units) < stats.MinRankCI {
			if rows == 0 || len(r.Units) < least {
				least = len(r.Units)
			}
			rows++
			launches = launches || r.Launches > 1
		}
	}
	none := "no interval and no verdict"
	if least < stats.MinCostBlocks && sizes(a.Rows) >= minSizes {
		none = "no interval, no verdict and no cost model"
	}
	switch {
	case rows > 0 && launches:
		a.warnf("few-launches", "%d launches give %s: use --launches %d or more", least, none, stats.MinRankCI)
	case rows > 0:
		a.warnf("few-blocks", "%d of %d rows have fewer than %d blocks (%d at least), which gives %s: use --blocks 10, a longer --budget or a smaller --size", rows, len(a.Rows), stats.MinRankCI, least, none)
	}
	for _, r := range a.Rows {
		if r.N == 0 {
			a.warnf("no-samples", "%s: no transfer was measured", r.Label)
		}
	}
}

func (a *Analysis) steady(r *Row) {
	st := r.Steady
	if st.Class == stats.Excursions {
		return // see excursions
	}
	if len(st.Transitions) == 0 {
		return
	}
	// Both levels are those of the last change.
	t := st.Transitions[len(st.Transitions)-1]
	levels := fmt.Sprintf("from %s to %s at transfer %d of %d", ns(t.Before), ns(t.After), t.Iteration+1, r.N)
	switch st.Class {
	case stats.WarmUp:
		a.warnf("warm-up", "%s: warm-up, %s; all transfers count: use more --blocks so that the start weighs less", r.Label, levels)
	case stats.Slowdown:
		if t.After < t.Before { // the last change alone would not tell why it is one
			first := slices.MinFunc(st.Segments, func(x, y stats.Segment) int { return cmp.Compare(x.Mean, y.Mean) })
			levels += fmt.Sprintf(", after %s at transfer %d", ns(first.Mean), first.Start+1)
		}
		a.warnf("slowdown", "%s: slowdown, %s; look for throttling, burst credits of the network or other load, and rest the hosts before a repeat", r.Label, levels)
	case stats.NoSteadyState:
		a.warnf("no-steady-state", "%s: no steady state, %s; the median describes no lasting level: run longer (--blocks, --budget)", r.Label, levels)
	}
}

// excursions warns of slow stretches, of all rows in one sentence: the longest by its
// share of the row.
func (a *Analysis) excursions() {
	var worst *Row
	share, n := 0.0, 0
	for _, r := range a.Rows {
		e := r.Steady.Longest()
		if e.End == 0 || !r.HasSpeed() {
			continue
		}
		n++
		if s := float64(e.End-e.Start) / float64(r.N); s > share {
			worst, share = r, s
		}
	}
	if n == 0 {
		return
	}
	e, more := worst.Steady.Longest(), ""
	if n > 1 {
		more = fmt.Sprintf("; %d of %d rows have such stretches", n, len(a.Rows))
	}
	a.warnf("excursion", "%s: %d slow transfers from #%d to #%d of %d, %s times the rest%s: look at what else ran on the hosts then",
		worst.Label, e.End-e.Start, e.Start+1, e.End, worst.N, units.Digits(e.Factor, 2), more)
}

// slowFirst is how many times the first transfer of a block may take the others'
// time before it is a finding.
const slowFirst = 1.25

// first warns when the first transfer of each block is slow and the block median
// holds it: with three transfers or more, it does not.
func (a *Analysis) first(r *Row) {
	if r.Iters != 2 || r.Blocks < stats.MinRankCI {
		return
	}
	var firsts, seconds []float64
	for i, s := range r.Samples {
		if i == 0 || s.Block != r.Samples[i-1].Block || s.Launch != r.Samples[i-1].Launch {
			firsts = append(firsts, float64(s.TotalNs))
		} else {
			seconds = append(seconds, float64(s.TotalNs))
		}
	}
	f, err := stats.Median(firsts)
	if err != nil {
		return // no samples, and no speed either
	}
	s, err := stats.Median(seconds)
	if err != nil || f < slowFirst*s {
		return
	}
	a.warnf("slow-first", "%s: the first transfer of a block takes %.1f times as long as the second (caches, idle connections), and the median of two holds it: use --iterations 3 or more", r.Label, f/s)
}

func (a *Analysis) path(r *Row) {
	p := r.Path
	if p == nil || p.PayloadBytes == 0 || memoryOnly(r.Condition) || r.Ceiling && r.API == "memcpy" {
		return
	}
	if len(p.Counters) == 0 {
		return // the host has no byte counter: the table says so
	}
	if p.Ratio < minPathRatio {
		c := p.Counters[0]
		a.warnf("path", "%s: no NIC counted the payload (%s %s: %s of it); the bytes took another way, such as shared memory or a device without counters: see the path table, and xferbench providers",
			r.Label, c.Device, c.Name, units.FormatPercent(p.Ratio))
	}
}

// busy warns of other traffic on the NICs, all rows in one sentence.
func (a *Analysis) busy() {
	var worst *Row
	n := 0
	for _, r := range a.Rows {
		if p := r.Path; p != nil && r.HasSpeed() && r.API != "memcpy" && p.Ratio > maxPathRatio && p.PayloadBytes > minBusy {
			n++
			if worst == nil || p.Ratio > worst.Path.Ratio {
				worst = r
			}
		}
	}
	if n > 0 {
		a.warnf("path-busy", "in %d of %d rows the NIC counted far more than the payload (%s: %.2f times on %s): other traffic shared it, and the times hold that; repeat on quiet hosts",
			n, len(a.Rows), worst.Label, worst.Path.Ratio, worst.Path.Counters[0].Device)
	}
}

// events are the warnings and faults that the run itself recorded.
func (a *Analysis) events() {
	for _, e := range a.Record.Events {
		if e.Level == record.Info {
			continue
		}
		text := strings.TrimSuffix(e.Message, ".")
		if e.Condition != nil {
			if r := a.Row(*e.Condition); r != nil && !strings.Contains(text, r.Provider) {
				text = r.Label + ": " + text
			}
		}
		a.Warnings = append(a.Warnings, Warning{"run-" + e.Level, text})
	}
}

func ns(f float64) string { return units.FormatDuration(time.Duration(round(f))) }
