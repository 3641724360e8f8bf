package ttft

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/xferbench/xferbench/internal/record"
)

func TestParseArm(t *testing.T) {
	a, b, c := "http://a:1", "http://b:2", "http://c:3"
	for in, want := range map[string]Arm{
		"x=http://a:1":                         {Name: "x", Mode: record.ModeUnified, Path: record.PathUnified, Front: a},
		"x=unified=http://a:1":                 {Name: "x", Mode: record.ModeUnified, Path: record.PathUnified, Front: a},
		"x=a:1":                                {Name: "x", Mode: record.ModeUnified, Path: record.PathUnified, Front: a},
		"x=http://a:1/v1/":                     {Name: "x", Mode: record.ModeUnified, Path: record.PathUnified, Front: a},
		"x=http://a:1,model=q/r":               {Name: "x", Mode: record.ModeUnified, Path: record.PathUnified, Front: a, Model: "q/r"},
		"x=http://a:1,http://b:2":              {Name: "x", Mode: record.ModeDisaggregated, Path: record.PathTwoLeg, Prefill: []string{a}, Decode: []string{b}},
		"x=prefill=a:1,decode=b:2":             {Name: "x", Mode: record.ModeDisaggregated, Path: record.PathTwoLeg, Prefill: []string{a}, Decode: []string{b}},
		"x=direct=a:1":                         {Name: "x", Mode: record.ModeDisaggregated, Path: record.PathDirect, Front: a},
		"x=prefill=a:1,prefill=c:3,decode=b:2": {Name: "x", Mode: record.ModeDisaggregated, Path: record.PathTwoLeg, Prefill: []string{a, c}, Decode: []string{b}},
		"x=proxy=c:3,prefill=a:1,decode=b:2":   {Name: "x", Mode: record.ModeDisaggregated, Path: record.PathProxy, Front: c, Prefill: []string{a}, Decode: []string{b}},
		"x=c:3,prefill=a:1,decode=b:2":         {Name: "x", Mode: record.ModeDisaggregated, Path: record.PathProxy, Front: c, Prefill: []string{a}, Decode: []string{b}},
	} {
		got, err := ParseArm(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Arm{}), cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s (-want +got):\n%s", in, d)
		}
	}
	for in, want := range map[string]string{
		"":                           "want NAME=URL",
		"x":                          "want NAME=URL",
		"x=":                         "want NAME=URL",
		"=http://a:1":                "want NAME=URL",
		"x y=http://a:1":             "want NAME=URL",
		"x=ftp://a:1":                "want http://HOST:PORT",
		"x=http://u:p@a:1":           "want http://HOST:PORT",
		"x=http://":                  "want http://HOST:PORT",
		"x=http://a:1?b":             "want http://HOST:PORT",
		"x=a:1,b:2,c:3":              "Write prefill=",
		"x=side=a:1":                 "unknown key",
		"x=prefill=a:1":              "needs --prefill URL and --decode URL",
		"x=proxy=a:1":                "nothing shows whether the KV cache moved",
		"x=proxy=a:1,unified=b:2":    "two front ends",
		"x=unified=a:1,prefill=b:2":  "a unified engine has no prefill",
		"x=model=,a:1":               "the model has no name",
		"x=prefill=a:1,decode=b:2,,": "want http://HOST:PORT",
	} {
		if _, err := ParseArm(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", in, err, want)
		}
	}
}

func TestResolve(t *testing.T) {
	pd := Arm{Name: "x", Prefill: []string{"http://a:1"}, Decode: []string{"http://b:2"}}
	if a, err := pd.Resolve(record.ModeDisaggregated, record.PathDirect); err != nil || a.Front != "http://a:1" {
		t.Errorf("direct: %+v, %v; want the prefill engine", a, err)
	}
	for _, tt := range []struct{ mode, path, want string }{
		{record.ModeUnified, "", "needs one URL"}, {"both", "", "unknown mode"}, {record.ModeUnified, record.PathTwoLeg, "has no path"}, {record.ModeDisaggregated, record.PathProxy, "needs the proxy's URL"},
	} {
		if _, err := pd.Resolve(tt.mode, tt.path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v", tt, err)
		}
	}
}

// Every pair is met once before any is met twice, and neighbours differ in both
// engines where they can.
func TestPairsGoRound(t *testing.T) {
	for _, n := range [][2]int{{1, 1}, {1, 3}, {3, 1}, {2, 2}, {2, 3}, {4, 2}, {4, 4}, {6, 4}} {
		a := Arm{Path: record.PathTwoLeg}
		for i := range n[0] {
			a.Prefill = append(a.Prefill, string(rune('a'+i)))
		}
		for i := range n[1] {
			a.Decode = append(a.Decode, string(rune('A'+i)))
		}
		seen := map[string]int{}
		for i := range 2 * a.pairs() {
			p, d := a.pair(i)
			seen[p+d]++
			if i == a.pairs()-1 && len(seen) != n[0]*n[1] {
				t.Errorf("%v: %d pairs after one round, want %d", n, len(seen), n[0]*n[1])
			}
		}
		for k, c := range seen {
			if c != 2 {
				t.Errorf("%v: pair %s came %d times in two rounds", n, k, c)
			}
		}
	}
}

func FuzzParseArm(f *testing.F) {
	for _, s := range []string{"x=http://a:1", "x=prefill=a:1,decode=b:2", "x=proxy=c:3,prefill=a:1,decode=b:2,model=m", "=,="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseArm(s)
		if err != nil {
			return
		}
		if a.Name == "" || a.Mode == "" || a.Path == "" || len(a.all()) == 0 {
			t.Fatalf("%q: incomplete arm %+v", s, a)
		}
		for i := range a.pairs() {
			a.pair(i)
		}
		for _, u := range a.all() {
			if again, err := BaseURL(u); err != nil || again != u {
				t.Fatalf("%q: URL %q is read again as %q, %v", s, u, again, err)
			}
		}
	})
}
