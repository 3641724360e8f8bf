package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/sim"
	"github.com/xferbench/xferbench/internal/serving/twoleg"
	"github.com/xferbench/xferbench/internal/ttft"
)

var small = sim.Geometry{BlockTokens: 16, Regions: 4, BytesPerToken: 256}

// start serves a proxy over engines.
func start(t testing.TB, cfg Config) (*Proxy, string) {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(p)
	t.Cleanup(func() { s.Close(); p.Close() })
	return p, s.URL
}

func simulate(t testing.TB, cfg sim.Config) *sim.Set {
	t.Helper()
	cfg.Geometry = small
	set, err := sim.StartSet(cfg, "127.0.0.1", false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	return set
}

func post(t testing.TB, url, body string) *http.Response {
	t.Helper()
	res, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func TestStreamsThroughBothLegs(t *testing.T) {
	set := simulate(t, sim.Config{PrefillTime: 5 * time.Millisecond, StepTime: 5 * time.Millisecond})
	_, url := start(t, Config{Prefill: []string{set.Prefill.URL}, Decode: []string{set.Decode.URL}})
	res := post(t, url, `{"prompt":[1,2,3],"max_tokens":3,"stream":true,"stream_options":{"include_usage":true}}`)
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") ||
		strings.Count(string(body), `"choices":[{`) != 3 || !strings.HasSuffix(string(body), "data: [DONE]\n\n") {
		t.Fatalf("%s, %v:\n%s", res.Status, res.Header, body)
	}
	if h := res.Header.Get("Server-Timing"); !strings.Contains(h, "prefill;dur=") || !strings.Contains(h, "handover;dur=") || !strings.Contains(h, "decode-headers;dur=") {
		t.Errorf("Server-Timing %q", h)
	}
	if h := res.Header.Get(twoleg.BlocksHeader); h != "1; tokens=3; tp=1" {
		t.Errorf("%s %q", twoleg.BlocksHeader, h)
	}
	if h := res.Trailer.Get("Server-Timing"); !strings.Contains(h, "decode-first-byte;dur=") || !strings.Contains(h, "total;dur=") {
		t.Errorf("trailer Server-Timing %q", h)
	}
}

func TestPlainAnswerAndChat(t *testing.T) {
	set := simulate(t, sim.Config{Release: "0.15.1"}) // which counts loaded tokens as cached
	_, url := start(t, Config{Prefill: []string{set.Prefill.URL}, Decode: []string{set.Decode.URL}})
	for body, path := range map[string]string{
		`{"prompt":"hello there","max_tokens":2}`:                                          "/v1/completions",
		`{"prompt":["hello there"],"n":1.0,"max_tokens":2}`:                                "/v1/completions",
		`{"prompt":[[1,2,3]],"max_tokens":2}`:                                              "/v1/completions",
		`{"messages":[{"role":"user","content":"hello there"}],"max_completion_tokens":2}`: "/v1/chat/completions",
	} {
		res, err := http.Post(url+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var answer struct {
			Usage struct {
				Completion int `json:"completion_tokens"`
				Details    struct {
					Cached int `json:"cached_tokens"`
				} `json:"prompt_tokens_details"`
			} `json:"usage"`
		}
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		// "hello there" is 3 tokens to the simulation, of which all but the last were loaded.
		if res.StatusCode != 200 || answer.Usage.Completion != 2 || answer.Usage.Details.Cached != 2 {
			t.Errorf("%s: %s %+v", path, res.Status, answer)
		}
	}
}

func TestMissingParametersFailTheRequest(t *testing.T) {
	set := simulate(t, sim.Config{Faults: []sim.Injection{{Fault: sim.NullParams, Every: 1}}})
	_, url := start(t, Config{Prefill: []string{set.Prefill.URL}, Decode: []string{set.Decode.URL}})
	res := post(t, url, `{"prompt":[1],"max_tokens":2,"stream":true}`)
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusBadGateway || !strings.Contains(string(body), "no usable kv_transfer_params") {
		t.Errorf("%s: %s; want 502", res.Status, body)
	}
}

func TestRefusals(t *testing.T) {
	set := simulate(t, sim.Config{})
	_, url := start(t, Config{Prefill: []string{set.Prefill.URL}, Decode: []string{set.Decode.URL}})
	for body, want := range map[string]int{
		`{"prompt":[1],"n":2}`:                        400,
		`{"prompt":["a","b"]}`:                        400,
		`not json`:                                    400,
		`{"prompt":[1],"kv_transfer_params":{}}`:      400,
		`{"prompt":[1],"model":"nobody serves this"}`: 400, // the engine's own answer
	} {
		if res := post(t, url, body); res.StatusCode != want || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s %s, want %d", body, res.Status, res.Header.Get("Content-Type"), want)
		}
	}
}

// recorderEngine is a prefill or decode engine that notes what it was sent.
type recorderEngine struct {
	mu     sync.Mutex
	ids    []string
	bodies []string
	params string
}

func (e *recorderEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/health" {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), 500)
		return
	}
	e.mu.Lock()
	e.ids = append(e.ids, r.Header.Get(twoleg.RequestIDHeader))
	e.bodies = append(e.bodies, string(body))
	e.mu.Unlock()
	_, _ = fmt.Fprintf(w, `{"choices":[],"kv_transfer_params":%s}`, e.params)
}

// Parameters go through untouched and both legs carry the same id.
func TestParametersAreOpaque(t *testing.T) {
	e := &recorderEngine{params: `{"do_remote_prefill":true,"remote_engine_id":"e","remote_block_ids":[[9007199254740993]], "remote_host":"h","remote_port":1,"a_later_field":1.000}`}
	s := httptest.NewServer(e)
	defer s.Close()
	_, url := start(t, Config{Prefill: []string{s.URL}, Decode: []string{s.URL}})
	_ = post(t, url, `{"prompt":[1], "max_tokens": 7}`)
	_ = post(t, url, `{"prompt":[1], "max_tokens": 7}`)
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.ids) != 4 || e.ids[0] == "" || e.ids[0] != e.ids[1] || e.ids[2] != e.ids[3] || e.ids[0] == e.ids[2] {
		t.Fatalf("request ids %q", e.ids)
	}
	if want := `{"prompt":[1],"max_tokens":7,"kv_transfer_params":` + e.params + `}`; e.bodies[1] != want {
		t.Errorf("decode leg %s\nwant %s", e.bodies[1], want)
	}
}

