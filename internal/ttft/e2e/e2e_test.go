//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/launch"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/testenv"
)

const (
	kvShape = "testdata/kvshape/config.json"
	vocab   = "512" // a token id outside kills an engine
	// pairs is how many blocks the two proxies are compared in.
	pairs = 8
	// proxyBound is the difference between the two proxies that the test accepts, as
	// a share of the TTFT at 256 tokens, which is half a second and more here:
	// Python's proxy takes some milliseconds of it. The test fails when the whole
	// interval of their ratio lies beyond.
	proxyBound = 0.25
)

var (
	promptTokens = []int{256, 1000, 2000}
	concurrency  = []int{1, 4}
)

// version is an environment of scripts/e2e/setup.sh with its launch spec.
type version struct {
	name string
	// layout of the KV cache, as raw runs name it: from 0.26 on a block's K and V
	// are neighbours.
	layout string
	spec   string
	envs   string // of all releases
	venv   string
	file   *launch.File
}

// TestEngines runs everything against one release after the other: each NIXL
// engine keeps a core busy, so that two releases at once would starve.
func TestEngines(t *testing.T) {
	root, err := testenv.Checkout()
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(os.Getenv("XFERBENCH_E2E_VERSIONS"), ",")
	if names[0] == "" {
		names = []string{"0.15", "newest"}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			v := version{name: name, layout: map[bool]string{true: "split", false: "packed"}[name == "0.15"]}
			v.spec = filepath.Join(root, "testdata", "engines", "launch-"+name+".yaml")
			if v.envs = os.Getenv("XFERBENCH_E2E"); v.envs == "" {
				v.envs = filepath.Join(root, "build", "e2e")
			}
			v.venv = filepath.Join(v.envs, name)
			dir := filepath.Join(root, "build", "e2e", "runs", name)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			x := newTool(t, root, dir)
			t.Run("wire", func(t *testing.T) { v.wire(x.with(t)) })
			t.Run("modes", func(t *testing.T) { v.modes(x.with(t)) })
			t.Run("proxies", func(t *testing.T) { v.proxies(x.with(t)) })
			if name == "newest" {
				t.Run("shapes", func(t *testing.T) { v.shapes(x.with(t)) })
			}
		})
	}
}

// with is the tool for a subtest.
func (x *tool) with(t *testing.T) *tool {
	y := *x
	y.t, y.seen = t, map[int]process{}
	return &y
}

// write writes the launch file for engines of the named roles: the spec with
// the environment of this run.
func (v *version) write(x *tool, roles ...string) string {
	x.t.Helper()
	data, err := os.ReadFile(v.spec)
	if err != nil {
		x.t.Fatal(err)
	}
	var spec map[string]any
	if err := yaml.Unmarshal(data, &spec); err != nil {
		x.t.Fatal(err)
	}
	variables := spec["variables"].(map[string]any)
	variables["venv"], variables["preload"] = v.venv, filepath.Join(v.envs, "preload.so")
	engines := spec["engines"].(map[string]any)
	for role := range engines {
		if !slices.Contains(roles, role) {
			delete(engines, role)
		}
	}
	// JSON is YAML, and keeps strings of digits strings.
	if data, err = json.MarshalIndent(spec, "", "  "); err != nil {
		x.t.Fatal(err)
	}
	path := filepath.Join(x.dir, "launch-"+strings.Join(roles, "-")+".yaml")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		x.t.Fatal(err)
	}
	if v.file, err = launch.Load(path); err != nil {
		x.t.Fatal(err)
	}
	if len(v.file.Engines) != len(roles) || v.file.BytesPerToken != bytesPerToken || v.file.BlockTokens == 0 {
		x.t.Fatalf("the launch file has %d engines, %d bytes a token, blocks of %d", len(v.file.Engines), v.file.BytesPerToken, v.file.BlockTokens)
	}
	return path
}

// engine is the URL of a role.
func (v *version) engine(role string) string { return v.file.Engines[role].URL }

// pair is the part of an arm that names the engines for their metrics.
func (v *version) pair() string {
	return "prefill=" + v.engine("prefill") + ",decode=" + v.engine("decode")
}

