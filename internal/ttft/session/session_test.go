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
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/schedule"
	"github.com/xferbench/xferbench/internal/serving/sim"
	"github.com/xferbench/xferbench/internal/spec"
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

func analysed(t *testing.T, rec *record.Record) *analysis.Requests {
	t.Helper()
	res, err := analysis.OfRequests(rec)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// tiny is a model whose KV cache takes 256 bytes per token, as small has it.
func tiny(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, []byte(`{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "num_hidden_layers": 4, "hidden_size": 16,
		"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16, "torch_dtype": "bfloat16"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// job6 is a run of six requests in six blocks.
func job6(t *testing.T, change ...func(*spec.Spec)) *Job {
	t.Helper()
	s := spec.Default(spec.TTFT)
	seed, blocks := uint64(1), 6
	s.Seed, s.Design.Blocks, s.Design.Iterations, s.Design.Warmup = &seed, &blocks, 6, 0
	w := s.TTFT
	w.PromptTokens, w.MaxTokens, w.Timeout, w.Settle = spec.Tokens{64}, 2, 30*time.Second, 200*time.Millisecond
	w.Engine.Model, w.Engine.PrefillTime, w.Engine.PrefillPerToken, w.Engine.StepTime = tiny(t), 0, 0, 0
	for _, c := range change {
		c(s)
	}
	if err := s.Complete(); err != nil {
		t.Fatal(err)
	}
	return &Job{Session: schedule.Session{Spec: s}}
}

func simulated(s *spec.Spec) { s.TTFT.Sim = true }

func TestSimulatedRunLeavesAWholeRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	w, err := record.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	j := job6(t, simulated)
	j.Argv, j.File, j.Stream = []string{"xferbench", "ttft", "--sim"}, w, &lines
	inMemory, err := Run(context.Background(), j)
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
	unpack := cmp.Transformer("unpack", func(s record.Samples) []record.Sample { return slices.Collect(s.All()) })
	if d := cmp.Diff(rec, inMemory, cmpopts.EquateEmpty(), unpack); d != "" {
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
	third := func(s *spec.Spec) { s.TTFT.Engine.Fault = spec.List[string]{string(sim.NullParams) + ":3"} }
	rec, err := Run(context.Background(), job6(t, simulated, third))
	if !errors.Is(err, ErrInvalid) || fault.KindOf(err) != fault.Threshold || !strings.Contains(err.Error(), "null-params 2") {
		t.Errorf("error %v", err)
	}
	if res := analysed(t, rec); res.Invalid != 2 {
		t.Errorf("result %+v", res)
	}
	three := job6(t, simulated, third, func(s *spec.Spec) {
		n := 3
		s.TTFT.MaxInvalid, s.Design.Blocks = 0.5, &n
	})
	if _, err := Run(context.Background(), three); !errors.Is(err, ErrTooFew) || fault.KindOf(err) != fault.TooFew {
		t.Errorf("three blocks: %v", err)
	}
}

func TestCheck(t *testing.T) {
	type w = spec.TTFTWorkload
	for name, tt := range map[string]struct {
		set  func(*w)
		want string
	}{
		"nothing named":  {func(*w) {}, "no engine is named"},
		"two ways":       {func(o *w) { o.Sim, o.URL = true, "http://h:1" }, "exclude one another"},
		"one leg":        {func(o *w) { o.Prefill = []string{"http://h:1"} }, "needs --prefill URL and --decode URL"},
		"URL":            {func(o *w) { o.URL = "ftp://h" }, "want http://"},
		"arm":            {func(o *w) { o.Arm = []string{"x"} }, "want NAME=URL"},
		"kv model":       {func(o *w) { o.URL, o.KVModel = "http://h:1", "/does/not/exist" }, "--kv-model"},
		"share":          {func(o *w) { o.Sim, o.MaxInvalid = true, 2 }, "--max-invalid"},
		"no such mode":   {func(o *w) { o.URL, o.Mode = "http://h:1", "split" }, "unknown mode"},
		"one token":      {func(o *w) { o.Sim, o.MaxTokens = true, 1 }, "at least 2"},
		"prompt":         {func(o *w) { o.Sim, o.PromptTokens = true, spec.Tokens{1} }, "too short to be unique"},
		"names":          {func(o *w) { o.Arm = []string{"x=http://h:1", "x=http://h:2"} }, `two arms are named "x"`},
		"no concurrency": {func(o *w) { o.Sim, o.Concurrency = true, []int{0} }, "concurrency 0"},
		"no rate":        {func(o *w) { o.Sim, o.Rate = true, []float64{0} }, "rate 0"},
		"fault":          {func(o *w) { o.Sim, o.Engine.Fault = true, []string{"x"} }, `unknown fault "x"`},
	} {
		j := job6(t, func(s *spec.Spec) { tt.set(s.TTFT) })
		if err := Check(j.Spec); fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want a usage error with %q", name, err, tt.want)
		}
	}
	n := 7
	blocks := job6(t, simulated, func(s *spec.Spec) { s.Design.Blocks = &n })
	if _, err := Run(context.Background(), blocks); fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), "1 block to as many as those") {
		t.Errorf("more blocks than requests: %v", err)
	}
	launch := job6(t, func(s *spec.Spec) { s.TTFT.Launch = "/does/not/exist" })
	if _, err := Run(context.Background(), launch); fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), "--launch") {
		t.Errorf("no launch file: %v", err)
	}
}

func TestEnginesThatAreNotThere(t *testing.T) {
	j := job6(t, func(s *spec.Spec) { s.TTFT.URL = fmt.Sprintf("http://127.0.0.1:%d", freePort(t)) })
	if _, err := Run(context.Background(), j); !errors.Is(err, ttft.ErrUnavailable) || fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "is the engine up?") {
		t.Errorf("error %v", err)
	}
}

// A run that was cut off anywhere goes on to what it would have been: each block of
// each condition once, with the requests that it lacks, and no prompt twice.
func TestResume(t *testing.T) {
	dir := t.TempDir()
	whole := job6(t, simulated, func(s *spec.Spec) { s.Design.Iterations, s.Design.Warmup = 18, 1 })
	want, err := Run(context.Background(), whole)
	if err != nil {
		t.Fatal(err)
	}
	for _, keep := range []int{0, 1, 5, 14, len(want.Requests)} {
		path := filepath.Join(dir, fmt.Sprint(keep))
		w, err := record.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := []record.Line{want.Run}
		if keep > 0 {
			for _, c := range want.Conditions {
				lines = append(lines, c)
			}
		}
		for _, q := range want.Requests[:keep] {
			lines = append(lines, q)
		}
		for _, l := range lines {
			if err := w.Write(l); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		rec, err := record.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		again := job6(t, simulated, func(s *spec.Spec) {
			s.Design.Iterations, s.Design.Warmup, s.Seed = 18, 1, nil
			s.TTFT.Engine.Model = whole.Spec.TTFT.Engine.Model
		})
		again.Spec.Seed = nil
		if err := schedule.Resume(rec, again.Spec); err != nil {
			t.Fatal(err)
		}
		again.Resumed = rec
		if again.File, err = record.Append(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Run(context.Background(), again); err != nil {
			t.Fatal(err)
		}
		if err := again.File.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := record.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		counts, iterations := map[[2]int]int{}, map[[2]int]int{}
		sequence := map[string][]int{}
		for _, q := range got.Requests {
			sequence[q.Arm] = append(sequence[q.Arm], q.Sequence)
			if q.Phase == record.PhaseMeasure {
				counts[[2]int{q.Condition, q.Block}]++
				iterations[[2]int{q.Condition, q.Iteration}]++
			}
		}
		for c := range 2 {
			for b := range 6 {
				if n := counts[[2]int{c, b}]; n != 3 {
					t.Errorf("cut after %d: condition %d has %d requests in block %d, want 3", keep, c, n, b)
				}
			}
		}
		if len(iterations) != 36 {
			t.Errorf("cut after %d: %d iterations, want 36", keep, len(iterations))
		}
		for arm, list := range sequence {
			for i, n := range list {
				if n != i {
					t.Errorf("cut after %d: %s counts its requests %v", keep, arm, list)
					break
				}
			}
		}
		if told := slices.ContainsFunc(got.Events, func(e record.Event) bool { return strings.Contains(e.Message, "goes on after") }); told != (keep > 0) {
			t.Errorf("cut after %d: events %+v", keep, got.Events)
		}
		if got.Run.ID != want.Run.ID || len(got.Conditions) != 2 || got.End == nil || got.End.Status != record.StatusOK {
			t.Errorf("cut after %d: run %s with %d conditions, end %+v", keep, got.Run.ID, len(got.Conditions), got.End)
		}
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
	text := fmt.Sprintf(`
vllm: "0.32.0"
bytes_per_token: 256
engines:
  prefill: {url: "http://127.0.0.1:%d", argv: [%q, %s], env: {%s: "prefill:%d"}}
  decode: {url: "http://127.0.0.1:%d", argv: [%q, %s], env: {%s: "decode:%d", NIXL_BACKEND: LIBFABRIC}}
`, p, exe, kv, engineVar, p, d, exe, kv, engineVar, d)
	file := filepath.Join(t.TempDir(), "launch.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	launched := func(s *spec.Spec) { s.TTFT.Launch = file }
	named := job6(t, launched, func(s *spec.Spec) {
		s.TTFT.Arm = []string{fmt.Sprintf("pair=http://127.0.0.1:%d,http://127.0.0.1:%d", p, d), fmt.Sprintf("alone=direct=http://127.0.0.1:%d", p)}
	})
	if rec, err := Run(context.Background(), named); err != nil && !errors.Is(err, ErrTooFew) {
		t.Fatal(err)
	} else if res := analysed(t, rec); len(res.Rows) != 2 || res.Rows[0].Arm != "pair" || res.Rows[0].Path != record.PathTwoLeg || res.Rows[1].Path != record.PathDirect || res.Invalid != 0 ||
		res.Rows[0].Condition.Asked != 256*64 {
		t.Errorf("arms named beside the file: %+v", res.Rows)
	}
	var told []string // the session tells one at a time
	j := job6(t, launched)
	j.Log = func(e record.Event) { told = append(told, e.Level+": "+e.Message) }
	rec, err := Run(context.Background(), j)
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
	j := job6(t, simulated, func(s *spec.Spec) { s.TTFT.Engine.PrefillTime = 10 * time.Second })
	j.File = w
	ctx, cancel := context.WithCancelCause(context.Background())
	defer time.AfterFunc(300*time.Millisecond, func() { cancel(fault.ErrInterrupted) }).Stop()
	if _, err := Run(ctx, j); !errors.Is(err, fault.ErrInterrupted) {
		t.Errorf("error %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	rec, err := record.Open(path)
	if err != nil || rec.End == nil || rec.End.Status != record.StatusInterrupted || rec.End.ExitCode != 130 {
		t.Errorf("record %+v, %v", rec, err)
	}
}

// An arm that is named beside a launch file, such as one through a proxy, has what is
// known of the file's engines.
func TestServingOfNamedArms(t *testing.T) {
	file := []ttft.Arm{
		{Name: "tcp", Decode: []string{"http://a:1", "http://a:2"}, Serving: record.Serving{Provider: "ucx:tcp"}},
		{Name: "efa", Decode: []string{"http://a:3"}, Serving: record.Serving{Provider: "efa"}},
	}
	for want, decode := range map[string][]string{"ucx:tcp": {"http://a:2", "http://a:1"}, "efa": {"http://a:3"}, "": {"http://a:1"}} {
		if got := servingOf(file, decode); got.Provider != want {
			t.Errorf("%v: %q, want %q", decode, got.Provider, want)
		}
	}
}