func TestRoundRobinSkipsTheDead(t *testing.T) {
	var mu sync.Mutex
	hits := map[string]int{}
	var urls []string
	for i := range 3 {
		name := fmt.Sprint(i)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/health" {
				return
			}
			mu.Lock()
			hits[name]++
			mu.Unlock()
			_, _ = io.WriteString(w, `{"kv_transfer_params":{"do_remote_prefill":true,"remote_engine_id":"e","remote_block_ids":[1],"remote_host":"h","remote_port":1}}`)
		}))
		t.Cleanup(s.Close)
		urls = append(urls, s.URL)
	}
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	var logged atomic.Int32
	p, url := start(t, Config{Prefill: append(slices.Clone(urls), dead.URL), Decode: urls[:1], HealthEvery: time.Hour,
		Log: func(string, ...any) { logged.Add(1) }})
	for range 8 {
		if res := post(t, url, `{"prompt":[1]}`); res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	// Eight prefill legs over three engines, and eight decode legs on the first.
	if hits["0"]+hits["1"]+hits["2"] != 16 || hits["1"] < 2 || hits["2"] < 2 || p.prefill.healthyCount() != 3 || logged.Load() != 1 {
		t.Errorf("hits %v, healthy %d, logged %d", hits, p.prefill.healthyCount(), logged.Load())
	}
}

func TestHealth(t *testing.T) {
	var sick atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			w.WriteHeader(500)
		}
	}))
	defer s.Close()
	_, url := start(t, Config{Prefill: []string{s.URL}, Decode: []string{s.URL}, HealthEvery: 20 * time.Millisecond})
	status := func(want int) {
		t.Helper()
		for limit := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			res, err := http.Get(url + "/health")
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode == want {
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("health %d, want %d", res.StatusCode, want)
			}
		}
	}
	status(200)
	sick.Store(true)
	status(503)
	if res := post(t, url, `{"prompt":[1]}`); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("a request without a healthy engine: %s", res.Status)
	}
	sick.Store(false)
	status(200)
}

