package ttft

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/analysis/pool"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/metrics"
	"github.com/xferbench/xferbench/internal/serving/twoleg"
)

// captured is where pages and streams of real engines are; its README says how
// they were made. The KV cache of that model takes 57,344 bytes a token.
const (
	captured      = "../../testdata/engines"
	capturedBytes = 57_344
)

// delta reads what one side of a scenario counted.
func delta(t *testing.T, dir, side string) metrics.Reading {
	t.Helper()
	var r [2]metrics.Reading
	for i, when := range []string{"before", "after"} {
		data, err := os.ReadFile(filepath.Join(dir, side+"-"+when+".prom"))
		if err != nil {
			t.Fatal(err)
		}
		if r[i], err = metrics.Parse(bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	d, reset := r[1].Since(r[0])
	if len(reset) > 0 {
		t.Fatalf("%s went backwards", reset[0].Name())
	}
	return d
}

// shape is what is known of the captured engines' cache.
func shape(t *testing.T) expects {
	t.Helper()
	m, err := kv.Resolve("../../testdata/kvshape/config.json", "auto")
	if err != nil {
		t.Fatal(err)
	}
	return expects{Geometry: Geometry{Model: m}, known: true}
}

// Real engines of both releases prove their transfers: every captured two-leg
// scenario is valid, with exact bytes, and what was no transfer is not.
func TestProofOfCapturedEngines(t *testing.T) {
	dirs, err := filepath.Glob(captured + "/*/*")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, dir := range dirs {
		name := filepath.Base(dir)
		has := func(f string) bool { _, err := os.Stat(filepath.Join(dir, f)); return err == nil }
		var tokens, n int
		ev := evidence{path: record.PathTwoLeg, expects: shape(t)}
		want := record.Reason("")
		kind := ""
		switch {
		case strings.HasPrefix(name, "two-leg-") && has("prefill-after.prom") && has("decode-after.prom"):
			kind = "two-leg"
			ev.prefill, ev.decode = delta(t, dir, "prefill"), delta(t, dir, "decode")
		case strings.HasPrefix(name, "unified-") && has("unified-after.prom"):
			kind = "unified"
			ev.path, ev.prefill = record.PathUnified, delta(t, dir, "unified")
		case strings.HasPrefix(name, "local-recompute-") && has("decode-after.prom"):
			// The prefill engine was not asked; let it have done its part.
			kind, want = "recompute", record.ReasonLocalRecompute
			ev.decode = delta(t, dir, "decode")
			ev.prefill = ev.decode
		default:
			continue
		}
		if _, err := fmt.Sscanf(strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(name, "two-leg-"), "unified-"), "local-recompute-"), "%d", &tokens); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		n = 1
		if strings.HasSuffix(name, "-concurrency-4") {
			n = 4
		}
		for range n {
			ev.reqs = append(ev.reqs, reqEvidence{tokens: tokens, reachedDecode: kind != "unified", prefillCached: -1, decodeCached: -1})
		}
		ev.expects.blockTokens = ev.prefill.Cache.BlockTokens
		kinds[kind]++
		for _, v := range judge(ev) {
			if v.reason != want {
				t.Errorf("%s: %q (%s), want %q", dir, v.reason, v.detail, want)
			}
		}
		if kind == "two-leg" {
			blocks := (tokens + ev.expects.blockTokens - 1) / ev.expects.blockTokens
			if got, want := get(ev.decode, metrics.TransferBytes), int64(n*blocks*ev.expects.blockTokens*capturedBytes); got != want {
				t.Errorf("%s: %d bytes, want %d", dir, got, want)
			}
			if !ev.complete() {
				t.Errorf("%s: taken as not settled", dir)
			}
			// One token more or fewer than was sent would not be proven.
			ev.reqs[0].tokens += ev.expects.blockTokens
			if v := judge(ev)[0]; v.reason == "" {
				t.Errorf("%s: valid for a prompt of %d tokens too", dir, ev.reqs[0].tokens)
			}
		}
	}
	if kinds["two-leg"] < 6 || kinds["unified"] < 4 || kinds["recompute"] < 1 {
		t.Errorf("scenarios found: %v", kinds)
	}
}

// Streams of real engines, byte for byte: up to four chunks with tokens, although
// the text of each is empty, and the usage.
func TestCapturedStreams(t *testing.T) {
	files, err := filepath.Glob(captured + "/*/*/*-stream.sse")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(data, []byte("data: [DONE]\n\n")) || bytes.Contains(data, []byte(`"error"`)) {
			continue
		}
		seen++
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			// In three pieces that do not end where events do.
			for _, part := range [][]byte{data[:len(data)/3], data[len(data)/3 : len(data)/2], data[len(data)/2:]} {
				_, _ = w.Write(part)
				_ = http.NewResponseController(w).Flush()
			}
		}))
		c := NewClient(1)
		l := c.stream(context.Background(), s.URL, "id", []byte("{}"), 4)
		c.Close()
		s.Close()
		// Tokens that an engine makes faster than it sends share a chunk.
		if l.failure != nil || len(l.tokens) < 1 || len(l.tokens) > 4 || l.usage == nil || l.usage.Completion != 4 {
			t.Errorf("%s: failure %v, %d chunks with tokens, usage %+v", f, l.failure, len(l.tokens), l.usage)
		}
	}
	if seen < 10 {
		t.Errorf("%d whole streams found", seen)
	}
}

