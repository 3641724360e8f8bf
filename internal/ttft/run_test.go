package ttft

import (
	"cmp"
	"context"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/analysis/pool"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/sim"
	"github.com/xferbench/xferbench/internal/serving/twoleg"
)

// small is a KV cache that takes no time to move: 4,096 bytes a block.
var small = sim.Geometry{BlockTokens: 16, Regions: 4, BytesPerToken: 256}

// simulate starts engines that take next to no time.
func simulate(t testing.TB, cfg sim.Config, unified bool) *sim.Set {
	t.Helper()
	if cfg.Geometry.Regions == 0 {
		cfg.Geometry = small
	}
	set, err := sim.StartSet(cfg, "127.0.0.1", unified)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	return set
}

// recorder keeps the lines of a run.
type recorder struct {
	mu  sync.Mutex
	rec record.Record
}

func (r *recorder) write(l record.Line) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rec.Add(l)
}

func (r *recorder) measured() (out []record.Request) {
	for _, l := range r.rec.Requests {
		if l.Phase == record.PhaseMeasure {
			out = append(out, l)
		}
	}
	return out
}

// twoLeg is the arm over a pair.
func twoLeg(set *sim.Set) Arm {
	return Arm{Name: "sim", Mode: record.ModeDisaggregated, Path: record.PathTwoLeg, Prefill: []string{set.Prefill.URL}, Decode: []string{set.Decode.URL},
		KV: Geometry{BytesPerToken: int64(set.Prefill.Config().Geometry.BytesPerToken)}}
}

// quick is a run of n requests in one block.
func quick(rec *recorder, n int, arms ...Arm) Config {
	return Config{Arms: arms, PromptTokens: []int{100}, MaxTokens: 3, Load: record.LoadClosed, Concurrency: []int{1}, Iterations: n, Blocks: 1,
		Seed: 7, Prompts: TokenPrompts, VocabSize: 32_000, Timeout: 20 * time.Second, Settle: 300 * time.Millisecond, Record: rec.write}
}

