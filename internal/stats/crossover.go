package stats

import (
	"fmt"
	"math"
	"slices"
)

// CrossoverKind is the answer to "from which size on does B win?".
type CrossoverKind int

const (
	// CrossesAt: the lines cross inside the measured range and the interval of the
	// crossing is bounded.
	CrossesAt CrossoverKind = iota + 1
	// NoneInRange: no crossing within the measured sizes; Faster says who wins
	// throughout, unless a warning says that the interval reaches into the range.
	NoneInRange
	// Unbounded: the slopes are not separated, so the set of sizes compatible
	// with a crossing has no end on one side or on both.
	Unbounded
)

// String returns the kind as reports print it.
func (k CrossoverKind) String() string {
	switch k {
	case CrossesAt:
		return "crosses"
	case NoneInRange:
		return "none in range"
	case Unbounded:
		return "unbounded"
	default:
		return "unknown"
	}
}

// Side names the faster of the two transports of a [Crossover].
type Side int

const (
	// Neither is faster by a difference that is both significant and relevant.
	Neither Side = iota
	// SideA is the first transport.
	SideA
	// SideB is the second transport.
	SideB
)

// Crossover is where the cost lines of transports A and B meet.
type Crossover struct {
	Kind CrossoverKind
	// Bytes is the estimate n* = (α_B-α_A)/(1/β_A-1/β_B), also outside of the
	// range; NaN when the slopes are equal.
	Bytes float64
	// Interval of n* in bytes, bounded for CrossesAt. For Unbounded an end is
	// ±Inf where there is none. Nil when no size at all is compatible with a
	// crossing (parallel lines).
	Interval *Interval
	// Faster is the winner of the whole range for NoneInRange, else Neither.
	Faster Side
	// MinBytes and MaxBytes are the sizes that both sweeps cover.
	MinBytes, MaxBytes int64
	Blocks             int
	Warnings           []Warning

	diff [][]float64 // block → (α_A-α_B, 1/β_A-1/β_B)
	a, b CostModel
}

// FindCrossover computes where t_A(n) = t_B(n), at level, from two fits over the
// same blocks.
//
// Method: D(n) = (α_A-α_B) + n·(1/β_A-1/β_B) is a mean over blocks (see
// [FitCost]), so the sizes at which D is not told from zero by Student's t
// with Blocks-1 degrees of freedom are a confidence set for n*: Fieller's, on
// the jackknife over blocks (Fieller, JRSS B 16 (1954) 175). It is exact for
// normal block effects, needs no seed, and is unbounded exactly when the data
// do not bound n*, which resampled percentiles hide.
//
// Both fits must be without γ or the comparison be at the same descriptor count,
// then γ·descriptors is added to α: pass that count, 0 without γ.
func FindCrossover(a, b CostModel, descriptors int64) (Crossover, error) {
	c := Crossover{a: a, b: b, MinBytes: max(a.MinBytes, b.MinBytes), MaxBytes: min(a.MaxBytes, b.MaxBytes)}
	if descriptors < 0 {
		return c, optionError("descriptors", float64(descriptors))
	}
	if len(a.perBlock) == 0 || len(b.perBlock) == 0 {
		return c, fmt.Errorf("stats: crossover of a model that FitCost did not make: %w", ErrEmpty)
	}
	if a.level != b.level {
		return c, fmt.Errorf("stats: crossover of fits at levels %v and %v: %w", a.level, b.level, ErrOption)
	}
	if c.MinBytes >= c.MaxBytes {
		return c, fmt.Errorf("stats: crossover: the sweeps share no range of sizes (%d–%d and %d–%d bytes): %w",
			a.MinBytes, a.MaxBytes, b.MinBytes, b.MaxBytes, ErrOption)
	}
	at := map[int][]float64{}
	for i, id := range b.blockIDs {
		at[id] = b.perBlock[i]
	}
	for i, id := range a.blockIDs {
		if q, ok := at[id]; ok {
			p := a.perBlock[i]
			c.diff = append(c.diff, []float64{intercept(p, descriptors) - intercept(q, descriptors), p[1] - q[1]})
		}
	}
	c.Blocks = len(c.diff)
	if c.Blocks < 3 {
		return c, fmt.Errorf("stats: crossover: the fits share %d complete blocks, need 3: %w", c.Blocks, ErrTooFew)
	}
	if err := c.solve(); err != nil {
		return Crossover{}, err
	}
	return c, nil
}

