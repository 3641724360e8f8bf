package raw

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/xferbench/xferbench/cgo/clock"
	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/transport"
	"github.com/xferbench/xferbench/internal/units"
)

// The search of --tune: from the provider's own setting, one factor after
// another, along a ladder of values until two in a row were no better.
const (
	// tuneGain is how much faster a setting must be to be kept, and tuneHopeless
	// how much slower one pair of blocks may show it before the second is spared.
	tuneGain     = 0.98
	tuneHopeless = 1.05
	tuneRounds   = 2
	tunePatience = 2
	// tuneBlock is how long a condition's transfers of one block take together.
	tuneBlock    = 50 * time.Millisecond
	tuneMaxIters = 500
	// tuneStreams bounds the number of endpoints: each has threads on both sides.
	tuneStreamsPerCPU = 2
	tuneDepthLeast    = 16
	tuneChunkLeast    = 64 << 10
	tuneChunkMost     = 16 << 20
)

// setting is what the search varies.
type setting struct {
	streams, depth int
	chunk          uint64
}

// flags are the command line's words for it.
func (t setting) flags() string {
	out := fmt.Sprintf("--streams %d", t.streams)
	if t.depth > 0 {
		out += fmt.Sprintf(" --depth %d", t.depth)
	}
	if t.chunk > 0 {
		out += " --chunk " + units.CompactBytes(int64(t.chunk))
	}
	return out
}

// free says which factors the search may change.
type free struct{ streams, depth, chunk bool }

// field is the workload that the ladders depend on.
type field struct {
	ops     int    // of the largest condition, unsplit, on one lane
	longest uint64 // bytes of a condition's longest descriptor
	cpus    int
}

// A ladder is a factor's values to try, in order, from the best so far.
type ladder func(best setting, f field) []setting

func streamsLadder(best setting, f field) (out []setting) {
	for n := best.streams * 2; n <= max(4, tuneStreamsPerCPU*f.cpus); n *= 2 {
		c := best
		c.streams = n
		out = append(out, c)
	}
	return out
}

func chunkLadder(best setting, f field) (out []setting) {
	for n := uint64(tuneChunkMost); n >= tuneChunkLeast; n /= 4 {
		if n >= f.longest || best.chunk > 0 && n >= best.chunk {
			continue // the same operations
		}
		c := best
		c.chunk = n
		out = append(out, c)
	}
	return out
}

// depthLadder only goes down: a provider's own depth is as many as its queue
// takes.
func depthLadder(best setting, f field) (out []setting) {
	ops := f.ops
	if best.chunk > 0 && f.longest > best.chunk {
		ops = int(uint64(ops) * ((f.longest + best.chunk - 1) / best.chunk))
	}
	ops = max(1, ops/best.streams)
	for n := best.depth / 4; n >= tuneDepthLeast; n /= 4 {
		if n >= ops {
			continue // no operation waits for another
		}
		c := best
		c.depth = n
		out = append(out, c)
	}
	return out
}

// errTuneOver ends a search whose budget is spent.
var errTuneOver = errors.New("budget")

// search walks the ladders from start. try reports whether a setting is better
// than the best so far, which it then is.
func search(start setting, fr free, f field, try func(setting) (bool, error)) (setting, error) {
	best := start
	for _, l := range []struct {
		free bool
		ladder
	}{{fr.streams, streamsLadder}, {fr.chunk, chunkLadder}, {fr.depth, depthLadder}} {
		if !l.free {
			continue
		}
		misses := 0
		for _, c := range l.ladder(best, f) {
			better, err := try(c)
			if err != nil {
				return best, err
			}
			if better {
				best, misses = c, 0
			} else if misses++; misses == tunePatience {
				break
			}
		}
	}
	return best, nil
}

// tuner searches for one transport's setting.
type tuner struct {
	s        *session
	w        *workload
	at       int // index of the transport
	cfg      transport.Config
	label    string
	moves    []transport.Move
	iters    []int // of each move
	bytes    uint64
	deadline int64 // 0: none
	step     int
	best     *probe
}

