package analysis

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

func (a *Analysis) rows() error {
	byID := map[int]*Row{}
	rec := a.Record
	for _, c := range rec.Conditions {
		if old := byID[c.ID]; old != nil {
			if old.Name != c.Name || old.Bytes != c.Bytes {
				return fmt.Errorf("condition %d is %s and %s: the record is damaged", c.ID, old.Name, c.Name)
			}
			continue // a resumed sweep says it again
		}
		r := &Row{Condition: c, Emulated: c.Simulated || c.Transport.Simulated || rec.Run.Simulated}
		byID[c.ID], a.Rows = r, append(a.Rows, r)
	}
	if err := a.transfers(byID); err != nil {
		return err
	}
	for _, p := range rec.Paths {
		if r := byID[p.Condition]; r != nil && (p.Phase == "" || p.Phase == record.PhaseMeasure) {
			r.addPath(p)
		}
	}
	a.label()
	for _, r := range a.Rows {
		if err := r.figure(); err != nil {
			return fmt.Errorf("%s: %w", r.Label, err)
		}
	}
	return nil
}

// transfers sorts the samples into their rows, whose room is made first: a record
// may hold millions.
func (a *Analysis) transfers(byID map[int]*Row) error {
	for s := range a.Record.Samples.All() {
		r := byID[s.Condition]
		if r == nil {
			return fmt.Errorf("a sample of condition %d, which no line describes: the record is damaged", s.Condition)
		}
		if s.Phase == record.PhaseMeasure {
			r.N++
		}
	}
	for _, r := range a.Rows {
		r.Samples = make([]Transfer, 0, r.N)
	}
	for s := range a.Record.Samples.All() {
		if err := byID[s.Condition].add(s); err != nil {
			return err
		}
	}
	return nil
}

func (r *Row) add(s record.Sample) error {
	r.Emulated = r.Emulated || s.Simulated
	if s.Verified != nil && !*s.Verified {
		r.Failed++
	}
	if s.Phase != record.PhaseMeasure {
		r.Cold = append(r.Cold, s)
		return nil
	}
	if s.Verified != nil {
		r.Checked++
	}
	if s.TotalNs <= 0 {
		return fmt.Errorf("%s: block %d iteration %d took %d ns: the record is damaged", r.Name, s.Block, s.Iteration, s.TotalNs)
	}
	r.Samples = append(r.Samples, Transfer{s.Launch, s.Block, s.Iteration, s.BeginNs, s.PostNs, s.TotalNs})
	sums := []bool{addTo(&r.SumNs, s.TotalNs), addTo(&r.CPUNs, s.CPUNs), addTo(&r.PeerCPUNs, s.PeerCPUNs), addTo(&r.SumBytes, s.Bytes), addTo(&r.EAgain, s.EAgain)}
	if slices.Contains(sums, false) {
		return fmt.Errorf("%s: block %d iteration %d: its CPU times are negative, or the sums of the row beyond 64 bits: the record is damaged", r.Name, s.Block, s.Iteration)
	}
	return nil
}

// addTo adds x, 0 or more, to a sum and tells whether that holds it.
func addTo[T int64 | uint64](sum *T, x T) bool {
	*sum += x
	return x >= 0 && *sum >= x
}

// more adds a count of others' (the kernel's may have gone backwards and so be
// anything) to a sum that stays at most.
func more[T int64 | uint64](sum *T, x, most T) {
	if !addTo(sum, x) && x > 0 {
		*sum = most
	}
}

func (r *Row) addPath(p record.Path) {
	if r.Path == nil {
		r.Path = &Path{}
	}
	q := r.Path
	more(&q.PayloadBytes, p.PayloadBytes, math.MaxUint64)
	more(&q.Voluntary, p.Voluntary, math.MaxInt64)
	more(&q.Involuntary, p.Involuntary, math.MaxInt64)
	more(&q.PeerVoluntary, p.PeerVoluntary, math.MaxInt64)
	more(&q.PeerInvoluntary, p.PeerInvoluntary, math.MaxInt64)
	for _, c := range p.Counters {
		if !strings.Contains(c.Name, "bytes") {
			continue
		}
		i := slices.IndexFunc(q.Counters, func(d record.Counter) bool { return d.Side == c.Side && d.Device == c.Device && d.Name == c.Name })
		if i < 0 {
			q.Counters = append(q.Counters, c)
			continue
		}
		more(&q.Counters[i].Delta, c.Delta, math.MaxUint64)
	}
}

