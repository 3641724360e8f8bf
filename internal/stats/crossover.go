package stats

import (
	"fmt"
	"math"
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
	return nil
}

// sign returns who is faster at n by the estimate alone.
func (c *Crossover) sign(n float64) Side {
	d := 0.0
	for _, p := range c.diff {
		d += p[0] + n*p[1]
	}
	switch {
	case d < 0:
		return SideA
	case d > 0:
		return SideB
	default:
		return Neither
	}
}
