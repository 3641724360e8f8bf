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

	"github.com/xferbench/xferbench/internal/ttft/twoleg"
)

const (
	bufferSize = 8 << 10
	maxRequest = 64 << 20 // bytes of a request's or a prefill answer's body
)

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
	body, err := readBody(http.MaxBytesReader(w, r.Body, maxRequest), r.ContentLength)
	if err != nil {
		p.refuse(w, http.StatusBadRequest, fmt.Sprintf("reading the request: %v", err))
		return
	}
	req, err := twoleg.ParseObject(body)
	if err == nil {
		err = twoleg.Check(req)
	}
	if err != nil {
		p.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	x := &exchange{p: p, w: w, path: r.URL.Path, id: requestID(r), auth: r.Header.Get("Authorization")}
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
	w.Header().Set("Server-Timing", fmt.Sprintf("prefill;dur=%s, handover;dur=%s, decode-headers;dur=%s",
		ms(prefilled.Sub(begin)), ms(sent.Sub(prefilled)), ms(time.Since(sent))))
	first := p.pass(w, res)
	if !first.IsZero() {
		w.Header().Set(http.TrailerPrefix+"Server-Timing", fmt.Sprintf("decode-first-byte;dur=%s, total;dur=%s", ms(first.Sub(sent)), ms(time.Since(begin))))
	}
}

// readBody reads all of r into memory of the right size where the length is
// announced, and never takes an announcement for more than 1 MiB.
func readBody(r io.Reader, announced int64) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(min(max(announced, 0), 1<<20)) + bytes.MinRead)
	_, err := b.ReadFrom(r)
	return b.Bytes(), err
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
	p              *Proxy
	w              http.ResponseWriter
	path, id, auth string
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
	case errors.Is(err, errNoEngine):
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
	res, _, err := x.send(ctx, x.p.prefill, leg)
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
	answer, err := readBody(io.LimitReader(res.Body, maxRequest), res.ContentLength)
	if err != nil {
		x.failed(statusOf(ctx, err), "prefill leg: %v", err)
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

// send posts body to an engine of side s. An engine that cannot be connected to
// is marked and the next one tried, each at most once: nothing has been sent.
func (x *exchange) send(ctx context.Context, s *side, body []byte) (*http.Response, time.Time, error) {
	err := fmt.Errorf("%s: %w", s.role, errNoEngine)
	for range s.engines {
		e := s.pick()
		if e == nil {
			break
		}
		var req *http.Request
		req, err = http.NewRequestWithContext(ctx, http.MethodPost, e.url+x.path, bytes.NewReader(body))
		if err != nil {
			return nil, time.Time{}, err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(twoleg.RequestIDHeader, x.id)
		if x.auth != "" {
			req.Header.Set("Authorization", x.auth)
		}
		sent := time.Now()
		var res *http.Response
		if res, err = x.p.transport.RoundTrip(req); err == nil {
			return res, sent, nil
		}
		var op *net.OpError
		if ctx.Err() != nil || !errors.As(err, &op) || op.Op != "dial" {
			return nil, sent, err
		}
		x.p.mark(s.role, e, err)
	}
	return nil, time.Time{}, err
}

// pass sends an engine's answer on as it comes, flushing after each read, and
// returns when its first byte came; zero if none did. A body that breaks off
// breaks the client's off too.
func (p *Proxy) pass(w http.ResponseWriter, res *http.Response) (first time.Time) {
	for _, k := range []string{"Content-Type", "Cache-Control"} {
		if v := res.Header.Get(k); v != "" {
			w.Header().Set(k, v)
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