// mustRun runs and analyses what rec has of it.
func mustRun(t testing.TB, rec *recorder, cfg Config) *analysis.Requests {
	t.Helper()
	if err := Run(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	res, err := analysis.OfRequests(&rec.rec)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestTwoLegIsValidAndExact(t *testing.T) {
	set := simulate(t, sim.Config{PrefillTime: 4 * time.Millisecond, StepTime: 2 * time.Millisecond, Pings: true, Split: true}, false)
	rec := &recorder{}
	res := mustRun(t, rec, quick(rec, 5, twoLeg(set)))
	if res.Invalid != 0 || res.N != 5 || !res.Simulated {
		t.Fatalf("%d of %d invalid (%v), simulated %v", res.Invalid, res.N, res.Reasons, res.Simulated)
	}
	for _, l := range rec.measured() {
		if l.Proof != "sample" || !l.Simulated || l.Completion != 3 || len(l.ITLNs) != 2 || !l.ConnReused || !*l.PrefillConnReused {
			t.Errorf("line %+v", l)
		}
		// 100 tokens are 7 blocks of 4,096 bytes.
		if l.Moved == nil || l.Moved.Scope != "sample" || l.Moved.Transfers != 1 || l.Moved.Bytes != 7*4096 {
			t.Errorf("moved %+v, want 28,672 bytes in one transfer", l.Moved)
		}
		g := l.Legs
		if !slices.IsSorted([]int64{g.SendPrefill, g.PrefillHeaders, g.PrefillBody, g.SendDecode, g.DecodeHeaders, g.FirstToken}) || g.FirstToken != l.TTFTNs {
			t.Errorf("legs out of order: %+v, TTFT %d", *g, l.TTFTNs)
		}
		s := l.Split
		if !s.Engine || s.Prefill < 4e6 || s.OneToken < 2e6 || s.HandOver <= 0 || s.DecodeQueue <= 0 {
			t.Errorf("split %+v", *s)
		}
		if sum := s.Wait + s.Prefill + s.HandOver + s.DecodeQueue + s.OneToken + s.Network; sum != l.TTFTNs {
			t.Errorf("the parts of the split add up to %d, TTFT is %d", sum, l.TTFTNs)
		}
		if l.FirstTokenMatch == nil || !*l.FirstTokenMatch {
			t.Errorf("first tokens differ: %v", l.FirstTokenMatch)
		}
	}
}

// Each fault of the simulation comes out as its reason: alone (the proof of
// the sample) and among four at a time (the proof of the batch).
func TestFaultsComeOutAsReasons(t *testing.T) {
	tests := map[string]struct {
		cfg     sim.Config
		want    record.Reason
		alone   int // invalid of 4, one at a time; the fault hits every second request
		batched int // invalid of 4 in one batch
	}{
		"null-params":      {sim.Config{}, record.ReasonNullParams, 2, 2},
		"prefix-hit":       {sim.Config{}, record.ReasonPrefixHit, 2, 2}, // by each answer's own usage
		"decode-cache-hit": {sim.Config{}, record.ReasonPrefixHit, 2, 4},
		"silent-recompute": {sim.Config{}, record.ReasonLocalRecompute, 2, 4},
		// This release's answers tell loaded tokens, so that the others of the batch
		// can be believed.
		"silent-recompute in 0.15": {sim.Config{Release: "0.15.1"}, record.ReasonLocalRecompute, 2, 2},
		"failed-transfer":          {sim.Config{}, record.ReasonFailedTransfer, 2, 4},
		"expired-lease":            {sim.Config{}, record.ReasonExpiredLease, 2, 4},
		"short-transfer":           {sim.Config{}, record.ReasonShortBytes, 2, 4},
		"excess-transfer":          {sim.Config{}, record.ReasonExcessBytes, 2, 4},
		"short-list":               {sim.Config{}, record.ReasonShortBytes, 2, 2}, // each answer has its own lists
		"dying-peer":               {sim.Config{}, record.ReasonFailedTransfer, 2, 4},
		"stream-error":             {sim.Config{}, record.ReasonStreamError, 2, 2},
		"truncated":                {sim.Config{}, record.ReasonTruncated, 2, 2},
		"no-usage":                 {sim.Config{}, record.ReasonNoUsage, 2, 2},
		"early-eos":                {sim.Config{}, record.ReasonShortCompletion, 2, 2},
		// These two hit either engine, so that three of four requests meet one.
		"server-error":     {sim.Config{}, record.ReasonHTTPError, 3, 3},
		"hang":             {sim.Config{}, record.ReasonTimeout, 3, 3},
		"no-metrics":       {sim.Config{}, record.ReasonMetricsMissing, 4, 4},
		"recompute policy": {sim.Config{Recompute: true}, record.ReasonFailedTransfer, 2, 4},
		"hidden series":    {sim.Config{HideSeries: []string{"nixl_bytes"}}, record.ReasonMetricsMissing, 4, 4},
		"hidden failures":  {sim.Config{HideSeries: []string{"failed_transfers"}}, record.ReasonMetricsMissing, 4, 4},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if f, _, ok := strings.Cut(name, " in "); ok {
				name = f
			}
			f := sim.Fault(name)
			if name == "recompute policy" {
				f = sim.FailedTransfer
			}
			if slices.Contains(sim.Faults(), f) {
				tt.cfg.Faults = []sim.Injection{{Fault: f, Every: 2}}
			}
			for _, concurrency := range []int{1, 4} {
				set := simulate(t, tt.cfg, false)
				rec := &recorder{}
				cfg := quick(rec, 4, twoLeg(set))
				cfg.Concurrency, cfg.Settle = []int{concurrency}, 100*time.Millisecond
				if f == sim.Hang {
					cfg.Timeout = 500 * time.Millisecond
				}
				res := mustRun(t, rec, cfg)
				want := tt.alone
				if concurrency > 1 {
					want = tt.batched
				}
				if res.N != 4 || res.Invalid != want || res.Reasons[tt.want] != want {
					t.Errorf("concurrency %d: invalid %d of %d for %v, want %d for %s", concurrency, res.Invalid, res.N, res.Reasons, want, tt.want)
				}
				for _, l := range rec.measured() {
					if l.Reason != "" {
						t.Logf("concurrency %d: %s: %s", concurrency, l.Reason, l.Detail)
					}
				}
			}
		})
	}
}