// figure works out the row's figures from its samples.
func (r *Row) figure() error {
	if r.Path != nil {
		slices.SortStableFunc(r.Path.Counters, func(x, y record.Counter) int { return cmp.Compare(y.Delta, x.Delta) })
		if len(r.Path.Counters) > 0 && r.Path.PayloadBytes > 0 {
			r.Path.Ratio = float64(r.Path.Counters[0].Delta) / float64(r.Path.PayloadBytes)
		}
	}
	if r.N == 0 {
		return nil
	}
	if inOrder := func(x, y Transfer) int {
		return cmp.Or(cmp.Compare(x.Launch, y.Launch), cmp.Compare(x.BeginNs, y.BeginNs), cmp.Compare(x.Block, y.Block), cmp.Compare(x.Iteration, y.Iteration))
	}; !slices.IsSortedFunc(r.Samples, inOrder) {
		slices.SortStableFunc(r.Samples, inOrder)
	}
	ss, times, posts := make([]stats.Sample, r.N), make([]float64, r.N), make([]float64, r.N)
	for i, s := range r.Samples {
		times[i], posts[i] = float64(s.TotalNs), float64(s.PostNs)
		ss[i] = stats.Sample{Launch: s.Launch, Block: s.Block, Value: times[i]}
	}
	blocks, us, err := independent(ss)
	if err != nil {
		return err
	}
	r.Blocks, r.Units, r.Launches = len(blocks), us, 1
	r.Iters = blocks[0].N
	for _, b := range blocks {
		if b.N != r.Iters {
			r.Iters = 0
			break
		}
	}
	if first, last := blocks[0].Key.Launch, blocks[len(blocks)-1].Key.Launch; first != last {
		r.Launches = len(r.Units)
	}
	sum, err := stats.Summarize(stats.Values(r.Units), Level)
	if err != nil {
		return err
	}
	r.MedianNs, r.CI = sum.Median, sum.CI
	r.MinNs, r.MaxNs = slices.Min(times), slices.Max(times)
	if r.P95, err = stats.Quantile(times, 0.95); err != nil {
		return err
	}
	r.Rate = float64(r.SumBytes) / float64(r.SumNs) * 1e9
	if r.PostNs, err = stats.Median(posts); err != nil {
		return err
	}
	if r.Descs > 0 {
		r.PostPerDesc = r.PostNs / float64(r.Descs)
	}
	if r.SumBytes > 0 {
		r.CPUPerByte = float64(r.CPUNs) / float64(r.SumBytes)
		r.PeerCPUPerByte = float64(r.PeerCPUNs) / float64(r.SumBytes)
	}
	r.Steady, err = stats.Classify(times)
	return err
}

