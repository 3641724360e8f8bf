package analysis

import (
	"fmt"
	"slices"

	"github.com/xferbench/xferbench/internal/analysis/pool"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// Series is what happened to one arm at one prompt length over its requests,
// one at a time, beside what the block pool predicts.
type Series struct {
	Arm    string
	Launch int
	Tokens int
	// Requests are the valid ones of N, warm-up included, in order.
	Requests []record.Request
	N        int
	// Changes of the level of each component that had one, and Stretches of requests of
	// a component that is at one level but for them.
	Changes   []Change
	Stretches []Stretch
	// Classes of the components that were seen.
	Classes []ComponentClass
	// Lap is the prediction; nil where the pool is not known, the arm mixes prompt
	// lengths or concurrency, or has several engines. NoLap is why there is none where
	// the pool is known and how requests take blocks of it is not.
	Lap   *Lap
	NoLap string
}

// Components of a request that are looked at over time.
const (
	ComponentTTFT        = "ttft"
	ComponentPrefill     = "prefill"
	ComponentDecodeQueue = "decode-queue"
	ComponentOneToken    = "one-token"
	ComponentDescriptors = "descriptors"
)

// ComponentClass is how one component went over time: flat, warm-up, slowdown, no
// steady state, excursion, unclassified.
type ComponentClass struct {
	Component string
	Class     stats.Class
}

// Class is the class of a component, unclassified where it was not seen.
func (s *Series) Class(component string) stats.Class {
	for _, c := range s.Classes {
		if c.Component == component {
			return c.Class
		}
	}
	return stats.Unclassified
}

// Change is a change of level of one component.
type Change struct {
	Component     string
	Sequence      int // the arm's request at which the new level begins, from 0
	Before, After float64
}

// Stretch is a run of N requests of the arm whose component is Factor times that of
// the rest.
type Stretch struct {
	Component   string
	First, Last int // sequences, from 0
	N           int
	Factor      float64
}

// Lap is what the block pool predicts for fresh engines.
type Lap struct {
	// PerRequest is the blocks that a prompt takes of the prefill engine's pool, over
	// all layer groups.
	PoolBlocks, PerRequest int
	// Sequence is the arm's request, from 0, at which the free list wraps around:
	// ⌊(blocks-1)/PerRequest⌋.
	Sequence int
	// DecodeSequence is the same for the decode engine, which also holds the
	// output: one block more where the prompt fills its last one. Of windowed layers
	// it takes no more than what crosses.
	DecodeSequence int
	Reached        bool // the series is that long
	// Model is the free list order that explains the observed descriptors best,
	// Agree of Of requests; "" where none were observed.
	Model     string
	Agree, Of int
}

// components are the values of a request, with whether it has them.
var components = []struct {
	name string
	of   func(record.Request) (float64, bool)
}{
	{ComponentTTFT, func(l record.Request) (float64, bool) { return float64(l.TTFTNs), l.TTFTNs > 0 }},
	{ComponentPrefill, part(func(s *record.Split) int64 { return s.Prefill })},
	{ComponentDecodeQueue, part(func(s *record.Split) int64 { return s.DecodeQueue })},
	{ComponentOneToken, part(func(s *record.Split) int64 { return s.OneToken })},
	{ComponentDescriptors, func(l record.Request) (float64, bool) {
		n := Descriptors(l)
		return float64(n), n > 0
	}},
}

// Descriptors is how many descriptors NIXL posted for the one request, after
// merging; 0: not known.
func Descriptors(q record.Request) int64 {
	if q.Moved == nil || q.Moved.Scope != record.ProofSample {
		return 0
	}
	return q.Moved.Descriptors
}

func part(f func(*record.Split) int64) func(record.Request) (float64, bool) {
	return func(l record.Request) (float64, bool) {
		if l.Split == nil || !l.Split.Engine {
			return 0, false
		}
		v := float64(f(l.Split))
		return v, v > 0
	}
}

// requestSeries looks at the requests of each arm in order, those of a closed loop with
// one request in flight. Warm-up belongs to them: it fills the pool too.
func requestSeries(lines []record.Request) ([]Series, error) {
	type key struct {
		arm            string
		launch, tokens int
	}
	groups := map[key][]record.Request{}
	var order []key
	mixed := map[string]bool{}
	first := map[string]record.Request{}
	for _, l := range lines {
		f, ok := first[l.Arm]
		if !ok {
			first[l.Arm] = l
			f = l
		}
		if l.Load != record.LoadClosed || l.Concurrency != 1 {
			mixed[l.Arm] = true
			continue
		}
		if l.PromptTokens != f.PromptTokens || l.Prefill != f.Prefill || l.Decode != f.Decode || l.MaxTokens != f.MaxTokens {
			mixed[l.Arm] = true
		}
		k := key{l.Arm, l.Launch, l.PromptTokens}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], l)
	}
	var out []Series
	for _, k := range order {
		g := groups[k]
		slices.SortStableFunc(g, func(a, b record.Request) int { return a.Sequence - b.Sequence })
		s := Series{Arm: k.arm, Launch: k.launch, Tokens: k.tokens, N: len(g)}
		s.Requests = slices.DeleteFunc(slices.Clone(g), func(q record.Request) bool { return !q.Valid })
		if err := s.changes(); err != nil {
			return nil, fmt.Errorf("arm %s: %w", k.arm, err)
		}
		if !mixed[k.arm] {
			s.lap(g)
		}
		out = append(out, s)
	}
	return out, nil
}

