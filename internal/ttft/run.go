// Package ttft measures the time to first token of disaggregated inference end
// to end and proves for each request that its KV cache moved.
//
// A run goes through conditions (an arm, a prompt length, a load) in randomised
// blocks. Each request is timed from before it is written to the first chunk
// with a token; the engines' metrics before and after decide whether it
// counts. Nothing is averaged that was not proven.
package ttft

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/schedule"
	"github.com/xferbench/xferbench/internal/serving/wait"
)

// Config describes a run.
type Config struct {
	Arms         []Arm
	PromptTokens []int
	MaxTokens    int // output tokens of each request, at least 2
	// Load and its levels: Concurrency for a closed loop, Rates (arrivals a
	// second) for an open one.
	Load        string
	Concurrency []int
	Rates       []float64

	// Iterations is the number of requests of each condition over all blocks, and
	// Blocks the number of blocks. A condition with a higher concurrency than its
	// share of requests in a block sends that many instead.
	Iterations, Blocks int
	// Schedule is how blocks follow one another and what an earlier start has done.
	// With a budget, blocks of the same size go on until it is over. What the
	// requests decide is set here: conditions, blocks, seed and progress.
	Schedule schedule.Schedule
	// Since is how long ago the record began.
	Since time.Duration
	// Warmup is the number of requests of each condition before its first block,
	// after one over each pair of engines.
	Warmup int

	Seed      uint64
	Prompts   PromptKind
	VocabSize int
	// Timeout bounds one request, Settle the wait for the engines' counts after a
	// batch.
	Timeout, Settle time.Duration

	// Record takes each line; Progress is told of each request and may be nil.
	Record   func(record.Line) error
	Progress func(Progress)
}

// Progress is how far a run is.
type Progress struct {
	Condition      string
	Block, Blocks  int // Blocks is 0 with a budget
	Done, Of       int // requests, Of 0 if not known
	Invalid        int
	LastTTFT       time.Duration
	Elapsed, Limit time.Duration
}

// condition is one cell.
type condition struct {
	id          int
	arm         *Arm
	tokens      int
	concurrency int
	rate        float64
	sent        int // iterations so far
}

func (c *condition) name(load string) string {
	level := fmt.Sprintf("c%d", c.concurrency)
	switch load {
	case record.LoadOpen:
		level = fmt.Sprintf("%g/s", c.rate)
	case record.LoadOffline:
		level = "offline"
	}
	return fmt.Sprintf("%s %d tokens %s", c.arm.Name, c.tokens, level)
}

// Limits of a configuration.
const (
	maxConcurrency = 4096
	maxIterations  = 1 << 24
)

// Check reports the first thing for which the configuration cannot be run.
func (c *Config) Check() error {
	if len(c.Arms) == 0 {
		return errors.New("nothing to measure: no engine is named")
	}
	if len(c.PromptTokens) == 0 {
		return errors.New("no prompt length is given")
	}
	if c.MaxTokens < 2 {
		return fmt.Errorf("%d output tokens: at least 2 are needed, so that the first token is not the last", c.MaxTokens)
	}
	if c.Iterations < 1 || c.Iterations > maxIterations || c.Blocks < 1 || c.Blocks > c.Iterations || c.Warmup < 0 {
		return fmt.Errorf("%d iterations in %d blocks after %d for warm-up: want 1 to %d iterations, 1 block to as many as those, and 0 or more for warm-up", c.Iterations, c.Blocks, c.Warmup, maxIterations)
	}
	if c.Timeout <= 0 || c.Settle <= 0 || c.Schedule.Budget < 0 {
		return fmt.Errorf("timeout %s, settle time %s, budget %s: all must be positive", c.Timeout, c.Settle, c.Schedule.Budget)
	}
	if err := c.checkLoad(); err != nil {
		return err
	}
	p := prompts{c.Prompts, c.Seed, c.VocabSize}
	for _, n := range c.PromptTokens {
		if n < 1 {
			return fmt.Errorf("a prompt of %d tokens", n)
		}
		if err := p.check(n); err != nil {
			return err
		}
	}
	names := map[string]bool{}
	for _, a := range c.Arms {
		if names[a.Name] {
			return fmt.Errorf("two arms are named %q", a.Name)
		}
		names[a.Name] = true
	}
	return nil
}