// Windowed layers, copies of a latent cache, ranks, push and fp8 are proven over both
// paths of our own and behind a proxy that says nothing of blocks; and one KV block too
// few or too many, in any layer group and on any rank, is found over each.
func TestShapesOfKVCaches(t *testing.T) {
	shape := func(windows ...int) []kv.Group {
		var out []kv.Group
		for _, w := range windows {
			g := kv.Group{Kind: kv.Full, Layers: 4, KVHeads: 2, KeyDim: 8, ValueDim: 8}
			if w > 0 {
				g.Kind, g.Window = kv.Sliding, w
			}
			out = append(out, g)
		}
		return out
	}
	windows := kv.Model{Name: "windows", Heads: 2, DType: kv.BF16, Groups: shape(40, 0)}
	grouped := kv.Model{Name: "grouped", Heads: 2, DType: kv.BF16, Groups: shape(0)}
	latent := kv.Model{Name: "latent", Heads: 2, DType: kv.BF16, Groups: []kv.Group{{Kind: kv.Latent, Layers: 4, KeyDim: 24}}}
	few := grouped
	few.Groups = []kv.Group{{Kind: kv.Full, Layers: 4, KVHeads: 1, KeyDim: 8, ValueDim: 8}}
	fp8 := grouped
	fp8.DType = kv.FP8
	for name, tt := range map[string]struct {
		plays, known kv.Model
		cfg          sim.Config
		tp           int
		bytes        int64 // by hand: 100 tokens are 7 blocks of 16
		tokens       int   // 0: 100
	}{
		// Of the window of 40, floor(61/16) blocks have been given up: 4 + 7 blocks of 4
		// layers x 16 tokens x 64 bytes.
		"windows": {windows, windows, sim.Config{}, 1, (4 + 7) * 4 * 16 * 64, 0},
		// Of 112 tokens the prefill engine lists 4 blocks of the window, which covers 3.
		"a window that covers less": {plays: windows, known: windows, tp: 1, bytes: (3 + 7) * 4 * 16 * 64, tokens: 112},
		"windows before 0.23":       {windows, windows, sim.Config{Release: "0.15.1"}, 1, 7 * 8 * 16 * 64, 0},
		"two ranks":                 {grouped, grouped, sim.Config{}, 2, 7 * 4 * 16 * 64, 0},
		"more ranks than heads":     {few, few, sim.Config{}, 2, 2 * 7 * 4 * 16 * 32, 0},
		"copies of a latent":        {latent, latent, sim.Config{}, 2, 2 * 7 * 4 * 16 * 48, 0},
		"push":                      {windows, windows, sim.Config{Push: true}, 1, (4 + 7) * 4 * 16 * 64, 0},
		"fp8 by the page":           {fp8, grouped, sim.Config{DType: "fp8"}, 1, 7 * 4 * 16 * 32, 0},
		"nothing known of groups":   {windows, kv.Model{}, sim.Config{}, 1, (4 + 7) * 4 * 16 * 64, 0},
		"nothing known of one":      {grouped, kv.Model{}, sim.Config{}, 1, 7 * 4 * 16 * 64, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var err error
			if tt.cfg.Geometry, err = sim.GeometryOf(tt.plays, 16, tt.tp, cmp.Or(tt.cfg.Release, "0.32.0")); err != nil {
				t.Fatal(err)
			}
			for fault, want := range map[sim.Fault]record.Reason{"": "", sim.ShortTransfer: record.ReasonShortBytes, sim.ShortWindow: record.ReasonShortBytes,
				sim.ShortRank: record.ReasonShortBytes, sim.ExcessTransfer: record.ReasonExcessBytes, sim.ShortList: record.ReasonShortBytes} {
				cfg := tt.cfg
				if fault != "" {
					cfg.Faults = []sim.Injection{{Fault: fault, Every: 1}}
				}
				set := simulate(t, cfg, false)
				legs := twoLeg(set)
				legs.KV = Geometry{Model: tt.known}
				ours, silent := legs, legs
				ours.Name, ours.Path, ours.Front = "ours", record.PathProxy, inFront(t, set.Prefill.URL, set.Decode.URL, http.NotFound)
				silent.Name, silent.Path, silent.Front = "silent", record.PathProxy, withoutBlocks(t, ours.Front)
				rec := &recorder{}
				run := quick(rec, 1, legs, ours, silent)
				run.Settle, run.PromptTokens = 100*time.Millisecond, []int{cmp.Or(tt.tokens, 100)}
				if mustRun(t, rec, run); len(rec.measured()) != 3 {
					t.Fatalf("%d requests", len(rec.measured()))
				}
				for _, q := range rec.measured() {
					want, rule := want, record.RuleBlocks
					if q.Arm == "silent" {
						rule = record.RuleGeometry
					}
					if tt.known.Name == "" && (q.Arm == "silent" || len(tt.plays.Groups) > 1) {
						want, rule = "", record.RuleTokens
					}
					if tt.known.Name == "" && fault == sim.ShortList {
						want = "" // a list is the engine's word; without a geometry nothing speaks against it
					}
					if q.Reason != want || q.Rule != rule {
						t.Errorf("%s over %s: %q (%s) by %s, want %q by %s", fault, q.Arm, q.Reason, q.Detail, q.Rule, want, rule)
					}
					if fault == "" && (q.Moved == nil || q.Moved.Bytes != tt.bytes || q.Moved.Transfers != int64(tt.tp) || q.DecodeTP > 0 && q.DecodeTP != tt.tp) {
						t.Errorf("%s moved %+v over %d ranks, want %d bytes over %d", q.Arm, q.Moved, q.DecodeTP, tt.bytes, tt.tp)
					}
				}
			}
		})
	}
}

