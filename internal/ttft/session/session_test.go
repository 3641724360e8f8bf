package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/sim"
	"github.com/xferbench/xferbench/internal/ttft"
)

// engineVar makes this test binary an engine: ROLE:PORT.
const engineVar = "XFERBENCH_TEST_ENGINE"

func TestMain(m *testing.M) {
	role, port, ok := strings.Cut(os.Getenv(engineVar), ":")
	if !ok {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var n int
	_, err := fmt.Sscan(port, &n)
	if err == nil {
		var s *sim.Server
		if s, err = sim.Listen(sim.Config{Role: sim.Role(role), Geometry: small}, "127.0.0.1", n); err == nil {
			err = errors.Join(s.Wait(ctx), s.Close())
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var small = sim.Geometry{BlockTokens: 16, Regions: 4, BytesPerToken: 256}

// options are those of a short run.
func analysed(t *testing.T, rec *record.Record) *analysis.Requests {
	t.Helper()
	res, err := analysis.OfRequests(rec)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func options() Options {
	return Options{MaxInvalid: MaxInvalid, DType: "auto", SimConfig: sim.Config{Geometry: small}, Run: ttft.Config{PromptTokens: []int{64}, MaxTokens: 2,
		Load: record.LoadClosed, Concurrency: []int{1}, Iterations: 6, Blocks: 6, Seed: 1, Prompts: ttft.TokenPrompts, VocabSize: 32_000,
		Timeout: 30 * time.Second, Settle: 200 * time.Millisecond}}
}

func TestSimulatedRunLeavesAWholeRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	w, err := record.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	o := options()
	o.Sim, o.Argv = true, []string{"xferbench", "ttft", "--sim"}
	inMemory, err := Run(context.Background(), o, Output{Record: w, JSON: &lines})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if res := analysed(t, inMemory); res.N != 12 || res.Invalid != 0 || len(res.Comparisons) != 1 {
		t.Errorf("result %+v", res)
	}
	rec, err := record.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	// Six requests of each arm and one to warm its pair.
	if rec.Run.Kind != "ttft" || !rec.Run.Simulated || len(rec.Conditions) != 2 || len(rec.Requests) != 14 || rec.End == nil || rec.End.Status != record.StatusOK {
		t.Errorf("record: run %+v, %d conditions, %d requests, end %+v", rec.Run, len(rec.Conditions), len(rec.Requests), rec.End)
	}
	if rec.Conditions[1].Bytes != 64*256 || !rec.Conditions[1].Simulated {
		t.Errorf("condition %+v", rec.Conditions[1])
	}
	// What the record holds gives the same result again.
	for _, l := range rec.Requests {
		if !l.Simulated {
			t.Errorf("a line does not say that it is simulated: %+v", l)
		}
	}
	if d := cmp.Diff(rec, inMemory, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("file and memory differ:\n%s", d)
	}
	if len(rec.Summaries) != 2 || rec.Summaries[1].N != 6 || *rec.Summaries[1].Invalid != 0 || rec.Summaries[1].MedianNs == 0 || rec.Summaries[1].Blocks != 6 ||
		rec.Summaries[1].Bytes != 64*256 || rec.Summaries[0].Bytes != 0 || rec.Summaries[1].Failed != nil || rec.Summaries[1].P95Ns != 0 || !rec.Summaries[1].Simulated {
		t.Errorf("summaries %+v", rec.Summaries)
	}
	if len(rec.Comparisons) != 1 || rec.Comparisons[0].A != 0 || rec.Comparisons[0].B != 1 || rec.Comparisons[0].N != 6 || *rec.Comparisons[0].Ratio <= 0 {
		t.Errorf("comparisons %+v", rec.Comparisons)
	}
	if got := strings.Count(lines.String(), "\n"); got != 1+2+14+2+1+1 {
		t.Errorf("%d lines of JSON", got)
	}
}

func TestInvalidRequestsFailTheRun(t *testing.T) {
	o := options()
	o.Sim = true
	o.SimConfig.Faults = []sim.Injection{{Fault: sim.NullParams, Every: 3}}
	rec, err := Run(context.Background(), o, Output{})
	if !errors.Is(err, ErrInvalid) || ExitCode(err) != 5 || !strings.Contains(err.Error(), "null-params 2") {
		t.Errorf("error %v, exit code %d", err, ExitCode(err))
	}
	if res := analysed(t, rec); res.Invalid != 2 {
		t.Errorf("result %+v", res)
	}
	o.MaxInvalid = 0.5
	o.Run.Blocks, o.Run.Iterations = 3, 6
	if _, err := Run(context.Background(), o, Output{}); !errors.Is(err, ErrTooFew) || ExitCode(err) != 6 {
		t.Errorf("three blocks: %v, exit code %d", err, ExitCode(err))
	}
}

func TestUsage(t *testing.T) {
	for name, tt := range map[string]struct {
		set  func(*Options)
		want string
	}{
		"nothing named":  {func(*Options) {}, "no engine is named"},
		"two ways":       {func(o *Options) { o.Sim, o.URL = true, "http://h:1" }, "exclude one another"},
		"one leg":        {func(o *Options) { o.Prefill = []string{"http://h:1"} }, "needs --prefill URL and --decode URL"},
		"URL":            {func(o *Options) { o.URL = "ftp://h" }, "want http://"},
		"arm":            {func(o *Options) { o.Arms = []string{"x"} }, "want NAME=URL"},
		"kv model":       {func(o *Options) { o.URL, o.KVModel = "http://h:1", "/does/not/exist" }, "--kv-model"},
		"share":          {func(o *Options) { o.Sim, o.MaxInvalid = true, 2 }, "--max-invalid"},
		"no file":        {func(o *Options) { o.Launch = "/does/not/exist" }, "--launch"},
		"no such mode":   {func(o *Options) { o.URL, o.Mode = "http://h:1", "split" }, "unknown mode"},
		"blocks":         {func(o *Options) { o.Sim = true; o.Run.Blocks = 7 }, "1 block to as many as those"},
		"one token":      {func(o *Options) { o.Sim = true; o.Run.MaxTokens = 1 }, "at least 2"},
		"prompt":         {func(o *Options) { o.Sim = true; o.Run.PromptTokens = []int{1} }, "too short to be unique"},
		"names":          {func(o *Options) { o.Arms = []string{"x=http://h:1", "x=http://h:2"} }, `two arms are named "x"`},
		"no concurrency": {func(o *Options) { o.Sim = true; o.Run.Concurrency = []int{0} }, "concurrency 0"},
		"no rate":        {func(o *Options) { o.Sim = true; o.Run.Load, o.Run.Rates = record.LoadOpen, []float64{0} }, "rate 0"},
	} {
		o := options()
		tt.set(&o)
		if _, err := Run(context.Background(), o, Output{}); !errors.Is(err, ErrUsage) || ExitCode(err) != 2 || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want a usage error with %q", name, err, tt.want)
		}
	}
}

func TestEnginesThatAreNotThere(t *testing.T) {
	o := options()
	o.URL = fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	if _, err := Run(context.Background(), o, Output{}); !errors.Is(err, ttft.ErrUnavailable) || ExitCode(err) != 3 || !strings.Contains(err.Error(), "is the engine up?") {
		t.Errorf("error %v, exit code %d", err, ExitCode(err))
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Engines are started from a file, measured, and gone afterwards; NIXL_BACKEND
// in the file is flagged.
func TestLaunch(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, d := freePort(t), freePort(t)
	const kv = `"--kv-transfer-config", '{"kv_connector":"NixlConnector","kv_load_failure_policy":"fail"}', --no-enable-prefix-caching, --max-num-batched-tokens, "9000"`
	spec := fmt.Sprintf(`
vllm: "0.32.0"
bytes_per_token: 256
engines:
  prefill: {url: "http://127.0.0.1:%d", argv: [%q, %s], env: {%s: "prefill:%d"}}
  decode: {url: "http://127.0.0.1:%d", argv: [%q, %s], env: {%s: "decode:%d", NIXL_BACKEND: LIBFABRIC}}
`, p, exe, kv, engineVar, p, d, exe, kv, engineVar, d)
	file := filepath.Join(t.TempDir(), "launch.yaml")
	if err := os.WriteFile(file, []byte(spec), 0o644); err != nil {
		t.Fatal(err)
	}
	o := options()
	o.Launch = file
	o.Arms = []string{fmt.Sprintf("pair=http://127.0.0.1:%d,http://127.0.0.1:%d", p, d), fmt.Sprintf("alone=direct=http://127.0.0.1:%d", p)}
	if rec, err := Run(context.Background(), o, Output{}); err != nil && !errors.Is(err, ErrTooFew) {
		t.Fatal(err)
	} else if res := analysed(t, rec); len(res.Rows) != 2 || res.Rows[0].Arm != "pair" || res.Rows[0].Path != record.PathTwoLeg || res.Rows[1].Path != record.PathDirect || res.Invalid != 0 ||
		res.Rows[0].Condition.Asked != 256*uint64(o.Run.PromptTokens[0]) {
		t.Errorf("arms named beside the file: %+v", res.Rows)
	}
	o.Arms = nil
	var mu sync.Mutex
	var told []string
	rec, err := Run(context.Background(), o, Output{Log: func(level, m string) { mu.Lock(); told = append(told, level+": "+m); mu.Unlock() }})
	if err != nil {
		t.Fatal(err)
	}
	if res := analysed(t, rec); res.N != 6 || res.Invalid != 0 || !res.Simulated {
		t.Errorf("result %+v", res)
	}
	all := strings.Join(told, "\n")
	for _, want := range []string{"NIXL_BACKEND=LIBFABRIC in its environment has no effect", "NIXL backend UCX (the default)", "engine prefill: ready after"} {
		if !strings.Contains(all, want) {
			t.Errorf("not told of %q:\n%s", want, all)
		}
	}
	for _, port := range []int{p, d} {
		if c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second); err == nil {
			_ = c.Close()
			t.Errorf("an engine still listens on port %d", port)
		}
	}
}

func TestInterruptedRunIsMarked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	w, err := record.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	o := options()
	o.Sim = true
	o.SimConfig.PrefillTime = 10 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, o, Output{Record: w}); err == nil {
		t.Error("no error")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	rec, err := record.Open(path)
	if err != nil || rec.End == nil || rec.End.Status != record.StatusInterrupted || rec.End.ExitCode != 130 {
		t.Errorf("record %+v, %v", rec, err)
	}
}
