package analysis_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
)

// source analyses a record.
func source(t *testing.T, r *record.Record) *analysis.Source {
	t.Helper()
	s, err := analysis.NewSource(r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func against(t *testing.T, a, b *record.Record) *analysis.Runs {
	t.Helper()
	r, err := analysis.Compare(source(t, a), source(t, b))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// drawn is a record of one row: n blocks of one transfer of about mean ns.
func drawn(rng *rand.Rand, n int, mean, spread float64) *record.Record {
	var blocks [][]int64
	for range n {
		blocks = append(blocks, []int64{int64(mean * math.Exp(spread*rng.NormFloat64()))})
	}
	return line([]record.Condition{cond(0, "tcp")}, blocks)
}

// Of 80 pairs of records with a true slowdown of 20 % under 20 % noise at most one in
// twenty passes a limit of 5 %; of 80 equal ones with little noise nearly all do.
func TestGateRates(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 11))
	passes := func(slower, spread float64) (n int) {
		for range 80 {
			g := against(t, drawn(rng, 10, 50e6, spread), drawn(rng, 10, 50e6*slower, spread)).Judge(0.05)
			if g.Rows[0].Standing == analysis.Within {
				n++
			}
		}
		return n
	}
	if n := passes(1.2, 0.2); n > 4 {
		t.Errorf("20 %% slower under 20 %% noise: %d of 80 pass", n)
	}
	if n := passes(1, 0.02); n < 76 {
		t.Errorf("equal under 2 %% noise: %d of 80 pass", n)
	}
}

// blocks are n blocks of one transfer, around ns with a small spread that is the
// same for equal n.
func blocks(n int, ns int64) [][]int64 {
	var out [][]int64
	for i := range n {
		out = append(out, []int64{ns + int64(i*7%5)*ns/1000})
	}
	return out
}

func TestStandings(t *testing.T) {
	names := []string{"same", "slower", "faster", "few", "noisy", "gone", "empty", "broken", "socket"}
	conds := func(names ...string) (out []record.Condition) {
		for i, n := range names {
			c := cond(i, n)
			c.Ceiling = n == "socket"
			out = append(out, c)
		}
		return out
	}
	noisy := [][]int64{{900}, {1500}, {1000}, {1900}, {800}, {1300}, {1100}, {1700}}
	a := line(conds(names...), blocks(8, 1e6), blocks(8, 1e6), blocks(8, 1e6), blocks(3, 1e6), noisy, blocks(8, 1e6), blocks(8, 1e6), blocks(8, 1e6), blocks(8, 1e6))
	b := line(conds("same", "slower", "faster", "few", "noisy", "new", "empty", "broken", "socket"),
		blocks(8, 1e6), blocks(8, 1.2e6), blocks(8, 0.8e6), blocks(3, 1e6), noisy, blocks(8, 1e6), nil, blocks(8, 1e6), blocks(8, 3e6))
	no := false
	edit(b, func(_ int, s *record.Sample) {
		if s.Condition == 7 && s.Block == 0 && s.Iteration == 0 {
			s.Verified = &no
		}
	})
	got := map[string]analysis.Standing{}
	g := against(t, a, b).Judge(0.05)
	for _, r := range g.Rows {
		got[r.Row().Condition.Provider] = r.Standing
	}
	want := map[string]analysis.Standing{
		"same": analysis.Within, "slower": analysis.Slower, "faster": analysis.Within, "few": analysis.Undecided, "noisy": analysis.Undecided,
		"gone": analysis.Missing, "empty": analysis.Missing, "broken": analysis.CheckFailed, "socket": analysis.Unjudged, "new": analysis.Unjudged,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, r := range g.Of(analysis.Undecided) {
		want := map[string]string{"few": "about 6 blocks in each record decide it", "noisy": "blocks in each record decide it"}[r.Label()[:strings.IndexByte(r.Label(), ' ')]]
		if !strings.Contains(r.Decide(), want) {
			t.Errorf("%s: %q, want %q", r.Label(), r.Decide(), want)
		}
	}
	// The limit itself is within: an interval from 1 to 1 at a limit that is exactly its end.
	if s := against(t, a, a).Judge(1e-9).Rows[7].Standing; s != analysis.Undecided {
		t.Errorf("a limit tighter than the interval: %s", s)
	}
}

// A run that did not end in order never counts as whole, A as well as B.
func TestIncomplete(t *testing.T) {
	whole := func(end *record.End) *record.Record {
		r := line([]record.Condition{cond(0, "tcp")}, blocks(8, 1e6))
		r.End = end
		return r
	}
	for _, tt := range []struct {
		end    *record.End
		want   string
		failed bool
	}{
		{&record.End{Status: record.StatusOK}, "", false},
		{&record.End{Status: record.StatusFailed, ExitCode: 6, Error: "too little data for a verdict"}, "", false},
		{nil, "was cut off: it has no end line", false},
		{&record.End{Status: record.StatusInterrupted, ExitCode: 130}, "was interrupted", false},
		{&record.End{Status: record.StatusFailed, ExitCode: 3, Error: "the peer has gone"}, "failed: the peer has gone", false},
		{&record.End{Status: record.StatusFailed, ExitCode: 5, Error: "too many invalid requests"}, "failed: too many invalid requests", false},
		{&record.End{Status: record.StatusFailed}, "failed", false},
		{&record.End{Status: record.StatusFailed, ExitCode: 4, Error: "data check failed"}, "failed: data check failed", true},
	} {
		ok := whole(&record.End{Status: record.StatusOK})
		var want []string
		if tt.want != "" && !tt.failed {
			want = []string{"A " + tt.want}
		}
		r := against(t, whole(tt.end), ok)
		if got := r.Judge(0.05).Incomplete; !slices.Equal(got, want) || analysis.EndedOverCheck(r.A.Record) != tt.failed || r.A.Unfinished() != tt.want {
			t.Errorf("%+v: %q, check failed %v", tt.end, got, analysis.EndedOverCheck(r.A.Record))
		}
		if want != nil {
			want[0] = "B" + want[0][1:]
		}
		if got := against(t, ok, whole(tt.end)).Judge(0.05).Incomplete; !slices.Equal(got, want) {
			t.Errorf("%+v as B: %q", tt.end, got)
		}
	}
}

// Launches and blocks of one launch are not like units.
func TestUnitsOfTwoKinds(t *testing.T) {
	a := line([]record.Condition{cond(0, "tcp")}, blocks(12, 1e6))
	b := line([]record.Condition{cond(0, "tcp")}, blocks(12, 1e6))
	edit(b, func(i int, s *record.Sample) { s.Launch, s.Block = i/2, i%2 })
	for _, r := range []*analysis.Runs{against(t, a, b), against(t, b, a)} {
		if d := r.Rows[0]; d.Outcome() != "refused" || !strings.Contains(d.Refused, "measure both with the same --launches") || r.Judge(0.05).Rows[0].Standing != analysis.Undecided {
			t.Errorf("%q, %q", d.Outcome(), d.Refused)
		}
	}
	if d := against(t, b, b).Rows[0]; d.Outcome() != "no-difference" || d.Launches() != 6 {
		t.Errorf("launches with themselves: %q, %d", d.Outcome(), d.Launches())
	}
}

// A history is in the order of time, and a row keeps its line whichever record has it.
func TestHistory(t *testing.T) {
	at := func(start int64, conds ...record.Condition) *record.Record {
		var times [][][]int64
		for range conds {
			times = append(times, blocks(8, 1e6+start*1e5))
		}
		r := line(conds, times...)
		r.Run.StartUnixNs, r.Run.ID = start, fmt.Sprint(start)
		return r
	}
	tcp, efa, late := cond(0, "tcp"), cond(1, "efa"), cond(0, "late")
	var sources []*analysis.Source
	for _, r := range []*record.Record{at(3, tcp), at(1, tcp, efa), at(2, late), at(4, late, efa)} {
		sources = append(sources, source(t, r))
	}
	h, err := analysis.NewHistory(sources)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range h.Rows {
		s := ""
		for _, c := range r.Cells {
			switch {
			case c.Figures == nil:
				s += " -"
			case c.Delta == nil:
				s += " base"
			default:
				s += fmt.Sprintf(" %.2f", c.Delta.Verdict.Ratio)
			}
		}
		got[r.Label] = s
	}
	// 1.1, 1.2, 1.3 and 1.4 ms: 1.3/1.1 = 1.18, 1.4/1.1 = 1.27.
	want := map[string]string{"tcp READ merged": " base - 1.18 -", "efa READ merged": " base - - 1.27", "late READ merged": " - base - base"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if h.Last.A.Record.Run.ID != "1" || h.Last.B.Record.Run.ID != "4" {
		t.Errorf("the newest against the oldest is %s against %s", h.Last.B.Record.Run.ID, h.Last.A.Record.Run.ID)
	}
	for _, d := range h.Last.Rows {
		if row := h.Row(d); row.Label != d.Label() {
			t.Errorf("%s is the row %s", d.Label(), row.Label)
		}
	}
	if _, err := analysis.NewHistory(sources[:1]); err == nil {
		t.Error("a history of one record")
	}
}