// checkLoad is the part of [Config.Check] that holds for the kind of load.
func (c *Config) checkLoad() error {
	switch c.Load {
	case record.LoadClosed:
		for _, n := range c.Concurrency {
			if n < 1 || n > maxConcurrency {
				return fmt.Errorf("concurrency %d: want 1 to %d", n, maxConcurrency)
			}
		}
		if len(c.Concurrency) == 0 {
			return errors.New("a closed loop needs a concurrency")
		}
	case record.LoadOpen:
		for _, r := range c.Rates {
			if !(r > 0 && r <= 1e5) {
				return fmt.Errorf("rate %v: want more than 0 and at most 100,000 requests per second", r)
			}
		}
		if len(c.Rates) == 0 {
			return errors.New("an open loop needs a rate")
		}
	case record.LoadOffline:
	default:
		return fmt.Errorf("unknown load %q", c.Load)
	}
	return nil
}

func (c *Config) conditions() (list []*condition) {
	for _, tokens := range c.PromptTokens {
		level := func(concurrency int, rate float64) {
			for i := range c.Arms {
				list = append(list, &condition{id: len(list), arm: &c.Arms[i], tokens: tokens, concurrency: concurrency, rate: rate})
			}
		}
		switch c.Load {
		case record.LoadClosed:
			for _, n := range c.Concurrency {
				level(n, 0)
			}
		case record.LoadOpen:
			for _, r := range c.Rates {
				level(0, r)
			}
		default:
			level(0, 0)
		}
	}
	return list
}

// perBlock is how many requests of the condition a block has.
func (c *Config) perBlock(cond *condition) int {
	return max((c.Iterations+c.Blocks-1)/c.Blocks, cond.concurrency)
}

// runner is a run under way.
type runner struct {
	cfg     Config
	client  *Client
	prompts prompts
	start   time.Time
	index   atomic.Uint64 // of the next prompt
	batch   int
	late    int // batches in a row; see patience

	conds []*condition

	mu   sync.Mutex
	seq  map[*Arm]int
	ttft []float64 // of a batch's valid requests, ns
	done int
	bad  int
	of   int
}

// ErrUnavailable is matched by the error of [Run] when engines could not be
// reached, or do not say what a proof needs.
var ErrUnavailable = fault.New(fault.Unavailable, "engines unavailable")

// Run measures, and gives each line to cfg.Record. When ctx is cancelled it ends
// after the requests under way have been cut, with ctx's error. A failure of the
// record ends it too.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	widest := 1
	for _, n := range cfg.Concurrency {
		widest = max(widest, n)
	}
	if cfg.Load != record.LoadClosed {
		widest = 1024
	}
	r := &runner{cfg: cfg, client: NewClient(widest), prompts: prompts{cfg.Prompts, cfg.Seed, cfg.VocabSize}, start: time.Now().Add(-cfg.Since), seq: map[*Arm]int{}}
	defer r.client.Close()
	err := r.prepareArms(ctx)
	if err != nil {
		return unavailable(ctx, err)
	}
	r.conds = r.cfg.conditions()
	for _, c := range r.conds {
		if err := cfg.Record(r.recordCondition(c)); err != nil {
			return err
		}
		r.of += cfg.Warmup + r.cfg.perBlock(c)*cfg.Blocks
		r.goOn(c, cfg.Schedule.Earlier[c.id])
	}
	if n := r.index.Load(); n > 0 {
		// Engines may have been started anew meanwhile.
		if err := r.event(record.Warning, fmt.Sprintf("the run goes on after %d requests: what follows an engine's block pool from request to request may begin anew here", n)); err != nil {
			return err
		}
	}
	sch := cfg.Schedule
	sch.Conditions, sch.Seed, sch.Blocks = len(r.conds), cfg.Seed, cfg.Blocks
	sch.PerBlock = func(c int) int { return r.cfg.perBlock(r.conds[c]) }
	if sch.Budget > 0 {
		r.of, sch.Blocks = 0, 0
	}
	for i := range r.cfg.Arms {
		if err := r.warmPairs(ctx, &r.cfg.Arms[i]); err != nil {
			return ended(ctx, err)
		}
	}
	return ended(ctx, sch.Run(ctx, r))
}

// goOn has what is sent next follow on what an earlier start sent: no prompt
// repeats, which a prefix cache would know.
func (r *runner) goOn(c *condition, p schedule.Past) {
	r.index.Add(uint64(p.Sent))
	r.seq[c.arm] += p.Sent
	r.done += p.Sent
	for _, n := range p.Count {
		c.sent += n
	}
}

// ended is the error of a measurement.
func ended(ctx context.Context, err error) error {
	if errors.Is(err, ErrLimit) {
		return unavailable(ctx, err)
	}
	return err
}

// First implements [schedule.Workload]: the warm-up of a condition.
func (r *runner) First(ctx context.Context, c int) error {
	if r.cfg.Warmup == 0 {
		return nil
	}
	return r.run(ctx, r.conds[c], stretch{phase: record.PhaseWarmup, n: r.cfg.Warmup})
}