// wire measures the raw transport while no engine runs: the same tokens in the
// engines' own blocks and layout, over the very UCX that NIXL brings.
func (v *version) wire(x *tool) {
	v.write(x, "prefill", "decode", "unified")
	lib, err := filepath.Glob(filepath.Join(v.venv, "lib", "python3*", "site-packages", "nixl_cu*.libs", "libucp-*.so*"))
	if err != nil || len(lib) == 0 {
		x.t.Fatalf("no libucp of NIXL under %s (%v): run scripts/e2e/setup.sh", v.venv, err)
	}
	path := filepath.Join(x.dir, "raw.jsonl")
	x.run(5*time.Minute, 0, "--provider", "ucx:tcp", "--libucp", lib[len(lib)-1], "--model", kvShape, "--tokens", join(promptTokens),
		"--block-tokens", fmt.Sprint(v.file.BlockTokens), "--kv-layout", v.layout, "--blocks", "8", "--iterations", "1", "--budget", "60s",
		"--timeout", "60s", "--record", path)
	rec, err := record.Open(path)
	if err != nil {
		x.t.Fatal(err)
	}
	seen := map[uint64]bool{}
	for _, c := range rec.Conditions {
		if c.Provider == "ucx:tcp" {
			seen[c.Bytes] = true
		}
	}
	for _, n := range promptTokens {
		if !seen[v.bytes(n)] {
			x.t.Errorf("the raw run has no row of %d bytes (%d tokens), which is what the engines move", v.bytes(n), n)
		}
	}
}

func join(list []int) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(list), "[]"), " ", ",")
}

// bytes is what whole blocks of n tokens hold.
func (v *version) bytes(n int) uint64 { return wholeBlocks(n, v.file.BlockTokens) }

// modes runs all paths at all lengths and loads over engines that xferbench
// starts, and reads the record.
func (v *version) modes(x *tool) {
	spec := v.write(x, "prefill", "decode", "unified")
	ours := v.ourProxy(x)
	path := filepath.Join(x.dir, "modes.jsonl")
	// 40 minutes: minutes to start and some 30 s for each of 20 long prefills, on a
	// machine that is busy otherwise. Idle it takes five. Exit code 6: one block
	// gives no verdict between the arms, and none is wanted here.
	text := x.run(40*time.Minute, 6, "ttft", "--launch", spec,
		"--arm", "unified=unified="+v.engine("unified"), "--arm", "two-leg="+v.pair(),
		"--arm", "direct=direct="+v.engine("prefill"), "--arm", "proxy=proxy="+ours+","+v.pair(),
		"--prompt-tokens", join(promptTokens), "--concurrency", join(concurrency), "--vocab-size", vocab, "--max-tokens", fmt.Sprint(maxTokens),
		"--iterations", "1", "--blocks", "1", "--warmup", "0", "--timeout", "10m", "--settle", "30s", "--record", path)
	x.nothingLeft(3)
	rec, reqs := v.read(x, path)
	if rec.End == nil || rec.End.ExitCode != 6 || !strings.Contains(rec.End.Error, "too little data for a verdict") {
		x.t.Errorf("the record ends with %+v, want exit code 6 for want of blocks", rec.End)
	}
	v.cells(x, rec, reqs)
	for _, e := range rec.Events {
		if e.Level != record.Info && !strings.Contains(e.Message, "the direct path ends at the prefill engine") {
			x.t.Errorf("%s: %s", e.Level, e.Message)
		}
	}
	fits(x.t, "ttft", text)
	fits(x.t, "report", x.run(time.Minute, 0, "report", path))
	v.share(x, path, reqs)
}

// ourProxy starts `xferbench proxy` and returns its URL.
func (v *version) ourProxy(x *tool) string {
	first := x.serve("xferbench proxy", "proxy: http://", x.binary, "proxy", "--prefill", v.engine("prefill"), "--decode", v.engine("decode"),
		"--listen", "127.0.0.1:0", "--health-every", "5s")
	return strings.TrimPrefix(first, "proxy: ")
}

// toyProxy starts vLLM's own and returns its URL.
func (v *version) toyProxy(x *tool) string {
	x.t.Helper()
	cmd := exec.CommandContext(x.t.Context(), filepath.Join(x.root, "scripts", "e2e", "toyproxy.sh"))
	cmd.Stderr = os.Stderr
	script, err := cmd.Output()
	if err != nil {
		x.t.Fatalf("toyproxy.sh: %v", err)
	}
	port := freePort(x.t)
	hostPort := func(role string) (host, port string) {
		host, port, _ = strings.Cut(strings.TrimPrefix(v.engine(role), "http://"), ":")
		return host, port
	}
	ph, pp := hostPort("prefill")
	dh, dp := hostPort("decode")
	x.serve("toy proxy", "Uvicorn running on", filepath.Join(v.venv, "bin", "python"), strings.TrimSpace(string(script)), "--host", "127.0.0.1", "--port", fmt.Sprint(port),
		"--prefiller-hosts", ph, "--prefiller-ports", pp, "--decoder-hosts", dh, "--decoder-ports", dp)
	return fmt.Sprintf("http://127.0.0.1:%d", port)
}