// label names the rows by what differs among them.
func (a *Analysis) label() {
	varies := func(of func(record.Condition) string) bool {
		var first *Row // a ceiling has a layout of its own
		for _, r := range a.Rows {
			switch {
			case r.Ceiling:
			case first == nil:
				first = r
			case of(r.Condition) != of(first.Condition):
				return true
			}
		}
		return false
	}
	parts := []func(record.Condition) string{
		func(c record.Condition) string { return strings.ToUpper(c.Op) },
		func(c record.Condition) string { return c.Shape },
		func(c record.Condition) string { return Size(c.Bytes) },
		func(c record.Condition) string { return Memory(c) },
		func(c record.Condition) string { return c.Layout },
		func(c record.Condition) string { return fmt.Sprintf("%d-token blocks", c.Block) },
		func(c record.Condition) string {
			if c.Shape != "contiguous" {
				return "" // the shape says how many
			}
			return fmt.Sprintf("%d descriptors", c.Descs)
		},
		func(c record.Condition) string { return fmt.Sprintf("%d streams", c.Transport.Streams) },
		func(c record.Condition) string { return fmt.Sprintf("depth %d", c.Transport.Depth) },
	}
	seen := map[string]int{}
	for _, r := range a.Rows {
		words := []string{r.Provider}
		for i, p := range parts {
			if i < 2 || i < 7 && varies(p) || i >= 7 && a.settingVaries(r.Provider, p) {
				if w := p(r.Condition); w != "" {
					words = append(words, w)
				}
			}
		}
		r.Label = strings.Join(words, " ")
		if seen[r.Label]++; seen[r.Label] > 1 {
			r.Label += fmt.Sprintf(" (%d)", seen[r.Label])
		}
	}
}

// settingVaries tells whether a setting that defaults to each provider's best was
// itself varied: one provider has more than one value of it.
func (a *Analysis) settingVaries(provider string, of func(record.Condition) string) bool {
	first, found := "", false
	for _, r := range a.Rows {
		if r.Provider != provider {
			continue
		}
		if v := of(r.Condition); !found {
			first, found = v, true
		} else if v != first {
			return true
		}
	}
	return false
}

// Size is a size in one short word: "64KiB", "438.57MB".
func Size(bytes uint64) string {
	n := int64(bytes)
	if s := units.CompactBytes(n); len(s) <= 7 || n < units.MB {
		return s
	}
	return strings.ReplaceAll(units.FormatMB(n), " ", "")
}

// Memory is where the data lies, both sides when they differ: "host",
// "cuda:0→host".
func Memory(c record.Condition) string {
	if c.PeerMem == "" || c.PeerMem == c.Memory {
		return c.Memory
	}
	return c.Memory + "→" + c.PeerMem
}

// LeavesHost tells whether the two sides of a run are different hosts, or
// network namespaces of one that a wire joins.
func LeavesHost(r *record.Run) bool {
	return r.Peer != nil && (r.Peer.Hostname != r.Host.Hostname || r.Peer.Address != r.Host.Address)
}

// bounds holds each row against its ceiling.
func (a *Analysis) bounds() {
	for _, r := range a.Rows {
		if r.Ceiling || !r.HasSpeed() {
			continue
		}
		b := a.bound(r)
		if b != nil && b.Rate > 0 {
			b.Share = float64(r.Bytes) / r.MedianNs * 1e9 / b.Rate
			r.Bound = b
		}
	}
}

func (a *Analysis) bound(r *Row) *Bound {
	if LeavesHost(&a.Record.Run) && !memoryOnly(r.Condition) {
		var bits uint64
		for _, d := range r.Transport.Devices {
			if d.LinkBits == 0 { // one unknown link makes the sum unknown
				bits = 0
				break
			}
			more(&bits, d.LinkBits, math.MaxUint64)
		}
		if bits > 0 {
			return &Bound{Kind: "line", Rate: float64(bits) / 8}
		}
	}
	// The socket row nearest in what it moved.
	var best *Row
	far := func(s *Row) [3]uint64 {
		var d [3]uint64
		if s.Op != r.Op {
			d[0] = 1
		}
		d[1] = max(s.Bytes, r.Bytes) - min(s.Bytes, r.Bytes)
		if s.Shape != r.Shape {
			d[2] = 1
		}
		return d
	}
	for _, s := range a.Rows {
		if s.API == "socket" && r.API != "socket" && s.HasSpeed() {
			if best == nil {
				best = s
			} else if x, y := far(s), far(best); slices.Compare(x[:], y[:]) < 0 {
				best = s
			}
		}
	}
	if best == nil || best.Bytes/2 > r.Bytes || r.Bytes/2 > best.Bytes {
		return nil
	}
	return &Bound{Kind: "socket", Rate: float64(best.Bytes) / best.MedianNs * 1e9}
}
