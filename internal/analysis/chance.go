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

// chanceOf adds up the verdicts of questions. Of each verdict it returns p after Holm's
// correction over all of them, nil where there are too few units.
func chanceOf(questions [][]stats.Verdict) (Chance, [][]*float64, error) {
	var c Chance
	var ps []float64
	over := make([][]*float64, len(questions))
	for i, q := range questions {
		over[i] = make([]*float64, len(q))
		judged := len(ps)
		for _, v := range q {
			if v.Kind != stats.TooFew {
				ps = append(ps, v.P)
			}
		}
		if len(ps) > judged {
			c.Questions++
		}
	}
	c.Verdicts = len(ps)
	if c.Verdicts == 0 {
		return c, over, nil
	}
	all, err := stats.Holm(ps)
	if err != nil {
		return c, over, err
	}
	for i, q := range questions {
		for k, v := range q {
			if v.Kind == stats.TooFew {
				continue
			}
			over[i][k], all = &all[0], all[1:]
			if v.Kind == stats.Different {
				c.Different++
				if *over[i][k] <= 1-Level {
					c.Held++
				}
			}
		}
	}
	return c, over, nil
}