// withoutBlocks is a proxy before ours that says nothing of blocks, as others do.
func withoutBlocks(t *testing.T, front string) string {
	t.Helper()
	to, err := url.Parse(front)
	if err != nil {
		t.Fatal(err)
	}
	p := httputil.NewSingleHostReverseProxy(to)
	p.FlushInterval = -1
	p.ModifyResponse = func(res *http.Response) error { res.Header.Del(twoleg.BlocksHeader); return nil }
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	return s.URL
}

// A pair whose engine answers with an error is warmed again, a few times.
func TestWarmUpIsRepeated(t *testing.T) {
	for fault, want := range map[sim.Fault]int{"": 1, sim.ServerError: warmTries, sim.StreamError: warmTries, sim.SilentRecompute: 1} {
		cfg := sim.Config{}
		if fault != "" {
			cfg.Faults = []sim.Injection{{Fault: fault, Every: 1}}
		}
		rec := &recorder{}
		mustRun(t, rec, quick(rec, 2, twoLeg(simulate(t, cfg, false))))
		if n := len(rec.rec.Requests) - len(rec.measured()); n != want {
			t.Errorf("fault %q: %d requests to warm up, want %d", fault, n, want)
		}
	}
}

func TestUnifiedAndDirect(t *testing.T) {
	set := simulate(t, sim.Config{}, true)
	rec := &recorder{}
	arms := []Arm{
		{Name: "one", Mode: record.ModeUnified, Path: record.PathUnified, Front: set.Unified.URL, KV: Geometry{BytesPerToken: 256}},
		{Name: "direct", Mode: record.ModeDisaggregated, Path: record.PathDirect, Front: set.Prefill.URL, KV: Geometry{BytesPerToken: 256}},
	}
	res := mustRun(t, rec, quick(rec, 3, arms...))
	if res.N != 6 || res.Invalid != 0 {
		t.Fatalf("%d of %d invalid: %v", res.Invalid, res.N, res.Reasons)
	}
	warned := false
	for _, e := range rec.rec.Events {
		warned = warned || e.Level == record.Warning && e.Message == "arm direct: the direct path ends at the prefill engine and contains no transfer of KV cache"
	}
	if !warned {
		t.Errorf("no warning that the direct path has no transfer: %v", rec.rec.Events)
	}
}

func TestPrefixHitOnAUnifiedEngine(t *testing.T) {
	set := simulate(t, sim.Config{Faults: []sim.Injection{{Fault: sim.PrefixHit, Every: 2}}}, true)
	rec := &recorder{}
	res := mustRun(t, rec, quick(rec, 4, Arm{Name: "one", Mode: record.ModeUnified, Path: record.PathUnified, Front: set.Unified.URL}))
	if res.Invalid != 2 || res.Reasons[record.ReasonPrefixHit] != 2 {
		t.Errorf("invalid %d: %v, want 2 prefix hits", res.Invalid, res.Reasons)
	}
}