// Answers of real prefill engines have parameters, and they go on unchanged.
func TestCapturedParameters(t *testing.T) {
	files, err := filepath.Glob(captured + "/*/two-leg-*/prefill-response.json")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d answers, %v", len(files), err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		params, err := twoleg.Params(data)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		if !bytes.Contains(data, params) || !json.Valid(params) {
			t.Errorf("%s: parameters %s are not the answer's", f, params)
		}
	}
}

// The predictor against a real engine: vLLM 0.32.0 with prefix caching off, the
// first four requests after its start.
func TestPredictorAgreesWithARealEngine(t *testing.T) {
	p, err := pool.NewPredictor(pool.Config{PrefillBlocks: 585, DecodeBlocks: 585, Order: pool.LIFO, Regions: 28, BlockTokens: 32})
	if err != nil {
		t.Fatal(err)
	}
	for _, sc := range []struct {
		name   string
		tokens int
		ids    []int // first and last block of the prefill engine
	}{{"two-leg-256-first-contact", 256, []int{1, 8}}, {"two-leg-256", 256, []int{8, 1}}, {"two-leg-1000", 1000, []int{1, 32}}, {"two-leg-2000", 2000, []int{32, 63}}} {
		dir := filepath.Join(captured, "0.32.0", sc.name)
		got := get(delta(t, dir, "decode"), metrics.Descriptors)
		want, err := p.Next(sc.tokens, 4)
		if err != nil {
			t.Fatal(err)
		}
		if got != int64(want) {
			t.Errorf("%s: the engine posted %d descriptors, predicted %d", sc.name, got, want)
		}
		data, err := os.ReadFile(filepath.Join(dir, "prefill-response.json"))
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Params struct {
				IDs [][]int `json:"remote_block_ids"`
			} `json:"kv_transfer_params"`
		}
		if err := json.Unmarshal(data, &answer); err != nil {
			t.Fatal(err)
		}
		if ids := answer.Params.IDs[0]; !slices.Equal([]int{ids[0], ids[len(ids)-1]}, sc.ids) {
			t.Errorf("%s: blocks %d to %d, want %v: the scenarios are not the first four any more", sc.name, ids[0], ids[len(ids)-1], sc.ids)
		}
	}
}

// The predictor against engines whose layer groups share one pool: the first request of
// a model with five windowed groups, and the second of one with a single one.
func TestPredictorAgreesWithLayerGroups(t *testing.T) {
	for _, tt := range []struct {
		dir             string
		blocks, regions int
		groups          []int
		before          int // requests that the engines had served
	}{{"gemma3-1000", 8192, 2, []int{9, 9, 9, 9, 9, 32}, 0}, {"windows-1000", 1170, 14, []int{5, 32}, 1}} {
		p, err := pool.NewPredictor(pool.Config{PrefillBlocks: tt.blocks, DecodeBlocks: tt.blocks, Order: pool.LIFO, Regions: tt.regions, BlockTokens: 32, Groups: tt.groups})
		if err != nil {
			t.Fatal(err)
		}
		var want int
		for range tt.before + 1 {
			if want, err = p.Next(1000, 4); err != nil {
				t.Fatal(err)
			}
		}
		if got := get(delta(t, filepath.Join(captured, "0.32.0", tt.dir), "decode"), metrics.Descriptors); got != int64(want) {
			t.Errorf("%s: the engine posted %d descriptors, predicted %d", tt.dir, got, want)
		}
	}
}

func TestTransportFailure(t *testing.T) {
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	late, cancelLate := context.WithDeadline(context.Background(), time.Unix(1, 0))
	defer cancelLate()
	for name, tt := range map[string]struct {
		ctx  context.Context
		err  error
		want record.Reason
	}{
		"refused":     {context.Background(), errors.New("connection refused"), record.ReasonConnection},
		"interrupted": {canceled, context.Canceled, record.ReasonInterrupted},
		"timeout":     {late, context.DeadlineExceeded, record.ReasonTimeout},
	} {
		if f := transportFailure(tt.ctx, tt.err); f.reason != tt.want {
			t.Errorf("%s: %s, want %s", name, f.reason, tt.want)
		}
	}
}

// A transfer whose source was given up before it ended counts its bytes like a
// good one: the prefill engine's count of expired leases decides.
func TestTransferAfterTheLease(t *testing.T) {
	page := func(n int) metrics.Reading {
		r, err := metrics.Parse(strings.NewReader(fmt.Sprintf("# TYPE vllm:nixl_num_kv_expired_reqs_total counter\nvllm:nixl_num_kv_expired_reqs_total{engine=\"0\"} %d\n", n)))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, tt := range []struct {
		version     string
		blockTokens int
	}{{"0.15.1", 16}, {"0.32.0", 32}} {
		dir := filepath.Join(captured, tt.version, "two-leg-256")
		ev := evidence{path: record.PathTwoLeg, expects: shape(t), prefill: delta(t, dir, "prefill"), decode: delta(t, dir, "decode"),
			reqs: []reqEvidence{{tokens: 256, reachedDecode: true, prefillCached: -1, decodeCached: -1}}}
		ev.expects.blockTokens = tt.blockTokens
		if v := judge(ev)[0]; v.reason != "" {
			t.Fatalf("%s: %s: %s", tt.version, v.reason, v.detail)
		}
		expired, _ := page(3).Since(page(2))
		ev.prefill = ev.prefill.Plus(expired)
		if v := judge(ev)[0]; v.reason != record.ReasonExpiredLease || !strings.Contains(v.detail, "1 requests") {
			t.Errorf("%s: %q: %s, want %s", tt.version, v.reason, v.detail, record.ReasonExpiredLease)
		}
	}
}
