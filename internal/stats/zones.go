package stats

import "math"

// Standing is how A stands against B at one size.
type Standing int

const (
	// Undecided: the verdict is no difference, or there is none, and the interval
	// reaches beyond what would matter.
	Undecided Standing = iota
	// Equal: whatever the difference is, the whole interval says that it is
	// smaller than what matters.
	Equal
	// AFaster and BFaster: the verdict says different.
	AFaster
	BFaster
)

// String returns the standing as programs read it.
func (s Standing) String() string {
	switch s {
	case Equal:
		return "equal"
	case AFaster:
		return "a-faster"
	case BFaster:
		return "b-faster"
	default:
		return "undecided"
	}
}

// Turned is the standing of B against A.
func (s Standing) Turned() Standing {
	switch s {
	case AFaster:
		return BFaster
	case BFaster:
		return AFaster
	}
	return s
}

// Standing reads a verdict against the relative difference that matters (0.05 for
// 5 %). It follows the verdict, Holm's correction with it: a side is faster only
// where the verdict is Different. Equal is decided by the interval alone, as two
// one-sided tests would (Schuirmann, J. Pharmacokin. Biopharm. 15 (1987) 657).
func (v Verdict) Standing(matters float64) Standing {
	most := math.Log1p(matters)
	switch {
	case v.Kind != TooFew && v.Interval != nil && math.Log(v.Interval.Lo) > -most && math.Log(v.Interval.Hi) < most:
		return Equal
	case v.Kind == Different && v.Ratio > 1:
		return AFaster
	case v.Kind == Different && v.Ratio < 1:
		return BFaster
	}
	return Undecided
}

// SizeStanding is a measured size with the standing there.
type SizeStanding struct {
	Bytes int64
	Standing
}

// Zone is a run of neighbouring measured sizes of one standing, which says nothing
// about sizes beyond its ends.
type Zone struct {
	FromBytes, ToBytes int64
	Sizes              int
	Standing
}

// Zones cuts sizes, in ascending order and each once, into zones.
func Zones(at []SizeStanding) []Zone {
	var out []Zone
	for i, s := range at {
		if i == 0 || s.Standing != at[i-1].Standing {
			out = append(out, Zone{FromBytes: s.Bytes, Standing: s.Standing})
		}
		z := &out[len(out)-1]
		z.ToBytes = s.Bytes
		z.Sizes++
	}
	return out
}

// Turn is where the faster side changes: somewhere between two measured sizes, at
// FromBytes the last one at which Before holds and at ToBytes the first one of the
// other side. Sizes between them have no faster side.
type Turn struct {
	FromBytes, ToBytes int64
	Before             Standing // AFaster or BFaster
}

// Turns are the changes of the faster side over zones.
func Turns(zones []Zone) []Turn {
	var out []Turn
	var last *Zone
	for i := range zones {
		z := &zones[i]
		if z.Standing != AFaster && z.Standing != BFaster {
			continue
		}
		if last != nil && last.Standing != z.Standing {
			out = append(out, Turn{FromBytes: last.ToBytes, ToBytes: z.FromBytes, Before: last.Standing})
		}
		last = z
	}
	return out
}
