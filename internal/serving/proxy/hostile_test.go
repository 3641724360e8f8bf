package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/serving/twoleg"
)

// usable is a prefill engine's answer that a decode engine can pull from.
const usable = `{"kv_transfer_params":{"do_remote_prefill":true,"remote_engine_id":"e","remote_block_ids":[1],"remote_host":"h","remote_port":1}}`

// legs starts an engine for each side; health checks are answered for them.
func legs(t *testing.T, prefill, decode http.HandlerFunc) Config {
	t.Helper()
	one := func(h http.HandlerFunc) []string {
		if h == nil {
			h = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, usable) }
		}
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/health" {
				h(w, r)
			}
		}))
		t.Cleanup(s.Close)
		return []string{s.URL}
	}
	return Config{Prefill: one(prefill), Decode: one(decode), HealthEvery: time.Hour}
}

// raw sends text over a connection of its own and reads the answer.
func raw(t *testing.T, url, text string) (*http.Response, string) {
	t.Helper()
	c := dial(t, url)
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return answer(t, c)
}

func dial(t *testing.T, url string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(t *testing.T, c net.Conn) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// What the client says goes through both legs, except what concerns one
// connection; and so does what the engine says.
func TestHeadersAndQueryGoThroughBothLegs(t *testing.T) {
	var mu sync.Mutex
	var seen []*http.Request
	note := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			seen = append(seen, r.Clone(r.Context()))
			mu.Unlock()
			w.Header().Set("X-Engine", "yes")
			w.Header().Add("Set-Cookie", "a=1")
			w.Header().Add("Set-Cookie", "b=2")
			w.Header().Set("Server-Timing", "engine;dur=1")
			w.Header().Set("Connection", "X-Hop")
			w.Header().Set("X-Hop", "mine")
			_, _ = io.WriteString(w, answer)
		}
	}
	_, url := start(t, legs(t, note(usable), note(`{}`)))
	res, _ := raw(t, url, "POST /v1/completions?tenant=a&b=%20c HTTP/1.1\r\nHost: front\r\nContent-Length: 14\r\n"+
		"Authorization: Bearer key\r\ntraceparent: 00-a-b-01\r\ntracestate: x=y\r\nX-Session-Id: s1\r\nX-Many: 1\r\nX-Many: 2\r\n"+
		"Accept-Encoding: gzip\r\nConnection: close, X-Private\r\nX-Private: p\r\nKeep-Alive: 5\r\nProxy-Authorization: q\r\nTE: trailers\r\nUpgrade: h2c\r\n\r\n"+`{"prompt":"x"}`)
	if res.StatusCode != 200 || res.Header.Get("X-Engine") != "yes" || len(res.Header["Set-Cookie"]) != 2 || res.Header.Get("X-Hop") != "" {
		t.Errorf("%s %v", res.Status, res.Header)
	}
	if v := res.Header["Server-Timing"]; len(v) != 2 || !strings.HasPrefix(v[0], "prefill;dur=") || v[1] != "engine;dur=1" {
		t.Errorf("Server-Timing %q; want the proxy's and then the engine's", v)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 2 {
		t.Fatalf("%d legs", len(seen))
	}
	for i, r := range seen {
		for k, want := range map[string]string{"Authorization": "Bearer key", "Traceparent": "00-a-b-01", "Tracestate": "x=y", "X-Session-Id": "s1",
			"Content-Type": "application/json", "X-Private": "", "Keep-Alive": "", "Proxy-Authorization": "", "Te": "", "Upgrade": "", "User-Agent": "",
			"Accept-Encoding": []string{"identity", "gzip"}[i]} {
			if got := r.Header.Get(k); got != want {
				t.Errorf("leg %d: %s is %q, want %q", i, k, got, want)
			}
		}
		if r.URL.RawQuery != "tenant=a&b=%20c" || len(r.Header["X-Many"]) != 2 || r.Header.Get(twoleg.RequestIDHeader) == "" {
			t.Errorf("leg %d: %s %v", i, r.URL, r.Header)
		}
	}
}

