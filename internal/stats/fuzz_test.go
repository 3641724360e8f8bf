package stats

import (
	"encoding/binary"
	"math"
	"testing"
)

// floats reads any bit pattern, NaN, infinities and denormals included.
func floats(raw []byte) []float64 {
	if len(raw) > 8*300 {
		raw = raw[:8*300]
	}
	var xs []float64
	for ; len(raw) >= 8; raw = raw[8:] {
		xs = append(xs, math.Float64frombits(binary.LittleEndian.Uint64(raw)))
	}
	return xs
}

func bytesOf(xs ...float64) []byte {
	var b []byte
	for _, x := range xs {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	}
	return b
}

// FuzzEstimators feeds every estimator with arbitrary floats: an error or a
// result in order, never a panic.
func FuzzEstimators(f *testing.F) {
	f.Add(bytesOf(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12), uint8(3))
	f.Add(bytesOf(math.NaN(), math.Inf(1), -1, 0), uint8(1))
	f.Add(bytesOf(math.MaxFloat64, 5e-324, math.MaxFloat64, 5e-324, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), uint8(4))
	f.Add([]byte{}, uint8(0))
	f.Fuzz(func(t *testing.T, raw []byte, step uint8) {
		xs := floats(raw)
		in := func(what string, iv *Interval, v float64) {
			if iv != nil && !(iv.Lo <= iv.Hi) {
				t.Errorf("%s: interval %v of %v", what, *iv, v)
			}
		}
		if s, err := Summarize(xs, 0.95); err == nil {
			in("median", s.CI, s.Median)
			if !(s.Min <= s.Median && s.Median <= s.Max) {
				t.Errorf("median %v outside %v–%v", s.Median, s.Min, s.Max)
			}
		}
		if q, err := Quantile(xs, 0.9); err == nil && math.IsNaN(q.Value) {
			t.Errorf("quantile %+v", q)
		}
		if st, err := Classify(xs); err == nil && st.Class != Unclassified && (st.Start < 0 || st.Start >= len(xs) || st.Segments[len(st.Segments)-1].End != len(xs)) {
			t.Errorf("classify: %+v", st)
		}
		if ac, err := Autocorrelate(xs); err == nil && !(math.Abs(ac.Rho) <= 1+1e-9 && ac.Effective >= -1e-9) {
			t.Errorf("autocorrelation %+v", ac)
		}
		if sf, err := SignFlipTest(xs[:min(len(xs), 12)], 1); err == nil && !(sf.P > 0 && sf.P <= 1) {
			t.Errorf("sign-flip %+v", sf)
		}
		h := len(xs) / 2
		a, b := xs[:min(h, 12)], xs[h:][:min(h, 12)]
		if v, err := ComparePaired(a, b, Options{}); err == nil && len(a) > 0 {
			in("paired", v.Interval, v.Ratio)
			if math.IsNaN(v.Ratio) || math.IsNaN(v.MDE) || math.IsNaN(v.P) {
				t.Errorf("paired %+v", v)
			}
		}
		if v, err := CompareUnpaired(a, b, Options{}); err == nil && len(a) > 0 {
			in("unpaired", v.Interval, v.Ratio)
			if math.IsNaN(v.Ratio) || math.IsNaN(v.MDE) || !(v.P > 0 && v.P <= 1) {
				t.Errorf("unpaired %+v", v)
			}
		}
		for set := range 2 {
			x, y := []Term{{1, a, 0}}, []Term{{-1, b, set}}
			if s, err := ShareOf(x, y, 0.95); err == nil {
				in("share", s.Interval, s.Value)
			}
			if e, err := Contrast(append(x, y...), 0.95); err == nil {
				in("contrast", e.Interval, e.Value)
			}
		}
		if w, err := UntilRatioWidth(a, b, 0.1, Options{}); err == nil {
			in("width", w.Interval, w.Estimate)
		}
		sizes := int(step%4) + 1
		points := func(xs []float64) (ps []CostPoint) {
			for i, x := range xs {
				ps = append(ps, CostPoint{Block: i / sizes, Bytes: int64(i%sizes) << (step % 40), Descriptors: int64(step % 3), TimeNS: x})
			}
			return ps
		}
		ma, errA := FitCost(points(xs[:h]), 0.95)
		mb, errB := FitCost(points(xs[h:]), 0.95)
		if errA != nil || errB != nil {
			return
		}
		c, err := FindCrossover(ma, mb, int64(step%3))
		if err != nil {
			return
		}
		in("crossover", c.Interval, c.Bytes)
		segments, err := FitSegments(points(xs[:h]), 0.95)
		if err != nil || segments[0].MinBytes != ma.MinBytes || segments[len(segments)-1].MaxBytes != ma.MaxBytes {
			t.Errorf("segments %+v of %+v, %v", segments, ma, err)
		}
	})
}