// tune gives each transport that was asked for the best setting that it finds,
// within --budget for all. Both sides have their buffers; no transport is open.
func (s *session) tune(ctx context.Context, w *workload) error {
	var wanted []int
	for i := range w.plan.transports {
		if !slices.ContainsFunc(w.plan.cells, func(c cell) bool { return c.transport == i && c.ceiling }) {
			wanted = append(wanted, i)
		}
	}
	began := clock.Now()
	for k, i := range wanted {
		t := &tuner{s: s, w: w, at: i, cfg: w.plan.transports[i], label: w.plan.labels[i]}
		for _, c := range w.plan.cells {
			if c.transport == i {
				t.moves = append(t.moves, c.move)
			}
		}
		if s.spec.Design.Budget > 0 {
			// What one provider leaves of its part goes to the next ones.
			now := clock.Now()
			t.deadline = now + (began+int64(s.spec.Design.Budget)-now)/int64(len(wanted)-k)
		}
		best, err := t.search(ctx)
		if t.best != nil {
			err = errors.Join(err, t.best.Close(ctx))
		}
		if err != nil {
			return fmt.Errorf("tuning %s: %w", t.label, err)
		}
		c := &w.plan.transports[i]
		c.Streams, c.Depth, c.Chunk = best.streams, best.depth, best.chunk
	}
	return nil
}

// probe is a link that is brought up beside a run's own, over the same buffers,
// to try a setting before the run is made. Its transfers carry whatever lies in
// the buffers, and nothing checks them.
type probe struct {
	*transport.Link
	plans map[*transport.Move]*transport.Plan // by the tuner's own moves
}

func (w *workload) probe(ctx context.Context, at int, cfg transport.Config) (*probe, error) {
	l, err := w.link(ctx, at, cfg)
	if err != nil {
		return nil, err
	}
	return &probe{Link: l, plans: map[*transport.Move]*transport.Plan{}}, nil
}

// transfer runs m, one of the tuner's moves, iters times, back to back.
func (p *probe) transfer(ctx context.Context, m *transport.Move, iters int) ([]loop.Sample, error) {
	if p.plans[m] == nil {
		plan, err := p.Plan(ctx, *m)
		if err != nil {
			return nil, err
		}
		p.plans[m] = plan
	}
	out, err := p.plans[m].Transfer(ctx, transport.Batch{Iters: iters, Unchecked: true})
	return out.Samples, err
}

func (t *tuner) search(ctx context.Context) (setting, error) {
	var err error
	if t.best, err = t.w.probe(ctx, t.at, t.cfg); err != nil {
		return setting{}, err
	}
	info := t.best.Info()
	start := setting{streams: info.Streams, depth: info.Depth, chunk: info.Chunk}
	fr := free{streams: t.cfg.Streams == 0, depth: t.cfg.Depth == 0, chunk: t.cfg.Chunk == 0}
	if info.API == "socket" || info.API == "memcpy" {
		// One stream of bytes has neither operations in flight nor pieces.
		fr.depth, fr.chunk = false, false
		start.depth = 0
	}
	f := field{cpus: runtime.NumCPU()}
	t.iters = make([]int, len(t.moves))
	var ns int64
	for i, m := range t.moves {
		n, err := t.warm(ctx, t.best, &t.moves[i])
		if err != nil {
			return start, err
		}
		t.iters[i] = int(min(tuneMaxIters, max(1, int64(tuneBlock)/max(1, n))))
		ns += n
		b, err := f.note(m)
		if err != nil {
			return start, err
		}
		t.bytes += b
	}
	// The first reading is one warm transfer of each; comparisons repeat it.
	line := t.line(start, ns, ns)
	line.Kept = true
	if err := t.s.tuned(line); err != nil {
		return start, err
	}
	best, err := search(start, fr, f, func(c setting) (bool, error) { return t.try(ctx, c) })
	note := ""
	if errors.Is(err, errTuneOver) {
		note, err = "the budget ended the search; a longer --budget may find more", nil
	}
	if err != nil {
		return best, err
	}
	// No time: those of the search are selected ones, and too good.
	end := t.line(best, 0, 0)
	end.Kept, end.Flags, end.Note = true, best.flags(), note
	return best, t.s.tuned(end)
}

// warm runs a condition twice on a probe, and says what the second took: the
// first is cold.
func (t *tuner) warm(ctx context.Context, p *probe, m *transport.Move) (ns int64, err error) {
	ss, err := p.transfer(ctx, m, 2)
	if err != nil {
		return 0, err
	}
	return int64(ss[len(ss)-1].Total()), nil
}

// block is the time of one transfer of each condition, each the mean of its
// iterations.
func (t *tuner) block(ctx context.Context, p *probe) (ns int64, err error) {
	for i := range t.moves {
		ss, err := p.transfer(ctx, &t.moves[i], t.iters[i])
		if err != nil {
			return 0, err
		}
		var sum int64
		for _, x := range ss {
			sum += int64(x.Total())
		}
		ns += sum / int64(len(ss))
	}
	return ns, nil
}

