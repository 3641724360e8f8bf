package analysis_test

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv/synth"
)

// twoProviders is the analysis of a raw run of the bytes that MakeTTFT moves.
func twoProviders(t *testing.T) *analysis.Analysis {
	t.Helper()
	b, err := synth.Specs()["two-providers.jsonl"].Make()
	return of(t, read(t, b, err))
}

func read(t *testing.T, b []byte, err error) *record.Record {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	r, err := record.Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got/want-1) > tolerance {
		t.Errorf("%s: %v, want %v within %v%%", what, got, want, tolerance*100)
	}
}

// TestLadder holds the result against the truth of MakeTTFT, whose noise adds
// 1.6 % on average: unified 432 ms, the pair 420+4+330+9+3 = 766 ms of which
// NIXL's transfer takes 300.
func TestLadder(t *testing.T) {
	b, err := synth.MakeTTFT("x", 4, 10, 3, 7648, 438_566_912)
	res, err := analysis.NewLadder(twoProviders(t), ofRequests(t, read(t, b, err)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Rows) != 2 || res.Requests.N != 60 || res.Requests.Invalid != 0 || res.Requests.Simulated {
		t.Fatalf("%d rows, %d requests, %d invalid", len(res.Rows), res.Requests.N, res.Requests.Invalid)
	}
	unified, pair := res.Rows[0], res.Rows[1]
	near(t, "unified", unified.TTFT.Median, 432e6*1.016, 0.02)
	near(t, "pair", pair.TTFT.Median, 766e6*1.016, 0.02)
	if unified.Bytes != 0 || len(unified.Rungs) != 0 || unified.Increment != nil || unified.Steps != nil {
		t.Errorf("the unified arm moved something: %+v", unified)
	}
	near(t, "increment", pair.Increment.Value, 334e6*1.016, 0.05)
	sum := 0.0
	for _, p := range pair.Parts {
		sum += p.Share.Value
		if p.Share.Interval == nil || !p.Share.Interval.Contains(p.Share.Value) {
			t.Errorf("%s: share %v in %v", p.Name, p.Share.Value, p.Share.Interval)
		}
		near(t, p.Name, p.Share.Value, p.MedianNs/pair.TTFT.Median, 1e-12)
	}
	near(t, "sum of the shares", sum, 1, 0.005)
	near(t, "NIXL's share", pair.Connector().Share.Value, 300.0/766, 0.02)
	// memcpy, socket, the engines' transport, NIXL and the first token, by the path.
	var names []string
	for _, g := range pair.Rungs {
		names = append(names, g.Name)
		if g.Share != nil {
			near(t, g.Name, g.Share.Value, g.MedianNs/pair.TTFT.Median, 1e-12)
		}
	}
	if d := cmp.Diff([]string{"memcpy READ merged", "socket READ merged", "ucx:tcp READ merged", "NIXL transfer", "first token"}, names); d != "" {
		t.Error(d)
	}
	if pair.Used != &pair.Rungs[2] || pair.Without == nil || pair.Without.Interval == nil {
		t.Fatalf("used %+v, without it %+v", pair.Used, pair.Without)
	}
	near(t, "without the wire", pair.Without.Value, pair.TTFT.Median-pair.Used.MedianNs, 1e-12)
	// Steps add up, in the order of the path.
	last := pair.Steps[len(pair.Steps)-1]
	var kinds []string
	added := 0.0
	for _, s := range pair.Steps[:len(pair.Steps)-1] {
		kinds = append(kinds, s.Kind)
		added += s.Ns
		near(t, s.Kind, s.SumNs, added, 1e-9)
		if s.CI == nil || !s.CI.Contains(s.Ns) {
			t.Errorf("%s: %v in %v", s.Kind, s.Ns, s.CI)
		}
	}
	near(t, "all steps", added, last.SumNs, 1e-9)
	want := []string{analysis.StepMemory, analysis.StepSocket, analysis.StepRaw, analysis.StepNIXL, analysis.StepWait, analysis.StepResidual, analysis.StepBase}
	if d := cmp.Diff(want, kinds); d != "" {
		t.Error(d)
	}
}

// join holds the pair of MakeTTFT, as serving has its engines, against two raw
// transports, of which change may change the rows.
func join(t *testing.T, change func(*record.Record), serving func(*record.Serving), transports map[string]string) (analysis.LadderRow, error) {
	t.Helper()
	b, err := synth.Specs()["two-providers.jsonl"].Make()
	raw := read(t, b, err)
	if change != nil {
		change(raw)
	}
	b, err = synth.MakeTTFT("x", 4, 8, 1, 7648, 438_566_912)
	tt := read(t, b, err)
	if serving != nil {
		serving(tt.Conditions[1].Serving)
	}
	res, err := analysis.NewLadder(of(t, raw), ofRequests(t, tt), transports)
	if err != nil {
		return analysis.LadderRow{}, err
	}
	return res.Rows[1], nil
}

// A raw row counts as the engines' transfer only where all that is known of both
// agrees; what differs is named, and what is not known as well.
func TestLadderJoins(t *testing.T) {
	rows := func(change func(*record.Condition)) func(*record.Record) {
		return func(r *record.Record) {
			for i := range r.Conditions {
				if r.Conditions[i].Provider == "ucx:tcp" {
					change(&r.Conditions[i])
				}
			}
		}
	}
	const merged = "ucx:tcp READ merged"
	for name, tt := range map[string]struct {
		raw        func(*record.Record)
		serving    func(*record.Serving)
		transports map[string]string
		used       string
		wire       int
		why        string // of the row merged, or of another one named before ": "
		unknown    []string
	}{
		"all agree":    {used: merged, wire: 1, unknown: []string{"library"}},
		"same library": {serving: func(s *record.Serving) { s.Library = "/usr/lib/synthetic/libucp.so.0" }, used: merged, wire: 1},
		"other library": {serving: func(s *record.Serving) { s.Library = "/opt/nixl/libucp.so.0" },
			why: "other library: /usr/lib/synthetic/libucp.so.0, the engines loaded /opt/nixl/libucp.so.0"},
		"other model": {raw: rows(func(c *record.Condition) { c.Model = "Llama-3.1-8B" }), why: "other model: Llama-3.1-8B, the engines serve Qwen2.5-7B"},
		"other op":    {serving: func(s *record.Serving) { s.Op = "write" }, why: "other op: READ, the engines WRITE"},
		"other hosts": {serving: func(s *record.Serving) { s.PrefillHosts, s.DecodeHosts = []string{"c"}, []string{"d"} },
			why: "other host pair: synthetic-a→synthetic-a, the engines ran on c→d"},
		"hosts by address": {serving: func(s *record.Serving) { s.PrefillHosts, s.DecodeHosts = []string{"192.0.2.1"}, []string{"127.0.0.1"} }, used: merged, wire: 1, unknown: []string{"library"}},
		"another address":  {serving: func(s *record.Serving) { s.PrefillHosts = []string{"192.0.2.9"} }, why: "other host pair: synthetic-a→synthetic-a, the engines ran on 192.0.2.9→synthetic-a"},
		"one of two engines elsewhere": {serving: func(s *record.Serving) { s.DecodeHosts = []string{"synthetic-a", "d"} },
			why: "other host pair: synthetic-a→synthetic-a, the engines ran on synthetic-a→synthetic-a,d"},
		"other transport": {why: "tcp READ merged: other transport: tcp, the engines use ucx:tcp", used: merged, wire: 1, unknown: []string{"library"}},
		"the provider that ran": {raw: rows(func(c *record.Condition) { c.Provider, c.API, c.Transport.Provider = "efa", "libfabric", "shm" }),
			serving: func(s *record.Serving) { s.Provider = "efa" }, why: "efa READ merged: other transport: shm, the engines use efa"},
		"net is tcp": {raw: func(r *record.Record) {
			for i := range r.Conditions {
				if r.Conditions[i].Provider == "tcp" {
					r.Conditions[i].Transport.Provider = "net"
				}
			}
		}, serving: func(s *record.Serving) { s.Provider = "tcp;ofi_rxm" }, used: "tcp READ merged", wire: 1, unknown: []string{"library"}},
		"ceilings that were asked for": {raw: func(r *record.Record) {
			for i := range r.Conditions {
				r.Conditions[i].Ceiling = false
			}
		}, used: merged, wire: 1, unknown: []string{"library"}},
		"connector alone": {serving: func(s *record.Serving) { s.Provider, s.Backend = "", "LIBFABRIC" }, wire: 1, used: "tcp READ merged",
			why: "other connector: ucx, the engines use NixlConnector LIBFABRIC", unknown: []string{"transport", "library"}},
		"nothing known": {serving: func(s *record.Serving) { *s = record.Serving{} }, wire: 2, unknown: []string{"model", "op", "connector", "transport", "library", "host pair"}},
		"stated": {serving: func(s *record.Serving) { *s = record.Serving{} }, transports: map[string]string{"": "tcp"}, used: "tcp READ merged", wire: 1,
			unknown: []string{"model", "op", "library", "host pair"}},
		"stated for the arm": {serving: func(s *record.Serving) { s.Provider = "" }, transports: map[string]string{"ucx-pair": "ucx:tcp"}, used: merged, wire: 1, unknown: []string{"library"}},
		"other descriptors":  {why: "ucx:tcp READ fragmented: other descriptors: 13,384, NIXL posted 28", used: merged, wire: 1, unknown: []string{"library"}},
		"UCX chose":          {raw: rows(func(c *record.Condition) { c.Provider = "ucx" }), used: "ucx READ merged", wire: 1, unknown: []string{"transport", "library"}},
		"slower than the whole": {raw: func(r *record.Record) {
			edit(r, func(_ int, s *record.Sample) {
				if s.Condition == 2 {
					s.TotalNs *= 5
				}
			})
		}, used: "ucx:tcp READ fragmented", wire: 1, why: "so it cannot be what was used", unknown: []string{"library"}},
		"socket is what they used": {serving: func(s *record.Serving) { s.Provider = "socket" }, used: "socket READ merged", wire: 1},
	} {
		t.Run(name, func(t *testing.T) {
			row, err := join(t, tt.raw, tt.serving, tt.transports)
			if err != nil {
				t.Fatal(err)
			}
			used := ""
			if row.Used != nil {
				used = row.Used.Name
			}
			if used != tt.used || len(row.Wire()) != tt.wire {
				t.Errorf("used %q of %d, want %q of %d", used, len(row.Wire()), tt.used, tt.wire)
			}
			if d := cmp.Diff(tt.unknown, row.Unknown); d != "" {
				t.Errorf("not known (-want +got):\n%s", d)
			}
			found := tt.why == ""
			var all []string
			for _, g := range row.Others {
				if g.Share != nil || len(g.Differs) == 0 {
					t.Errorf("%s is not it and has a share of %v", g.Name, g.Share)
				}
				for _, d := range g.Differs {
					all = append(all, g.Name+": "+d.String())
					found = found || strings.HasSuffix(g.Name+": "+d.String(), tt.why) && (g.Name == merged || strings.HasPrefix(tt.why, g.Name))
				}
			}
			if !found {
				t.Errorf("no %q in\n%s", tt.why, strings.Join(all, "\n"))
			}
			for _, g := range row.Rungs {
				if g.Share != nil && g.Share.Value >= 1 {
					t.Errorf("%s explains %v of the TTFT", g.Name, g.Share.Value)
				}
			}
		})
	}
}

// Requests themselves tell which engine moved the KV cache, and where the engines are.
func TestLadderJoinsByRequests(t *testing.T) {
	b, err := synth.Specs()["two-providers.jsonl"].Make()
	raw := of(t, read(t, b, err))
	for _, tt := range []struct {
		by, prefill, decode string // of all requests but the first, which has neither where mixed
		mixed               bool
		why                 string
		unknown             []string
	}{
		{by: record.ByDecode, prefill: "http://synthetic-a:8100", decode: "http://127.0.0.1:8200", unknown: []string{"model", "connector", "transport", "library"}},
		{by: record.ByPrefill, prefill: "http://synthetic-a:8100", decode: "http://synthetic-a:8200", why: "other op: READ, the engines WRITE"},
		{by: record.ByDecode, prefill: "http://node1:8100", decode: "http://node2:8200", why: "other host pair: synthetic-a→synthetic-a, the engines ran on node1→node2"},
		{by: record.ByPrefill, mixed: true, unknown: []string{"model", "op", "connector", "transport", "library", "host pair"}},
	} {
		b, err := synth.MakeTTFT("x", 4, 8, 1, 7648, 438_566_912)
		rec := read(t, b, err)
		rec.Conditions[1].Serving = nil
		for i := range rec.Requests {
			if q := &rec.Requests[i]; q.Moved != nil {
				q.Moved.By, q.Prefill, q.Decode = tt.by, tt.prefill, tt.decode
				if tt.mixed && i < 4 {
					q.Moved.By = record.ByDecode
				}
			}
		}
		res, err := analysis.NewLadder(raw, ofRequests(t, rec), nil)
		if err != nil {
			t.Fatal(err)
		}
		row := res.Rows[1]
		var why []string
		for _, g := range row.Others {
			for _, d := range g.Differs {
				why = append(why, d.String())
			}
		}
		if d := cmp.Diff(tt.unknown, row.Unknown); d != "" || !strings.Contains(strings.Join(why, "\n"), tt.why) {
			t.Errorf("%+v: not known (-want +got):\n%s\nand %q", tt, d, why)
		}
	}
}

// NewLadder takes whatever two records may hold without breaking down, and gives no
// share of a transfer that takes longer than the whole.
func FuzzNewLadder(f *testing.F) {
	f.Add(uint64(1), int64(438_566_912), int64(28), int64(300e6), "tcp", "read", "127.0.0.1")
	f.Add(uint64(2), int64(1), int64(0), int64(0), "", "", "")
	f.Add(uint64(3), int64(438_566_912), int64(1<<40), int64(-5), "ucx", "write", "[::1]")
	f.Fuzz(func(t *testing.T, seed uint64, bytes, descs, ns int64, provider, op, host string) {
		raw, tt := synth.MakeSim(seed, simTruth, int(seed%7)+1, 1)
		*tt.Conditions[1].Serving = record.Serving{Provider: provider, Op: op, PrefillHosts: []string{host}, DecodeHosts: []string{host, provider}}
		for i := range tt.Requests {
			if q := &tt.Requests[i]; q.Moved != nil && (uint64(i)^seed)%3 > 0 {
				q.Moved.Bytes, q.Moved.Descriptors, q.Moved.XferNs = bytes, descs, ns
				q.Split.DecodeQueue = ns
			}
		}
		a, err := analysis.Of(raw)
		if err != nil {
			t.Fatal(err)
		}
		q, err := analysis.OfRequests(tt)
		if err != nil {
			return
		}
		res, err := analysis.NewLadder(a, q, nil)
		if err != nil {
			return
		}
		for _, r := range res.Rows {
			for _, g := range r.Rungs {
				if g.Kind == analysis.RungRaw && (g.Share == nil || g.Share.Value >= 1) {
					t.Errorf("%s has a share of %v", g.Name, g.Share)
				}
			}
			if n := len(r.Steps); n > 1 && math.Abs(r.Steps[n-2].SumNs-r.TTFT.Median) > 1 {
				t.Errorf("steps %+v of %v", r.Steps, r.TTFT.Median)
			}
		}
	})
}

// What the user states must be in the raw record, of an arm, and not against the record
// of the engines.
func TestStatedTransports(t *testing.T) {
	for want, tt := range map[string]map[string]string{
		`no transport "efa"; it has memcpy, socket, tcp, ucx:tcp`: {"": "efa"},
		`no arm "pair"; it has ucx-pair, unified`:                 {"pair": "tcp"},
		"tcp, and in  ucx-pair ran over ucx:tcp":                  {"": "tcp"},
	} {
		_, err := join(t, nil, nil, tt)
		if !errors.Is(err, analysis.ErrTransport) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", tt, err, want)
		}
	}
}

func TestLadderOfOtherBytes(t *testing.T) {
	b, err := synth.MakeTTFT("x", 4, 6, 1, 1000, 57_344_000)
	res, err := analysis.NewLadder(twoProviders(t), ofRequests(t, read(t, b, err)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if w := res.Rows[1].Wire(); len(w) != 0 || res.Rows[1].Bytes != 57_344_000 {
		t.Errorf("438 MB were taken for 57 MB: %+v", w)
	}
}

func TestLadderOfNothing(t *testing.T) {
	b, err := synth.MakeTTFT("x", 4, 6, 1, 1000, 57_344_000)
	b = bytes.ReplaceAll(b, []byte(`"valid":true`), []byte(`"valid":false`))
	if _, err := analysis.NewLadder(twoProviders(t), ofRequests(t, read(t, b, err)), nil); !errors.Is(err, analysis.ErrNoRequest) {
		t.Errorf("%v, want %v", err, analysis.ErrNoRequest)
	}
}
