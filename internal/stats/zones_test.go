package stats

import (
	"math"
	"slices"
	"testing"
)

func TestStanding(t *testing.T) {
	ten := func(ratio, spread float64) Verdict {
		a, b := make([]float64, 10), make([]float64, 10)
		for i := range a {
			a[i], b[i] = 100, 100*ratio*(1+spread*wave(i))
		}
		v, err := ComparePaired(a, b, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	few, err := ComparePaired([]float64{1, 1, 1, 1, 1}, []float64{2, 2, 2, 2, 2}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		v    Verdict
		want Standing
	}{
		{"B takes half as long again", ten(1.5, .01), AFaster},
		{"A does", ten(1/1.5, .01), BFaster},
		{"different by 2 %, which does not matter", ten(1.02, .001), Equal},
		{"the same, and known well", ten(1, .01), Equal},
		{"the same, as far as one sees", ten(1, .2), Undecided},
		{"five blocks", few, Undecided},
		{"no blocks", Verdict{Ratio: math.NaN()}, Undecided},
	}
	for _, c := range tests {
		if got := c.v.Standing(0.05); got != c.want {
			t.Errorf("%s: %v, want %v (%v)", c.name, got, c.want, c.v)
		}
		if c.want.Turned().Turned() != c.want {
			t.Errorf("%v turned twice", c.want)
		}
	}
}

// TestZones: what the zones and turns of some standings are, by hand.
func TestZones(t *testing.T) {
	const u, e, a, b = Undecided, Equal, AFaster, BFaster
	tests := []struct {
		name  string
		at    []Standing
		zones []Zone
		turns []Turn
	}{
		{"nothing", nil, nil, nil},
		{"one side", []Standing{a, a, a}, []Zone{{1, 4, 3, a}}, nil},
		{"a crossing", []Standing{a, a, e, b}, []Zone{{1, 2, 2, a}, {4, 4, 1, e}, {8, 8, 1, b}}, []Turn{{2, 8, a}}},
		{"two crossings", []Standing{a, b, b, u, e, a}, []Zone{{1, 1, 1, a}, {2, 4, 2, b}, {8, 8, 1, u}, {16, 16, 1, e}, {32, 32, 1, a}}, []Turn{{1, 2, a}, {4, 32, b}}},
		{"a gap is no crossing", []Standing{a, u, a}, []Zone{{1, 1, 1, a}, {2, 2, 1, u}, {4, 4, 1, a}}, nil},
	}
	for _, c := range tests {
		var at []SizeStanding
		for i, s := range c.at {
			at = append(at, SizeStanding{1 << i, s})
		}
		zones := Zones(at)
		if !slices.Equal(zones, c.zones) {
			t.Errorf("%s: zones %v, want %v", c.name, zones, c.zones)
		}
		if got := Turns(zones); !slices.Equal(got, c.turns) {
			t.Errorf("%s: turns %v, want %v", c.name, got, c.turns)
		}
	}
}

var fine = []int64{1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24}

// switching is a sweep of a transport that takes another protocol from the index at on.
func switching(at int, sizes []int64, blocks int, noise float64) []CostPoint {
	return append(lines(5e3, 1, noise, blocks, sizes[:at]...), lines(40e3, .25, noise, blocks, sizes[at:]...)...)
}

func TestFitSegments(t *testing.T) {
	tests := []struct {
		name   string
		points []CostPoint
		from   []int64 // first sizes of the segments
		lines  []bool
	}{
		{"a line", lines(20e3, 1, .01, 10, fine...), []int64{1 << 10}, []bool{true}},
		{"a noisy line", lines(20e3, 1, .2, 10, fine...), []int64{1 << 10}, []bool{true}},
		{"an exact line", lines(20e3, 1, 0, 10, fine...), []int64{1 << 10}, []bool{true}},
		{"a switch in the middle", switching(4, fine, 10, .02), []int64{1 << 10, 1 << 18}, []bool{true, true}},
		{"the earliest switch", switching(3, fine, 10, .02), []int64{1 << 10, 1 << 16}, []bool{true, true}},
		{"an exact switch", switching(5, fine, 10, 0), []int64{1 << 10, 1 << 20}, []bool{true, true}},
		{"too few sizes for two lines", switching(2, fine[2:7], 10, .01), []int64{1 << 14}, []bool{false}},
	}
	for _, c := range tests {
		got, err := FitSegments(c.points, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		var from []int64
		var line []bool
		for _, m := range got {
			from, line = append(from, m.MinBytes), append(line, m.Line())
		}
		if !slices.Equal(from, c.from) || !slices.Equal(line, c.lines) {
			t.Errorf("%s: segments from %v, lines %v; want %v, %v", c.name, from, line, c.from, c.lines)
		}
	}
	m, err := FitSegments(switching(4, fine, 10, 0), 0.95)
	if err != nil || len(m) != 2 {
		t.Fatal(len(m), err)
	}
	near(t, "α of the first", m[0].AlphaNS, 5e3, 1e-6)
	near(t, "1/β of the first", m[0].NSPerByte, 1, 1e-9)
	near(t, "α of the second", m[1].AlphaNS, 40e3, 1e-6)
	near(t, "1/β of the second", m[1].NSPerByte, .25, 1e-9)
}

// TestOneBadBlock: a burst of other load in one block of one size is noise, which
// speaks against no line.
func TestOneBadBlock(t *testing.T) {
	ps := lines(20e3, 1, .02, 10, fine...)
	for i := range ps {
		if ps[i].Block == 3 && ps[i].Bytes == 1<<16 {
			ps[i].TimeNS *= 8
		}
	}
	ms, err := FitSegments(ps, 0.95)
	if err != nil || len(ms) != 1 || !ms[0].Line() {
		t.Errorf("%d segments, %v, %v", len(ms), ms[0].Warnings, err)
	}
}
