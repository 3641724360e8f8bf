package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSummary(t *testing.T) {
	tests := map[string]struct {
		events string
		want   string // what is printed
		skips  []string
		failed []string
		slow   []string
	}{
		"a package that passes prints its ok line only": {
			events: `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- PASS: TestA (0.00s)\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.003s\n"}
{"Action":"pass","Package":"p","Elapsed":0.003}
{"Action":"output","Package":"q","Output":"?   \tq\t[no test files]\n"}
{"Action":"skip","Package":"q"}
`,
			want: "ok  \tp\t0.003s\n",
		},
		"a skip is listed with its reason": {
			events: `{"Action":"output","Package":"p","Test":"TestA/x","Output":"    need.go:40: testenv: needs \"efa\": no device: none\n"}
{"Action":"output","Package":"p","Test":"TestA/x","Output":"    --- SKIP: TestA/x (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestA/x"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p","Elapsed":31}
`,
			skips: []string{`p TestA/x: testenv: needs "efa": no device: none`, "p TestB: no reason given"},
			slow:  []string{"p 31 s"},
		},
		"a failure prints all that the test wrote": {
			events: `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.003s\n"}
{"Action":"fail","Package":"p","Elapsed":0.003}
`,
			want:   "=== RUN   TestA\n    a_test.go:3: got 1, want 2\nFAIL\tp\t0.003s\n",
			failed: []string{"p TestA"},
		},
		"a process that dies under a test fails that test": {
			events: `{"Action":"output","Package":"p","Test":"TestA","Output":"SIGSEGV: segmentation violation\n"}
{"Action":"fail","Package":"p","Elapsed":1}
`,
			want:   "SIGSEGV: segmentation violation\n",
			failed: []string{"p TestA"},
		},
		"a package that does not build": {
			events: `{"ImportPath":"p [p.test]","Action":"build-output","Output":"p/a.go:3:1: syntax error\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
{"Action":"fail","Package":"p"}
`,
			want:   "p/a.go:3:1: syntax error\nFAIL\tp [build failed]\n",
			failed: []string{"p"},
		},
		"a line that is no event is kept": {events: "ld: warning\n", want: "ld: warning\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			s := newSummary(&out, 30*time.Second)
			if err := s.read(strings.NewReader(tt.events)); err != nil {
				t.Fatal(err)
			}
			var skips []string
			for _, s := range s.skips {
				skips = append(skips, s.String())
			}
			for what, diff := range map[string]string{
				"printed": cmp.Diff(tt.want, out.String()),
				"skips":   cmp.Diff(tt.skips, skips),
				"failed":  cmp.Diff(tt.failed, s.failed),
				"slow":    cmp.Diff(tt.slow, s.slowest),
			} {
				if diff != "" {
					t.Errorf("%s (-want +got):\n%s", what, diff)
				}
			}
		})
	}
}

func TestSelectPass(t *testing.T) {
	tested := []string{"x_test.go"}
	pkgs := []pkg{
		{ImportPath: "pure", TestGoFiles: tested, Deps: []string{"fmt"}},
		{ImportPath: "native", TestGoFiles: tested, CgoFiles: []string{"bindings.go"}},
		{ImportPath: "above", XTestGoFiles: tested, Deps: []string{"native"}},
		{ImportPath: "testAbove", XTestGoFiles: tested, XTestImports: []string{"above"}},
		{ImportPath: "untested"},
		{ImportPath: "m/internal/peer", TestGoFiles: tested, Deps: []string{"native"}},
		{ImportPath: "m/internal/buildtest", TestGoFiles: tested},
		{ImportPath: "m/internal/conformance", TestGoFiles: tested},
	}
	// above, as `go list` has it, names its dependency's dependencies too.
	tests := map[string][]string{
		"all":  {"pure", "native", "above", "testAbove", "m/internal/peer", "m/internal/buildtest", "m/internal/conformance"},
		"race": {"pure", "m/internal/peer"},
		"asan": {"native"},
	}
	for pass, want := range tests {
		got, _, err := selectPass(pass, pkgs)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pass %s (-want +got):\n%s", pass, diff)
		}
	}
	if _, _, err := selectPass("msan", pkgs); err == nil {
		t.Error("an unknown pass is accepted")
	}
}