// Batch implements [schedule.Workload].
func (r *runner) Batch(ctx context.Context, at schedule.Slot) ([]float64, error) {
	c := r.conds[at.Condition]
	err := r.run(ctx, c, stretch{phase: record.PhaseMeasure, block: at.Block, order: at.Place, n: r.cfg.perBlock(c) - at.Have})
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.ttft
	r.ttft = nil
	return out, err
}

// unavailable marks an error of the engines, but not that of a cancelled ctx.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

func (r *runner) recordCondition(c *condition) record.Condition {
	rc := record.Condition{ID: c.id, Name: c.name(r.cfg.Load), Provider: c.arm.Name, API: "http", Op: "ttft",
		Model: c.arm.Model, Tokens: int64(c.tokens), Block: c.arm.expects.blockTokens, Serving: c.arm.serving(), Simulated: c.arm.simulated}
	if asked, bytes := c.arm.expects.bytes(c.tokens); bytes > 0 {
		rc.Asked, rc.Bytes = uint64(asked), uint64(bytes)
	}
	return rc
}

// warmTries is how often the pairs are warmed while an engine answers a request
// with an error: a first handshake that another process holds up may time out.
const warmTries = 3

// warmPairs sends one request over each pair of engines: the first contact
// pays for handshake, registration and connections.
func (r *runner) warmPairs(ctx context.Context, a *Arm) error {
	var c *condition
	for _, cand := range r.conds {
		if cand.arm == a {
			c = cand
			break
		}
	}
	one := *c
	one.concurrency, one.rate = 1, 0
	for try, refused := 0, true; refused && try < warmTries; try++ {
		refused = false
		for range a.pairs() {
			var last *batch
			if err := r.inBatch(ctx, &one, stretch{phase: record.PhaseWarmup, n: 1}, 1, func(ctx context.Context, b *batch) {
				b.send(ctx)
				last = b
			}); err != nil {
				return err
			}
			for _, q := range last.slots {
				f := q.ev.failure
				refused = refused || f != nil && (f.reason == record.ReasonHTTPError || f.reason == record.ReasonStreamError)
			}
		}
	}
	return nil
}

// stretch is some requests of one condition.
type stretch struct {
	phase        string
	block, order int
	n            int
}

func (r *runner) run(ctx context.Context, c *condition, s stretch) error {
	switch r.cfg.Load {
	case record.LoadOpen:
		return r.open(ctx, c, s)
	case record.LoadOffline:
		return r.offline(ctx, c, s)
	}
	return r.closed(ctx, c, s)
}

// closed keeps c.concurrency requests in flight until s.n have been sent. One
// at a time, each request is a batch of its own and has its own proof.
func (r *runner) closed(ctx context.Context, c *condition, s stretch) error {
	if c.concurrency == 1 {
		for range s.n {
			if err := r.inBatch(ctx, c, s, 1, func(ctx context.Context, b *batch) { b.send(ctx) }); err != nil {
				return err
			}
		}
		return nil
	}
	return r.inBatch(ctx, c, s, c.concurrency, func(ctx context.Context, b *batch) {
		var next atomic.Int64
		var wg sync.WaitGroup
		for range c.concurrency {
			wg.Go(func() {
				for next.Add(1) <= int64(s.n) && ctx.Err() == nil {
					b.send(ctx)
				}
			})
		}
		wg.Wait()
	})
}

// open sends s.n requests at the times of a Poisson process, however many are
// still under way.
func (r *runner) open(ctx context.Context, c *condition, s stretch) error {
	rng := rand.New(rand.NewPCG(r.cfg.Seed, mix(uint64(c.id)<<32|uint64(s.block)<<1|1)))
	return r.inBatch(ctx, c, s, min(s.n, 64), func(ctx context.Context, b *batch) {
		at := time.Now()
		var wg sync.WaitGroup
		for range s.n {
			at = at.Add(time.Duration(rng.ExpFloat64() / c.rate * float64(time.Second)))
			q, err := b.next()
			if err != nil {
				b.fault(err)
				break
			}
			// Cancelled: what was not sent is not in the record.
			if wait.Until(ctx, at) != nil {
				break
			}
			intended := at
			wg.Go(func() { b.exchange(ctx, q, intended) })
		}
		wg.Wait()
	})
}

// offline sends s.n requests at once.
func (r *runner) offline(ctx context.Context, c *condition, s stretch) error {
	return r.inBatch(ctx, c, s, min(s.n, 1024), func(ctx context.Context, b *batch) {
		gate := make(chan struct{})
		var begin time.Time
		var wg sync.WaitGroup
		for range s.n {
			q, err := b.next()
			if err != nil {
				b.fault(err)
				break
			}
			wg.Go(func() {
				<-gate
				b.exchange(ctx, q, begin)
			})
		}
		begin = time.Now()
		close(gate)
		wg.Wait()
	})
}
