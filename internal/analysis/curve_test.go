package analysis

import (
	"slices"
	"testing"

	"github.com/xferbench/xferbench/internal/stats"
)

func unitsOf(launch int, values ...float64) (us []stats.Unit) {
	for b, v := range values {
		us = append(us, stats.Unit{Key: stats.UnitKey{Launch: launch, Block: b}, Value: v, N: 1})
	}
	return us
}

// Values by hand: block 0 is the line 100 + x/10, block 1 the line 200 + x/5.
func TestCurve(t *testing.T) {
	c := newCurve([]curvePoint{
		{4000, unitsOf(0, 500, 1000, 9)}, // block 2 has no partner
		{1000, unitsOf(0, 200, 400)},
		{1000, unitsOf(0, 1, 1)}, // the same size once more: the first counts
	})
	one := newCurve([]curvePoint{{1000, unitsOf(0, 200, 400)}})
	steep := newCurve([]curvePoint{{1000, unitsOf(0, 1)}, {1100, unitsOf(0, 1000)}})
	for name, tt := range map[string]struct {
		c     curve
		x     int64
		basis Basis
		want  []float64
		from  []int
	}{
		"measured":          {c, 1000, Measured, []float64{200, 400}, []int{0}},
		"measured, last":    {c, 4000, Measured, []float64{500, 1000, 9}, []int{1}},
		"between":           {c, 2000, Between, []float64{300, 600}, []int{0, 1}},
		"above":             {c, 8000, Beyond, []float64{900, 1800}, []int{0, 1}},
		"too far above":     {c, 8001, NotMeasured, nil, nil},
		"below":             {c, 500, Beyond, []float64{150, 300}, []int{0, 1}},
		"too far below":     {c, 499, NotMeasured, nil, nil},
		"nothing to move":   {c, 0, NotMeasured, nil, nil},
		"no point":          {nil, 1000, NotMeasured, nil, nil},
		"one size":          {one, 1500, Scaled, []float64{300, 600}, []int{0}},
		"far from one size": {one, 2001, NotMeasured, nil, nil},
		"below zero":        {steep, 900, NotMeasured, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			us, basis, from := tt.c.at(tt.x)
			if got := stats.Values(us); basis != tt.basis || !slices.Equal(got, tt.want) || !slices.Equal(from, tt.from) {
				t.Errorf("%v %v from %v, want %v %v from %v", basis, got, from, tt.basis, tt.want, tt.from)
			}
		})
	}
}
