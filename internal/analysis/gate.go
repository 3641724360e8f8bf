package analysis

import (
	"fmt"

	"github.com/xferbench/xferbench/internal/stats"
)

// Standing is how a row of two records stands to a threshold.
type Standing string

// Standings. A row passes as Within alone.
const (
	// Within: the whole interval of the ratio is at most 1 + threshold.
	Within Standing = "within"
	// Slower: the test finds a difference and the whole interval is above it.
	Slower Standing = "slower"
	// Undecided: the interval holds the threshold, or there are too few units for one.
	Undecided Standing = "undecided"
	// Missing: B, or A, has no such row or nothing measured in it.
	Missing Standing = "missing"
	// CheckFailed: a data check failed in A or B.
	CheckFailed Standing = "failed"
	// Unjudged: a ceiling, which tells of the hosts, or a row that only B has.
	Unjudged Standing = ""
)

// Gate is what a threshold makes of two records.
type Gate struct {
	// Threshold is the relative slowdown that is accepted, above 0.
	Threshold float64
	// Rows are those of the comparison, in its order.
	Rows []GateRow
	// Incomplete say of A, then B, that its run did not end in order: "A was cut off…".
	Incomplete []string
}

// GateRow is one row and how it stands.
type GateRow struct {
	*Delta
	Standing Standing
	// Need is, of an undecided row, how many blocks or launches each record would have
	// to have for a decision 8 times in 10; 0 when more than 1,000.
	Need int
}

// Judge holds every row against a threshold.
func (r *Runs) Judge(threshold float64) *Gate {
	g := &Gate{Threshold: threshold}
	for i, s := range []*Source{r.A, r.B} {
		if why := s.Unfinished(); why != "" && !EndedOverCheck(s.Record) {
			g.Incomplete = append(g.Incomplete, string("AB"[i])+" "+why)
		}
	}
	for _, d := range r.Rows {
		row := GateRow{Delta: d, Standing: d.standing(threshold)}
		if row.Standing == Undecided {
			row.Need = d.Verdict.UnitsToDecide(1 + threshold)
		}
		g.Rows = append(g.Rows, row)
	}
	return g
}

func (d *Delta) standing(threshold float64) Standing {
	v := d.Verdict
	switch {
	case d.Failed():
		return CheckFailed
	case d.Ceiling() || d.A == nil:
		return Unjudged
	case d.B == nil || d.A.N == 0 || d.B.N == 0:
		return Missing
	case d.Refused != "" || v.Kind == stats.TooFew || v.Interval == nil:
		return Undecided
	case v.Interval.Hi <= 1+threshold:
		return Within
	case v.Kind == stats.Different && v.Interval.Lo > 1+threshold:
		return Slower
	}
	return Undecided
}

// Of are the rows of a standing.
func (g *Gate) Of(s Standing) []GateRow {
	var out []GateRow
	for _, r := range g.Rows {
		if r.Standing == s {
			out = append(out, r)
		}
	}
	return out
}

// Decide says what would decide an undecided row, as a clause.
func (r GateRow) Decide() string {
	units := "blocks"
	if r.Launches() > 1 {
		units = "launches"
	}
	switch {
	case r.Refused != "":
		return r.Refused
	case r.Need == 0:
		return "the ratio is the limit as far as can be told; no number of " + units + " up to 1,000 decides it"
	}
	have := min(r.Verdict.NA, r.Verdict.NB)
	if r.Need <= have {
		return fmt.Sprintf("chance decides at this spread; repeat with more than %d %s", have, units)
	}
	return fmt.Sprintf("about %d %s in each record decide it if ratio and spread stay as they are", r.Need, units)
}