// read reads a TTFT record: none of it may be simulated.
func (v *version) read(x *tool, path string) (*record.Record, []record.Request) {
	x.t.Helper()
	rec, err := record.Open(path)
	if err != nil {
		x.t.Fatal(err)
	}
	if rec.Run.Kind != "ttft" || rec.Run.Simulated {
		x.t.Errorf("run line: kind %q, simulated %v", rec.Run.Kind, rec.Run.Simulated)
	}
	for _, l := range rec.Requests {
		if l.Simulated {
			x.t.Fatalf("a simulated request: %+v", l)
		}
	}
	return rec, rec.Requests
}

// cells wants every request of every condition there, valid and proven.
func (v *version) cells(x *tool, rec *record.Record, reqs []record.Request) {
	arms := []string{record.PathUnified, record.PathTwoLeg, record.PathDirect, record.PathProxy} // named by their path
	if want := len(arms) * len(promptTokens) * len(concurrency); len(rec.Conditions) != want {
		x.t.Errorf("%d conditions, want %d", len(rec.Conditions), want)
	}
	warmed := map[string]int{}
	got := map[string]int{}
	for _, l := range reqs {
		v.request(x, l)
		if l.Phase == record.PhaseWarmup {
			warmed[l.Arm]++
			continue
		}
		got[fmt.Sprintf("%s %d c%d", l.Arm, l.PromptTokens, l.Concurrency)]++
		if l.Arm != l.Path {
			x.t.Errorf("arm %s took the path %s", l.Arm, l.Path)
		}
	}
	for _, arm := range arms {
		if warmed[arm] != 1 {
			x.t.Errorf("%d requests warmed arm %s, want one for its pair of engines", warmed[arm], arm)
		}
		for _, n := range promptTokens {
			for _, c := range concurrency {
				if key := fmt.Sprintf("%s %d c%d", arm, n, c); got[key] != c {
					x.t.Errorf("%s: %d requests, want %d in one block", key, got[key], c)
				}
			}
		}
	}
	for _, c := range rec.Conditions {
		if c.Bytes != v.bytes(int(c.Tokens)) || int(c.Block) != v.file.BlockTokens {
			x.t.Errorf("condition %s: %d bytes in blocks of %d, want %d in blocks of %d", c.Name, c.Bytes, c.Block, v.bytes(int(c.Tokens)), v.file.BlockTokens)
		}
	}
}

// request wants one request valid, with the proof of its path.
func (v *version) request(x *tool, l record.Request) {
	x.t.Helper()
	for _, p := range problems(l, v.file.BlockTokens) {
		x.t.Errorf("%s, %d tokens, c%d, %s %d: %s", l.Arm, l.PromptTokens, l.Concurrency, l.Phase, l.Sequence, p)
	}
}

// fits wants an output of lines of at most 80 columns.
func fits(t *testing.T, what, text string) {
	t.Helper()
	if strings.TrimSpace(text) == "" {
		t.Errorf("%s: no output", what)
	}
	say("%s:\n%s", what, text)
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if n := utf8.RuneCountInString(line); n > 80 && !strings.HasPrefix(line, "# xferbench ttft") { // which has a path
			t.Errorf("%s: %d columns: %s", what, n, line)
		}
	}
}

// share compares the raw run with the requests: compare must say which share of
// the TTFT the wire explains, and it must be the one of the records' own lines.
func (v *version) share(x *tool, path string, reqs []record.Request) {
	x.t.Helper()
	raw := filepath.Join(x.dir, "raw.jsonl")
	text := x.run(time.Minute, 0, "compare", raw, path)
	fits(x.t, "compare", text)
	if !strings.Contains(text, "The wire explains ") {
		x.t.Error("compare does not say which share the wire explains")
	}
	var out struct {
		Rows []struct {
			Arm    string
			Load   string
			Tokens int `json:"prompt_tokens"`
			Rungs  []struct {
				Kind  string
				Name  string
				Bytes uint64
				Share float64 `json:"share_of_ttft"`
			}
		}
	}
	if err := json.Unmarshal([]byte(x.run(time.Minute, 0, "compare", "--format", "json", raw, path)), &out); err != nil {
		x.t.Fatal(err)
	}
	checked := map[string]int{}
	for _, row := range out.Rows {
		if row.Load != "c1" || row.Arm != record.PathTwoLeg && row.Arm != record.PathProxy {
			continue
		}
		for _, rung := range row.Rungs {
			if rung.Kind != "raw" || !strings.HasPrefix(rung.Name, "ucx:tcp READ ") {
				continue
			}
			shape, _, _ := strings.Cut(strings.TrimPrefix(rung.Name, "ucx:tcp READ "), " ")
			want := rawMedian(x.t, raw, shape, v.bytes(row.Tokens)) / float64(ttftOf(x.t, reqs, row.Arm, row.Tokens))
			if math.Abs(rung.Share-want) > 1e-6 {
				x.t.Errorf("%s, %d tokens, %s: share %.6f, the records say %.6f", row.Arm, row.Tokens, rung.Name, rung.Share, want)
			}
			checked[fmt.Sprint(row.Arm, row.Tokens)]++
		}
	}
	if len(checked) != 2*len(promptTokens) {
		x.t.Errorf("compare has shares for %v, want both paths at all lengths", checked)
	}
}

