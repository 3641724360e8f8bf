// Package proxy is a reverse proxy for prefill/decode disaggregation over
// vLLM's NIXL connector: it sends each completion request to a prefill engine,
// takes the transfer parameters from its answer and streams the decode engine's
// answer to the client (package twoleg has the protocol).
//
// Where a prefill engine returns no parameters the request fails with 502: the
// decode engine would compute the prompt itself and nobody would notice.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Config of a proxy.
type Config struct {
	Prefill, Decode []string // base URLs
	// MaxInFlight bounds the requests under way; more are refused with 503 and
	// Retry-After. 0 means DefaultInFlight.
	MaxInFlight int
	// Timeout bounds one request, both legs together. 0 means 10 minutes.
	Timeout time.Duration
	// BodyMemory bounds the bytes that the bodies of all requests and prefill
	// answers hold together; a request that would go beyond it is refused with 503
	// and Retry-After. 0 means [DefaultBodyMemory].
	BodyMemory int64
	// HealthEvery is the time between checks of each engine. 0 means 2 s.
	HealthEvery time.Duration
	// Log is told when an engine goes away and comes back, and of requests that
	// failed; nil is silent. It is called from many goroutines.
	Log func(format string, args ...any)
}

const (
	// DefaultInFlight is the default limit of requests under way.
	DefaultInFlight = 1024
	// DefaultBodyMemory is the default limit of the memory of bodies, in bytes:
	// 1,024 prompts of 50,000 token ids.
	DefaultBodyMemory = 1 << 30
	// misses is how many health checks in a row an engine fails before it is out:
	// one that computes a long prompt may be late with an answer.
	misses = 3
	// checkTime is how long a check may at least take.
	checkTime = 2 * time.Second
	// maxHeader bounds an engine's headers in bytes.
	maxHeader = 256 << 10
)

// Proxy is an [http.Handler]. Close ends its health checks.
type Proxy struct {
	cfg       Config
	mux       *http.ServeMux
	transport *http.Transport
	slots     chan struct{}
	bodies    budget
	bodyTime  time.Duration // for tests; see the constant
	prefill   *side
	decode    *side
	stop      context.CancelFunc
	checks    sync.WaitGroup
	buffers   sync.Pool
}

// side is the engines of one role.
type side struct {
	role    string
	engines []*engine
	next    atomic.Uint64
}

type engine struct {
	url     string
	healthy atomic.Bool
}

// New returns a proxy whose engines count as healthy until a check fails.
func New(cfg Config) (*Proxy, error) {
	if len(cfg.Prefill) == 0 || len(cfg.Decode) == 0 {
		return nil, errors.New("a proxy needs at least one prefill and one decode engine")
	}
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = DefaultInFlight
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Minute
	}
	if cfg.HealthEvery == 0 {
		cfg.HealthEvery = 2 * time.Second
	}
	if cfg.BodyMemory == 0 {
		cfg.BodyMemory = DefaultBodyMemory
	}
	if cfg.MaxInFlight < 1 || cfg.BodyMemory < 0 || cfg.Timeout < 0 || cfg.HealthEvery < 0 {
		return nil, fmt.Errorf("limit %d, body memory %d, timeout %s, health check every %s: all must be positive", cfg.MaxInFlight, cfg.BodyMemory, cfg.Timeout, cfg.HealthEvery)
	}
	if cfg.Log == nil {
		cfg.Log = func(string, ...any) {}
	}
	p := &Proxy{cfg: cfg, mux: http.NewServeMux(), slots: make(chan struct{}, cfg.MaxInFlight),
		bodies: budget{limit: cfg.BodyMemory}, bodyTime: bodyTime, prefill: newSide("prefill", cfg.Prefill), decode: newSide("decode", cfg.Decode)}
	p.transport = &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: cfg.MaxInFlight,
		// uvicorn closes idle connections after 5 s; be first.
		IdleConnTimeout:    4 * time.Second,
		DisableCompression: true,
		// A prompt in one write, not in pieces of 4 KiB. A connection needs the
		// buffer only while it sends, but keeps it.
		WriteBufferSize:        32 << 10,
		MaxResponseHeaderBytes: maxHeader,
	}
	p.buffers.New = func() any { return new([bufferSize]byte) }
	p.mux.HandleFunc("POST /v1/completions", p.complete)
	p.mux.HandleFunc("POST /v1/chat/completions", p.complete)
	p.mux.HandleFunc("GET /health", p.health)
	p.mux.HandleFunc("GET /v1/models", p.models)
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	for _, s := range []*side{p.prefill, p.decode} {
		for _, e := range s.engines {
			p.checks.Go(func() { p.watch(ctx, s.role, e) })
		}
	}
	return p, nil
}

