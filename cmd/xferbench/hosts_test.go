package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/testenv"
)

// across runs xferbench from host a to a serve on host b and returns the
// record.
func across(t *testing.T, a, b *testenv.NetNS, control testenv.Link, args ...string) *record.Record {
	t.Helper()
	ctx := context.Background()
	s := spawn(t, b.Command(ctx, bin, "serve", "--listen", control.AddrB+":0"))
	rec := filepath.Join(t.TempDir(), "r.jsonl")
	args = append(args, "--no-ceiling", "--record", rec, s.line())
	r := spawn(t, a.Command(ctx, bin, args...))
	r.record = rec
	r.exits(0)
	t.Log("\n" + r.Out.String())
	s.Signal(syscall.SIGTERM)
	s.exits(130)
	return r.closed(record.StatusOK, 0)
}

// units are the block medians of a condition's times.
func units(t *testing.T, r *record.Record, condition int) []float64 {
	t.Helper()
	var ss []stats.Sample
	for s := range r.Samples.All() {
		if s.Condition == condition && s.Phase == record.PhaseMeasure {
			ss = append(ss, stats.Sample{Block: s.Block, Value: float64(s.TotalNs)})
		}
	}
	u, err := stats.BlockMedians(ss)
	if err != nil {
		t.Fatal(err)
	}
	return stats.Values(u)
}