// try holds a setting against the best so far, in turn, and keeps the better
// one open.
func (t *tuner) try(ctx context.Context, c setting) (better bool, err error) {
	if t.deadline != 0 && clock.Now() > t.deadline {
		return false, errTuneOver
	}
	cfg := t.cfg
	cfg.Streams, cfg.Depth, cfg.Chunk = c.streams, c.depth, c.chunk
	probe, mine, theirs, err := t.against(ctx, cfg)
	if err != nil {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		// The host's or the provider's limits: that setting is none to choose.
		line := t.line(c, 0, 0)
		line.Error = err.Error()
		if probe != nil {
			err = probe.Close(ctx)
		} else {
			err = nil
		}
		return false, errors.Join(err, t.s.tuned(line))
	}
	sum, best := int64(0), int64(0)
	better = true
	for i := range mine {
		sum, best = sum+mine[i], best+theirs[i]
		better = better && mine[i] < theirs[i]
	}
	gain := float64(sum) / float64(best)
	better = better && len(mine) == tuneRounds && gain <= tuneGain
	line := t.line(c, sum/int64(len(mine)), best/int64(len(mine)))
	line.Kept = better
	if better {
		t.best, probe = probe, t.best
	}
	return better, errors.Join(probe.Close(ctx), t.s.tuned(line))
}

// against opens cfg and runs blocks of it and of the best so far, each pair in
// the other order than the last.
func (t *tuner) against(ctx context.Context, cfg transport.Config) (p *probe, mine, theirs []int64, err error) {
	if p, err = t.w.probe(ctx, t.at, cfg); err != nil {
		return nil, nil, nil, err
	}
	for i := range t.moves {
		if _, err := p.transfer(ctx, &t.moves[i], 1); err != nil {
			return p, nil, nil, err
		}
	}
	for i := range tuneRounds {
		var m, b int64
		both := []func() error{
			func() (err error) { m, err = t.block(ctx, p); return err },
			func() (err error) { b, err = t.block(ctx, t.best); return err },
		}
		if i%2 == 1 {
			slices.Reverse(both)
		}
		for _, f := range both {
			if err := f(); err != nil {
				return p, nil, nil, err
			}
		}
		mine, theirs = append(mine, m), append(theirs, b)
		if float64(m) > tuneHopeless*float64(b) {
			break
		}
	}
	return p, mine, theirs, nil
}

func (t *tuner) line(c setting, total, best int64) record.Tune {
	l := record.Tune{TimeNs: clock.Now() - t.s.start, Provider: t.label, Step: t.step, Streams: c.streams, Depth: c.depth,
		Chunk: c.chunk, Bytes: t.bytes, TotalNs: total, BestNs: best}
	t.step++
	return l
}

// tuned writes a step and tells the caller.
func (s *session) tuned(l record.Tune) error {
	if s.Tune != nil {
		if err := s.Tune(l); err != nil {
			return err
		}
	}
	return s.Write(l)
}

// note takes what the ladders need of a condition, and returns its bytes.
func (f *field) note(m transport.Move) (uint64, error) {
	bytes, count, longest, err := transport.Extent(m)
	if err != nil {
		return 0, err
	}
	f.ops, f.longest = max(f.ops, count), max(f.longest, longest)
	return bytes, nil
}

// TuneText is one line about a step, for people.
func TuneText(l record.Tune) string {
	c := setting{l.Streams, l.Depth, l.Chunk}
	rate := "-"
	if l.TotalNs > 0 {
		rate = units.FormatGBps(float64(l.Bytes) / float64(l.TotalNs) * 1e9)
	}
	switch {
	case l.Flags != "":
		text := fmt.Sprintf("tune %s: best is %s", l.Provider, l.Flags)
		if l.Note != "" {
			text += "; " + l.Note
		}
		return text
	case l.Error != "":
		return fmt.Sprintf("tune %s: %s cannot be run: %s", l.Provider, c.flags(), l.Error)
	case l.Step == 0:
		return fmt.Sprintf("tune %s: begins with %s: %s", l.Provider, c.flags(), rate)
	}
	kept := "not better"
	if l.Kept {
		kept = "kept"
	}
	return fmt.Sprintf("tune %s: %s: %s, %s of the best's time, %s", l.Provider, c.flags(), rate,
		units.FormatSignificant(float64(l.TotalNs)/float64(max(1, l.BestNs))), kept)
}