// rawMedian is the median time in ns of a raw row, of which each block has one
// sample.
func rawMedian(t *testing.T, path, shape string, bytes uint64) float64 {
	t.Helper()
	rec, err := record.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var ns []float64
	for s := range rec.Samples.All() {
		if c, ok := rec.Condition(s.Condition); ok && c.Provider == "ucx:tcp" && c.Shape == shape && c.Bytes == bytes && s.Phase == record.PhaseMeasure {
			ns = append(ns, float64(s.TotalNs))
		}
	}
	if len(ns) == 0 {
		t.Fatalf("no samples of %s, %d bytes in %s", shape, bytes, path)
	}
	slices.Sort(ns)
	return (ns[(len(ns)-1)/2] + ns[len(ns)/2]) / 2
}

// ttftOf is the TTFT of the one measured request of a cell with one in flight.
func ttftOf(t *testing.T, reqs []record.Request, arm string, tokens int) int64 {
	t.Helper()
	for _, l := range reqs {
		if l.Arm == arm && l.PromptTokens == tokens && l.Concurrency == 1 && l.Phase == record.PhaseMeasure {
			return l.TTFTNs
		}
	}
	t.Fatalf("no request over %s with %d tokens", arm, tokens)
	return 0
}

// proxies compares our proxy with vLLM's own in paired blocks, beside one with
// a mistake.
func (v *version) proxies(x *tool) {
	spec := v.write(x, "prefill", "decode")
	ours, toy := v.ourProxy(x), v.toyProxy(x)
	control := httptest.NewServer(forgetful(v.engine("prefill"), v.engine("decode")))
	defer control.Close()
	path := filepath.Join(x.dir, "proxies.jsonl")
	// Exit code 5: a third of the requests is invalid.
	text := x.run(30*time.Minute, 5, "ttft", "--launch", spec,
		"--arm", "ours=proxy="+ours+","+v.pair(), "--arm", "toy=proxy="+toy+","+v.pair(), "--arm", "control=proxy="+control.URL+","+v.pair(),
		"--prompt-tokens", "256", "--vocab-size", vocab, "--max-tokens", fmt.Sprint(maxTokens),
		"--iterations", fmt.Sprint(pairs), "--blocks", fmt.Sprint(pairs), "--warmup", "1", "--timeout", "10m", "--settle", "30s", "--record", path)
	x.nothingLeft(2)
	fits(x.t, "ttft", text)
	rec, reqs := v.read(x, path)
	if rec.End == nil || rec.End.ExitCode != 5 {
		x.t.Errorf("the record ends with %+v, want exit code 5", rec.End)
	}
	count := map[string]int{}
	for _, l := range reqs {
		count[l.Arm]++
		if l.Arm != "control" {
			v.request(x, l)
		} else if l.Valid || l.Reason != record.ReasonLocalRecompute || l.Moved != nil || l.Completion != maxTokens {
			x.t.Errorf("a request without kv_transfer_params: valid %v, reason %q (%s), moved %+v; want %s", l.Valid, l.Reason, l.Detail, l.Moved, record.ReasonLocalRecompute)
		}
	}
	for _, arm := range []string{"ours", "toy", "control"} {
		if count[arm] != pairs+2 {
			x.t.Errorf("%d requests over %s, want %d and two to warm up", count[arm], arm, pairs)
		}
	}
	res, err := analysis.OfRequests(rec)
	if err != nil {
		x.t.Fatal(err)
	}
	if len(res.Comparisons) != 1 || res.Comparisons[0].B.Arm != "toy" || res.Comparisons[0].A.Arm != "ours" {
		x.t.Fatalf("comparisons %+v, want toy with ours", res.Comparisons)
	}
	verdict := res.Comparisons[0].Verdict
	say("toy proxy against ours: %s", verdict)
	if verdict.NA != pairs {
		x.t.Errorf("%d pairs, want %d", verdict.NA, pairs)
	}
	switch verdict.Kind {
	case stats.NoDifference:
	case stats.Different:
		if iv := verdict.Interval; iv == nil || iv.Lo > 1+proxyBound || iv.Hi < 1/(1+proxyBound) {
			x.t.Errorf("the proxies differ: %s; the bound is %v %%", verdict, 100*proxyBound)
		}
	default:
		x.t.Errorf("no verdict on the proxies: %s", verdict)
	}
}