// The failing leg's status, headers and words are the client's.
func TestFailuresArriveAsTheyAre(t *testing.T) {
	const words = `{"error":{"message":"out of patience"}}`
	busy := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", "17")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, words)
	}
	for name, cfg := range map[string]Config{"prefill": legs(t, busy, nil), "decode": legs(t, nil, busy)} {
		_, url := start(t, cfg)
		res := post(t, url, `{"prompt":"x"}`)
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") != "17" || string(body) != words {
			t.Errorf("%s: %s %v %s", name, res.Status, res.Header, body)
		}
	}
	// An error that calls itself a success still says why.
	_, url := start(t, legs(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, words) }, nil))
	body, err := io.ReadAll(post(t, url, `{"prompt":"x"}`).Body)
	if err != nil || !strings.Contains(string(body), "out of patience") {
		t.Errorf("%v: %s", err, body)
	}
}

// The list of models is behind the same key.
func TestModelsCarriesTheKey(t *testing.T) {
	_, url := start(t, legs(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.RequestURI() != "/v1/models?x=1" || r.Header.Get("Authorization") != "Bearer key" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	req, err := http.NewRequest(http.MethodGet, url+"/v1/models?x=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer key")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Error(res.Status)
	}
}

// An engine that switches protocols would be a tunnel past the proxy; a status
// below 100 is none.
func TestEnginesThatSwitchProtocols(t *testing.T) {
	for _, status := range []string{"101 Switching Protocols", "099 Never"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
						_, _ = io.WriteString(c, "HTTP/1.1 "+status+"\r\nConnection: Upgrade\r\nUpgrade: shell\r\n\r\nhello")
					}
				}()
			}
		}()
		for _, cfg := range []Config{{Prefill: []string{"http://" + l.Addr().String()}}, {Decode: []string{"http://" + l.Addr().String()}}} {
			other := legs(t, nil, nil)
			if cfg.Prefill == nil {
				cfg.Prefill = other.Prefill
			} else {
				cfg.Decode = other.Decode
			}
			cfg.HealthEvery = time.Hour
			_, url := start(t, cfg)
			res, body := raw(t, url, "POST /v1/completions HTTP/1.1\r\nHost: front\r\nContent-Length: 14\r\nConnection: Upgrade\r\nUpgrade: shell\r\n\r\n"+`{"prompt":"x"}`)
			if res.StatusCode != http.StatusBadGateway || !strings.Contains(body, status[:3]) || res.Header.Get("Upgrade") != "" {
				t.Errorf("%s: %s %v %s; want 502", status, res.Status, res.Header, body)
			}
		}
	}
}

func TestBodiesThatAreTooLongOrSlow(t *testing.T) {
	p, url := start(t, legs(t, nil, nil))
	p.bodyTime = 200 * time.Millisecond
	const head = "POST /v1/completions HTTP/1.1\r\nHost: front\r\n"
	if res, body := raw(t, url, fmt.Sprintf(head+"Content-Length: %d\r\n\r\n{", maxBody+1)); res.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(body, "longer than") {
		t.Errorf("announced: %s %s", res.Status, body)
	}
	if res, body := raw(t, url, head+"Content-Length: 100\r\n\r\n{"); res.StatusCode != http.StatusRequestTimeout || !strings.Contains(body, "did not come within") {
		t.Errorf("slow: %s %s", res.Status, body)
	}
	if res, body := raw(t, url, head+"Content-Length: 5\r\nContent-Encoding: gzip\r\n\r\nhello"); res.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("packed: %s %s", res.Status, body)
	}
	// Not announced, it is as long.
	p.bodyTime = time.Minute
	r, w := io.Pipe()
	go func() {
		piece := []byte(strings.Repeat(" ", 1<<20))
		for range maxBody>>20 + 1 {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
		_ = w.Close()
	}()
	res, err := http.Post(url+"/v1/completions", "application/json", r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("chunked: %s", res.Status)
	}
	within(t, "memory to be given back", func() bool { return p.bodies.used.Load() == 0 })
	// Nor is it taken where it could never be held.
	p.bodies.limit = copies << 10
	if res := post(t, url, `{"prompt":"`+strings.Repeat("x", 4<<10)+`"}`); res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("beyond all memory for bodies: %s", res.Status)
	}
}