// changes classifies each component over the valid requests.
func (s *Series) changes() error {
	for _, c := range components {
		var xs []float64
		var seq []int
		for _, l := range s.Requests {
			if v, ok := c.of(l); ok {
				xs, seq = append(xs, v), append(seq, l.Sequence)
			}
		}
		if len(xs) == 0 {
			continue
		}
		st, err := stats.Classify(xs)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		s.Classes = append(s.Classes, ComponentClass{c.name, st.Class})
		for _, t := range st.Transitions {
			s.Changes = append(s.Changes, Change{c.name, seq[t.Iteration], t.Before, t.After})
		}
		for _, e := range st.Excursions {
			s.Stretches = append(s.Stretches, Stretch{c.name, seq[e.Start], seq[e.End-1], e.End - e.Start, e.Factor})
		}
	}
	return nil
}

// maxPool and maxWalk bound the pool whose free list is followed, and the blocks
// that all requests take of it: a damaged record or engine may claim any number.
const (
	maxPool = 1 << 24
	maxWalk = 1 << 30
)

// lap predicts when the free list wraps around.
func (s *Series) lap(lines []record.Request) {
	first, last := lines[0], lines[len(lines)-1].Sequence
	if first.PoolBlocks < 2 || first.BlockTokens < 1 || first.Path == record.PathDirect || first.Path == record.PathUnified {
		return
	}
	groups, why := layerGroups(lines)
	if why != "" {
		s.NoLap = why
		return
	}
	blocks := func(tokens int) int { return (tokens + first.BlockTokens - 1) / first.BlockTokens }
	prompt := blocks(first.PromptTokens)
	per, decode := prompt, prompt
	if groups != nil {
		per, decode = prompt*len(groups), 0
		for _, n := range groups {
			decode += n
		}
	}
	decode += (blocks(first.PromptTokens+first.MaxTokens-1) - prompt) * max(1, len(groups))
	l := &Lap{PoolBlocks: first.PoolBlocks, PerRequest: per, Sequence: pool.LapIndex(first.PoolBlocks, per), DecodeSequence: pool.LapIndex(first.PoolBlocks, decode)}
	l.Reached = last >= min(l.Sequence, l.DecodeSequence)
	s.Lap = l
	if first.PoolBlocks <= maxPool && last <= maxWalk/max(per, 1) {
		l.explain(lines, groups)
	}
}

// layerGroups is how many blocks cross in each layer group, the same for all requests;
// nil for records that say nothing of groups, which have one. why is why the pool
// cannot be followed.
func layerGroups(lines []record.Request) (groups []int, why string) {
	known := false
	for _, q := range lines {
		if q.KVBlocks == nil {
			continue
		}
		if known && !slices.Equal(groups, q.KVBlocks) {
			return nil, "requests of one length hand over different numbers of KV blocks"
		}
		groups, known = q.KVBlocks, true
	}
	if !known {
		if slices.ContainsFunc(lines, func(q record.Request) bool { return q.Rule != "" }) {
			return nil, "how many KV blocks of each layer group a request takes is not known"
		}
		return nil, ""
	}
	prompt := (lines[0].PromptTokens + lines[0].BlockTokens - 1) / lines[0].BlockTokens
	switch most, least := slices.Max(append([]int{0}, groups...)), slices.Min(append([]int{prompt}, groups...)); {
	case len(groups) > maxLayerGroups || most > prompt || least < 1:
		return nil, fmt.Sprintf("layer groups that hand over %d to %d KV blocks are not of a prompt of %d", least, most, prompt)
	case least == 1 && prompt > 2:
		return nil, "a layer group of one KV block may be a state, which takes no others"
	}
	return groups, ""
}

// maxLayerGroups bounds the layer groups whose pool is followed.
const maxLayerGroups = 1 << 10

// explain finds the order of the free list that predicts the descriptors which were
// counted, over all ranks. It finds none without the count of the first request,
// which tells how many regions there are, or where a request does not fit in the
// pool.
func (l *Lap) explain(lines []record.Request, groups []int) {
	observed := map[int]int64{}
	var transfers int64 // of each request: one for each rank
	for _, q := range lines {
		n := Descriptors(q)
		if n == 0 {
			continue
		}
		if transfers == 0 {
			transfers = q.Moved.Transfers
		}
		if q.Moved.Transfers == transfers {
			observed[q.Sequence] = n
		}
	}
	if observed[0] == 0 {
		return
	}
	for _, m := range []struct {
		name    string
		order   pool.Order
		caching bool
	}{{"fifo", pool.FIFO, false}, {"lifo", pool.LIFO, false}, {"lifo with prefix caching", pool.LIFO, true}} {
		agree, err := agreement(lines, observed, pool.Config{PrefillBlocks: l.PoolBlocks, DecodeBlocks: l.PoolBlocks, Order: m.order, Caching: m.caching,
			Regions: 1, BlockTokens: lines[0].BlockTokens, Groups: groups})
		if err != nil {
			l.Model, l.Agree = "", 0
			return
		}
		if agree > l.Agree {
			l.Model, l.Agree = m.name, agree
		}
	}
	l.Of = len(observed)
}

// agreement counts the requests whose descriptors a pool of such engines predicts,
// with as many regions as the first one shows.
func agreement(lines []record.Request, observed map[int]int64, c pool.Config) (int, error) {
	p, err := pool.NewPredictor(c)
	if err != nil {
		return 0, err
	}
	agree := 0
	var regions int64
	for i := range lines[len(lines)-1].Sequence + 1 {
		n, err := p.Next(lines[0].PromptTokens, lines[0].MaxTokens)
		if err != nil {
			return 0, err
		}
		if i == 0 {
			regions = observed[0] / int64(n)
		}
		if got, ok := observed[i]; ok && got == int64(n)*regions {
			agree++
		}
	}
	return agree, nil
}
