package spec

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/strict"
)

func full(workload string) *Spec {
	s := Default(workload)
	seed, blocks := uint64(1<<63+5), 12
	s.Seed, s.Design.Blocks, s.Design.UntilCI = &seed, &blocks, 0.025
	if r := s.Raw; r != nil {
		r.Size, r.Chunk, r.Streams = Sizes{438_000_000, 65_536, 12_345}, Sizes{0, 1 << 20}, List[int]{1, 4}
		r.UCXConfig, r.Set = Settings{"TLS": {"tcp", "tcp,self"}}, Settings{"write-landing": {"dc"}}
		s.Hosts.Peer = "node2:18517#" + strings.Repeat("t", 40)
	}
	if t := s.TTFT; t != nil {
		t.Arm, t.Rate, t.Engine.Fault = List[string]{"a=http://h:1", "b=http://h:2,http://h:3"}, List[float64]{0.5, 2}, List[string]{"hang:3"}
	}
	return s
}

// What is written is read again as it was, as YAML and as JSON.
func TestRoundTrip(t *testing.T) {
	for _, w := range []string{Raw, Sweep, TTFT} {
		want := full(w)
		y, err := want.YAML()
		if err != nil {
			t.Fatal(err)
		}
		j, err := want.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsRune(j, '\n') {
			t.Errorf("%s: JSON of several lines: %s", w, j)
		}
		for _, text := range [][]byte{y, j} {
			got, err := Parse(text)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s\n%s", d, text)
			}
		}
	}
}