func median(t *testing.T, xs []float64) float64 {
	t.Helper()
	m, err := stats.Median(xs)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Two hosts, every transport that goes over IP, verified, with serve's session
// confined; the traffic is on the
// link and nowhere else.
func TestTwoHosts(t *testing.T) {
	a, b, links := testenv.Hosts(t, testenv.Link{})
	r := across(t, a, b, links[0], "--provider", "tcp,tcp;ofi_rxm,sockets,ucx:tcp,ucx,socket", "--op", "read,write,send",
		"--size", "4MB", "--budget", "1s", "--blocks", "2")
	if r.Run.Peer == nil || r.Run.Host.Address != links[0].AddrA || r.Run.Peer.Address != links[0].AddrB {
		t.Errorf("hosts %+v and %+v", r.Run.Host, r.Run.Peer)
	}
	checked := 0
	for s := range r.Samples.All() {
		if s.Verified != nil && *s.Verified {
			checked++
		}
	}
	if len(r.Conditions) != 6*3*2 || checked != r.Samples.Len() {
		t.Errorf("%d conditions, %d of %d samples verified", len(r.Conditions), checked, r.Samples.Len())
	}
	for _, p := range r.Paths {
		var out, in uint64
		for _, c := range p.Counters {
			switch {
			case c.Side == "initiator" && c.Device == links[0].DevA:
				out = max(out, c.Delta)
			case c.Side == "target" && c.Device == links[0].DevB:
				in = max(in, c.Delta)
			case c.Delta > 1<<20:
				t.Errorf("bytes on another device: %+v", c)
			}
		}
		if out < p.PayloadBytes || in < p.PayloadBytes || out > 2*p.PayloadBytes {
			t.Errorf("condition %d: payload %d, counted %d and %d", p.Condition, p.PayloadBytes, out, in)
		}
	}
}

// Positive control: the ratio of two links whose rates are known.
func TestLinksOfKnownRatio(t *testing.T) {
	a, b, links := testenv.Hosts(t, testenv.Link{Rate: "3gbit"}, testenv.Link{Rate: "2gbit"})
	r := across(t, a, b, links[0], "--provider", "socket@"+links[0].AddrA+",socket@"+links[1].AddrA,
		"--size", "64MB", "--shape", "contiguous", "--blocks", "10", "--budget", "0", "--seed", "5")
	v, err := stats.ComparePaired(units(t, r, 0), units(t, r, 1), stats.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if v.Kind != stats.Different || v.Ratio < 1.5*0.95 || v.Ratio > 1.5*1.05 {
		t.Errorf("3.0 against 2.0 Gbit/s: %v, want a ratio of 1.5 within 5 %%", v)
	}
	if len(r.Comparisons) != 1 || r.Comparisons[0].Verdict != "different" {
		t.Errorf("the record's comparisons: %+v", r.Comparisons)
	}
}

// Negative control: the same provider twice. A verdict at 95 % calls equals
// different once in twenty runs, so the majority of five decides: by chance it is
// wrong once in 860, and a bias that one run would show as often as not, it shows
// as often.
//
// Two connections of one process may differ for as long as they live, by where the
// scheduler put their threads: launches are the unit.
func TestSameProviderTwice(t *testing.T) {
	var equal int
	var different []string
	for seed := 11; equal < 3 && len(different) < 3; seed++ {
		out, err := exec.CommandContext(context.Background(), bin, "--provider", "socket,socket", "--size", "1MB", "--shape", "contiguous",
			"--no-ceiling", "--launches", "8", "--blocks", "3", "--seed", fmt.Sprint(seed), "--no-record").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if strings.Contains(string(out), "no difference") || strings.Contains(string(out), "no-difference") {
			equal++
		} else {
			different = append(different, string(out))
		}
	}
	if len(different) == 3 {
		t.Errorf("the same provider twice, different in 3 of %d runs:\n%s", equal+3, strings.Join(different, "\n"))
	}
}

// Two rails of a known rate each carry a share.
func TestRails(t *testing.T) {
	for _, p := range []string{"socket", "tcp"} {
		t.Run(p, func(t *testing.T) {
			a, b, links := testenv.Hosts(t, testenv.Link{Rate: "1gbit"}, testenv.Link{Rate: "1gbit"})
			one, two := p+"@"+links[0].AddrA, p+"@"+links[0].AddrA+"+"+links[1].AddrA
			r := across(t, a, b, links[0], "--provider", one+","+two, "--size", "32MB", "--shape", "merged", "--blocks", "6", "--budget", "0")
			if got := r.Conditions[1].Transport.Rails; got != 2 {
				t.Fatalf("%d rails", got)
			}
			// tc lets a burst through at once, so both are a little faster than
			// the rate, by the same bytes a link.
			if ratio := median(t, units(t, r, 0)) / median(t, units(t, r, 1)); ratio < 1.9 {
				t.Errorf("two rails are %.2f times as fast as one, want at least 1.9", ratio)
			}
		})
	}
}

func TestServeThroughSecretFile(t *testing.T) {
	f := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(f, []byte("correct horse battery staple"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := xferbench(t, "serve", "--listen", "127.0.0.1:0", "--secret-file", f)
	line := s.line()
	if strings.Contains(line, "#") {
		t.Errorf("the line shows a token: %s", line)
	}
	r := xferbench(t, "--provider", "socket", "--size", "1MB", "--shape", "contiguous", "--no-ceiling", "--blocks", "1", "--no-record", "--secret-file", f, line)
	r.exits(0)
	wrong := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(wrong, []byte("another text of some length"), 0o600); err != nil {
		t.Fatal(err)
	}
	xferbench(t, "--no-record", "--secret-file", wrong, line).exits(3)
}

// crossing interpolates between the two sizes at which the medians of two
// providers change order; conditions come by provider, then by size.
func crossing(t *testing.T, r *record.Record) float64 {
	t.Helper()
	n := len(r.Conditions) / 2
	var lastBytes, lastDiff float64
	for i := range n {
		bytes := float64(r.Conditions[i].Bytes)
		diff := median(t, units(t, r, i)) - median(t, units(t, r, n+i))
		if i > 0 && lastDiff < 0 && diff >= 0 {
			return lastBytes + (bytes-lastBytes)*-lastDiff/(diff-lastDiff)
		}
		lastBytes, lastDiff = bytes, diff
	}
	t.Fatal("the medians do not cross")
	return 0
}

// A link with a known start-up cost and one with a known rate: the size from
// which on the former wins is known, and the sweep must find it.
func TestCrossoverOfKnownLinks(t *testing.T) {
	const delay = 10 * time.Millisecond
	a, b, links := testenv.Hosts(t, testenv.Link{Pace: 200e6}, testenv.Link{Delay: delay})
	ctx := context.Background()
	for _, n := range []*testenv.NetNS{a, b} {
		// A connection that rests between blocks must not start slowly again:
		// that would be a second cost, which grows with the size.
		if out, err := n.Command(ctx, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/tcp_slow_start_after_idle").CombinedOutput(); err != nil {
			testenv.Need(t, "netns-sysctl", fmt.Errorf("%w: %s", err, out))
		}
	}
	s := spawn(t, b.Command(ctx, bin, "serve", "--listen", links[0].AddrB+":0"))
	rec := filepath.Join(t.TempDir(), "r.jsonl")
	r := spawn(t, a.Command(ctx, bin, "sweep", "--provider", "socket@"+links[0].AddrA+",socket@"+links[1].AddrA, "--size", "128KiB,256KiB,512KiB,768KiB,1MiB,1536KiB",
		"--shape", "contiguous", "--no-ceiling", "--blocks", "8", "--iterations", "3", "--seed", "3", "--record", rec, s.line()))
	r.record = rec
	r.exits(0)
	got := r.closed(record.StatusOK, 0)
	t.Log("\n" + r.Out.String())
	an, err := analysis.Of(got)
	if err != nil {
		t.Fatal(err)
	}
	if len(an.Guides) != 1 {
		t.Fatalf("%d guides", len(an.Guides))
	}
	cs := an.Guides[0].Crossings
	if len(cs) != 1 {
		t.Fatalf("crossings %+v, want one", cs)
	}
	lo, hi := float64(cs[0].FromBytes), float64(cs[0].ToBytes)
	if l := cs[0].Lines; l != nil {
		lo, hi = l.Interval.Lo, l.Interval.Hi
	}
	// One request and its answer cross the delayed link: 2 x 10 ms, in which
	// the other link moves 500,000 B less headers. It cannot be earlier.
	const least = 2 * 0.010 * 200e6 / 8 * 8948 / 9000
	// It is later by what the delayed link, whose window TCP still opens, takes
	// for its bytes: where the medians themselves cross, without a model.
	want := crossing(t, got)
	if want < least || lo > want*1.1 || hi < want/1.1 {
		t.Errorf("crossover between %.0f and %.0f B; the medians cross at %.0f B, and %.0f B is the least that the links allow", lo, hi, want, least)
	}
	s.Signal(syscall.SIGTERM)
	s.exits(130)
}
