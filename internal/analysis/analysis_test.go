package analysis_test

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/testenv/synth"
)

// line builds a record by hand: times in ns by block, one condition each.
func line(conds []record.Condition, times ...[][]int64) *record.Record {
	yes := true
	r := &record.Record{Run: record.Run{Schema: 1, Kind: "raw", Seed: 3}, Conditions: conds, End: &record.End{Status: record.StatusOK}}
	now := int64(0)
	for i, blocks := range times {
		for b, ts := range blocks {
			for k, t := range ts {
				r.Samples.Add(record.Sample{Condition: i, Block: b, Iteration: k, Phase: record.PhaseMeasure, BeginNs: now, PostNs: t / 10,
					TotalNs: t, LocalNs: t, Bytes: conds[i].Bytes, Verified: &yes, CPUNs: 2 * t, PeerCPUNs: t, EAgain: 3})
				now += t
			}
		}
	}
	return r
}

func cond(id int, provider string) record.Condition {
	return record.Condition{ID: id, Name: provider, Provider: provider, API: "libfabric", Op: "read", Memory: "host", Shape: "merged", Bytes: 1000, Descs: 4,
		Transport: record.Transport{Streams: 1, Depth: 1}}
}

// edit changes the samples of a record.
func edit(r *record.Record, change func(i int, s *record.Sample)) {
	ss := slices.Collect(r.Samples.All())
	for i := range ss {
		change(i, &ss[i])
	}
	r.Samples = record.PackSamples(ss...)
}

// first changes the first sample of a record.
func first(r *record.Record, change func(*record.Sample)) {
	edit(r, func(i int, s *record.Sample) {
		if i == 0 {
			change(s)
		}
	})
}

// only are the lines of one type.
func only[T record.Line](ls []record.Line) (out []T) {
	for _, l := range ls {
		if x, is := l.(T); is {
			out = append(out, x)
		}
	}
	return out
}

// writable holds that lines can be written.
func writable(t *testing.T, ls []record.Line) {
	t.Helper()
	for _, l := range ls {
		if _, err := record.Marshal(l); err != nil {
			t.Error(err)
		}
	}
}