func intercept(p []float64, descriptors int64) float64 {
	if len(p) == 3 {
		return p[0] + p[2]*float64(descriptors)
	}
	return p[0]
}

func (c *Crossover) solve() error {
	lo, hi := float64(c.MinBytes), float64(c.MaxBytes)
	level := c.a.level
	// In units of hi and of the largest coefficients, so that nothing dwarfs or
	// overflows the squares.
	p, q := make([]float64, c.Blocks), make([]float64, c.Blocks)
	for i, d := range c.diff {
		p[i], q[i] = d[0], -d[1]*hi
	}
	p, q, back := scaleShare(p, q)
	f := fieller(p, q, level)
	f.ratio, f.lo, f.hi = f.ratio*back*hi, f.lo*back*hi, f.hi*back*hi
	if math.IsNaN(f.lo) || math.IsNaN(f.hi) {
		return fmt.Errorf("stats: crossover: the coefficients leave the range of a float: %w", ErrNotFinite)
	}
	c.Bytes = f.ratio
	if f.empty {
		c.Kind, c.Faster = NoneInRange, c.sign(hi)
		return nil
	}
	c.Interval = &Interval{Lo: f.lo, Hi: f.hi, Level: level}
	touches := f.touches(lo, hi)
	inside := c.Bytes >= lo && c.Bytes <= hi
	switch {
	case !touches:
		c.Kind, c.Faster = NoneInRange, c.sign(hi)
	case !f.bounded:
		c.Kind = Unbounded
		if f.outside { // two rays: only the ones within the range concern us
			left, right := f.lo >= lo, f.hi <= hi
			switch {
			case right && !left:
				c.Interval.Lo, c.Interval.Hi = f.hi, math.Inf(1)
			case left && !right:
				c.Interval.Lo, c.Interval.Hi = math.Inf(-1), f.lo
			default:
				c.Interval.Lo, c.Interval.Hi = math.Inf(-1), math.Inf(1)
			}
		}
		c.Warnings = append(c.Warnings, Warning{"crossover-unbounded",
			"the two slopes are not separated, so the crossing is not bounded: add larger sizes or blocks"})
	case inside:
		c.Kind = CrossesAt
		if c.Interval.Lo < lo || c.Interval.Hi > hi {
			c.Warnings = append(c.Warnings, Warning{"crossover-extrapolated",
				fmt.Sprintf("the interval of the crossing leaves the measured sizes %d–%d bytes: extend the sweep", c.MinBytes, c.MaxBytes)})
		}
	default:
		c.Kind = NoneInRange
		c.Warnings = append(c.Warnings, Warning{"crossover-near-range",
			fmt.Sprintf("the lines cross outside of the measured sizes, at about %.4g bytes, but the interval reaches into them: extend the sweep", c.Bytes)})
	}
	for _, m := range []CostModel{c.a, c.b} {
		for _, w := range m.Warnings {
			if w.Code == "not-a-line" && !slices.Contains(c.Warnings, w) {
				c.Warnings = append(c.Warnings, w)
			}
		}
	}
	return nil
}

// at returns the mean and standard error of D(n) = t_A - t_B over blocks.
func (c *Crossover) at(n float64) (d, se float64) {
	xs := make([]float64, len(c.diff))
	for i, p := range c.diff {
		xs[i] = p[0] + n*p[1]
	}
	m, v := meanVar(xs)
	return m, math.Sqrt(v / float64(len(xs)))
}

