// Package plot draws the figures of HTML reports as inline SVG. Colours are CSS
// classes (s0, s1, … for series), so that one drawing serves light, dark and
// print; every figure has a title and a description for who cannot see it.
package plot

import (
	"math"
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
