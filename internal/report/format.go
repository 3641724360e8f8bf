package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

// scale is a unit of time for a whole table.
type scale struct {
	name string
	ns   float64
}

// timeScale picks the unit in which the shortest median has an integer part.
func timeScale(rows []*analysis.Row) scale {
	least := math.Inf(1)
	for _, r := range rows {
		if r.HasSpeed() {
			least = math.Min(least, r.MedianNs)
		}
	}
	return scaleFrom(least)
}

// scaleFrom is the unit for times of which the shortest is least ns.
func scaleFrom(least float64) scale {
	switch {
	case least >= 10e9 && !math.IsInf(least, 1):
		return scale{"s", 1e9}
	case least >= 1e6:
		return scale{"ms", 1e6}
	case least >= 1e3:
		return scale{"µs", 1e3}
	}
	return scale{"ns", 1}
}

// time writes ns in the scale with four significant digits.
func (s scale) time(ns float64) string { return units.Digits(ns/s.ns, 4) }

// percent writes a fraction as whole per cent, with a decimal below ten.
func percent(f float64) string {
	if math.Abs(f) < 0.0995 {
		return units.Digits(f*100, 2)
	}
	return strconv.FormatFloat(f*100, 'f', 0, 64)
}

// pvalue writes a p-value; below a thousandth its magnitude is enough.
func pvalue(p float64) string {
	if p < 0.001 {
		return "p < 0.001"
	}
	return "p = " + units.Digits(p, 2)
}

// pcell is a p-value for a cell of a table.
func pcell(p float64) string {
	if p < 0.001 {
		return "<0.001"
	}
	return units.Digits(p, 2)
}

// rcell is a ratio for a cell of a table.
func rcell(f float64) string {
	if math.IsNaN(f) || math.IsInf(f, 0) || math.Abs(f) >= 10 {
		return units.Digits(f, 4)
	}
	return strconv.FormatFloat(f, 'f', 3, 64)
}

// limit writes a threshold as it was asked for: "5%".
func limit(f float64) string { return strconv.FormatFloat(f*100, 'g', 4, 64) + "%" }

// ratio writes a ratio of times.
func ratio(f float64) string {
	if f >= 10 {
		return units.Digits(f, 3)
	}
	return strconv.FormatFloat(f, 'f', 2, 64)
}

// ratioInterval writes an interval of ratios with as many decimals as tell its
// ends from the estimate.
func ratioInterval(f float64, iv *stats.Interval) (string, string) {
	if iv == nil {
		return ratio(f), ""
	}
	decimals := 2
	if f >= 10 {
		decimals = 1
	}
	for decimals < 4 && iv.Hi-iv.Lo < 4*math.Pow10(-decimals) {
		decimals++
	}
	w := func(x float64) string { return strconv.FormatFloat(x, 'f', decimals, 64) }
	return w(f), fmt.Sprintf("[%s, %s]", w(iv.Lo), w(iv.Hi))
}

func nanos(ns float64) string { return units.FormatDuration(time.Duration(math.Round(ns))) }

// list writes "a, b and c".
func list(words []string) string {
	switch n := len(words); n {
	case 0:
		return ""
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
}

// unique keeps the first of equal values.
func unique[T comparable](xs []T) []T {
	var out []T
	for _, x := range xs {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}
