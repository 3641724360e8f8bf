package analysis

import (
	"cmp"
	"slices"

	"github.com/xferbench/xferbench/internal/stats"
)

// Basis says how a time at a size follows from those that were measured.
type Basis int

// Bases, from the firmest on.
const (
	NotMeasured Basis = iota // beyond a factor of two of what was measured
	Measured                 // at that very size
	Between                  // on the line between the two sizes around it
	Beyond                   // on the line through the two nearest sizes, at most a factor of two outside
	Scaled                   // in proportion to the one size that was measured, at most a factor of two away
)

// String is the basis as one word.
func (b Basis) String() string {
	return [...]string{"not-measured", "measured", "between", "beyond", "scaled"}[b]
}

// reach is how far from what was measured a time is still told.
const reach = 2

// curve is times over sizes, in order of size: bytes of a transfer or tokens of a
// prompt. The points are of one run, so that their units pair.
type curve []curvePoint

type curvePoint struct {
	x     int64
	units []stats.Unit
}

// newCurve sorts points; of several at one size the first counts.
func newCurve(ps []curvePoint) curve {
	c := slices.Clone(ps)
	slices.SortStableFunc(c, func(a, b curvePoint) int { return cmp.Compare(a.x, b.x) })
	return slices.CompactFunc(c, func(a, b curvePoint) bool { return a.x == b.x })
}

// at gives the times at x unit by unit, which keeps what the units of two sizes
// share, and the places of the points that they rest on. No unit at all comes
// with NotMeasured.
func (c curve) at(x int64) (us []stats.Unit, basis Basis, from []int) {
	n := len(c)
	if n == 0 || x <= 0 || x < (c[0].x+reach-1)/reach || x/reach > c[n-1].x || x > c[n-1].x*reach {
		return nil, NotMeasured, nil
	}
	i, exact := slices.BinarySearchFunc(c, x, func(p curvePoint, x int64) int { return cmp.Compare(p.x, x) })
	switch {
	case exact:
		return c[i].units, Measured, []int{i}
	case n == 1:
		return combine(c[0].units, float64(x)/float64(c[0].x), nil, 0), Scaled, []int{0}
	}
	basis = Between
	if i == 0 || i == n {
		basis = Beyond
	}
	i = min(max(i, 1), n-1)
	lo, hi := c[i-1], c[i]
	w := float64(x-lo.x) / float64(hi.x-lo.x)
	if us = combine(lo.units, 1-w, hi.units, w); us == nil {
		return nil, NotMeasured, nil
	}
	return us, basis, []int{i - 1, i}
}

// combine is a·v + b·w for the units that both have, or a·v where ws is nil. It
// is nil if some time comes out at zero or less: then the line does not hold.
func combine(vs []stats.Unit, a float64, ws []stats.Unit, b float64) []stats.Unit {
	by := map[stats.UnitKey]float64{}
	for _, w := range ws {
		by[w.Key] = w.Value
	}
	var out []stats.Unit
	for _, v := range vs {
		w, both := by[v.Key]
		if ws != nil && !both {
			continue
		}
		u := stats.Unit{Key: v.Key, N: v.N, Value: a*v.Value + b*w}
		if u.Value <= 0 {
			return nil
		}
		out = append(out, u)
	}
	return out
}
