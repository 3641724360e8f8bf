package record

import (
	"encoding/binary"
	"iter"
	"math/bits"
)

// Samples are transfers in the order in which they were added, packed: some 20
// bytes each, as a record may hold millions. The zero value has none. Of two
// copies only one may be added to.
type Samples struct {
	n      int
	packed []byte
	last   words
	phases []string // each once
	phase  map[string]uint64
}

// words are a sample's fields as integers.
type words [17]uint64

// What [Sample.Verified] is as a word.
const (
	unchecked = iota
	passed
	failed
)

// PackSamples returns samples packed.
func PackSamples(samples ...Sample) Samples {
	var s Samples
	for _, x := range samples {
		s.Add(x)
	}
	return s
}

// Len is how many there are.
func (s *Samples) Len() int { return s.n }

// Add appends a sample. It stands as which of its words changed since the last
// one, a bit each, and by how much.
func (s *Samples) Add(x Sample) {
	w := s.words(x)
	var changed uint64
	for i := range w {
		if w[i] != s.last[i] {
			changed |= 1 << i
		}
	}
	s.packed = binary.AppendUvarint(s.packed, changed)
	for ; changed != 0; changed &= changed - 1 {
		i := bits.TrailingZeros64(changed)
		s.packed = binary.AppendVarint(s.packed, int64(w[i]-s.last[i]))
	}
	s.last = w
	s.n++
}

// All yields the samples in order.
func (s *Samples) All() iter.Seq[Sample] {
	return func(yield func(Sample) bool) {
		var w words
		for p := s.packed; len(p) > 0; {
			changed, n := binary.Uvarint(p)
			for p = p[n:]; changed != 0; changed &= changed - 1 {
				d, n := binary.Varint(p)
				w[bits.TrailingZeros64(changed)] += uint64(d)
				p = p[n:]
			}
			if !yield(s.sample(w)) {
				return
			}
		}
	}
}

// words is x as integers. Its local time stands as what it lacks of the total:
// mostly nothing.
func (s *Samples) words(x Sample) words {
	phase, known := s.phase[x.Phase]
	if !known {
		if s.phase == nil {
			s.phase = map[string]uint64{}
		}
		phase = uint64(len(s.phases))
		s.phase[x.Phase], s.phases = phase, append(s.phases, x.Phase)
	}
	verified, simulated := uint64(unchecked), uint64(0)
	if x.Verified != nil {
		verified = failed
		if *x.Verified {
			verified = passed
		}
	}
	if x.Simulated {
		simulated = 1
	}
	return words{
		uint64(x.Iteration), uint64(x.BeginNs), uint64(x.PostNs), uint64(x.TotalNs), uint64(x.CPUNs), uint64(x.PeerCPUNs), x.Polls,
		uint64(x.TotalNs - x.LocalNs), x.EAgain, x.Bytes, x.Ops, uint64(x.Condition), uint64(x.Launch), uint64(x.Block), uint64(x.Order),
		phase, verified | simulated<<2,
	}
}

var yes, no = true, false

// sample is what words made w of. Its Verified points to one of two values that
// all samples share.
func (s *Samples) sample(w words) Sample {
	x := Sample{
		Iteration: int(w[0]), BeginNs: int64(w[1]), PostNs: int64(w[2]), TotalNs: int64(w[3]), CPUNs: int64(w[4]), PeerCPUNs: int64(w[5]), Polls: w[6],
		LocalNs: int64(w[3] - w[7]), EAgain: w[8], Bytes: w[9], Ops: w[10], Condition: int(w[11]), Launch: int(w[12]), Block: int(w[13]), Order: int(w[14]),
		Phase: s.phases[w[15]], Simulated: w[16]>>2 == 1,
	}
	switch w[16] & 3 {
	case passed:
		x.Verified = &yes
	case failed:
		x.Verified = &no
	}
	return x
}
