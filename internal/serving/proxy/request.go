package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/serving/twoleg"
)

const bufferSize = 8 << 10

// refuse answers with an error as OpenAI-compatible servers do.
func (p *Proxy) refuse(w http.ResponseWriter, status int, message string) {
	body, err := json.Marshal(map[string]any{"error": map[string]any{"message": message, "type": http.StatusText(status), "code": status}})
	if err != nil {
		http.Error(w, message, status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client went away: nothing to do
}

// complete runs both legs of a request.
func (p *Proxy) complete(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	// The body comes before the place among the requests under way: who sends
	// slowly must not keep others out.
	part := share{of: &p.bodies}
	defer part.free()
	body, ok := p.request(w, r, &part)
	if !ok {
		return
	}
	p.writeWithin(w)
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		p.refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("%d requests are under way, the limit; try again", cap(p.slots)))
		return
	}
	// Cancelled when the client goes away, and with it the leg under way.
	ctx, cancel := context.WithTimeout(r.Context(), p.cfg.Timeout)
	defer cancel()
	req, err := twoleg.ParseObject(body)
	if err == nil {
		err = twoleg.Check(req)
	}
	if err != nil {
		p.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	x := newExchange(p, w, r)
	if p.decode.healthyCount() == 0 {
		// A prefill engine would compute, and hold blocks that nobody fetches.
		x.failed(http.StatusServiceUnavailable, "decode: %v", errNoEngine)
		return
	}
	params, ok := x.prefill(ctx, req)
	if !ok {
		return
	}
	prefilled := time.Now()
	decode, err := twoleg.DecodeBody(req, params)
	if err != nil {
		x.failed(http.StatusInternalServerError, "%v", err)
		return
	}
	res, sent, err := x.send(ctx, p.decode, decode)
	if err != nil {
		x.failed(statusOf(ctx, err), "decode leg: %v", err)
		return
	}
	defer res.Body.Close()
	if h, err := twoleg.HandedBy(params); err == nil {
		w.Header().Set(twoleg.BlocksHeader, h.String())
	} else {
		p.cfg.Log("request %s: what the prefill engine handed over is not passed on: %v", x.id, err)
	}
	w.Header().Set("Server-Timing", fmt.Sprintf("prefill;dur=%s, handover;dur=%s, decode-headers;dur=%s",
		ms(prefilled.Sub(begin)), ms(sent.Sub(prefilled)), ms(time.Since(sent))))
	first := p.pass(w, res)
	if !first.IsZero() {
		w.Header().Set(http.TrailerPrefix+"Server-Timing", fmt.Sprintf("decode-first-byte;dur=%s, total;dur=%s", ms(first.Sub(sent)), ms(time.Since(begin))))
	}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f", float64(d)/1e6) }

// requestID is the client's own id or a new one; both legs carry it.
func requestID(r *http.Request) string {
	if id := r.Header.Get(twoleg.RequestIDHeader); id != "" && len(id) <= 256 {
		return id
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return hex.EncodeToString(b[:])
}

// exchange is one request on its way.
type exchange struct {
	p          *Proxy
	w          http.ResponseWriter
	id         string
	method, at string      // at: path and query
	header     http.Header // end to end
}

func newExchange(p *Proxy, w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{p: p, w: w, id: requestID(r), method: r.Method, at: r.URL.Path, header: endToEnd(r.Header)}
	if r.URL.RawQuery != "" {
		x.at += "?" + r.URL.RawQuery
	}
	for _, k := range []string{"Content-Type", "Content-Length", "Expect"} {
		x.header.Del(k) // the proxy's own: it has read the body and writes another
	}
	x.header.Set(twoleg.RequestIDHeader, x.id)
	if _, ok := x.header["User-Agent"]; !ok {
		x.header["User-Agent"] = nil // or the transport would name itself
	}
	return x
}

// hopByHop are the headers that concern one connection (RFC 9110, 7.6.1); those
// that Connection names are, too.
var hopByHop = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// endToEnd is a copy of h without the headers that concern one connection.
func endToEnd(h http.Header) http.Header {
	out := h.Clone()
	for _, v := range h["Connection"] {
		for k := range strings.SplitSeq(v, ",") {
			out.Del(strings.TrimSpace(k))
		}
	}
	for _, k := range hopByHop {
		out.Del(k)
	}
	return out
}

// failed answers with an error and logs it.
func (x *exchange) failed(status int, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	x.p.cfg.Log("request %s: %d: %s", x.id, status, message)
	x.p.refuse(x.w, status, message)
}

// statusOf is the status for a leg that failed.
func statusOf(ctx context.Context, err error) int {
	switch {
	case errors.Is(err, errNoEngine), errors.Is(err, errFull):
		return http.StatusServiceUnavailable
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}

// prefill runs the first leg. Not ok means that the client has its answer.
func (x *exchange) prefill(ctx context.Context, req twoleg.Object) (json.RawMessage, bool) {
	leg, err := twoleg.PrefillBody(req)
	if err != nil {
		x.failed(http.StatusInternalServerError, "%v", err)
		return nil, false
	}
	own := *x
	own.header = x.header.Clone()
	own.header.Set("Accept-Encoding", "identity") // read here, whatever the client can read
	res, _, err := own.send(ctx, x.p.prefill, leg)
	if err != nil {
		x.failed(statusOf(ctx, err), "prefill leg: %v", err)
		return nil, false
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		x.p.cfg.Log("request %s: the prefill engine answered %s", x.id, res.Status)
		x.p.pass(x.w, res)
		return nil, false
	}
	part := share{of: &x.p.bodies}
	defer part.free()
	answer, err := part.read(res.Body, res.ContentLength, nil)
	if err != nil {
		x.failed(statusOf(ctx, err), "prefill leg: its answer: %v", err)
		return nil, false
	}
	params, err := twoleg.Params(answer)
	if err != nil {
		x.failed(http.StatusBadGateway, "prefill leg: %v", err)
		return nil, false
	}
	return params, true
}

var errNoEngine = errors.New("no engine is healthy")

// send sends body to an engine of side s. An engine that cannot be connected to
// is marked and the next one tried, each at most once: nothing has been sent.
func (x *exchange) send(ctx context.Context, s *side, body []byte) (*http.Response, time.Time, error) {
	err := fmt.Errorf("%s: %w", s.role, errNoEngine)
	for range s.engines {
		e := s.pick()
		if e == nil {
			break
		}
		var req *http.Request
		req, err = http.NewRequestWithContext(ctx, x.method, e.url+x.at, bytes.NewReader(body))
		if err != nil {
			return nil, time.Time{}, err
		}
		req.Header = x.header.Clone()
		if body != nil {
			req.Header.Set("Content-Type", "application/json")
		}
		sent := time.Now()
		var res *http.Response
		if res, err = x.p.transport.RoundTrip(req); err == nil {
			if res.StatusCode >= http.StatusOK {
				return res, sent, nil
			}
			// 101 would make a tunnel past the proxy, and lower ones are none.
			_ = res.Body.Close()
			return nil, sent, fmt.Errorf("%s engine %s answered %q, which nobody asked for", s.role, e.url, res.Status)
		}
		var op *net.OpError
		if ctx.Err() != nil || !errors.As(err, &op) || op.Op != "dial" {
			return nil, sent, fmt.Errorf("%s engine %s: %w", s.role, e.url, err)
		}
		x.p.mark(s.role, e, err)
	}
	return nil, time.Time{}, err
}

// pass sends an engine's answer on as it comes, flushing after each read, and
// returns when its first byte came; zero if none did. A body that breaks off
// breaks the client's off too.
func (p *Proxy) pass(w http.ResponseWriter, res *http.Response) (first time.Time) {
	for k, v := range endToEnd(res.Header) {
		// The proxy's own Server-Timing comes before the engine's; the length is
		// left out because a trailer follows the body. What was handed over is the
		// proxy's word alone.
		if k != "Content-Length" && k != twoleg.BlocksHeader && k != http.CanonicalHeaderKey("X-Accel-Buffering") {
			w.Header()[k] = append(w.Header()[k], v...)
		}
	}
	stream := strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream")
	if stream {
		w.Header().Set("X-Accel-Buffering", "no")
	}
	w.WriteHeader(res.StatusCode)
	out := http.NewResponseController(w)
	if stream && out.Flush() != nil {
		return first // the client went away, which cancels the leg
	}
	buf := p.buffers.Get().(*[bufferSize]byte)
	defer p.buffers.Put(buf)
	for {
		n, err := res.Body.Read(buf[:])
		if n > 0 {
			if first.IsZero() {
				first = time.Now()
			}
			if _, werr := w.Write(buf[:n]); werr != nil {
				return first
			}
			if stream && out.Flush() != nil {
				return first
			}
		}
		if errors.Is(err, io.EOF) {
			return first
		}
		if err != nil {
			p.cfg.Log("an engine's answer broke off: %v", err)
			if stream {
				p.lastEvent(w, err)
			}
			// The only way to tell an HTTP/1.1 client that a body is not complete.
			panic(http.ErrAbortHandler)
		}
	}
}

// lastEvent tells the client of a stream what happened.
func (p *Proxy) lastEvent(w http.ResponseWriter, cause error) {
	body, err := json.Marshal(map[string]any{"error": map[string]any{"message": "the decode engine's answer broke off: " + cause.Error(),
		"type": http.StatusText(http.StatusBadGateway), "code": http.StatusBadGateway}})
	if err != nil {
		return
	}
	if _, err := fmt.Fprintf(w, "\n\ndata: %s\n\n", body); err == nil {
		_ = http.NewResponseController(w).Flush() // the connection is cut next
	}
}
