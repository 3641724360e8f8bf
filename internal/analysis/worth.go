package analysis

import (
	"fmt"
	"math"
	"slices"

	"github.com/xferbench/xferbench/internal/stats"
)

// Worth is the difference that matters: a fraction of the faster time, or a time.
type Worth struct{ Fraction, Ns float64 }

// Contest is the difference of two candidates at the points.
type Contest struct {
	A, B   *Candidate
	Points []Margin
	// Guide is the advice over sizes that the record itself gives, nil without one.
	Guide *Guide
}

// Answer is whether a difference is worth it.
type Answer string

// Answers.
const (
	AnswerYes       Answer = "yes"
	AnswerNo        Answer = "no"
	AnswerUndecided Answer = "undecided" // the interval holds both
	AnswerUnknown   Answer = "not-measured"
)

// Margin is B against A at a point: the ratio of the times and B less A in
// ns, by pairs of units. Intervals are nil with too few.
type Margin struct {
	Answer  Answer
	Ratio   float64
	RatioCI *stats.Interval
	Ns      float64
	NsCI    *stats.Interval
	N       int
}

// contests compares the candidates of one record that differ in the transport
// alone.
func (a *Advice) contests() error {
	for j, y := range a.Transports {
		for _, x := range a.Transports[:j] {
			rec := a.Records[x.Record]
			if x.Record != y.Record || !rec.rivals(x.Rows[0], y.Rows[0]) {
				continue
			}
			c := Contest{A: x, B: y, Guide: rec.guideOf(x, y)}
			for i, p := range a.Points {
				d, err := differ(x.At[i], y.At[i], p.Bytes, a.Worth, rec.Record.Run.Seed)
				if err != nil {
					return fmt.Errorf("%s and %s: %w", x.Label, y.Label, err)
				}
				c.Points = append(c.Points, d)
			}
			a.Contests = append(a.Contests, c)
		}
	}
	return nil
}

// guideOf is the guide that rests on rows of the two candidates.
func (a *Analysis) guideOf(x, y *Candidate) *Guide {
	for i, g := range a.Guides {
		if slices.Contains(x.Rows, g.A) && slices.Contains(y.Rows, g.B) {
			return &a.Guides[i]
		}
	}
	return nil
}

// differ compares two times at one size.
func differ(x, y Estimate, bytes int64, w Worth, seed uint64) (d Margin, err error) {
	d.Answer = AnswerUnknown
	if x.Basis == NotMeasured || y.Basis == NotMeasured {
		return d, nil
	}
	as, bs, _, err := stats.PairUnits(x.units, y.units)
	if err != nil || len(as) == 0 {
		return d, err
	}
	v, err := stats.ComparePaired(as, bs, stats.Options{Level: Level, Seed: seed})
	if err != nil {
		return d, err
	}
	diff := make([]float64, len(as))
	for i := range as {
		diff[i] = bs[i] - as[i]
	}
	s, err := stats.Summarize(diff, Level)
	if err != nil {
		return d, err
	}
	d.N, d.Ratio, d.RatioCI, d.Ns, d.NsCI = len(as), v.Ratio, v.Interval, s.Median, s.CI
	if x.Basis == Scaled || y.Basis == Scaled {
		d.widen(x, y, bytes)
	}
	d.Answer = w.answer(d)
	return d, nil
}

// widen makes the intervals those of times of which one at least was Scaled: the
// true ones lie anywhere within the interval of each.
func (d *Margin) widen(x, y Estimate, bytes int64) {
	f := 1.0
	for _, e := range []Estimate{x, y} {
		if e.Basis == Scaled {
			f = math.Max(f, math.Max(float64(bytes)/float64(e.Rows[0].Bytes), float64(e.Rows[0].Bytes)/float64(bytes)))
		}
	}
	if iv := d.RatioCI; iv != nil {
		d.RatioCI = &stats.Interval{Lo: iv.Lo / f, Hi: iv.Hi * f, Level: iv.Level}
	}
	if d.NsCI != nil && x.CI != nil && y.CI != nil {
		d.NsCI = &stats.Interval{Lo: y.CI.Lo - x.CI.Hi, Hi: y.CI.Hi - x.CI.Lo, Level: d.NsCI.Level}
	}
}

// answer holds the interval of a difference against the worth: yes when all of it
// is at least that much in one direction, no when none of it is.
func (w Worth) answer(d Margin) Answer {
	lo, hi, least := 0.0, 0.0, 0.0
	switch {
	case w.Ns > 0 && d.NsCI != nil:
		lo, hi, least = d.NsCI.Lo, d.NsCI.Hi, w.Ns
	case w.Ns == 0 && d.RatioCI != nil:
		// Symmetric in who is the faster: 1.05 and 1/1.05 are the same difference.
		lo, hi, least = math.Log(d.RatioCI.Lo), math.Log(d.RatioCI.Hi), math.Log1p(w.Fraction)
	default:
		return AnswerUndecided
	}
	switch {
	case lo >= least || hi <= -least:
		return AnswerYes
	case lo > -least && hi < least:
		return AnswerNo
	}
	return AnswerUndecided
}