func newSide(role string, urls []string) *side {
	s := &side{role: role}
	for _, u := range urls {
		e := &engine{url: u}
		e.healthy.Store(true)
		s.engines = append(s.engines, e)
	}
	return s
}

// ServeHTTP implements [http.Handler].
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.writeWithin(w)
	p.mux.ServeHTTP(w, r)
}

// writeWithin ends the connection of a client that does not read its answer,
// which would keep its place for good.
func (p *Proxy) writeWithin(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(p.cfg.Timeout + p.bodyTime)) // a writer without deadlines is a test's
}

// Close ends the health checks and closes idle connections. Requests under way
// are the server's to end.
func (p *Proxy) Close() {
	p.stop()
	p.checks.Wait()
	p.transport.CloseIdleConnections()
}

// pick returns the side's next healthy engine, going round, or nil.
func (s *side) pick() *engine {
	n := uint64(len(s.engines))
	at := s.next.Add(1) - 1
	for i := range n {
		if e := s.engines[(at+i)%n]; e.healthy.Load() {
			return e
		}
	}
	return nil
}

func (s *side) healthyCount() (n int) {
	for _, e := range s.engines {
		if e.healthy.Load() {
			n++
		}
	}
	return n
}

// watch checks an engine's health until ctx is done.
func (p *Proxy) watch(ctx context.Context, role string, e *engine) {
	tick := time.NewTicker(p.cfg.HealthEvery)
	defer tick.Stop()
	for failed := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := p.ask(ctx, e.url+"/health")
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failed = 0
			p.mark(role, e, nil)
		default:
			if failed++; failed >= misses {
				p.mark(role, e, fmt.Errorf("%d health checks in a row failed, the last with: %w", failed, err))
			}
		}
	}
}

// mark notes an engine's health after a check or a connection.
func (p *Proxy) mark(role string, e *engine, err error) {
	if was := e.healthy.Swap(err == nil); was == (err == nil) {
		return
	}
	if err != nil {
		p.cfg.Log("%s engine %s is out: %v", role, e.url, err)
	} else {
		p.cfg.Log("%s engine %s is back", role, e.url)
	}
}

func (p *Proxy) ask(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, max(p.cfg.HealthEvery, checkTime))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := p.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	return nil
}

// health says whether both sides have an engine.
func (p *Proxy) health(w http.ResponseWriter, _ *http.Request) {
	status := http.StatusOK
	if p.prefill.healthyCount() == 0 || p.decode.healthyCount() == 0 {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"prefill_healthy":%d,"prefill":%d,"decode_healthy":%d,"decode":%d,"in_flight":%d,"max_in_flight":%d}`+"\n",
		p.prefill.healthyCount(), len(p.prefill.engines), p.decode.healthyCount(), len(p.decode.engines), len(p.slots), cap(p.slots))
}

// models passes a decode engine's list of models on.
func (p *Proxy) models(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	x := newExchange(p, w, r)
	res, _, err := x.send(ctx, p.decode, nil)
	if err != nil {
		x.failed(statusOf(ctx, err), "%v", err)
		return
	}
	defer res.Body.Close()
	p.pass(w, res)
}
