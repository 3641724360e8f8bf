package ttft

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/record"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// synthetic is a run made up here: two arms at one request in flight whose block
// pool wraps around at request 17, where the slower one loses 20 ms.
func synthetic(arms []string, blocks, each int, load string, concurrency int) ([]record.Request, []record.Condition) {
	rng := rand.New(rand.NewPCG(1, 2))
	var lines []record.Request
	var conds []record.Condition
	for i, arm := range arms {
		conds = append(conds, record.Condition{ID: i, Name: arm + " 8000 tokens", Provider: arm, Tokens: 8000})
		seq := 0
		for block := range blocks {
			for range each {
				transfer := 40e6 + rng.Float64()*1e6
				descs := int64(56)
				if seq >= 16 {
					descs = 28_000
					if i == 1 {
						transfer += 20e6
					}
				}
				l := record.Request{Condition: i, Arm: arm, Mode: record.ModeDisaggregated, Path: record.PathTwoLeg, Block: block, Iteration: seq, Sequence: seq, Phase: record.PhaseMeasure,
					Batch: i*1000 + seq, PromptTokens: 8000, MaxTokens: 2, Completion: 2, Load: load, Concurrency: concurrency, ConnReused: true, Valid: true, Proof: "sample",
					PoolBlocks: 8500, BlockTokens: 16, ITLNs: []int64{8e6},
					Split: &record.Split{Wait: 10e3, Prefill: 300e6, HandOver: 100e3, DecodeQueue: int64(transfer) + 2e6, OneToken: 9e6, Network: 3e6, Engine: true},
					Moved: &record.Moved{Scope: "sample", Transfers: 1, Bytes: 458_752_000, Descriptors: descs, XferNs: int64(transfer), PostNs: 3e6}}
				s := l.Split
				l.TTFTNs = s.Wait + s.Prefill + s.HandOver + s.DecodeQueue + s.OneToken + s.Network
				l.E2ENs = l.TTFTNs + 8e6
				if i == 1 && seq == 3 {
					l.Valid, l.Reason, l.Detail = false, record.ReasonLocalRecompute, "made up"
				}
				lines = append(lines, l)
				seq++
			}
		}
	}
	return lines, conds
}

func TestTextGolden(t *testing.T) {
	for name, tt := range map[string]struct {
		lines func() ([]record.Request, []record.Condition)
	}{
		"two-arms.txt": {func() ([]record.Request, []record.Condition) {
			return synthetic([]string{"tcp", "efa"}, 10, 4, record.LoadClosed, 1)
		}},
		"short.txt": {func() ([]record.Request, []record.Condition) {
			return synthetic([]string{"tcp", "efa"}, 3, 1, record.LoadClosed, 1)
		}},
		"none-valid.txt": {func() ([]record.Request, []record.Condition) {
			lines, conds := synthetic([]string{"tcp"}, 2, 2, record.LoadClosed, 4)
			for i := range lines {
				lines[i].Valid, lines[i].Reason, lines[i].Simulated = false, record.ReasonNullParams, true
			}
			conds[0].Simulated = true
			return lines, conds
		}},
		"offline.txt": {func() ([]record.Request, []record.Condition) {
			lines, conds := synthetic([]string{"tcp"}, 6, 4, record.LoadOffline, 0)
			for i := range lines {
				lines[i].Batch, lines[i].Moved, lines[i].Split.Engine = lines[i].Block, nil, false
			}
			return lines, conds
		}},
	} {
		t.Run(name, func(t *testing.T) {
			lines, conds := tt.lines()
			_, text := analysed(t, lines, conds)
			path := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), text); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			for line := range strings.Lines(text) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > columns {
					t.Errorf("%d columns: %s", n, line)
				}
			}
		})
	}
}

// analysed is the analysis of lines and its text.
func analysed(t *testing.T, lines []record.Request, conds []record.Condition) (*Result, string) {
	t.Helper()
	res, err := Analyze(lines, conds, 1)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := res.Text(&b); err != nil {
		t.Fatal(err)
	}
	return res, b.String()
}