// Bodies that come slowly keep nobody out, and all bodies together hold no more
// than they may.
func TestBodiesShareABudget(t *testing.T) {
	cfg := legs(t, nil, nil)
	cfg.MaxInFlight, cfg.BodyMemory = 1, copies*(1<<20)
	p, url := start(t, cfg)
	var slow []net.Conn
	for range 3 {
		c := dial(t, url)
		if _, err := io.WriteString(c, "POST /v1/completions HTTP/1.1\r\nHost: front\r\nContent-Length: 800000\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
	}
	within(t, "three bodies to begin", func() bool { return p.bodies.used.Load() >= 3*copies*firstBody })
	if used := p.bodies.used.Load(); used != 3*copies*firstBody {
		t.Errorf("%d bytes are set aside for three bodies of one byte each", used)
	}
	if res := post(t, url, `{"prompt":"x"}`); res.StatusCode != http.StatusOK {
		t.Errorf("beside slow bodies: %s", res.Status)
	}
	if _, err := io.WriteString(slow[0], strings.Repeat(" ", 700_000)); err != nil {
		t.Fatal(err)
	}
	within(t, "one body to be here", func() bool { return p.bodies.used.Load() > copies*700_000 })
	res, body := raw(t, url, "POST /v1/completions HTTP/1.1\r\nHost: front\r\nContent-Length: 800000\r\n\r\n"+strings.Repeat(" ", 400_000))
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" || !strings.Contains(body, "memory") {
		t.Errorf("beyond the budget: %s %s", res.Status, body)
	}
	for _, c := range slow {
		_ = c.Close()
	}
	within(t, "memory to be given back", func() bool { return p.bodies.used.Load() == 0 })
}

// A client that does not read its answer loses it, and its place is free again.
func TestClientsThatDoNotRead(t *testing.T) {
	cfg := legs(t, nil, func(w http.ResponseWriter, r *http.Request) {
		for piece := make([]byte, 1<<20); r.Context().Err() == nil; {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
	cfg.Timeout = 2 * time.Second
	p, url := start(t, cfg)
	p.bodyTime = time.Second
	if _, err := io.WriteString(dial(t, url), "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n"+`{"prompt":"x"}`); err != nil {
		t.Fatal(err)
	}
	within(t, "the request to be under way", func() bool { return len(p.slots) == 1 })
	within(t, "its place to be free", func() bool { return len(p.slots) == 0 })
}

// Without a decode engine nothing is computed that nobody would fetch.
func TestNoDecodeEngineNoPrefill(t *testing.T) {
	var computed atomic.Int32
	cfg := legs(t, func(w http.ResponseWriter, _ *http.Request) {
		computed.Add(1)
		_, _ = io.WriteString(w, usable)
	}, nil)
	p, url := start(t, cfg)
	p.decode.engines[0].healthy.Store(false)
	if res := post(t, url, `{"prompt":"x"}`); res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" || computed.Load() != 0 {
		t.Errorf("%s, %d prompts computed", res.Status, computed.Load())
	}
}

// An engine that is late with some checks is not out; one that misses several in
// a row is.
func TestSeveralMissedChecksTakeAnEngineOut(t *testing.T) {
	var checks, bad atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		checks.Add(1)
		if bad.Add(-1) >= 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer s.Close()
	var mu sync.Mutex
	var log []string
	bad.Store(misses - 1)
	p, _ := start(t, Config{Prefill: []string{s.URL}, Decode: legs(t, nil, nil).Decode, HealthEvery: 5 * time.Millisecond, Log: func(f string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, fmt.Sprintf(f, args...))
	}})
	within(t, "checks", func() bool { return checks.Load() > misses+1 })
	mu.Lock()
	if len(log) != 0 {
		t.Errorf("after %d missed checks: %q", misses-1, log)
	}
	mu.Unlock()
	bad.Store(1 << 30)
	within(t, "the engine to be out", func() bool { return p.prefill.healthyCount() == 0 })
	bad.Store(0)
	within(t, "the engine to be back", func() bool { return p.prefill.healthyCount() == 1 })
	mu.Lock()
	defer mu.Unlock()
	if len(log) != 2 || !strings.Contains(log[0], "3 health checks in a row failed") || !strings.Contains(log[0], "500") {
		t.Errorf("%q", log)
	}
}