func TestForeignTraffic(t *testing.T) {
	set := simulate(t, sim.Config{PrefillTime: 20 * time.Millisecond}, false)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c := NewClient(1)
		defer c.Close()
		p := prompts{TokenPrompts, 99, 1000}
		for i := uint64(0); ctx.Err() == nil; i++ {
			req, err := p.prepare(i, newRequestID(), "simulated", 50, 2)
			if err != nil {
				t.Error(err)
				return
			}
			_ = c.stream(ctx, set.Prefill.URL, req.id, req.whole, 2) // only its traces matter
		}
	}()
	rec := &recorder{}
	res := mustRun(t, rec, quick(rec, 4, twoLeg(set)))
	cancel()
	<-done
	if res.Reasons[record.ReasonForeignTraffic] == 0 {
		t.Errorf("reasons %v, want foreign-traffic", res.Reasons)
	}
}

func TestOpenLoopMeasuresFromTheIntendedStart(t *testing.T) {
	// One prompt at a time for 30 ms each at 100 arrivals a second: a queue builds
	// up, and the latencies must show it.
	set := simulate(t, sim.Config{PrefillTime: 30 * time.Millisecond}, true)
	rec := &recorder{}
	cfg := quick(rec, 20, Arm{Name: "one", Mode: record.ModeUnified, Path: record.PathUnified, Front: set.Unified.URL})
	cfg.Load, cfg.Rates = record.LoadOpen, []float64{100}
	res := mustRun(t, rec, cfg)
	if res.Invalid != 0 || res.N != 20 {
		t.Fatalf("%d of %d invalid: %v", res.Invalid, res.N, res.Reasons)
	}
	lines := rec.measured()
	slices.SortFunc(lines, func(a, b record.Request) int { return a.Sequence - b.Sequence })
	last := lines[19]
	// 20 prompts of 30 ms take 600 ms and the last one arrives after some 200 ms.
	if last.TTFTNs < 100e6 {
		t.Errorf("the last request waited %d ns; the queue is missing", last.TTFTNs)
	}
	for i, l := range lines {
		if l.BeginAtNs < l.IntendedAtNs || i > 0 && l.IntendedAtNs <= lines[i-1].IntendedAtNs {
			t.Errorf("request %d: intended %d after %d, begun %d", i, l.IntendedAtNs, lines[max(i-1, 0)].IntendedAtNs, l.BeginAtNs)
		}
	}
}

func TestOffline(t *testing.T) {
	set := simulate(t, sim.Config{PrefillTime: 5 * time.Millisecond}, false)
	rec := &recorder{}
	cfg := quick(rec, 12, twoLeg(set))
	cfg.Load, cfg.Blocks = record.LoadOffline, 2
	res := mustRun(t, rec, cfg)
	row := res.Rows[0]
	if res.Invalid != 0 || row.N() != 12 || row.Makespan == nil || row.Makespan.N != 2 {
		t.Fatalf("row %+v, reasons %v", row, res.Reasons)
	}
	// Six prompts of 5 ms one after another.
	if row.Makespan.Min < 30e6 {
		t.Errorf("makespan %v ns, want at least 30 ms", row.Makespan.Min)
	}
	if want := 18 / (row.Makespan.Min / 1e9); row.Throughput <= 0 || row.Throughput > want*1.001 {
		t.Errorf("throughput %v tokens a second, at most %v are possible", row.Throughput, want)
	}
}

