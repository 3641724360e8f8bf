package fabric

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/fabric/fabrictest"
)

// BenchmarkPost holds the time to post a descriptor through package loop
// against the same loop written in C alone, in turn on the same endpoints: over
// tcp, and over shm, where posting is cheapest (it takes no system call) and so
// the loop's share largest. ratio is the median of the rounds' ratios of
// medians.
func BenchmarkPost(b *testing.B) {
	for _, provider := range []string{"tcp", "shm"} {
		b.Run(provider, func(b *testing.B) { benchmarkPost(b, provider) })
	}
}

func benchmarkPost(b *testing.B, provider string) {
	const n, iters = 256, 40
	from, to := local(b, provider, n)
	target, err := loop.NewGroup([]loop.Lane{to.Lane()}, loop.Config{Poll: loop.Yield, Timeout: 10 * time.Second})
	if err != nil {
		b.Fatal(err)
	}
	defer target.Close()
	if err := target.Start(); err != nil {
		b.Fatal(err)
	}
	pieces := make([]loop.Piece, n)
	for i := range pieces {
		pieces[i] = loop.Piece{Local: uint64(i) * 64, Remote: uint64(i) * 64, Len: 64}
	}
	plan, err := loop.NewPlan(pieces)
	if err != nil {
		b.Fatal(err)
	}
	defer plan.Free()
	plans := []*loop.Plan{plan}
	arm := func() {
		if err := target.Arm(b.Context(), loop.Write, plans, iters); err != nil {
			b.Fatal(err)
		}
	}
	settle := func() {
		if _, err := target.Settle(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	var ratios, alone, through []float64
	for b.Loop() {
		arm()
		ns, err := fabrictest.PostAlone(from.Lane(), plan, iters)
		if err != nil {
			b.Fatal(err)
		}
		settle()
		a := median(ns)
		arm()
		ss := transfer(b, from, plans, iters)
		settle()
		ns = ns[:0]
		for _, s := range ss {
			ns = append(ns, s.Post().Nanoseconds())
		}
		e := median(ns)
		ratios, alone, through = append(ratios, e/a), append(alone, a/n), append(through, e/n)
	}
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(alone), "C-ns/op")
	b.ReportMetric(median(through), "loop-ns/op")
}

func transfer(b *testing.B, from *Endpoint, plans []*loop.Plan, iters int) []loop.Sample {
	g, err := loop.NewGroup([]loop.Lane{from.Lane()}, loop.Config{Poll: loop.Yield, Timeout: 10 * time.Second})
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	if err := g.Start(); err != nil {
		b.Fatal(err)
	}
	ss, err := g.Transfer(b.Context(), loop.Write, plans, iters, plans[0].Len())
	if err != nil {
		b.Fatal(err)
	}
	return ss
}

func median[T int64 | float64](in []T) float64 {
	s := slices.Sorted(slices.Values(in))
	return float64(s[len(s)/2])
}

// local opens two connected endpoints in this process for counted WRITEs.
func local(t testing.TB, provider string, depth int) (from, to *Endpoint) {
	t.Helper()
	lib := need(t)
	found, err := lib.Find(Hints{Provider: provider, Ops: []loop.Op{loop.Write}, Source: source(provider), Landing: RemoteCount})
	if provider == "tcp" && errors.Is(err, ErrUnavailable) { // 1.17 calls it net
		found, err = lib.Find(Hints{Provider: "net", Ops: []loop.Op{loop.Write}, Source: source(provider), Landing: RemoteCount})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(found.Free)
	var eps [2]*Endpoint
	var addrs [2]Address
	for i := range eps {
		e, err := found.Open(found.Interfaces[0], EndpointConfig{Initiator: i == 0, Depth: depth})
		if err != nil {
			t.Fatal(err)
		}
		buf, err := mem.New(mem.Host, 0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
			if err := buf.Free(); err != nil {
				t.Error(err)
			}
		})
		if err := e.Register(loop.Region{Address: buf.Address(), Len: uint64(buf.Len())}); err != nil {
			t.Fatal(err)
		}
		if addrs[i], err = e.Address(); err != nil {
			t.Fatal(err)
		}
		eps[i] = e
	}
	for i, e := range eps {
		if err := e.Connect(addrs[1-i]); err != nil {
			t.Fatal(err)
		}
	}
	return eps[0], eps[1]
}
