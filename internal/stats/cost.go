package stats

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat/distuv"
)

// CostPoint is one unit of a sweep: the median time of one condition in one block.
// Conditions of the same bytes and descriptors are one cell of the model.
type CostPoint struct {
	Block       int
	Bytes       int64
	Descriptors int64 // 0 where the descriptor count is not part of the sweep
	TimeNS      float64
}

// CostModel is t = α + n/β (+ γ·descriptors), the postal model of a transport
// (Hockney 1994), in ns and bytes.
type CostModel struct {
	// AlphaNS is the start-up time; its interval may reach below zero.
	AlphaNS   float64
	AlphaCI   Interval
	NSPerByte float64 // 1/β
	// NSPerByteCI belongs to NSPerByte.
	NSPerByteCI Interval
	// GammaNS is the time per descriptor; GammaCI is nil when the sweep did not
	// vary the descriptor count and GammaNS is then 0.
	GammaNS float64
	GammaCI *Interval
	// MinBytes and MaxBytes are the range of sizes that the fit rests on.
	MinBytes, MaxBytes int64
	// Blocks is the number of complete blocks; the intervals have Blocks-1
	// degrees of freedom.
	Blocks int
	// WorstResidual is the largest relative deviation of a cell's mean time
	// from the line, and WorstBytes where; it judges the model, not the noise.
	WorstResidual float64
	WorstBytes    int64
	Warnings      []Warning

	perBlock [][]float64 // block → coefficients (α, 1/β[, γ])
	blockIDs []int
	level    float64
}

// BytesPerSecond returns β and its interval. Hi is +Inf when the interval of
// 1/β reaches zero: the sweep is too noisy or too small to bound the rate.
func (m CostModel) BytesPerSecond() (beta float64, ci Interval) {
	ci = Interval{Lo: 1e9 / m.NSPerByteCI.Hi, Hi: math.Inf(1), Level: m.NSPerByteCI.Level}
	if m.NSPerByteCI.Lo > 0 {
		ci.Hi = 1e9 / m.NSPerByteCI.Lo
	}
	return 1e9 / m.NSPerByte, ci
}

// TimeNS is the model's time for n bytes in d descriptors.
func (m CostModel) TimeNS(n, d int64) float64 {
	return m.AlphaNS + float64(n)*m.NSPerByte + float64(d)*m.GammaNS
}

// Line tells whether the times lie on the model's line: no residual is both
// larger than 10 % and beyond the noise.
func (m CostModel) Line() bool {
	return !slices.ContainsFunc(m.Warnings, func(w Warning) bool { return w.Code == NotALine })
}

// NotALine is the code of the warning that the times do not lie on the line.
const NotALine = "not-a-line"

// worstLine is the relative deviation that a line may have.
const worstLine = 0.1

type cell struct{ bytes, desc int64 }

// MinCostBlocks is the fewest complete blocks of a cost model.
const MinCostBlocks = 3

