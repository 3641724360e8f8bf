package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/report/plot"
	"github.com/xferbench/xferbench/internal/units"
)

// timeAxis is an axis of times in ns.
func timeAxis(r plot.Range) plot.Axis {
	ax := plot.Axis{Lo: r.Lo, Hi: r.Hi, Log: r.Log, Value: nanos}
	if r.Log {
		ax.Ticks = plot.Log(r.Lo, r.Hi, 10, 6, tickTime)
		return ax
	}
	ax.Ticks = evenly(r, 5, unitOf(math.Max(math.Abs(r.Lo), math.Abs(r.Hi))))
	return ax
}

// ratioAxis is one of times over a median.
func ratioAxis(r plot.Range) plot.Axis {
	ax := plot.Axis{Lo: r.Lo, Hi: r.Hi, Log: r.Log, Value: rcell}
	if r.Log {
		ax.Ticks = plot.Log(r.Lo, r.Hi, 10, 6, trimmed)
		return ax
	}
	ax.Ticks = evenly(r, 5, scale{"", 1})
	return ax
}

// countAxis is one of numbers.
func countAxis(r plot.Range) plot.Axis {
	ax := ratioAxis(r)
	ax.Value = trimmed
	return ax
}

// logTimes is a logarithmic axis of the transfers of rows.
func logTimes(rows []*analysis.Row) plot.Axis {
	all := make([][]float64, len(rows))
	for i, r := range rows {
		for _, s := range thin(r) {
			all[i] = append(all[i], float64(s.TotalNs))
		}
	}
	r := plot.Robust(all...)
	return timeAxis(plot.Range{Lo: r.Lo / 1.15, Hi: r.Hi * 1.15, Log: true})
}

// evenly are ticks in one unit, with as many decimals as tell them apart.
func evenly(r plot.Range, n int, u scale) []plot.Tick {
	ts := plot.Linear(r.Lo, r.Hi, n, func(float64) string { return "" })
	if len(ts) < 2 {
		return plot.Linear(r.Lo, r.Hi, n, func(v float64) string { return strings.TrimSpace(trimmed(v/u.ns) + " " + u.name) })
	}
	decimals := max(0, 1-int(math.Floor(math.Log10((ts[1].At-ts[0].At)/u.ns))))
	for i, t := range ts {
		s := strconv.FormatFloat(t.At/u.ns, 'f', decimals, 64)
		if strings.Contains(s, ".") {
			s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
		}
		if s != "0" {
			s = strings.TrimSpace(s + " " + u.name)
		}
		ts[i].Label = s
	}
	return ts
}

// unitOf is the unit in which a time of ns is written.
func unitOf(ns float64) scale {
	switch {
	case ns < 1e3:
		return scale{"ns", 1}
	case ns < 1e6:
		return scale{"µs", 1e3}
	case ns < 1e9:
		return scale{"ms", 1e6}
	}
	return scale{"s", 1e9}
}

// tickTime writes a time for an axis: short, without trailing zeros.
func tickTime(ns float64) string {
	if ns == 0 {
		return "0"
	}
	u := unitOf(math.Abs(ns))
	return trimmed(ns/u.ns) + " " + u.name
}

func trimmed(f float64) string { return strconv.FormatFloat(f, 'g', 4, 64) }

func tickBytes(f float64) string {
	return strings.TrimSuffix(units.CompactBytes(int64(math.Round(f))), "B") + "B"
}

// scaleWords say that an axis is logarithmic, if so.
func scaleWords(ax plot.Axis, which string) string {
	if !ax.Log {
		return ""
	}
	return strings.ToUpper(which[:1]) + which[1:] + " is logarithmic."
}

// beyondWords say how many samples an axis leaves out.
func beyondWords(n int, what string) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "One " + what + " lies beyond the axis: an arrow at its edge."
	}
	return fmt.Sprintf("%s %ss lie beyond the axis: arrows at its edge.", units.FormatCount(int64(n)), what)
}

// joined is one text of those sentences that say something.
func joined(ss ...string) string {
	var out []string
	for _, s := range ss {
		if s != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, " ")
}

// ciWords is a row's interval as a pointer is told it.
func ciWords(r *analysis.Row) string {
	if r.CI == nil {
		return ""
	}
	return fmt.Sprintf(" [%s, %s]", nanos(r.CI.Lo), nanos(r.CI.Hi))
}