// sign returns who is faster at n by the estimate alone.
func (c *Crossover) sign(n float64) Side {
	d, _ := c.at(n)
	switch {
	case d < 0:
		return SideA
	case d > 0:
		return SideB
	default:
		return Neither
	}
}

// Zone is a range of sizes with one piece of advice.
type Zone struct {
	FromBytes, ToBytes int64
	Use                Side
}

// Guideline is the advice drawn from a crossover: below X use one, above Y the
// other, between them no difference that matters.
type Guideline struct {
	// Zones cover the measured range in order of size.
	Zones []Zone
	// Threshold is the relative difference that matters, as a fraction.
	Threshold float64
}

// Guide cuts the measured range into zones. A zone recommends a side where the
// difference of the lines is separated from zero at the fits' level and is at
// least the fraction threshold of the faster time (0.05 for 5 %; 0 for any).
// Borders are found by bisection on a logarithmic grid, to one byte.
func (c Crossover) Guide(threshold float64, descriptors int64) (Guideline, error) {
	if !(threshold >= 0) || math.IsInf(threshold, 0) {
		return Guideline{}, optionError("threshold", threshold)
	}
	if len(c.diff) == 0 {
		return Guideline{}, fmt.Errorf("stats: guideline of a crossover that FindCrossover did not make: %w", ErrEmpty)
	}
	t := tQuantile(c.a.level, c.Blocks-1)
	use := func(n int64) Side {
		d, se := c.at(float64(n))
		faster := math.Min(c.a.TimeNS(n, descriptors), c.b.TimeNS(n, descriptors))
		if math.Abs(d) <= t*se || math.Abs(d) < threshold*faster {
			return Neither
		}
		return c.sign(float64(n))
	}
	g := Guideline{Threshold: threshold}
	const steps = 256
	lo := math.Max(1, float64(c.MinBytes))
	prev := c.MinBytes
	zone := Zone{FromBytes: prev, ToBytes: c.MaxBytes, Use: use(prev)}
	for i := 1; i <= steps; i++ {
		n := int64(math.Round(lo * math.Pow(float64(c.MaxBytes)/lo, float64(i)/steps)))
		n = min(max(n, prev), c.MaxBytes)
		if i == steps {
			n = c.MaxBytes
		}
		if u := use(n); u != zone.Use {
			a, b := prev, n // use(a) is the zone's, use(b) is not
			for b-a > 1 {
				if mid := a + (b-a)/2; use(mid) == zone.Use {
					a = mid
				} else {
					b = mid
				}
			}
			zone.ToBytes = a
			g.Zones = append(g.Zones, zone)
			zone = Zone{FromBytes: b, ToBytes: c.MaxBytes, Use: use(b)}
			if zone.Use != u { // a zone narrower than a step
				i--
				n = b
			}
		}
		prev = n
	}
	g.Zones = append(g.Zones, zone)
	return g, nil
}

// Text returns the guideline as one sentence, with a and b naming the sides and
// format turning bytes into text.
func (g Guideline) Text(a, b string, format func(bytes int64) string) string {
	name := map[Side]string{SideA: a, SideB: b}
	s := ""
	for i, z := range g.Zones {
		if i > 0 {
			s += ", "
		}
		switch {
		case len(g.Zones) == 1:
			s += fmt.Sprintf("from %s to %s ", format(z.FromBytes), format(z.ToBytes))
		case i == 0:
			s += fmt.Sprintf("up to %s ", format(z.ToBytes))
		case i == len(g.Zones)-1:
			s += fmt.Sprintf("from %s ", format(z.FromBytes))
		default:
			s += fmt.Sprintf("between %s and %s ", format(z.FromBytes), format(z.ToBytes))
		}
		if z.Use == Neither {
			s += "no difference that matters"
		} else {
			s += "use " + name[z.Use]
		}
	}
	return s
}
