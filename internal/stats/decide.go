package stats

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// maxDecide is the number of units from which [Verdict.UnitsToDecide] gives up.
const maxDecide = 1000

// UnitsToDecide is how many units each side needs for the interval of the ratio to
// lie wholly on one side of limit (a ratio above 0) 8 times in 10, if the ratio
// and the spread are what this comparison of two records saw. It is at least Need,
// and 0 where more than 1,000 would be needed: the ratio is the limit as far as
// can be told.
//
// The width is that of Student's interval of two samples of n logs each, as for
// MDE: z_0.8 + t_(1-α/2) standard errors of log-ratio between ratio and limit.
func (v Verdict) UnitsToDecide(limit float64) int {
	least := max(v.Need, MinRankCI)
	if math.IsNaN(v.Ratio) {
		return least
	}
	gap := math.Abs(math.Log(v.Ratio) - math.Log(limit))
	for n := least; n <= maxDecide; n++ {
		t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(2*n - 2)}
		if (t.Quantile(1-v.alpha/2)+distuv.UnitNormal.Quantile(0.8))*v.LogSD*math.Sqrt(2/float64(n)) <= gap {
			return n
		}
	}
	return 0
}
