package report

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv/synth"
)

// wheres are the texts of a TTFT run held against raw transfers.
func wheres(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, o := range map[string]CompareOptions{"as the record has it": {}, "stated": {Transports: map[string]string{"": "ucx:tcp"}}} {
		text, err := compare(t, "two-providers", "ttft", o)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = text
	}
	return out
}

// TestOneEstimator: a share that is printed is the part over the whole that are printed
// beside it, and the steps add up, each within its rounding.
func TestOneEstimator(t *testing.T) {
	num := func(s string) float64 {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for name, text := range wheres(t) {
		shares, steps := 0, 0
		for i, section := range strings.Split(text, ": first token after ")[1:] {
			whole := num(strings.Fields(section)[0])
			sum, table := 0.0, ""
			for line := range strings.Lines(section) {
				f := strings.Fields(line)
				switch {
				case len(f) == 0:
					table = ""
				case f[0] == "part", f[0] == "rung", f[0] == "step":
					table = f[0]
					sum = 0
				case table == "part" || table == "rung" && len(f) == 8 && f[5] != "-":
					part, share := num(f[1]), f[2]
					if table == "rung" {
						share = f[5]
					}
					// 3 significant digits of the share and of the whole in the heading, 4 of the part.
					if want := part / whole * 100; math.Abs(num(share)/want-1) > 0.5e-2*2 {
						t.Errorf("%s, row %d: %s%% printed, and %v of %v ms is %.3g%%: %s", name, i, share, part, whole, want, line)
					}
					shares++
				case table == "step" && len(f) == 5 && f[1] != "-":
					sum += num(f[1])
					if math.Abs(sum-num(f[4])) > 0.3 {
						t.Errorf("%s, row %d: the steps add up to %v: %s", name, i, sum, line)
					}
					steps++
				}
			}
			if table = ""; sum != 0 && math.Abs(sum-whole) > 0.6 {
				t.Errorf("%s, row %d: the steps add up to %v of %v", name, i, sum, whole)
			}
		}
		if shares != 3+5+4 || steps != 7 {
			t.Errorf("%s: %d shares and %d steps in\n%s", name, shares, steps, text)
		}
	}
}

// TestWireSentences: there is a share of the wire only for what may be the wire, and
// never one of more than the whole.
func TestWireSentences(t *testing.T) {
	truth := synth.SimTruth{Prefill: 420e6, HandOver: 4e6, Step: 9e6, Network: 3e6, Memory: 53e6, Socket: 190e6, Transfer: 280e6, Delay: 20e6, Notice: 5e6}
	say := func(truth synth.SimTruth, slower float64, serving bool, transports map[string]string) string {
		raw, tt := synth.MakeSim(5, truth, 8, 2)
		was := raw.Samples
		raw.Samples = record.Samples{}
		for s := range was.All() {
			if s.Condition == 2 {
				s.TotalNs = int64(float64(s.TotalNs) * slower)
			}
			raw.Samples.Add(s)
		}
		if !serving {
			tt.Conditions[1].Serving.Provider = ""
		}
		a, err := analysis.Of(raw)
		if err != nil {
			t.Fatal(err)
		}
		q, err := analysis.OfRequests(tt)
		if err != nil {
			t.Fatal(err)
		}
		res, err := analysis.NewLadder(a, q, transports)
		if err != nil {
			t.Fatal(err)
		}
		r := res.Rows[1]
		return strings.Join(append(wireSentences(r), matchLines(r)...), "\n")
	}
	for name, tt := range map[string]struct {
		got  string
		want []string
		not  string
	}{
		"as the record has it": {say(truth, 1, true, nil), []string{"The wire explains 3", "(tcp READ merged, as the record has it)", "the first token would still take 4", " ms, "}, "--transport"},
		"stated":               {say(truth, 1, false, map[string]string{"": "tcp"}), []string{"(tcp READ merged, as stated)"}, "may be"},
		"the only one":         {say(truth, 1, false, nil), []string{"the only raw row that may be it", "not compared: connector, transport, library"}, "as stated"},
		"slower than all of it": {say(truth, 4.5, true, nil), []string{"No raw row is the transfer of 438,566,912 B that the engines made", "not the engines' transfer: tcp READ merged: its 1.2", "so it cannot be what was used"},
			"explains"},
	} {
		for _, want := range tt.want {
			if !strings.Contains(tt.got, want) {
				t.Errorf("%s: no %q in\n%s", name, want, tt.got)
			}
		}
		if strings.Contains(tt.got, tt.not) {
			t.Errorf("%s: %q in\n%s", name, tt.not, tt.got)
		}
	}
}