// A file says what it wants to be different from the defaults, single values
// without brackets.
func TestParse(t *testing.T) {
	s, err := Parse([]byte(`
spec: 1
workload: sweep
raw:
  provider: efa
  size: 64KiB:256KiB
  tokens: [1000, "2000:8000"]
  chunk: 1MiB
  ucx_config: {TLS: srd}
  timeout: 1m
design: {until_ci: 2%}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Default(Sweep)
	want.Raw.Provider, want.Raw.Size = List[string]{"efa"}, Sizes{1 << 16, 1 << 17, 1 << 18}
	want.Raw.Tokens, want.Raw.Chunk = Tokens{1000, 2000, 4000, 8000}, Sizes{1 << 20}
	want.Raw.UCXConfig, want.Raw.Timeout, want.Design.UntilCI = Settings{"TLS": {"srd"}}, time.Minute, 0.02
	if d := cmp.Diff(want, s); d != "" {
		t.Error(d)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "reads spec: 1",
		"spec: 2\nworkload: raw":            "its key spec is 2; this build reads spec: 1",
		"spec: 1\nworkload: rwa":            `workload "rwa": want raw, sweep or ttft`,
		"spec: 1\nworkload: raw\nttft: {}":  "a section ttft in a spec of workload raw",
		"spec: 1\nworkload: ttft\nraw: {}":  "a section raw in a spec of workload ttft",
		"spec: 1\nworkload: raw\nraw: null": "the section raw is null",
		"spec: 1\nworkload: raw\nseed: -1":  "line 3: -1: too large, or below 0",
		"spec: 1\nworkload: raw\nblocks: 3": `unknown field "blocks"`,
		"{":                                 "could not find",
		"spec: 1\nworkload: raw\nraw:\n  poll: !autw]\n  chunk: 1\n": "gave up",
		"spec: 1\nworkload: raw\nraw: {provder: tcp}":                `unknown field "provder"`,
		"spec: 1\nworkload: raw\nraw: {size: 64K}":                   "say 64KB (64,000 B) or 64KiB (65,536 B)",
		"spec: 1\nworkload: raw\nraw: {size: 1.5}":                   "want a whole number",
		"spec: 1\nworkload: raw\nraw: {size: [1, -5]}":               "want a whole number",
		"spec: 1\nworkload: raw\nraw: {tokens: 0:3}":                 "must be at least 1",
		"spec: 1\nworkload: raw\nraw:\n  timeout: 3":                 "line 4: 3: want a time with its unit, such as 10s",
		"spec: 1\nworkload: raw\nraw:\n  streams: x":                 "line 4: x: want a whole number",
		"spec: 1\nworkload: raw\nraw:\n  streams: [1, x]":            "line 4: x: want a whole number",
		"spec: 1\nworkload: raw\ndesign: {until_ci: 3}":              "say 3% or 300%",
		"spec: 1\nworkload: raw\ndesign:\n  round_robin: maybe":      "line 4: maybe: want true or false",
		strings.Repeat("#", strict.MaxBytes+1):                       "longer than",
	} {
		s, err := Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "Go ") {
			t.Errorf("%.80q: %v, %v; want %q", text, s, err, want)
		}
	}
}

func TestLoad(t *testing.T) {
	if _, err := Load("-", strings.NewReader("spec: 1\nworkload: raw\n")); err != nil {
		t.Error(err)
	}
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil)
	if fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("no file: %v", err)
	}
	if _, err := Load("-", strings.NewReader("x")); fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), "standard input") {
		t.Errorf("no spec: %v", err)
	}
}

func TestComplete(t *testing.T) {
	n := func(n int) *int { return &n }
	for name, tt := range map[string]struct {
		workload         string
		change           func(*Spec)
		blocks, minBlock int
	}{
		"raw":                         {Raw, func(*Spec) {}, 10, 6},
		"few blocks":                  {Raw, func(s *Spec) { s.Design.Blocks = n(3) }, 3, 3},
		"few blocks, and more":        {Raw, func(s *Spec) { s.Design.Blocks, s.Design.MinBlocks = n(3), n(5) }, 3, 5}, // refused later
		"by intervals":                {Sweep, func(s *Spec) { s.Design.UntilCI = 0.02 }, 1000, 6},
		"by intervals and blocks":     {Sweep, func(s *Spec) { s.Design.UntilCI, s.Design.Blocks = 0.02, n(20) }, 20, 6},
		"requests":                    {TTFT, func(*Spec) {}, 10, 6},
		"less requests than blocks":   {TTFT, func(s *Spec) { s.Design.Iterations = 4 }, 4, 4},
		"no requests, refused later":  {TTFT, func(s *Spec) { s.Design.Iterations = 0 }, 1, 1},
		"blocks of requests as given": {TTFT, func(s *Spec) { s.Design.Blocks = n(20) }, 20, 6},
	} {
		s := Default(tt.workload)
		tt.change(s)
		if err := s.Complete(); err != nil || *s.Design.Blocks != tt.blocks || *s.Design.MinBlocks != tt.minBlock || s.Seed == nil {
			t.Errorf("%s: %v, blocks %d, at least %d, seed %v; want %d and %d", name, err, *s.Design.Blocks, *s.Design.MinBlocks, s.Seed, tt.blocks, tt.minBlock)
		}
	}
	s := Default(Raw)
	s.Raw.Size = Sizes{5}
	if err := s.Complete(); err != nil || s.Raw.Tokens != nil {
		t.Errorf("a size was given: %v, tokens %v", err, s.Raw.Tokens)
	}
	other := Default(Raw)
	if err := other.Complete(); err != nil || *s.Seed == *other.Seed {
		t.Errorf("%v, two seeds alike: %d", err, *s.Seed)
	}
	for want, change := range map[string]func(*TTFTWorkload){
		"exclude each other": func(w *TTFTWorkload) { w.Rate, w.Concurrency = List[float64]{1}, List[int]{1} },
		"at once":            func(w *TTFTWorkload) { w.Measurement, w.Rate = "offline", List[float64]{1} },
		"want online":        func(w *TTFTWorkload) { w.Measurement = "x" },
	} {
		s := Default(TTFT)
		change(s.TTFT)
		if err := s.Complete(); fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// The same file name with another text is another experiment.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	of := func() *Spec {
		s := Default(Raw)
		seed := uint64(1)
		s.Seed, s.Raw.Model = &seed, dir
		if err := s.Complete(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	write("a")
	one := of()
	if d, err := Difference(one, of()); err != nil || d != "" {
		t.Errorf("the same file: %q, %v", d, err)
	}
	write("b")
	if d, err := Difference(one, of()); err != nil || !strings.HasPrefix(d, "files."+filepath.Join(dir, "config.json")+" is ") {
		t.Errorf("another text: %q, %v", d, err)
	}
}

func TestDifference(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Spec)
		want   string
	}{
		"the same": {func(*Spec) {}, ""},
		"how long and how it is reached": {func(s *Spec) {
			n := 50
			s.Design.Blocks, s.Design.MinBlocks, s.Design.Budget, s.Design.UntilCI = &n, &n, time.Hour, 0.1
			s.Raw.Timeout, s.Hosts.Peer, s.Hosts.SSHCommand = time.Hour, "node2:9#"+strings.Repeat("u", 40), "ssh -v"
		}, ""},
		"streams":   {func(s *Spec) { s.Raw.Streams = List[int]{4} }, "raw.streams is [1,4] there and [4] here"},
		"chunk":     {func(s *Spec) { s.Raw.Chunk = nil }, `raw.chunk is ["0","1MiB"] there and not set here`},
		"setting":   {func(s *Spec) { s.Raw.UCXConfig = Settings{"TLS": {"tcp"}} }, `raw.ucx_config.TLS is ["tcp","tcp,self"] there and ["tcp"] here`},
		"library":   {func(s *Spec) { s.Raw.Libucp = List[string]{"/x/libucp.so.0"} }, `raw.libucp is not set there and ["/x/libucp.so.0"] here`},
		"workload":  {func(s *Spec) { s.Workload = Raw }, `workload is "sweep" there and "raw" here`},
		"launches":  {func(s *Spec) { s.Design.Launches = 3 }, "design.launches is 1 there and 3 here"},
		"seed":      {func(s *Spec) { n := uint64(3); s.Seed = &n }, "seed is "},
		"namespace": {func(s *Spec) { s.Hosts.NoNamespace = true }, "hosts.no_namespace is not set there and true here"},
	} {
		a, b := full(Sweep), full(Sweep)
		tt.change(b)
		got, err := Difference(a, b)
		if err != nil || got != tt.want && (tt.want == "" || !strings.HasPrefix(got, tt.want)) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, tt.want)
		}
	}
}

func TestRedacted(t *testing.T) {
	s := full(Raw)
	b, err := s.Redacted().JSON()
	if err != nil || bytes.Contains(b, []byte("tttt")) || !bytes.Contains(b, []byte("node2:18517#…")) {
		t.Errorf("%v %s", err, b)
	}
	if !strings.HasSuffix(s.Hosts.Peer, "tttt") {
		t.Error("the spec itself lost its token")
	}
}

func FuzzParse(f *testing.F) {
	for _, w := range []string{Raw, Sweep, TTFT} {
		b, err := full(w).YAML()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("spec: 1\nworkload: raw\nraw:\n  op: \x10"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		b, err := s.JSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(b)
		if err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		if d, err := Difference(s, again); err != nil || d != "" {
			t.Fatalf("%s, %v: %s", d, err, b)
		}
	})
}

// docs/spec.md names every key.
func TestPageNamesEveryKey(t *testing.T) {
	doc, err := os.ReadFile("../../docs/spec.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	var walk func(reflect.Type)
	walk = func(s reflect.Type) {
		for i := range s.NumField() {
			f := s.Field(i)
			key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if n++; !bytes.Contains(doc, []byte("`"+key+"`")) {
				t.Errorf("docs/spec.md does not have %s", key)
			}
			in := f.Type
			if in.Kind() == reflect.Pointer {
				in = in.Elem()
			}
			if in.Kind() == reflect.Struct {
				walk(in)
			}
		}
	}
	walk(reflect.TypeFor[Spec]())
	if n < 60 {
		t.Errorf("only %d keys", n)
	}
}

// Its example is one.
func TestPageExample(t *testing.T) {
	doc, err := os.ReadFile("../../docs/spec.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```yaml\n")
	text, _, ok := strings.Cut(rest, "```")
	if s, err := Parse([]byte(text)); !ok || err != nil || len(s.Raw.Chunk) != 2 || len(s.Raw.UCXConfig["RNDV_THRESH"]) != 2 {
		t.Errorf("%v: %+v", err, s)
	}
}
