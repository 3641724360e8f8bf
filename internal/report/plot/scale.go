// Package plot draws the figures of HTML reports as inline SVG. Colours are CSS
// classes (s0, s1, … for series), so that one drawing serves light, dark and
// print; every figure has a title and a description for who cannot see it.
package plot

import (
	"math"
	"slices"
	"strconv"
)

// Scale maps values of an axis to coordinates.
type Scale struct {
	lo, hi   float64 // values
	from, to float64 // coordinates
	log      bool
}

// NewScale covers lo to hi; a logarithmic one needs both above zero. An empty
// range is widened.
func NewScale(lo, hi, from, to float64, log bool) Scale {
	if log {
		if !(lo > 0) {
			lo = 1
		}
		if !(hi > lo) {
			hi = lo * 2
		}
	} else if !(hi > lo) {
		hi = lo + 1
	}
	return Scale{lo, hi, from, to, log}
}

// At is the coordinate of v, held within the axis.
func (s Scale) At(v float64) float64 {
	var f float64
	if s.log {
		f = math.Log(math.Max(v, math.SmallestNonzeroFloat64)/s.lo) / math.Log(s.hi/s.lo)
	} else {
		f = (v - s.lo) / (s.hi - s.lo)
	}
	if math.IsNaN(f) {
		f = 0
	}
	return s.from + math.Min(math.Max(f, 0), 1)*(s.to-s.from)
}

// Tick is a mark on an axis.
type Tick struct {
	At    float64
	Label string // "" for a minor tick
}

// Linear returns at most n round ticks within lo to hi.
func Linear(lo, hi float64, n int, label func(float64) string) []Tick {
	if !(hi > lo) || n < 1 {
		return nil
	}
	raw := (hi - lo) / float64(n)
	step := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if step*m >= raw*(1-1e-9) {
			step *= m
			break
		}
	}
	var out []Tick
	for i := math.Ceil(lo/step - 1e-9); i*step <= hi*(1+1e-12); i++ {
		v := i*step + 0 // no -0
		out = append(out, Tick{v, label(v)})
	}
	return out
}

// Log returns the powers of base within lo to hi, thinned to at most n labels.
func Log(lo, hi, base float64, n int, label func(float64) string) []Tick {
	if !(lo > 0) || !(hi > lo) || base <= 1 || n < 1 {
		return nil
	}
	first := int(math.Ceil(math.Log(lo)/math.Log(base) - 1e-9))
	last := int(math.Floor(math.Log(hi)/math.Log(base) + 1e-9))
	every := 1
	for (last-first)/every+1 > n {
		every++
	}
	var out []Tick
	for k := first; k <= last; k++ {
		v := math.Pow(base, float64(k))
		t := Tick{At: v}
		if (k-first)%every == 0 {
			t.Label = label(v)
		}
		out = append(out, t)
	}
	if len(out) < 2 { // a narrow range: round steps say more than one power
		return Linear(lo, hi, n, label)
	}
	return out
}

// c writes a coordinate with a tenth of a pixel.
func c(f float64) string { return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64) }

// Range is the stretch of values that an axis shows.
type Range struct {
	Lo, Hi float64
	Log    bool
}

// Robust is the range of rows of values that one outlier does not flatten. Values
// further than three interquartile ranges from the quartiles of their row lie
// beyond it, if they are at most a tenth of the row (or one value) and the axis
// would have to be more than twice as long for them. A range of positive values
// over a factor of 50 is logarithmic.
func Robust(rows ...[]float64) Range {
	full, kept := empty(), empty()
	for _, vs := range rows {
		vs = slices.Clone(vs)
		slices.Sort(vs)
		for len(vs) > 0 && math.IsNaN(vs[0]) {
			vs = vs[1:] // a NaN sorts first
		}
		if len(vs) == 0 {
			continue
		}
		full = full.and(vs[0], vs[len(vs)-1])
		lo, hi := fences(vs)
		kept = kept.and(vs[lo], vs[hi-1])
	}
	if full.Lo > full.Hi {
		return Range{Hi: 1}
	}
	out := kept
	if full.spread() <= 2*kept.spread() {
		out = full
	}
	if out.Log = decades(out); out.Log {
		if full.Lo > 0 && math.Log(full.Hi/full.Lo) <= 2*math.Log(kept.Hi/kept.Lo) {
			out.Lo, out.Hi = full.Lo, full.Hi
		}
	}
	return out
}

func decades(r Range) bool { return r.Lo > 0 && r.Hi > 50*r.Lo }

func empty() Range { return Range{Lo: math.Inf(1), Hi: math.Inf(-1)} }

func (r Range) and(lo, hi float64) Range {
	return Range{Lo: math.Min(r.Lo, lo), Hi: math.Max(r.Hi, hi)}
}

func (r Range) spread() float64 { return r.Hi - r.Lo }

// fences are the indices in sorted values between which no outlier lies.
func fences(vs []float64) (lo, hi int) {
	n := len(vs)
	q1, q3 := vs[n/4], vs[n-1-n/4]
	if q1 == q3 { // a coarse clock: half of the values are one
		q1, q3 = vs[n/10], vs[n-1-n/10]
	}
	reach := 3 * (q3 - q1)
	lo, _ = slices.BinarySearch(vs, q1-reach)
	hi, _ = slices.BinarySearchFunc(vs, q3+reach, func(v, t float64) int {
		if v <= t {
			return -1
		}
		return 1
	})
	if n < 4 || q1 == q3 || lo+n-hi > max(1, n/10) {
		return 0, n
	}
	return lo, hi
}

// Margin widens a range by a share of itself on either side.
func (r Range) Margin(share float64) Range {
	if r.Log {
		f := math.Max(math.Pow(r.Hi/r.Lo, share), 1.05)
		return Range{r.Lo / f, r.Hi * f, true}
	}
	d := r.spread() * share
	if d == 0 {
		d = math.Max(math.Abs(r.Hi)*share, math.SmallestNonzeroFloat64)
	}
	return Range{Lo: r.Lo - d, Hi: r.Hi + d}
}

// Times is the range of f times its values.
func (r Range) Times(f float64) Range { return Range{r.Lo * f, r.Hi * f, r.Log} }