// FitCost fits the cost model by least squares with relative weights: the squared
// error of each cell is divided by the square of the cell's median time, so
// that a 1 % error counts the same at 4 KiB and at 1 GiB.
//
// Blocks are the units. With the weights fixed, a fit is linear in the times, so
// the fit of all blocks is the mean of the fits of each, and the
// delete-one-block jackknife (Efron & Tibshirani 1993, ch. 11) reduces to the
// spread of these; the intervals are Student's t with Blocks-1 degrees of
// freedom on it. Nothing is drawn at random. γ is fitted when the descriptor
// count varies at fixed bytes.
//
// Several points of one cell in one block, conditions that coincide in bytes and
// descriptors, count as one: their mean, which keeps the fit linear in the times.
// Blocks that lack a point of any cell are left out with a warning. At least 3
// complete blocks and 2 sizes are needed; level 0.95 for 95 %.
func FitCost(points []CostPoint, level float64) (CostModel, error) {
	if err := checkLevel(level); err != nil {
		return CostModel{}, err
	}
	cells, blocks, incomplete, err := tabulate(points)
	if err != nil {
		return CostModel{}, err
	}
	m := CostModel{Blocks: len(blocks.ids), blockIDs: blocks.ids, level: level}
	if incomplete > 0 {
		m.Warnings = append(m.Warnings, Warning{"incomplete-blocks",
			fmt.Sprintf("%d of %d blocks lack a cell and are left out of the fit; resume the sweep to complete them", incomplete, incomplete+m.Blocks)})
	}
	if m.Blocks < MinCostBlocks {
		return CostModel{}, fmt.Errorf("stats: cost model from %d complete blocks, need %d: %w", m.Blocks, MinCostBlocks, ErrTooFew)
	}
	m.MinBytes, m.MaxBytes = cells[0].bytes, cells[len(cells)-1].bytes
	if m.MinBytes == m.MaxBytes {
		return CostModel{}, fmt.Errorf("stats: cost model from one size (%d bytes), need 2: %w", m.MinBytes, ErrTooFew)
	}
	perDesc := false
	for i := 1; i < len(cells); i++ {
		perDesc = perDesc || (cells[i].bytes == cells[i-1].bytes && cells[i].desc != cells[i-1].desc)
	}
	if err := m.solve(cells, blocks.times, perDesc); err != nil {
		return CostModel{}, err
	}
	m.judge(cells, blocks.times)
	return m, nil
}

type blockTable struct {
	ids   []int
	times [][]float64 // block → cell → ns
}

// tabulate sorts points into complete blocks: those that have as many points of each
// cell as any block has.
func tabulate(points []CostPoint) (cells []cell, t blockTable, incomplete int, err error) {
	if len(points) == 0 {
		return nil, t, 0, fmt.Errorf("stats: cost model: %w", ErrEmpty)
	}
	times := map[int]map[cell][]float64{}
	need := map[cell]int{}
	for i, p := range points {
		if p.Bytes < 0 || p.Descriptors < 0 {
			return nil, t, 0, fmt.Errorf("stats: cost point %d: %d bytes, %d descriptors: %w", i, p.Bytes, p.Descriptors, ErrNotPositive)
		}
		if err := checkPositive(fmt.Sprintf("cost point %d time", i), []float64{p.TimeNS}); err != nil {
			return nil, t, 0, err
		}
		c := cell{p.Bytes, p.Descriptors}
		if times[p.Block] == nil {
			times[p.Block] = map[cell][]float64{}
		}
		of := append(times[p.Block][c], p.TimeNS)
		times[p.Block][c] = of
		need[c] = max(need[c], len(of))
	}
	cells = slices.SortedFunc(maps.Keys(need), func(a, b cell) int {
		return cmp.Or(cmp.Compare(a.bytes, b.bytes), cmp.Compare(a.desc, b.desc))
	})
	for _, id := range slices.Sorted(maps.Keys(times)) {
		if slices.ContainsFunc(cells, func(c cell) bool { return len(times[id][c]) < need[c] }) {
			incomplete++
			continue
		}
		row := make([]float64, len(cells))
		for k, c := range cells {
			row[k], _ = meanVar(times[id][c])
		}
		t.ids, t.times = append(t.ids, id), append(t.times, row)
	}
	return cells, t, incomplete, nil
}