func TestBackPressure(t *testing.T) {
	set := simulate(t, sim.Config{Faults: []sim.Injection{{Fault: sim.Hang, Every: 1}}})
	p, url := start(t, Config{Prefill: []string{set.Prefill.URL}, Decode: []string{set.Decode.URL}, MaxInFlight: 2})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			req, err := http.NewRequestWithContext(ctx, "POST", url+"/v1/completions", strings.NewReader(`{"prompt":[1]}`))
			if err != nil {
				t.Error(err)
				return
			}
			if res, err := http.DefaultClient.Do(req); err == nil {
				_ = res.Body.Close()
			}
		})
	}
	within(t, "two requests under way", func() bool { return len(p.slots) == 2 })
	res := post(t, url, `{"prompt":[1]}`)
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "1" {
		t.Errorf("a third request: %s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
	}
	// Clients that go away free their places: the hanging leg was cancelled.
	cancel()
	wg.Wait()
	within(t, "the places to be free", func() bool { return len(p.slots) == 0 })
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

// A client that goes away in the middle of the stream ends the decode leg.
func TestCancellationReachesTheDecodeEngine(t *testing.T) {
	gone := make(chan struct{})
	decode := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil { // a server sees the end of a connection only after the body
			t.Error(err)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: {\"choices\":[{}]}\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	}))
	defer decode.Close()
	set := simulate(t, sim.Config{})
	_, url := start(t, Config{Prefill: []string{set.Prefill.URL}, Decode: []string{decode.URL}})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", url+"/v1/completions", strings.NewReader(`{"prompt":[1],"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	// The first event is here while the engine still holds the stream open.
	if line, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil || !strings.HasPrefix(line, "data: ") {
		t.Fatalf("%q, %v", line, err)
	}
	cancel()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("the decode engine was not told")
	}
}

func TestBrokenStreamIsNotTakenForWhole(t *testing.T) {
	set := simulate(t, sim.Config{Faults: []sim.Injection{{Fault: sim.TruncatedStream, Every: 1}}})
	_, url := start(t, Config{Prefill: []string{set.Prefill.URL}, Decode: []string{set.Decode.URL}})
	res := post(t, url, `{"prompt":[1],"max_tokens":5,"stream":true}`)
	body, err := io.ReadAll(res.Body)
	if err == nil || !strings.Contains(string(body), `"error"`) {
		t.Errorf("error %v after %q; want a broken body with an error event", err, body)
	}
}

// A thousand streams at once end well and leave nothing behind: the memory in
// use while they run is bounded, and afterwards it is what it was.
func TestThousandStreams(t *testing.T) {
	const streams = 1000
	release := make(chan struct{})
	end := sync.OnceFunc(func() { close(release) })
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if strings.Contains(string(body), "do_remote_decode\":true") {
			_, _ = io.WriteString(w, `{"kv_transfer_params":{"do_remote_prefill":true,"remote_engine_id":"e","remote_block_ids":[1],"remote_host":"h","remote_port":1}}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for range 50 {
			_, _ = io.WriteString(w, "data: "+strings.Repeat("x", 200)+"\n\n")
		}
		_ = http.NewResponseController(w).Flush()
		<-release
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	}))
	defer engine.Close()
	defer end() // also of a test that failed: Close waits for the streams
	p, url := start(t, Config{Prefill: []string{engine.URL}, Decode: []string{engine.URL}, MaxInFlight: streams})
	// Whatever goes wrong, all streams end then, and with them the servers.
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: streams}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	before := heap()
	var wg sync.WaitGroup
	var whole atomic.Int32
	for range streams {
		wg.Go(func() {
			res, err := client.Post(url+"/v1/completions", "application/json", strings.NewReader(`{"prompt":[1],"stream":true}`))
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			if err == nil && strings.HasSuffix(string(b), "[DONE]\n\n") {
				whole.Add(1)
			}
		})
	}
	within(t, "all streams to be open", func() bool { return len(p.slots) == streams })
	open := heap()
	end()
	wg.Wait()
	if whole.Load() != streams {
		t.Errorf("%d of %d streams were whole", whole.Load(), streams)
	}
	// This process holds client, proxy and engine of each stream, some dozen
	// buffers of 4 KiB and what the client has read so far; 256 KiB is twice that.
	if per := (open - before) / streams; per > 256<<10 {
		t.Errorf("%d bytes a stream", per)
	}
	client.CloseIdleConnections()
	p.transport.CloseIdleConnections()
	within(t, "memory to come back", func() bool { return heap()-before < 32<<20 })
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkOverhead compares the proxy with a client that drives the two legs
// itself, over engines that take no time, in randomised blocks. Run it with
// -benchtime=1x; the figure is overhead-ns.
func BenchmarkOverhead(b *testing.B) {
	set := simulate(b, sim.Config{})
	_, url := start(b, Config{Prefill: []string{set.Prefill.URL}, Decode: []string{set.Decode.URL}})
	arm := func(name, path, front string) ttft.Arm {
		return ttft.Arm{Name: name, Mode: record.ModeDisaggregated, Path: path, Front: front, Prefill: []string{set.Prefill.URL}, Decode: []string{set.Decode.URL}, KV: ttft.Geometry{BytesPerToken: 256}}
	}
	for _, tokens := range []int{100, 2000} {
		b.Run(fmt.Sprintf("tokens=%d", tokens), func(b *testing.B) {
			for b.Loop() {
				rec := &record.Record{}
				err := ttft.Run(context.Background(), ttft.Config{Arms: []ttft.Arm{arm("two-leg", record.PathTwoLeg, ""), arm("proxy", record.PathProxy, url)},
					PromptTokens: []int{tokens}, MaxTokens: 2, Load: record.LoadClosed, Concurrency: []int{1}, Iterations: 200, Blocks: 20, Warmup: 20, Seed: 1,
					Prompts: ttft.TokenPrompts, VocabSize: 32_000, Timeout: time.Minute, Settle: time.Second, Record: rec.Add})
				if err != nil {
					b.Fatal(err)
				}
				res, err := analysis.OfRequests(rec)
				if err != nil {
					b.Fatal(err)
				}
				if res.Invalid > 0 {
					b.Fatalf("invalid: %v", res.Reasons)
				}
				b.ReportMetric(res.Rows[0].TTFT.Median, "two-leg-ns")
				b.ReportMetric(res.Rows[1].TTFT.Median-res.Rows[0].TTFT.Median, "overhead-ns")
			}
		})
	}
}