// shape is a model of testdata/kvshapes and how engines serve it.
type shape struct {
	BlockTokens     int `json:"block_tokens"`
	Prefill, Decode []string
	Env             map[string]string
	// Requests are those that are sent, by their length, and what each moves, by hand.
	Requests map[string]struct{ Bytes, Transfers int64 }
}

// shapes runs models whose KV cache is not the same in every layer and on every rank,
// each over its own pair of engines: windows, copies of a latent cache, states. Every
// request is proven by the blocks that the prefill engine listed, on two-leg and
// behind our proxy.
func (v *version) shapes(x *tool) {
	data, err := os.ReadFile(filepath.Join(x.root, "testdata", "kvshapes", "shapes.json"))
	if err != nil {
		x.t.Fatal(err)
	}
	var all map[string]shape
	if err := json.Unmarshal(data, &all); err != nil {
		x.t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		x.t.Run(name, func(t *testing.T) { v.shape(x.with(t), name, all[name]) })
	}
}

func (v *version) shape(x *tool, name string, s shape) {
	model := filepath.Join("testdata", "kvshapes", name)
	spec := v.writeShape(x, name, model, s)
	ours := v.ourProxy(x)
	path := filepath.Join(x.dir, name+".jsonl")
	lengths := slices.Sorted(maps.Keys(s.Requests))
	// Exit code 6: one block gives no verdict between the arms.
	text := x.run(20*time.Minute, 6, "ttft", "--launch", spec, "--kv-model", model, "--arm", "two-leg="+v.pair(), "--arm", "proxy=proxy="+ours+","+v.pair(),
		"--prompt-tokens", strings.Join(lengths, ","), "--vocab-size", vocab, "--max-tokens", fmt.Sprint(maxTokens),
		"--iterations", "1", "--blocks", "1", "--warmup", "0", "--timeout", "10m", "--settle", "30s", "--record", path)
	x.nothingLeft(2)
	fits(x.t, "ttft", text)
	_, reqs := v.read(x, path)
	if want := 2*len(lengths) + 2; len(reqs) != want {
		x.t.Errorf("%d requests, want %d", len(reqs), want)
	}
	for _, l := range reqs {
		want := s.Requests[fmt.Sprint(l.PromptTokens)]
		if !l.Valid || l.Rule != record.RuleBlocks || l.Proof != record.ProofSample {
			x.t.Errorf("%s, %d tokens: valid %v by %q, proof %q: %s: %s", l.Arm, l.PromptTokens, l.Valid, l.Rule, l.Proof, l.Reason, l.Detail)
		}
		if l.Moved == nil || l.Moved.Bytes != want.Bytes || l.Moved.Transfers != want.Transfers {
			x.t.Errorf("%s, %d tokens: %+v, want %+v", l.Arm, l.PromptTokens, l.Moved, want)
		}
	}
}

// writeShape writes the launch file for a pair that serves the model.
func (v *version) writeShape(x *tool, name, model string, s shape) string {
	x.t.Helper()
	data, err := os.ReadFile(v.write(x, "prefill", "decode"))
	if err != nil {
		x.t.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(data, &spec); err != nil {
		x.t.Fatal(err)
	}
	delete(spec, "bytes_per_token")
	spec["block_size_tokens"] = s.BlockTokens
	for role, extra := range map[string][]string{"prefill": s.Prefill, "decode": s.Decode} {
		e := spec["engines"].(map[string]any)[role].(map[string]any)
		// The last of two equal flags holds.
		for _, a := range append([]string{"--model", model, "--block-size", fmt.Sprint(s.BlockTokens)}, extra...) {
			e["argv"] = append(e["argv"].([]any), a)
		}
		for k, val := range s.Env {
			e["env"].(map[string]any)[k] = val
		}
	}
	if data, err = json.MarshalIndent(spec, "", "  "); err != nil {
		x.t.Fatal(err)
	}
	path := filepath.Join(x.dir, "launch-"+name+".yaml")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		x.t.Fatal(err)
	}
	if v.file, err = launch.Load(path); err != nil {
		x.t.Fatal(err)
	}
	return path
}