// solve fills the coefficients, per block and overall, and their intervals.
func (m *CostModel) solve(cells []cell, times [][]float64, perDesc bool) error {
	p := 2
	if perDesc {
		p = 3
	}
	if len(cells) < p {
		return fmt.Errorf("stats: %d cells for %d coefficients: %w", len(cells), p, ErrTooFew)
	}
	// Columns are scaled to their largest value: bytes and 1 differ by 10^9.
	scale := []float64{1, float64(m.MaxBytes), 1}
	for _, c := range cells {
		scale[2] = math.Max(scale[2], float64(c.desc))
	}
	weight := make([]float64, len(cells))
	design := mat.NewDense(len(cells), p, nil)
	for k, c := range cells {
		col := make([]float64, len(times))
		for b := range times {
			col[b] = times[b][k]
		}
		weight[k] = 1 / medianSorted(sorted(col))
		for j, v := range []float64{1, float64(c.bytes), float64(c.desc)}[:p] {
			design.Set(k, j, v/scale[j]*weight[k])
		}
	}
	rhs := mat.NewDense(len(cells), len(times), nil)
	for b := range times {
		for k := range cells {
			rhs.Set(k, b, times[b][k]*weight[k])
		}
	}
	var qr mat.QR
	qr.Factorize(design)
	var coef mat.Dense
	if err := qr.SolveTo(&coef, false, rhs); err != nil {
		return fmt.Errorf("stats: cost model: the sizes and descriptor counts do not tell the coefficients apart: %w", err)
	}
	m.perBlock = make([][]float64, len(times))
	for b := range times {
		m.perBlock[b] = make([]float64, p)
		for j := range p {
			m.perBlock[b][j] = coef.At(j, b) / scale[j]
		}
	}
	var ci Interval
	m.AlphaNS, m.AlphaCI = m.coefficient(0)
	m.NSPerByte, m.NSPerByteCI = m.coefficient(1)
	if perDesc {
		m.GammaNS, ci = m.coefficient(2)
		m.GammaCI = &ci
	}
	for _, v := range []float64{m.AlphaCI.Lo, m.AlphaCI.Hi, m.NSPerByteCI.Lo, m.NSPerByteCI.Hi, m.GammaNS} {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("stats: cost model: a coefficient left the range of a float: %w", ErrNotFinite)
		}
	}
	return nil
}

func (m *CostModel) coefficient(j int) (float64, Interval) {
	xs := make([]float64, len(m.perBlock))
	for b := range xs {
		xs[b] = m.perBlock[b][j]
	}
	mean, v := meanVar(xs)
	h := tQuantile(m.level, len(xs)-1) * math.Sqrt(v/float64(len(xs)))
	return mean, Interval{Lo: mean - h, Hi: mean + h, Level: m.level}
}

// judge fills the residuals and the warnings about the model.
func (m *CostModel) judge(cells []cell, times [][]float64) {
	mean, noise := cellMeans(times)
	lack, free := 0.0, len(cells)-len(m.perBlock[0])
	for k, c := range cells {
		off := mean[k]/m.TimeNS(c.bytes, c.desc) - 1
		if math.Abs(off) > m.WorstResidual {
			m.WorstResidual, m.WorstBytes = math.Abs(off), c.bytes
		}
		if off != 0 {
			lack += off * off / (noise[k] / float64(m.Blocks))
		}
	}
	// Only what block noise does not explain speaks against the line: the F test for
	// lack of fit, each cell's noise known to Blocks-1 degrees of freedom.
	beyond := free > 0 && (math.IsInf(lack, 1) || distuv.F{D1: float64(free), D2: float64(m.Blocks - 1)}.CDF(lack/float64(free)) > m.level)
	if m.WorstResidual > worstLine && beyond {
		m.Warnings = append(m.Warnings, Warning{NotALine,
			fmt.Sprintf("at %d bytes the times are %.0f %% off the line α + n/β: the transport changes protocol within the range, or a cache ends there; add sizes around it, so that each part has %d",
				m.WorstBytes, m.WorstResidual*100, minLine)})
	}
	if m.AlphaCI.Hi < 0 {
		m.Warnings = append(m.Warnings, Warning{"negative-alpha",
			fmt.Sprintf("the fitted start-up time is negative (%.6g ns): time grows faster than bytes; the model does not hold over this range", m.AlphaNS)})
	}
	if m.NSPerByteCI.Lo <= 0 {
		m.Warnings = append(m.Warnings, Warning{"rate-unbounded",
			"the time per byte is not separated from zero: add larger sizes or blocks to bound the rate"})
	}
}

// tQuantile is the two-sided Student quantile for a level.
func tQuantile(level float64, df int) float64 {
	return distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(df)}.Quantile((1 + level) / 2)
}