// Two arms of which one is slower: paired in blocks, the difference is found.
func TestArmsAreComparedInBlocks(t *testing.T) {
	fast := simulate(t, sim.Config{PrefillTime: 2 * time.Millisecond}, false)
	slow := simulate(t, sim.Config{PrefillTime: 2 * time.Millisecond, MoverDelay: 30 * time.Millisecond}, false)
	a, b := twoLeg(fast), twoLeg(slow)
	a.Name, b.Name = "fast", "slow"
	rec := &recorder{}
	cfg := quick(rec, 8, a, b)
	cfg.Blocks = 8
	res := mustRun(t, rec, cfg)
	if len(res.Comparisons) != 1 {
		t.Fatalf("comparisons %+v", res.Comparisons)
	}
	v := res.Comparisons[0].Verdict
	if v.Kind.String() != "different" || v.Ratio < 2 || v.NA != 8 {
		t.Errorf("verdict %s", v)
	}
	// The order within blocks is random: neither arm always comes first.
	orders := map[int]bool{}
	for _, l := range rec.measured() {
		if l.Arm == "fast" {
			orders[l.Order] = true
		}
	}
	if len(orders) != 2 {
		t.Errorf("the arm fast always ran at place %v of the block", orders)
	}
}

// The pool wraps around where the formula says, the descriptors jump there, and
// the predictor names the order of the free list.
func TestPoolLapIsPredicted(t *testing.T) {
	set := simulate(t, sim.Config{Blocks: 200, Order: pool.FIFO}, false)
	rec := &recorder{}
	cfg := quick(rec, 59, twoLeg(set)) // and one to warm the pair
	cfg.MaxTokens = 2
	cfg.PromptTokens = []int{90} // 6 blocks of 199: lap at request 33
	res := mustRun(t, rec, cfg)
	if len(res.Series) != 1 || res.Series[0].Lap == nil {
		t.Fatalf("series %+v", res.Series)
	}
	s := res.Series[0]
	if s.Lap.Sequence != 33 || s.Lap.DecodeSequence != 33 || !s.Lap.Reached || s.Lap.Model != "fifo" || s.Lap.Agree != 60 || s.Lap.Of != 60 {
		t.Errorf("lap %+v, want request 33 and all 60 explained by fifo", *s.Lap)
	}
	found := false
	for _, c := range s.Changes {
		if c.Component == "descriptors" && c.Sequence >= 32 && c.Sequence <= 35 {
			found = c.After > c.Before
		}
	}
	if !found {
		t.Errorf("changes %+v: no step of the descriptors at request 33", s.Changes)
	}
}

func TestInterruptedRunKeepsItsLines(t *testing.T) {
	set := simulate(t, sim.Config{PrefillTime: 10 * time.Second}, false)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	rec := &recorder{}
	begin := time.Now()
	err := Run(ctx, quick(rec, 3, twoLeg(set)))
	if err == nil || time.Since(begin) > 8*time.Second {
		t.Fatalf("error %v after %s", err, time.Since(begin))
	}
	if len(rec.rec.Requests) != 1 || rec.rec.Requests[0].Valid {
		t.Errorf("lines %+v", rec.rec.Requests)
	}
}

// The client's clock against the engine's own: it must be near, and it cannot be
// so if it stops at the headers (sent at once), at a ping or at a later token.
func TestClientClock(t *testing.T) {
	set := simulate(t, sim.Config{PrefillTime: 60 * time.Millisecond, StepTime: 200 * time.Millisecond, Pings: true}, true)
	rec := &recorder{}
	cfg := quick(rec, 5, Arm{Name: "one", Mode: record.ModeUnified, Path: record.PathUnified, Front: set.Unified.URL})
	cfg.MaxTokens = 2
	res := mustRun(t, rec, cfg)
	if res.Invalid != 0 {
		t.Fatalf("invalid: %v", res.Reasons)
	}
	nearest := int64(math.MaxInt64)
	for _, l := range rec.measured() {
		if l.TruthNs < 60e6 {
			t.Fatalf("the engine says %d ns for a prompt of 60 ms", l.TruthNs)
		}
		d := l.TTFTNs - l.TruthNs
		if d < 0 {
			t.Errorf("TTFT %d ns, the engine says %d: the token was seen before it was sent", l.TTFTNs, l.TruthNs)
		}
		nearest = min(nearest, d) // a busy machine delays some
		if len(l.ITLNs) != 1 || l.ITLNs[0] < 150e6 {
			t.Errorf("inter-token latencies %v, want one of 200 ms", l.ITLNs)
		}
	}
	if nearest > 40e6 {
		t.Errorf("the nearest of all TTFTs is %d ns from the engine's own", nearest)
	}
}
