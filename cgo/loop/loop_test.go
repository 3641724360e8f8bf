package loop_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/clock"
	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/loop/looptest"
)

// group starts a group of fake lanes with a plan of n pieces each; done closes
// it and returns what the lanes counted.
func group(t *testing.T, timeout time.Duration, n int, bs ...looptest.Behaviour) (g *loop.Group, plans []*loop.Plan, done func() []looptest.Counts) {
	t.Helper()
	var fakes []*looptest.Lane
	var lanes []loop.Lane
	for i, b := range bs {
		f := looptest.New(b)
		fakes, lanes = append(fakes, f), append(lanes, f.Lane())
		pieces := make([]loop.Piece, n)
		for j := range pieces {
			pieces[j] = loop.Piece{Local: uint64(j) * 10, Remote: uint64(j) * 10, Len: uint64(10 + i)}
		}
		p, err := loop.NewPlan(pieces)
		if err != nil {
			t.Fatal(err)
		}
		plans = append(plans, p)
	}
	g, err := loop.NewGroup(lanes, loop.Config{Poll: loop.Yield, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	var counts []looptest.Counts
	done = func() []looptest.Counts {
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
	g, plans, done := group(t, 10*time.Second, pieces, looptest.Behaviour{RefuseEvery: 10, PollsPerDone: 3}, looptest.Behaviour{})
	begin := clock.Now()
	ss, err := g.Transfer(context.Background(), loop.Read, plans, iters, depth)
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
	polls := func(mode loop.Poll) uint64 {
		f := looptest.New(looptest.Behaviour{CompletesAfter: 100 * time.Millisecond})
		defer f.Free()
		p, err := loop.NewPlan([]loop.Piece{{Len: 1}})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Free()
		g, err := loop.NewGroup([]loop.Lane{f.Lane()}, loop.Config{Poll: mode, Timeout: 10 * time.Second})
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
		ss, err := g.Transfer(context.Background(), loop.Read, []*loop.Plan{p}, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		return ss[0].Polls
	}
	// 100 ms in rests of 20 us are some 5,000 polls; without rests they are a million.
	if n := polls(loop.Yield); n > 50_000 {
		t.Errorf("%d polls in yield mode: it did not rest", n)
	}
	if n := polls(loop.Spin); n < 50_000 {
		t.Errorf("%d polls in spin mode: it rested", n)
	}
}

func TestWaitsEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		b    looptest.Behaviour
		says string
	}{
		"nothing completes": {looptest.Behaviour{NeverCompletes: true}, "no operation"},
		"all refused":       {looptest.Behaviour{RefuseEvery: 1}, "no operation could be posted"},
		"never lands":       {looptest.Behaviour{NeverLands: true}, "not confirmed to have landed"},
	} {
		t.Run(name, func(t *testing.T) {
			g, plans, _ := group(t, 50*time.Millisecond, 3, tt.b, looptest.Behaviour{})
			start := time.Now()
			ss, err := g.Transfer(context.Background(), loop.Write, plans, 2, 16)
			if !errors.Is(err, loop.ErrTimeout) || !strings.Contains(err.Error(), tt.says) || len(ss) != 0 {
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
	g, plans, _ := group(t, 10*time.Second, 10, looptest.Behaviour{FailAt: 25}, looptest.Behaviour{})
	ss, err := g.Transfer(context.Background(), loop.Read, plans, 5, 4)
	if err == nil || !strings.Contains(err.Error(), "post 25 failed") || errors.Is(err, loop.ErrStopped) {
		t.Errorf("error %v", err)
	}
	if len(ss) != 2 {
		t.Errorf("%d samples, want the 2 before the failure", len(ss))
	}
}

// A library that does not return from a call ends the batch all the same, and
// Close says that it is still inside.
func TestLaneThatHangs(t *testing.T) {
	for name, b := range map[string][]looptest.Behaviour{
		"alone":         {{HangsAt: 5, PollsPerDone: 10}},
		"beside others": {{}, {HangsAt: 5, PollsPerDone: 10}},
	} {
		t.Run(name, func(t *testing.T) {
			var lanes []loop.Lane
			var plans []*loop.Plan
			for _, b := range b {
				f := looptest.New(b) // never freed: its thread stays in it
				p, err := loop.NewPlan([]loop.Piece{{Len: 1}, {Len: 1}})
				if err != nil {
					t.Fatal(err)
				}
				lanes, plans = append(lanes, f.Lane()), append(plans, p)
			}
			g, err := loop.NewGroup(lanes, loop.Config{Poll: loop.Yield, Timeout: 100 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := g.Transfer(context.Background(), loop.Read, plans, 1, 1); !errors.Is(err, loop.ErrTimeout) ||
				!strings.Contains(err.Error(), "does not return") {
				t.Errorf("the batch ended with %v", err)
			}
			if _, err := g.Transfer(context.Background(), loop.Read, plans, 1, 1); !errors.Is(err, loop.ErrStuck) {
				t.Errorf("another batch: %v", err)
			}
			if err := g.Close(); !errors.Is(err, loop.ErrStuck) {
				t.Errorf("Close() = %v", err)
			}
			if err := g.Close(); err != nil {
				t.Errorf("a second Close() = %v", err)
			}
		})
	}
}

func TestCancelStops(t *testing.T) {
	g, plans, _ := group(t, time.Hour, 3, looptest.Behaviour{NeverCompletes: true})
	cause := errors.New("a person")
	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
	if _, err := g.Transfer(ctx, loop.Read, plans, 1, 16); !errors.Is(err, cause) {
		t.Errorf("error %v, want the cause", err)
	}
	if _, err := g.Transfer(context.Background(), loop.Read, plans, 1, 16); !errors.Is(err, loop.ErrStopped) {
		t.Errorf("a batch after the stop: %v", err)
	}
}

func TestArmAndSettle(t *testing.T) {
	g, plans, done := group(t, 10*time.Second, 4, looptest.Behaviour{}, looptest.Behaviour{})
	for range 3 {
		if err := g.Arm(context.Background(), loop.Send, plans, 6); err != nil {
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
	g, plans, _ := group(t, 50*time.Millisecond, 4, looptest.Behaviour{}, looptest.Behaviour{NeverArrives: true})
	if err := g.Arm(context.Background(), loop.Send, plans, 2); err != nil {
		t.Fatal(err)
	}
	if n, err := g.Settle(context.Background()); n != 0 || err == nil || !strings.Contains(err.Error(), "0 of 2") {
		t.Errorf("settled %d, %v", n, err)
	}
}

// A lane that fails while it only progresses is found, and ends what follows.
func TestFaultOutsideOfABatch(t *testing.T) {
	g, plans, _ := group(t, time.Second, 4, looptest.Behaviour{FailPollAt: 1})
	var err error
	for end := time.Now().Add(20 * time.Second); err == nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
		err = g.Fault()
	}
	if err == nil || !strings.Contains(err.Error(), "poll failed") {
		t.Fatalf("Fault() = %v", err)
	}
	if _, err := g.Transfer(context.Background(), loop.Read, plans, 1, 4); err == nil || !strings.Contains(err.Error(), "poll failed") {
		t.Errorf("a batch on a dead lane: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	g, plans, _ := group(t, time.Second, 1, looptest.Behaviour{})
	for _, f := range []func() error{
		func() error { _, err := g.Transfer(context.Background(), loop.Read, nil, 1, 1); return err },
		func() error { _, err := g.Transfer(context.Background(), loop.Read, plans, 0, 1); return err },
		func() error { _, err := g.Transfer(context.Background(), loop.Read, plans, 1, 0); return err },
		func() error { _, err := loop.NewGroup(nil, loop.Config{}); return err },
		func() error { _, err := loop.NewGroup([]loop.Lane{{}}, loop.Config{}); return err },
		func() error { _, err := loop.ParseOp("pull"); return err },
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
	methods := func(g *loop.Group, plans []*loop.Plan) map[string]error {
		g.Hot(true)
		g.Stop()
		_, terr := g.Transfer(ctx, loop.Read, plans, 1, 1)
		_, serr := g.Settle(ctx)
		return map[string]error{"Transfer": terr, "Settle": serr, "Arm": g.Arm(ctx, loop.Send, plans, 1)}
	}
	g, plans, done := group(t, time.Second, 1, looptest.Behaviour{})
	done()
	for name, err := range methods(g, plans) {
		if !errors.Is(err, loop.ErrClosed) {
			t.Errorf("closed: %s: %v", name, err)
		}
	}
	if err := g.Start(); !errors.Is(err, loop.ErrClosed) {
		t.Errorf("closed: Start: %v", err)
	}
	if err := errors.Join(g.Fault(), g.Close()); err != nil {
		t.Errorf("closed: %v", err)
	}

	f := looptest.New(looptest.Behaviour{})
	defer f.Free()
	fresh, err := loop.NewGroup([]loop.Lane{f.Lane()}, loop.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range methods(fresh, plans) {
		if !errors.Is(err, loop.ErrClosed) {
			t.Errorf("not started: %s: %v", name, err)
		}
	}
	if err := fresh.Close(); err != nil {
		t.Error(err)
	}
}

// No timeout is the default one: what takes a while is not at once too late.
func TestDefaultTimeout(t *testing.T) {
	g, plans, _ := group(t, 0, 4, looptest.Behaviour{CompletesAfter: 5 * time.Millisecond})
	if _, err := g.Transfer(context.Background(), loop.Read, plans, 3, 1); err != nil {
		t.Error(err)
	}
	if _, err := loop.NewGroup([]loop.Lane{{}}, loop.Config{Timeout: -1}); err == nil {
		t.Error("a negative timeout is taken")
	}
}

// No Go allocation while transfers are measured, but for the samples returned.
func TestTransferAllocates(t *testing.T) {
	g, plans, _ := group(t, 10*time.Second, 1000, looptest.Behaviour{})
	run := func(iters int) float64 {
		return testing.AllocsPerRun(5, func() {
			if _, err := g.Transfer(context.Background(), loop.Read, plans, iters, 64); err != nil {
				t.Fatal(err)
			}
		})
	}
	if one, many := run(1), run(50); many > one {
		t.Errorf("%v allocations for 1 transfer of 1,000 pieces, %v for 50", one, many)
	}
}

func TestPlan(t *testing.T) {
	p, err := loop.NewPlan([]loop.Piece{{1, 2, 3}, {4, 5, 6}})
	if err != nil {
		t.Fatal(err)
	}
	if p.Len() != 2 || p.Bytes() != 9 || p.Pieces()[1] != (loop.Piece{Local: 4, Remote: 5, Len: 6}) {
		t.Errorf("plan of %d pieces, %d bytes: %v", p.Len(), p.Bytes(), p.Pieces())
	}
	p.Free()
	p.Free()
	if empty, err := loop.NewPlan(nil); err != nil || empty.Len() != 0 {
		t.Errorf("an empty plan: %v", err)
	}
}

// No operation goes beyond a region: the batch is refused before anything is
// posted, and what ends with the region is not.
func TestOutside(t *testing.T) {
	f := looptest.New(looptest.Behaviour{})
	defer f.Free()
	lane := f.Lane()
	lane.Own, lane.Peer = 100, 50
	g, err := loop.NewGroup([]loop.Lane{lane}, loop.Config{Timeout: 10 * time.Second})
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
		op   loop.Op
		p    loop.Piece
		in   bool
	}{
		{transfer, loop.Read, loop.Piece{Local: 90, Remote: 40, Len: 10}, true},
		{transfer, loop.Read, loop.Piece{Local: 91, Remote: 0, Len: 10}, false},
		{transfer, loop.Read, loop.Piece{Local: 0, Remote: 41, Len: 10}, false},
		{transfer, loop.Write, loop.Piece{Local: 0, Remote: 1 << 62, Len: 1}, false},
		{transfer, loop.Write, loop.Piece{Local: 1 << 62, Remote: 0, Len: 0}, false},
		{transfer, loop.Send, loop.Piece{Local: 90, Remote: 1 << 20, Len: 10}, true}, // the target looks
		{transfer, loop.Send, loop.Piece{Local: 101, Remote: 0, Len: 0}, false},
		{arm, loop.Send, loop.Piece{Local: 1 << 20, Remote: 90, Len: 10}, true},
		{arm, loop.Send, loop.Piece{Local: 0, Remote: 91, Len: 10}, false},
		{arm, loop.Write, loop.Piece{Local: 0, Remote: 91, Len: 10}, false},
	} {
		// The others are within.
		p, err := loop.NewPlan([]loop.Piece{{Len: 1}, tt.p, {Len: 1}})
		if err != nil {
			t.Fatal(err)
		}
		if tt.what == transfer {
			_, err = g.Transfer(t.Context(), tt.op, []*loop.Plan{p}, 1, 1)
		} else if err = g.Arm(t.Context(), tt.op, []*loop.Plan{p}, 1); err == nil {
			_, err = g.Settle(t.Context())
		}
		if (err == nil) != tt.in || !tt.in && (!errors.Is(err, loop.ErrOutside) || !strings.Contains(err.Error(), "piece 1 of lane 0")) {
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
	for _, p := range []loop.Piece{{Local: math.MaxUint64, Len: 1}, {Remote: math.MaxUint64 - 1, Len: 2}} {
		if _, err := loop.NewPlan([]loop.Piece{p}); !errors.Is(err, loop.ErrOutside) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

// Lanes of one iteration make one sample: from the first begin to the last end.
func TestJoin(t *testing.T) {
	s := loop.Sample{BeginNs: 10, PostedNs: 20, LocalNs: 30, DoneNs: 40, Bytes: 1, Ops: 2, EAgain: 3, Polls: 4}
	s.Join(loop.Sample{BeginNs: 5, PostedNs: 25, LocalNs: 28, DoneNs: 50, Bytes: 10, Ops: 20, EAgain: 30, Polls: 40})
	want := loop.Sample{BeginNs: 5, PostedNs: 25, LocalNs: 30, DoneNs: 50, Bytes: 11, Ops: 22, EAgain: 33, Polls: 44}
	if s != want {
		t.Errorf("%+v, want %+v", s, want)
	}
}
