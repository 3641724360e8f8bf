package analysis

import (
	"math"

	"github.com/xferbench/xferbench/internal/stats"
)

// Chance is what chance alone would do to all verdicts of a run. Holm's correction
// runs within a question (one pair of transports over its sizes, say), whose chance of
// any false difference is 5 %; several questions add up.
type Chance struct {
	// Verdicts were reached, on Questions.
	Questions, Verdicts int
	// Different of the verdicts found a difference, Held of which also hold with
	// Holm's correction over all verdicts.
	Different, Held int
}

// Expected is how many questions would have a false difference if nothing were
// different, at most.
func (c Chance) Expected() float64 { return (1 - Level) * float64(c.Questions) }

// Any is the share of runs that would have one or more, at most, for questions that
// are independent or depend on each other positively (Šidák, JASA 62 (1967) 626).
func (c Chance) Any() float64 { return 1 - math.Pow(Level, float64(c.Questions)) }

// chanceOf adds up the verdicts of questions, and notes on each pair its p over all.
func chanceOf(questions [][]*Pair) (Chance, error) {
	var c Chance
	var ps []float64
	var at []*Pair
	for _, q := range questions {
		judged := false
		for _, p := range q {
			if p.Refused == "" && p.Verdict.Kind != stats.TooFew {
				ps, at, judged = append(ps, p.Verdict.P), append(at, p), true
			}
		}
		if judged {
			c.Questions++
		}
	}
	c.Verdicts = len(ps)
	if c.Verdicts == 0 {
		return c, nil
	}
	all, err := stats.Holm(ps)
	if err != nil {
		return c, err
	}
	for i, p := range at {
		p.PRun = &all[i]
		if p.Verdict.Kind == stats.Different {
			c.Different++
			if all[i] <= 1-Level {
				c.Held++
			}
		}
	}
	return c, nil
}