func of(t *testing.T, r *record.Record) *analysis.Analysis {
	t.Helper()
	a, err := analysis.Of(r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// synthetic is the analysis of what a spec makes.
func synthetic(t *testing.T, s synth.Spec) *analysis.Analysis {
	t.Helper()
	file, err := s.Make()
	if err != nil {
		t.Fatal(err)
	}
	rec, err := record.Read(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	return of(t, rec)
}

// The expected figures are worked out by hand from the samples.
func TestRow(t *testing.T) {
	r := line([]record.Condition{cond(0, "tcp")}, [][]int64{{100, 300, 200}, {400, 500, 600}, {100, 100, 1000}, {300, 200, 250}, {150, 700, 160}, {900, 800, 850}})
	r.Samples.Add(record.Sample{Condition: 0, Phase: record.PhaseCold, TotalNs: 99999, Bytes: 1000})
	r.Samples.Add(record.Sample{Condition: 0, Phase: record.PhaseWarmup, TotalNs: 88888, Bytes: 1000})
	row := of(t, r).Rows[0]
	// Block medians 200 500 100 250 160 850; their median (200+250)/2; the 95 %
	// interval of six values is their range.
	if got := stats.Values(row.Units); !slices.Equal(got, []float64{200, 500, 100, 250, 160, 850}) {
		t.Errorf("units %v", got)
	}
	sum := int64(100 + 300 + 200 + 400 + 500 + 600 + 100 + 100 + 1000 + 300 + 200 + 250 + 150 + 700 + 160 + 900 + 800 + 850)
	type figures struct {
		N, Blocks, Iters         int
		Median, Lo, Hi, Min, Max float64
		SumBytes                 uint64
		SumNs                    int64
		Rate, Post, PerDesc      float64
		CPU, PeerCPU             float64
		EAgain                   uint64
		Check                    string
		Guarded                  bool
		P95                      float64
		Cold                     int
	}
	got := figures{row.N, row.Blocks, row.Iters, row.MedianNs, row.CI.Lo, row.CI.Hi, row.MinNs, row.MaxNs, row.SumBytes, row.SumNs, row.Rate, row.PostNs, row.PostPerDesc,
		row.CPUPerByte, row.PeerCPUPerByte, row.EAgain, row.Check(), row.P95.Guarded, row.P95.Value, len(row.Cold)}
	// Posts are a tenth of the times, whose 9th and 10th of 18 are both 300.
	want := figures{18, 6, 3, 225, 100, 850, 100, 1000, 18000, sum, 18000 / float64(sum) * 1e9, 30, 7.5, 2 * float64(sum) / 18000, float64(sum) / 18000, 54, "ok", true, 1000, 2}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	s := only[record.Summary](of(t, r).Lines())
	if len(s) != 1 || s[0].MedianNs != 225 || s[0].MedianLoNs != 100 || s[0].SumTotalNs != sum || s[0].P95Ns != 0 || s[0].N != 18 {
		t.Errorf("summary %+v", s)
	}
}

// A comparison line's ratio is time B over time A; a's blocks take exactly twice
// as long as b's.
func TestComparisonLine(t *testing.T) {
	slow := [][]int64{{200}, {220}, {240}, {210}, {230}, {260}, {250}, {270}}
	fast := make([][]int64, len(slow))
	for i, b := range slow {
		fast[i] = []int64{b[0] / 2}
	}
	a := of(t, line([]record.Condition{cond(0, "slow"), cond(1, "fast")}, slow, fast))
	got := only[record.Comparison](a.Lines())
	if len(got) != 1 {
		t.Fatalf("%d comparisons", len(got))
	}
	c := got[0]
	half := func(f *float64) bool { return f != nil && math.Abs(*f-0.5) < 1e-12 }
	if c.A != 0 || c.B != 1 || c.Verdict != "different" || !half(c.Ratio) || !half(c.RatioLo) || !half(c.RatioHi) ||
		c.P == nil || *c.P != 2.0/256 || c.N != 8 || !c.Interleaved {
		t.Errorf("%+v", c)
	}
	fastRow, slowRow, ratio, _ := a.Pairs[0].Faster()
	if fastRow.Provider != "fast" || slowRow.Provider != "slow" || math.Abs(ratio-2) > 1e-12 {
		t.Errorf("faster: %s, %s, %v", fastRow.Provider, slowRow.Provider, ratio)
	}
}

// What is not known is absent from the line, where 0 would be a number.
func TestComparisonLineUnknown(t *testing.T) {
	two := [][]int64{{200}, {210}}
	a := of(t, line([]record.Condition{cond(0, "x"), cond(1, "y")}, two, two))
	b, err := record.Marshal(only[record.Comparison](a.Lines())[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, absent := range []string{"detectable", "_lo", "_hi"} {
		if strings.Contains(string(b), absent) {
			t.Errorf("two units a row, and %q is in %s", absent, b)
		}
	}
	if want := `"time_b_over_time_a":1,`; !strings.Contains(string(b), want) {
		t.Errorf("no %q in %s", want, b)
	}
}

func TestWhatIsCompared(t *testing.T) {
	ts := [][]int64{{100}, {101}, {102}, {103}, {104}, {105}}
	for name, tt := range map[string]struct {
		change          func(a, b *record.Condition)
		pairs, brackets int
	}{
		"providers":              {func(a, b *record.Condition) {}, 1, 0},
		"the same twice":         {func(a, b *record.Condition) { b.Provider = a.Provider }, 1, 0},
		"another op":             {func(a, b *record.Condition) { b.Op = "write" }, 0, 0},
		"another size":           {func(a, b *record.Condition) { b.Bytes = 2000 }, 0, 0},
		"another memory":         {func(a, b *record.Condition) { b.Memory = "cuda:0" }, 0, 0},
		"two ceilings":           {func(a, b *record.Condition) { a.Ceiling, b.Ceiling = true, true }, 0, 0},
		"a ceiling":              {func(a, b *record.Condition) { b.Ceiling = true }, 0, 0},
		"a provider's own depth": {func(a, b *record.Condition) { b.Transport.Depth = 64 }, 1, 0},
		"depth of one provider":  {func(a, b *record.Condition) { b.Provider, b.Transport.Depth = a.Provider, 64 }, 0, 0},
		"shapes of two":          {func(a, b *record.Condition) { b.Shape, b.Descs = "fragmented", 40 }, 0, 0},
		"bracket":                {func(a, b *record.Condition) { b.Provider, b.Shape, b.Descs = a.Provider, "fragmented", 40 }, 0, 1},
	} {
		c := []record.Condition{cond(0, "x"), cond(1, "y")}
		tt.change(&c[0], &c[1])
		a := of(t, line(c, ts, ts))
		if len(a.Pairs) != tt.pairs || len(a.Brackets) != tt.brackets {
			t.Errorf("%s: %d pairs and %d brackets, want %d and %d", name, len(a.Pairs), len(a.Brackets), tt.pairs, tt.brackets)
		}
	}
}

func TestRefused(t *testing.T) {
	ts := [][]int64{{100}, {101}, {102}, {103}, {104}, {105}}
	no := false
	for name, tt := range map[string]struct {
		change func(r *record.Record)
		want   string
	}{
		"condition": {func(r *record.Record) { r.Conditions[1].Simulated = true }, analysis.Emulated},
		"transport": {func(r *record.Record) { r.Conditions[0].Transport.Simulated = true }, analysis.Emulated},
		"run":       {func(r *record.Record) { r.Run.Simulated = true }, analysis.Emulated},
		"sample":    {func(r *record.Record) { first(r, func(s *record.Sample) { s.Simulated = true }) }, analysis.Emulated},
		"check":     {func(r *record.Record) { first(r, func(s *record.Sample) { s.Verified = &no }) }, "data check failed"},
		"cold check": {func(r *record.Record) {
			r.Samples.Add(record.Sample{Condition: 0, Phase: record.PhaseCold, TotalNs: 1, Verified: &no})
		}, "data check failed"},
		"empty": {func(r *record.Record) { r.Samples = record.PackSamples(slices.Collect(r.Samples.All())[:6]...) }, "no samples"},
	} {
		r := line([]record.Condition{cond(0, "x"), cond(1, "y")}, ts, ts)
		tt.change(r)
		a := of(t, r)
		c := only[record.Comparison](a.Lines())
		if len(c) != 1 || c[0].Verdict != "refused" || !strings.Contains(c[0].Reason, tt.want) || c[0].Ratio != nil {
			t.Errorf("%s: %+v", name, c)
		}
		if name == "check" && (a.Rows[0].HasSpeed() || a.Rows[0].Check() != "FAILED" || !a.Failed()) {
			t.Errorf("a row with a failed check: %+v", a.Rows[0])
		}
	}
}

func TestBound(t *testing.T) {
	ts := [][]int64{{2000}, {2000}, {2000}}
	half := [][]int64{{1000}, {1000}, {1000}}
	build := func(change func(r *record.Record)) *analysis.Bound {
		c := []record.Condition{cond(0, "tcp"), cond(1, "socket"), cond(2, "socket")}
		c[1].Ceiling, c[1].API, c[2].Ceiling, c[2].API, c[2].Op = true, "socket", true, "socket", "write"
		r := line(c, ts, half, ts)
		change(r)
		return of(t, r).Rows[0].Bound
	}
	b := build(func(*record.Record) {})
	if b == nil || b.Kind != "socket" || b.Rate != 1e9 || b.Share != 0.5 {
		t.Errorf("half of the socket row of the same op: %+v", b)
	}
	devices := []record.NIC{{LinkBits: 8e9}, {LinkBits: 8e9}}
	two := func(r *record.Record) {
		r.Run.Host.Hostname, r.Run.Peer = "a", &record.Host{Hostname: "b"}
		r.Conditions[0].Transport.Devices = devices
	}
	if b := build(two); b == nil || b.Kind != "line" || b.Rate != 2e9 || b.Share != 0.25 {
		t.Errorf("line rate of two rails: %+v", b)
	}
	if b := build(func(r *record.Record) {
		two(r)
		r.Conditions[0].Transport.Devices = []record.NIC{{LinkBits: 8e9}, {}}
	}); b == nil || b.Kind != "socket" {
		t.Errorf("an unknown link: %+v", b)
	}
	if b := build(func(r *record.Record) { two(r); r.Run.Peer.Hostname = "a" }); b == nil || b.Kind != "socket" {
		t.Errorf("line rate within one host: %+v", b)
	}
	if b := build(func(r *record.Record) { two(r); r.Conditions[0].Provider = "shm" }); b == nil || b.Kind != "socket" {
		t.Errorf("line rate for shared memory: %+v", b)
	}
}

// TestCrossover: without noise the fit is the formula: 20 µs + n/1 GB/s against
// 60 µs + n/10 GB/s meet at 40 µs / 0.9 ns = 44,444 B.
func TestCrossover(t *testing.T) {
	s := synth.Spec{Name: "exact", Seed: 1, Kind: "sweep", Hosts: 1, Blocks: 6, Iters: 2, End: &record.End{Status: record.StatusOK}}
	for _, n := range []int64{4096, 16384, 65536, 262144, 1048576} {
		s.Cells = append(s.Cells,
			synth.Cell{Condition: synth.KV("tcp", "read", kv.Contiguous, 1, n), Truth: synth.Truth{AlphaNs: 20_000, NsPerByte: 1, Block: 1e-6, Counted: 1}},
			synth.Cell{Condition: synth.KV("ucx:tcp", "read", kv.Contiguous, 1, n), Truth: synth.Truth{AlphaNs: 60_000, NsPerByte: 0.1, Block: 1e-6, Counted: 1}})
	}
	a := synthetic(t, s)
	if len(a.Models) != 2 || len(a.Guides) != 1 || len(a.Pairs) != 5 {
		t.Fatalf("%d models, %d guides, %d pairs", len(a.Models), len(a.Guides), len(a.Pairs))
	}
	if m := a.Models[0].Cost; math.Abs(m.AlphaNS-20_000) > 20 || math.Abs(m.NSPerByte-1) > 1e-3 {
		t.Errorf("tcp: %v ns + n × %v ns", m.AlphaNS, m.NSPerByte)
	}
	// Six blocks are too few for verdicts at five sizes, and the advice says so.
	if g := a.Guides[0]; len(g.Zones) != 1 || g.Zones[0].Standing != stats.Undecided || g.Units != 6 || g.Need != 8 {
		t.Errorf("%+v", g)
	}
	s.Blocks = 10
	a = synthetic(t, s)
	g := a.Guides[0]
	want := []stats.Zone{{FromBytes: 4096, ToBytes: 16384, Sizes: 2, Standing: stats.AFaster}, {FromBytes: 65536, ToBytes: 1048576, Sizes: 3, Standing: stats.BFaster}}
	if d := cmp.Diff(want, g.Zones); d != "" {
		t.Error(d)
	}
	if len(g.Crossings) != 1 || g.Crossings[0].FromBytes != 16384 || g.Crossings[0].ToBytes != 65536 || math.Abs(g.Crossings[0].Lines.Bytes-44_444) > 50 {
		t.Errorf("crossings %+v", g.Crossings)
	}
	// Holm over the five sizes: each p is multiplied by up to 5.
	for _, p := range a.Pairs {
		if p.Verdict.Family != 5 {
			t.Errorf("a family of %d", p.Verdict.Family)
		}
	}
}

// TestDescriptors: a descriptor costs 900 ns in the formula behind the record.
func TestDescriptors(t *testing.T) {
	files, err := synth.Files()
	if err != nil {
		t.Fatal(err)
	}
	rec, err := record.Read(bytes.NewReader(files["descriptors.jsonl"]))
	if err != nil {
		t.Fatal(err)
	}
	a := of(t, rec)
	if len(a.Models) != 1 || len(a.Pieces) != 2 || len(a.Guides) != 0 {
		t.Fatalf("%d models, %d descriptor costs, %d guides", len(a.Models), len(a.Pieces), len(a.Guides))
	}
	// The noise adds 0.03·√(2/π) = 2.4 % on average, the median block a little less.
	const truth = 900 * 1.02
	if iv := a.Models[0].Cost.GammaCI; iv == nil || !iv.Contains(truth) {
		t.Errorf("γ %v in %v", a.Models[0].Cost.GammaNS, iv)
	}
	for _, p := range a.Pieces {
		if !p.NsPerDescCI.Contains(truth) || math.Abs(p.NsPerDesc/truth-1) > 0.1 {
			t.Errorf("%s: %v ns in %v", p.Label, p.NsPerDesc, p.NsPerDescCI)
		}
	}
}

// plane is a record of x: 1000 ns + 1 ns a byte + 10 ns a descriptor and 1 ns more
// each block, plus what off says of a condition.
func plane(off map[int]int64, conds ...record.Condition) *record.Record {
	times := make([][][]int64, len(conds))
	for i := range conds {
		conds[i].ID = i
		for b := range int64(6) {
			times[i] = append(times[i], []int64{1000 + int64(conds[i].Bytes) + 10*int64(conds[i].Descs) + b + off[i]})
		}
	}
	return line(conds, times...)
}

func cut(shape string, bytes uint64, descs int) record.Condition {
	c := cond(0, "x")
	c.Shape, c.Bytes, c.Descs = shape, bytes, descs
	return c
}

// Conditions that coincide in bytes and descriptors are one point of a model, their
// mean, and rows of their own.
func TestCoincidingConditions(t *testing.T) {
	// One KV block: merged and fragmented are the same.
	a := of(t, plane(map[int]int64{0: -10, 1: 10}, cut("merged", 1000, 4), cut("fragmented", 1000, 4),
		cut("merged", 2000, 4), cut("fragmented", 2000, 8), cut("merged", 3000, 4), cut("fragmented", 3000, 12)))
	if len(a.Rows) != 6 || a.Rows[0].MedianNs != 2032.5 || a.Rows[1].MedianNs != 2052.5 || len(a.Models) != 3 {
		t.Fatalf("%d rows of %v and %v ns, %d models", len(a.Rows), a.Rows[0].MedianNs, a.Rows[1].MedianNs, len(a.Models))
	}
	if m := a.Models[2].Cost; math.Abs(m.AlphaNS-1002.5) > 1e-6 || math.Abs(m.NSPerByte-1) > 1e-9 || math.Abs(m.GammaNS-10) > 1e-6 || m.Blocks != 6 {
		t.Errorf("over descriptors: %v ns + n × %v ns + d × %v ns, %d blocks", m.AlphaNS, m.NSPerByte, m.GammaNS, m.Blocks)
	}

	// Two sizes that round up to the same.
	a = of(t, plane(map[int]int64{0: -10, 1: 10}, cut("merged", 1000, 4), cut("merged", 1000, 4), cut("merged", 2000, 4), cut("merged", 3000, 4)))
	if len(a.Rows) != 4 || len(a.Models) != 1 || len(a.Models[0].Rows) != 4 {
		t.Fatalf("%d rows, models %+v", len(a.Rows), a.Models)
	}
	if m := a.Models[0].Cost; math.Abs(m.AlphaNS-1042.5) > 1e-6 || math.Abs(m.NSPerByte-1) > 1e-9 {
		t.Errorf("over sizes: %v ns + n × %v ns", m.AlphaNS, m.NSPerByte)
	}

	// Two rows of the same number of descriptors.
	a = of(t, plane(map[int]int64{0: -5, 1: 5}, cut("contiguous", 1000, 1), cut("contiguous", 1000, 1), cut("contiguous", 1000, 5), cut("contiguous", 1000, 9)))
	if len(a.Pieces) != 1 || math.Abs(a.Pieces[0].BaseNs-2002.5) > 1e-6 || math.Abs(a.Pieces[0].NsPerDesc-10) > 1e-9 {
		t.Errorf("descriptor costs %+v", a.Pieces)
	}

	// Three cells, of which three coefficients would say nothing, are no model.
	a = of(t, plane(nil, cut("merged", 1000, 4), cut("fragmented", 1000, 4), cut("merged", 2000, 4), cut("fragmented", 2000, 8)))
	if len(a.Models) != 0 {
		t.Errorf("models of three cells: %+v", a.Models)
	}
}

// What cannot be fitted is a warning: to a float these sizes are the same number.
func TestNotFitted(t *testing.T) {
	a := of(t, plane(nil, cut("merged", 1<<57, 4), cut("merged", 1<<57+1, 4), cut("merged", 1<<57+2, 4)))
	if len(a.Models) != 0 || len(a.Rows) != 3 || !slices.ContainsFunc(a.Warnings, func(w analysis.Warning) bool {
		return w.Code == "not-fitted" && strings.HasPrefix(w.Text, "no cost model of x READ merged: ")
	}) {
		t.Errorf("%d rows, models %+v, %v", len(a.Rows), a.Models, a.Warnings)
	}
}

func TestWarnings(t *testing.T) {
	codes := func(r *record.Record, f func(*record.Record) (*analysis.Analysis, error)) []string {
		a, err := f(r)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, w := range a.Warnings {
			out = append(out, w.Code)
		}
		return out
	}
	many := make([][]int64, 10)
	step := make([][]int64, 10)
	for b := range many {
		for k := range int64(4) {
			many[b] = append(many[b], 1000+(int64(b)*7+k*13)%11)
			v := 1000 + (int64(b)*7+k*13)%11
			if b < 3 {
				v += 900
			}
			step[b] = append(step[b], v)
		}
	}
	// 12 transfers from the 13th on, by 900 ns more; and a level of 500 first.
	slow, down := make([][]int64, len(many)), make([][]int64, len(many))
	for b := range many {
		for _, v := range many[b] {
			down[b] = append(down[b], v)
			if b >= 3 && b < 6 {
				v += 900
				down[b][len(down[b])-1] = v
			} else if b < 3 {
				down[b][len(down[b])-1] = v - 500
			}
			slow[b] = append(slow[b], v)
		}
	}
	path := func(delta uint64) record.Path {
		return record.Path{Condition: 0, Phase: record.PhaseMeasure, PayloadBytes: 100 << 20, Counters: []record.Counter{
			{Side: "initiator", Device: "eth0", Name: "rx_packets", Delta: 1 << 40}, {Side: "initiator", Device: "eth0", Name: "rx_bytes", Delta: delta}}}
	}
	zero := 0
	for name, tt := range map[string]struct {
		times  [][]int64
		change func(r *record.Record)
		want   []string
	}{
		"clean":       {many, func(r *record.Record) { r.Paths = []record.Path{path(101 << 20)} }, nil},
		"few":         {many[:3], func(*record.Record) {}, []string{"few-blocks"}},
		"warm-up":     {step, func(*record.Record) {}, []string{"warm-up"}},
		"excursion":   {slow, func(*record.Record) {}, []string{"excursion"}},
		"slowdown":    {down, func(*record.Record) {}, []string{"slowdown"}},
		"slow first":  {[][]int64{{2000, 1000}, {2010, 1000}, {2020, 990}, {1990, 1010}, {2000, 1000}, {2010, 1005}}, func(*record.Record) {}, []string{"slow-first"}},
		"path":        {many, func(r *record.Record) { r.Paths = []record.Path{path(1 << 20)} }, []string{"path"}},
		"busy":        {many, func(r *record.Record) { r.Paths = []record.Path{path(150 << 20)} }, []string{"path-busy"}},
		"cold path":   {many, func(r *record.Record) { p := path(1); p.Phase = record.PhaseCold; r.Paths = []record.Path{p} }, nil},
		"cut off":     {many, func(r *record.Record) { r.End = nil }, []string{"cut-off"}},
		"interrupted": {many, func(r *record.Record) { r.End.Status = record.StatusInterrupted }, []string{"not-complete"}},
		"event": {many, func(r *record.Record) {
			r.Events = []record.Event{{Level: record.Info, Message: "x"}, {Level: record.Warning, Message: "y", Condition: &zero}, {Level: record.Warning, Message: "y", Condition: &zero}}
		}, []string{"run-warning"}},
	} {
		r := line([]record.Condition{cond(0, "tcp")}, tt.times)
		tt.change(r)
		if got := codes(r, analysis.Of); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	// The levels are those of the last change, and of what a slowdown was slower than.
	for _, tt := range []struct {
		times [][]int64
		want  string
	}{
		{step, "tcp READ merged: warm-up, from 1.91 µs to 1.00 µs at transfer 13 of 40; "},
		{slow, "tcp READ merged: 12 slow transfers from #13 to #24 of 40, 1.9 times the rest: "},
		{down, "tcp READ merged: slowdown, from 1.91 µs to 1.00 µs at transfer 25 of 40, after 505 ns at transfer 1; "},
	} {
		a := of(t, line([]record.Condition{cond(0, "tcp")}, tt.times))
		if len(a.Warnings) != 1 || !strings.HasPrefix(a.Warnings[0].Text, tt.want) {
			t.Errorf("%v, want %q", a.Warnings, tt.want)
		}
	}
	r := line([]record.Condition{cond(0, "tcp")}, many)
	r.End = nil
	if got := codes(r, analysis.Live); got != nil {
		t.Errorf("a run that goes on: %v", got)
	}
}

func TestDamaged(t *testing.T) {
	for name, change := range map[string]func(r *record.Record){
		"unknown condition": func(r *record.Record) { first(r, func(s *record.Sample) { s.Condition = 9 }) },
		"no time":           func(r *record.Record) { first(r, func(s *record.Sample) { s.TotalNs = 0 }) },
		"two of one id":     func(r *record.Record) { r.Conditions = append(r.Conditions, cond(0, "other")) },
	} {
		r := line([]record.Condition{cond(0, "tcp")}, [][]int64{{1, 2}})
		change(r)
		if _, err := analysis.Of(r); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := analysis.Of(nil); err == nil {
		t.Error("no record was analysed")
	}
}

// FuzzOf feeds records that read well and may still be nonsense.
func FuzzOf(f *testing.F) {
	files, err := synth.Files()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(files["short.jsonl"])
	f.Add(files["ttft.jsonl"])
	f.Add([]byte(`{"type":"run","schema":2}` + "\n" + `{"type":"condition","id":0}` + "\n" +
		`{"type":"request","phase":"measure","path":"two-leg","load":"closed","concurrency":1,"valid":true,"ttft_ns":5,"prompt_tokens":9,"max_tokens":2,"block_tokens":1,"pool_blocks":4611686018427387904,"nixl":{"scope":"sample","transfers":1,"descriptors":3}}` + "\n" +
		`{"type":"request","phase":"measure","path":"two-leg","load":"closed","concurrency":1,"valid":true,"ttft_ns":5,"prompt_tokens":9,"max_tokens":2,"sequence":4611686018427387904}` + "\n"))
	f.Add([]byte(`{"type":"run","schema":1}` + "\n" + `{"type":"condition","id":0}` + "\n" + `{"type":"sample","phase":"measure","total_ns":5,"block":-1}` + "\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		rec, err := record.Read(bytes.NewReader(in))
		if err != nil {
			return
		}
		a, err := analysis.Of(rec)
		if (a == nil) == (err == nil) {
			t.Errorf("%v with error %v", a, err)
		}
		if a != nil {
			writable(t, a.Lines())
		}
		q, err := analysis.OfRequests(rec)
		if (q == nil) == (err == nil) {
			t.Errorf("%v with error %v", q, err)
		}
		if q != nil {
			writable(t, q.Lines())
		}
	})
}

// Two times of 2^62 ns each are more than a sum holds; so are bytes and CPU times. The
// kernel's counters, which go backwards with a driver's reset, stay at the most.
func TestSumsThatOverflow(t *testing.T) {
	for name, change := range map[string]func(s *record.Sample){
		"time":         func(s *record.Sample) { s.TotalNs = 1 << 62 },
		"bytes":        func(s *record.Sample) { s.Bytes = 1 << 63 },
		"CPU":          func(s *record.Sample) { s.CPUNs = 1 << 62 },
		"negative CPU": func(s *record.Sample) { s.PeerCPUNs = -1 },
		"EAGAIN":       func(s *record.Sample) { s.EAgain = 1 << 63 },
	} {
		r := line([]record.Condition{cond(0, "tcp")}, [][]int64{{1, 2}})
		edit(r, func(_ int, s *record.Sample) { change(s) })
		if _, err := analysis.Of(r); err == nil || !strings.Contains(err.Error(), "beyond 64 bits") {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := line([]record.Condition{cond(0, "tcp")}, [][]int64{{1, 2}})
	for range 2 {
		r.Paths = append(r.Paths, record.Path{Condition: 0, PayloadBytes: 1 << 63, Voluntary: math.MaxInt64, Counters: []record.Counter{{Name: "rx_bytes", Delta: 1<<63 + 1}}})
	}
	if p := of(t, r).Rows[0].Path; p.PayloadBytes != math.MaxUint64 || p.Counters[0].Delta != math.MaxUint64 || p.Voluntary != math.MaxInt64 {
		t.Errorf("%+v", p)
	}
}
