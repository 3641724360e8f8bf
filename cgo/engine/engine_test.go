package engine_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/clock"
	"github.com/xferbench/xferbench/cgo/engine"
	"github.com/xferbench/xferbench/cgo/engine/enginetest"
)

// group starts a group of fake lanes with a plan of n pieces each; done closes
// it and returns what the lanes counted.
func group(t *testing.T, timeout time.Duration, n int, bs ...enginetest.Behaviour) (g *engine.Group, plans []*engine.Plan, done func() []enginetest.Counts) {
	t.Helper()
	var fakes []*enginetest.Lane
	var lanes []engine.Lane
	for i, b := range bs {
		f := enginetest.New(b)
		fakes, lanes = append(fakes, f), append(lanes, f.Lane())
		pieces := make([]engine.Piece, n)
		for j := range pieces {
			pieces[j] = engine.Piece{Local: uint64(j) * 10, Remote: uint64(j) * 10, Len: uint64(10 + i)}
		}
		p, err := engine.NewPlan(pieces)
		if err != nil {
			t.Fatal(err)
		}
		plans = append(plans, p)
	}
	g, err := engine.NewGroup(lanes, engine.Config{Poll: engine.Yield, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	var counts []enginetest.Counts
	done = func() []enginetest.Counts {
		if counts == nil {
			if err := g.Close(); err != nil {
				t.Errorf("Close() = %v", err)
			}
			for i, f := range fakes {
				counts = append(counts, f.Counts())
				f.Free()
				plans[i].Free()
			}
		}
		return counts
	}
	t.Cleanup(func() { done() })
	return g, plans, done
}

func TestTransferCountsAndOrdersTimes(t *testing.T) {
	const pieces, iters, depth = 100, 5, 7
	g, plans, done := group(t, 10*time.Second, pieces, enginetest.Behaviour{RefuseEvery: 10, PollsPerDone: 3}, enginetest.Behaviour{})
	begin := clock.Now()
	ss, err := g.Transfer(context.Background(), engine.Read, plans, iters, depth)
	end := clock.Now()
	if err != nil || len(ss) != iters {
		t.Fatalf("%d samples, %v", len(ss), err)
	}
	last := begin
	for i, s := range ss {
		if s.Bytes != pieces*10+pieces*11 || s.Ops != 2*pieces || s.EAgain < pieces/10 || s.Polls == 0 {
			t.Errorf("sample %d: %+v", i, s)
		}
		for _, ns := range []int64{s.BeginNs, s.PostedNs, s.LocalNs, s.DoneNs} {
			if ns < last {
				t.Errorf("sample %d: a time before the one before it: %+v", i, s)
			}
			last = ns
		}
		if s.Post() < 0 || s.Local() < s.Post() || s.Total() < s.Local() {
			t.Errorf("sample %d: post %v, local %v, total %v", i, s.Post(), s.Local(), s.Total())
		}
	}
	if last > end {
		t.Error("the last transfer ended after the call")
	}
	for i, c := range done() {
		if c.Posts != pieces*iters || c.Begins != iters || c.Flushes != 2*iters || c.MostInFlight > depth {
			t.Errorf("lane %d: %+v", i, c)
		}
	}
}

// In yield mode a long wait rests between its polls; in spin mode it never does.
func TestYieldRests(t *testing.T) {
	polls := func(mode engine.Poll) uint64 {
		f := enginetest.New(enginetest.Behaviour{CompletesAfter: 100 * time.Millisecond})
		defer f.Free()
		p, err := engine.NewPlan([]engine.Piece{{Len: 1}})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Free()
		g, err := engine.NewGroup([]engine.Lane{f.Lane()}, engine.Config{Poll: mode, Timeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		}()
		if err := g.Start(); err != nil {
			t.Fatal(err)
		}
		ss, err := g.Transfer(context.Background(), engine.Read, []*engine.Plan{p}, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		return ss[0].Polls
	}
	// 100 ms in rests of 20 us are some 5,000 polls; without rests they are a million.
	if n := polls(engine.Yield); n > 50_000 {
		t.Errorf("%d polls in yield mode: it did not rest", n)
	}
	if n := polls(engine.Spin); n < 50_000 {
		t.Errorf("%d polls in spin mode: it rested", n)
	}
}

func TestWaitsEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		b    enginetest.Behaviour
		says string
	}{
		"nothing completes": {enginetest.Behaviour{NeverCompletes: true}, "no operation"},
		"all refused":       {enginetest.Behaviour{RefuseEvery: 1}, "no operation could be posted"},
		"never lands":       {enginetest.Behaviour{NeverLands: true}, "not confirmed to have landed"},
	} {
		t.Run(name, func(t *testing.T) {
			g, plans, _ := group(t, 50*time.Millisecond, 3, tt.b, enginetest.Behaviour{})
			start := time.Now()
			ss, err := g.Transfer(context.Background(), engine.Write, plans, 2, 16)
			if !errors.Is(err, engine.ErrTimeout) || !strings.Contains(err.Error(), tt.says) || len(ss) != 0 {
				t.Errorf("%d samples, %v", len(ss), err)
			}
			if d := time.Since(start); d < 50*time.Millisecond || d > 20*time.Second {
				t.Errorf("ended after %v", d)
			}
		})
	}
}

// The samples of transfers that were whole before the failure are kept.
func TestFailureKeepsWords(t *testing.T) {
	g, plans, _ := group(t, 10*time.Second, 10, enginetest.Behaviour{FailAt: 25}, enginetest.Behaviour{})
	ss, err := g.Transfer(context.Background(), engine.Read, plans, 5, 4)
	if err == nil || !strings.Contains(err.Error(), "post 25 failed") || errors.Is(err, engine.ErrStopped) {
		t.Errorf("error %v", err)
	}
	if len(ss) != 2 {
		t.Errorf("%d samples, want the 2 before the failure", len(ss))
	}
}

// A library that does not return from a call ends the batch all the same, and
// Close says that it is still inside.
func TestLaneThatHangs(t *testing.T) {
	for name, b := range map[string][]enginetest.Behaviour{
		"alone":         {{HangsAt: 5, PollsPerDone: 10}},
		"beside others": {{}, {HangsAt: 5, PollsPerDone: 10}},
	} {
		t.Run(name, func(t *testing.T) {
			var lanes []engine.Lane
			var plans []*engine.Plan
			for _, b := range b {
				f := enginetest.New(b) // never freed: its thread stays in it
				p, err := engine.NewPlan([]engine.Piece{{Len: 1}, {Len: 1}})
				if err != nil {
					t.Fatal(err)
				}
				lanes, plans = append(lanes, f.Lane()), append(plans, p)
			}
			g, err := engine.NewGroup(lanes, engine.Config{Poll: engine.Yield, Timeout: 100 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := g.Transfer(context.Background(), engine.Read, plans, 1, 1); !errors.Is(err, engine.ErrTimeout) ||
				!strings.Contains(err.Error(), "does not return") {
				t.Errorf("the batch ended with %v", err)
			}
			if _, err := g.Transfer(context.Background(), engine.Read, plans, 1, 1); !errors.Is(err, engine.ErrStuck) {
				t.Errorf("another batch: %v", err)
			}
			if err := g.Close(); !errors.Is(err, engine.ErrStuck) {
				t.Errorf("Close() = %v", err)
			}
			if err := g.Close(); err != nil {
				t.Errorf("a second Close() = %v", err)
			}
		})
	}
}

func TestCancelStops(t *testing.T) {
	g, plans, _ := group(t, time.Hour, 3, enginetest.Behaviour{NeverCompletes: true})
	cause := errors.New("a person")
	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
	if _, err := g.Transfer(ctx, engine.Read, plans, 1, 16); !errors.Is(err, cause) {
		t.Errorf("error %v, want the cause", err)
	}
	if _, err := g.Transfer(context.Background(), engine.Read, plans, 1, 16); !errors.Is(err, engine.ErrStopped) {
		t.Errorf("a batch after the stop: %v", err)
	}
}

func TestArmAndSettle(t *testing.T) {
	g, plans, done := group(t, 10*time.Second, 4, enginetest.Behaviour{}, enginetest.Behaviour{})
	for range 3 {
		if err := g.Arm(context.Background(), engine.Send, plans, 6); err != nil {
			t.Fatal(err)
		}
		if n, err := g.Settle(context.Background()); n != 6 || err != nil {
			t.Fatalf("settled %d, %v", n, err)
		}
	}
	for i, c := range done() {
		if c.Armed != 18 || c.Acked != 18 {
			t.Errorf("lane %d: %+v", i, c)
		}
	}
}

func TestSettleTimesOut(t *testing.T) {
	g, plans, _ := group(t, 50*time.Millisecond, 4, enginetest.Behaviour{}, enginetest.Behaviour{NeverArrives: true})
	if err := g.Arm(context.Background(), engine.Send, plans, 2); err != nil {
		t.Fatal(err)
	}
	if n, err := g.Settle(context.Background()); n != 0 || err == nil || !strings.Contains(err.Error(), "0 of 2") {
		t.Errorf("settled %d, %v", n, err)
	}
}

// A lane that fails while it only progresses is found, and ends what follows.
func TestFaultOutsideOfABatch(t *testing.T) {
	g, plans, _ := group(t, time.Second, 4, enginetest.Behaviour{FailPollAt: 1})
	var err error
	for end := time.Now().Add(20 * time.Second); err == nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
		err = g.Fault()
	}
	if err == nil || !strings.Contains(err.Error(), "poll failed") {
		t.Fatalf("Fault() = %v", err)
	}
	if _, err := g.Transfer(context.Background(), engine.Read, plans, 1, 4); err == nil || !strings.Contains(err.Error(), "poll failed") {
		t.Errorf("a batch on a dead lane: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	g, plans, _ := group(t, time.Second, 1, enginetest.Behaviour{})
	for _, f := range []func() error{
		func() error { _, err := g.Transfer(context.Background(), engine.Read, nil, 1, 1); return err },
		func() error { _, err := g.Transfer(context.Background(), engine.Read, plans, 0, 1); return err },
		func() error { _, err := g.Transfer(context.Background(), engine.Read, plans, 1, 0); return err },
		func() error { _, err := engine.NewGroup(nil, engine.Config{}); return err },
		func() error { _, err := engine.ParseOp("pull"); return err },
	} {
		if err := f(); err == nil {
			t.Error("taken")
		}
	}
	for range 2 {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	g.Stop()
	if err := g.Fault(); err != nil {
		t.Error(err)
	}
}

// A group that does not run says so, from each of its methods.
func TestClosedAndNotStarted(t *testing.T) {
	ctx := context.Background()
	methods := func(g *engine.Group, plans []*engine.Plan) map[string]error {
		g.Hot(true)
		g.Stop()
		_, terr := g.Transfer(ctx, engine.Read, plans, 1, 1)
		_, serr := g.Settle(ctx)
		return map[string]error{"Transfer": terr, "Settle": serr, "Arm": g.Arm(ctx, engine.Send, plans, 1)}
	}
	g, plans, done := group(t, time.Second, 1, enginetest.Behaviour{})
	done()
	for name, err := range methods(g, plans) {
		if !errors.Is(err, engine.ErrClosed) {
			t.Errorf("closed: %s: %v", name, err)
		}
	}
	if err := g.Start(); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("closed: Start: %v", err)
	}
	if err := errors.Join(g.Fault(), g.Close()); err != nil {
		t.Errorf("closed: %v", err)
	}

	f := enginetest.New(enginetest.Behaviour{})
	defer f.Free()
	fresh, err := engine.NewGroup([]engine.Lane{f.Lane()}, engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range methods(fresh, plans) {
		if !errors.Is(err, engine.ErrClosed) {
			t.Errorf("not started: %s: %v", name, err)
		}
	}
	if err := fresh.Close(); err != nil {
		t.Error(err)
	}
}

// No timeout is the default one: what takes a while is not at once too late.
func TestDefaultTimeout(t *testing.T) {
	g, plans, _ := group(t, 0, 4, enginetest.Behaviour{CompletesAfter: 5 * time.Millisecond})
	if _, err := g.Transfer(context.Background(), engine.Read, plans, 3, 1); err != nil {
		t.Error(err)
	}
	if _, err := engine.NewGroup([]engine.Lane{{}}, engine.Config{Timeout: -1}); err == nil {
		t.Error("a negative timeout is taken")
	}
}

// No Go allocation while transfers are measured, but for the samples returned.
func TestTransferAllocates(t *testing.T) {
	g, plans, _ := group(t, 10*time.Second, 1000, enginetest.Behaviour{})
	run := func(iters int) float64 {
		return testing.AllocsPerRun(5, func() {
			if _, err := g.Transfer(context.Background(), engine.Read, plans, iters, 64); err != nil {
				t.Fatal(err)
			}
		})
	}
	if one, many := run(1), run(50); many > one {
		t.Errorf("%v allocations for 1 transfer of 1,000 pieces, %v for 50", one, many)
	}
}

func TestPlan(t *testing.T) {
	p, err := engine.NewPlan([]engine.Piece{{1, 2, 3}, {4, 5, 6}})
	if err != nil {
		t.Fatal(err)
	}
	if p.Len() != 2 || p.Bytes() != 9 || p.Pieces()[1] != (engine.Piece{Local: 4, Remote: 5, Len: 6}) {
		t.Errorf("plan of %d pieces, %d bytes: %v", p.Len(), p.Bytes(), p.Pieces())
	}
	p.Free()
	p.Free()
	if empty, err := engine.NewPlan(nil); err != nil || empty.Len() != 0 {
		t.Errorf("an empty plan: %v", err)
	}
}

// No operation goes beyond a region: the batch is refused before anything is
// posted, and what ends with the region is not.
func TestOutside(t *testing.T) {
	f := enginetest.New(enginetest.Behaviour{})
	defer f.Free()
	lane := f.Lane()
	lane.Own, lane.Peer = 100, 50
	g, err := engine.NewGroup([]engine.Lane{lane}, engine.Config{Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	const transfer, arm = "transfer", "arm"
	for _, tt := range []struct {
		what string
		op   engine.Op
		p    engine.Piece
		in   bool
	}{
		{transfer, engine.Read, engine.Piece{Local: 90, Remote: 40, Len: 10}, true},
		{transfer, engine.Read, engine.Piece{Local: 91, Remote: 0, Len: 10}, false},
		{transfer, engine.Read, engine.Piece{Local: 0, Remote: 41, Len: 10}, false},
		{transfer, engine.Write, engine.Piece{Local: 0, Remote: 1 << 62, Len: 1}, false},
		{transfer, engine.Write, engine.Piece{Local: 1 << 62, Remote: 0, Len: 0}, false},
		{transfer, engine.Send, engine.Piece{Local: 90, Remote: 1 << 20, Len: 10}, true}, // the target looks
		{transfer, engine.Send, engine.Piece{Local: 101, Remote: 0, Len: 0}, false},
		{arm, engine.Send, engine.Piece{Local: 1 << 20, Remote: 90, Len: 10}, true},
		{arm, engine.Send, engine.Piece{Local: 0, Remote: 91, Len: 10}, false},
		{arm, engine.Write, engine.Piece{Local: 0, Remote: 91, Len: 10}, false},
	} {
		// The others are within.
		p, err := engine.NewPlan([]engine.Piece{{Len: 1}, tt.p, {Len: 1}})
		if err != nil {
			t.Fatal(err)
		}
		if tt.what == transfer {
			_, err = g.Transfer(t.Context(), tt.op, []*engine.Plan{p}, 1, 1)
		} else if err = g.Arm(t.Context(), tt.op, []*engine.Plan{p}, 1); err == nil {
			_, err = g.Settle(t.Context())
		}
		if (err == nil) != tt.in || !tt.in && (!errors.Is(err, engine.ErrOutside) || !strings.Contains(err.Error(), "piece 1 of lane 0")) {
			t.Errorf("%s %v %+v: %v", tt.what, tt.op, tt.p, err)
		}
		p.Free()
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if posts := f.Counts().Posts; posts != 2*3 {
		t.Errorf("%d posts, want those of the two transfers within", posts)
	}
	for _, p := range []engine.Piece{{Local: math.MaxUint64, Len: 1}, {Remote: math.MaxUint64 - 1, Len: 2}} {
		if _, err := engine.NewPlan([]engine.Piece{p}); !errors.Is(err, engine.ErrOutside) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}