// A first chunk with several tokens is late for the first one: that is said.
func TestMergedChunksAreTold(t *testing.T) {
	lines, conds := synthetic([]string{"tcp"}, 10, 4, record.LoadClosed, 1)
	for i := range 3 {
		lines[i].ITLNs = nil // two tokens in one chunk
	}
	res, text := analysed(t, lines, conds)
	if res.Rows[0].Merged != 3 || !strings.Contains(text, "3 of 40 requests came in fewer chunks than tokens") {
		t.Errorf("%d merged\n%s", res.Rows[0].Merged, text)
	}
}

// What holds of many rows is said once.
func TestRemarks(t *testing.T) {
	var m remarks
	for i := range 5 {
		m.add(fmt.Sprintf("row %d", i), "too few")
		m.add("row 0", "cold")
	}
	m.add("row 1", "cold")
	var b strings.Builder
	m.write(&b, "#   ", "# ", "rows")
	if want := "# 5 rows, row 0 to row 4: too few\n# row 0: cold\n# row 1: cold\n"; b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// The jump of the study, on made-up data: the lap is predicted where TTFT and
// descriptors change.
func TestSeriesFindsTheStep(t *testing.T) {
	lines, _ := synthetic([]string{"tcp", "efa"}, 10, 4, record.LoadClosed, 1)
	ss, err := series(lines)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, s := range ss {
		if s.Lap == nil || s.Lap.Sequence != 16 || s.Lap.PerRequest != 500 {
			t.Errorf("%s: lap %+v", s.Arm, s.Lap)
		}
		for _, c := range s.Changes {
			got[s.Arm+" "+c.Component] = c.Sequence
		}
	}
	want := map[string]int{"tcp descriptors": 16, "efa descriptors": 16, "efa ttft": 16, "efa decode-queue": 16}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("changes (-want +got):\n%s", d)
	}
}

func TestServerTiming(t *testing.T) {
	const h = `prefill;dur=12.500, handover;desc="x";dur=0.1, decode-headers;dur=nonsense`
	for name, want := range map[string]int64{"prefill": 12_500_000, "handover": 100_000, "decode-headers": 0, "none": 0} {
		if got := serverTiming(h, name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}

func FuzzServerTiming(f *testing.F) {
	f.Add("prefill;dur=1", "prefill")
	f.Fuzz(func(t *testing.T, header, name string) {
		if v := serverTiming(header, name); v < 0 || v > 1e15 {
			t.Fatalf("%q: %d", header, v)
		}
	})
}

// Analyze takes whatever a record may hold without breaking down.
func FuzzAnalyze(f *testing.F) {
	f.Add(uint64(1), 5, 3)
	f.Fuzz(func(t *testing.T, seed uint64, arms, n int) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var lines []record.Request
		var conds []record.Condition
		for c := range max(min(arms, 5), 0) {
			conds = append(conds, record.Condition{ID: c, Name: "c", Provider: fmt.Sprint(c)})
		}
		for i := range max(min(n, 60), 0) {
			l := record.Request{Condition: rng.IntN(6), Arm: fmt.Sprint(rng.IntN(3)), Load: []string{record.LoadClosed, record.LoadOpen, record.LoadOffline}[rng.IntN(3)], Concurrency: rng.IntN(3),
				Block: rng.IntN(4), Sequence: i, Phase: []string{record.PhaseMeasure, record.PhaseWarmup}[rng.IntN(2)], PromptTokens: rng.IntN(200), MaxTokens: rng.IntN(4),
				TTFTNs: 1 + rng.Int64N(1e9), E2ENs: 1 + rng.Int64N(1e9), Valid: rng.IntN(3) > 0, PoolBlocks: rng.IntN(50), BlockTokens: rng.IntN(17), Path: record.PathTwoLeg}
			if rng.IntN(2) == 0 {
				l.Split = &record.Split{Prefill: rng.Int64N(100), Engine: rng.IntN(2) == 0}
				l.Moved = &record.Moved{Scope: "sample", Transfers: 1 + rng.Int64N(2), Descriptors: 1 + rng.Int64N(50)}
			}
			lines = append(lines, l)
		}
		res, err := Analyze(lines, conds, seed)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := res.Text(&b); err != nil {
			t.Fatal(err)
		}
	})
}
