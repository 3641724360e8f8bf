package ttft

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/metrics"
	"github.com/xferbench/xferbench/internal/serving/sse"
	"github.com/xferbench/xferbench/internal/serving/twoleg"
)

// Client speaks HTTP to engines and proxies. It uses no proxy of the
// environment, follows no redirect and asks for no compression: each would be
// inside the clock.
type Client struct {
	transport *http.Transport
	http      http.Client
}

// What another server sends is read up to these limits.
const (
	maxHeader   = 256 << 10 // bytes
	maxAnswer   = 16 << 20  // bytes of a prefill engine's answer
	maxDocument = 1 << 20   // bytes of a small document, such as the list of models
	maxError    = 2000      // bytes of the text of an error
	// documentTime is for a document or a page of metrics, errorTime for the text
	// of an error after its headers and for the end of a stream after [DONE].
	documentTime = 10 * time.Second
	errorTime    = 2 * time.Second
)

// ErrLimit is wrapped by the errors of answers that are too long or too slow:
// metrics without end make a run impossible.
var ErrLimit = errors.New("given up")

// readAll reads all of r, which must not be longer than limit bytes.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: it is longer than %d bytes", ErrLimit, limit)
	}
	return b, err
}

// errorText is what an answer that is an error says, or its beginning.
func errorText(res *http.Response) string {
	defer time.AfterFunc(errorTime, func() { _ = res.Body.Close() }).Stop() // which ends the read
	b, err := io.ReadAll(io.LimitReader(res.Body, maxError+1))
	text := strings.TrimSpace(string(b[:min(len(b), maxError)]))
	switch {
	case len(b) > maxError, err != nil:
		text += " … (its end is missing)"
	}
	if to := res.Header.Get("Location"); to != "" && res.StatusCode/100 == 3 {
		text = strings.TrimSpace("it redirects to " + to + ", which is not followed: name that server; " + text)
	}
	if strings.Contains(text, "HTTPS server") || strings.Contains(text, "HTTPS port") {
		text += "; " + speaksTLS // Go's and nginx's words
	}
	return strings.TrimSuffix(text, "; ")
}

const speaksTLS = "the server speaks TLS: write https:// in its URL"

// explained adds what a Go error of HTTP means.
func explained(err error) error {
	switch text := err.Error(); {
	case strings.Contains(text, `malformed HTTP response "\x15\x03`): // a TLS alert
		return fmt.Errorf("%w; %s", err, speaksTLS)
	case strings.Contains(text, "server response headers exceeded"):
		return fmt.Errorf("%w: %w", ErrLimit, err)
	}
	return err
}

// idleTimeout closes idle connections before uvicorn does after its 5 s, so
// that a request never meets a connection that the server is closing.
const idleTimeout = 4 * time.Second

// NewClient returns a client that keeps up to conns idle connections to each
// host. Close it after use.
func NewClient(conns int) *Client {
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		MaxIdleConns:        0,
		MaxIdleConnsPerHost: max(conns, 4),
		IdleConnTimeout:     idleTimeout,
		DisableCompression:  true,
		WriteBufferSize:     256 << 10,
		ReadBufferSize:      16 << 10,

		MaxResponseHeaderBytes: maxHeader,
	}
	return &Client{transport: t, http: http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Close closes idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// failure is why a request does not count, as far as its answer tells.
type failure struct {
	reason record.Reason
	detail string
}

func (f *failure) Error() string { return string(f.reason) + ": " + f.detail }

func fail(r record.Reason, format string, args ...any) *failure {
	return &failure{r, fmt.Sprintf(format, args...)}
}

// transportFailure classifies an error of the HTTP client.
func transportFailure(ctx context.Context, err error) *failure {
	var timeout net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fail(record.ReasonInterrupted, "%v", err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fail(record.ReasonTimeout, "the answer is not whole within the request's time: %v", err)
	}
	return fail(record.ReasonConnection, "%v", explained(err))
}

// usage is the usage of an answer.
type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Details    *struct {
		Cached *int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
	TruthNs int64 `json:"sim_first_token_ns"`
}

// cached returns the engine's own word on cached prompt tokens.
func (u *usage) cached() (int, bool) {
	if u == nil || u.Details == nil || u.Details.Cached == nil {
		return 0, false
	}
	return *u.Details.Cached, true
}

// chunk is a chunk of a stream, or a whole answer.
type chunk struct {
	Choices []struct {
		Text     string `json:"text"`
		TokenIDs []int  `json:"token_ids"`
	} `json:"choices"`
	Usage       *usage          `json:"usage"`
	Error       json.RawMessage `json:"error"`
	Fingerprint string          `json:"system_fingerprint"`
}

// token is what identifies a first token: its id, or its text.
func (c *chunk) token() string {
	if len(c.Choices) == 0 {
		return ""
	}
	if ids := c.Choices[0].TokenIDs; len(ids) > 0 {
		return fmt.Sprintf("#%d", ids[0])
	}
	return c.Choices[0].Text
}

// leg is one HTTP exchange. Times are absolute; those not reached are zero.
type leg struct {
	begin, headers, body time.Time
	reused               bool
	failure              *failure
	usage                *usage
	token                string
}

// prefillLeg is the exchange with a prefill engine.
type prefillLeg struct {
	leg
	params json.RawMessage
}

// streamLeg is a streamed exchange.
type streamLeg struct {
	leg
	tokens []time.Time // arrival of each chunk with a token
	// timing is the Server-Timing header of a proxy, handed its word on what the
	// prefill engine handed over, fingerprint the engine's system_fingerprint.
	timing, handed, fingerprint string
}

func (c *Client) post(ctx context.Context, base, path, id string, body []byte, l *leg) (*http.Response, *failure) {
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { l.reused = i.Reused }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodPost, base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fail(record.ReasonConnection, "%v", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(twoleg.RequestIDHeader, id)
	l.begin = time.Now()
	res, err := c.http.Do(req)
	l.headers = time.Now()
	if err != nil {
		return nil, transportFailure(ctx, err)
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		return nil, fail(record.ReasonHTTPError, "%s from %s: %s", res.Status, base, errorText(res))
	}
	return res, nil
}

// completionsPath is where all requests go: the chat interface sends a chunk
// with a role before any token.
const completionsPath = "/v1/completions"

// prefill runs the first leg.
func (c *Client) prefill(ctx context.Context, base string, r *prepared) (l prefillLeg) {
	res, f := c.post(ctx, base, completionsPath, r.id, r.prefill, &l.leg)
	if f != nil {
		l.failure = f
		return l
	}
	defer res.Body.Close()
	answer, err := readAll(res.Body, maxAnswer)
	if errors.Is(err, ErrLimit) {
		l.failure = fail(record.ReasonStreamError, "the prefill engine's answer: %v", err)
		return l
	}
	if err != nil {
		l.failure = transportFailure(ctx, err)
		return l
	}
	l.params, err = twoleg.Params(answer)
	l.body = time.Now()
	if err != nil {
		l.failure = fail(record.ReasonNullParams, "%v", err)
		return l
	}
	var whole chunk
	if err := json.Unmarshal(answer, &whole); err != nil {
		l.failure = fail(record.ReasonStreamError, "the prefill engine's answer: %v", err)
		return l
	}
	l.usage, l.token = whole.Usage, whole.token()
	return l
}

// stream runs an exchange whose answer is a stream of tokens.
func (c *Client) stream(ctx context.Context, base, id string, body []byte, want int) (l streamLeg) {
	l.tokens = make([]time.Time, 0, want)
	res, f := c.post(ctx, base, completionsPath, id, body, &l.leg)
	if f != nil {
		l.failure = f
		return l
	}
	defer res.Body.Close()
	l.timing, l.handed = res.Header.Get("Server-Timing"), res.Header.Get(twoleg.BlocksHeader)
	events := sse.NewReader(res.Body)
	for {
		data, err := events.Next()
		now := time.Now()
		if err != nil {
			l.failure = streamFailure(ctx, err, len(l.tokens))
			return l
		}
		if bytes.Equal(data, sse.Done) {
			l.body = now
			break
		}
		var ch chunk
		if err := json.Unmarshal(data, &ch); err != nil {
			l.failure = fail(record.ReasonStreamError, "a chunk that is no JSON: %v", err)
			return l
		}
		if len(ch.Error) > 0 && string(ch.Error) != "null" {
			l.failure = fail(record.ReasonStreamError, "after %d tokens: %s", len(l.tokens), ch.Error)
			return l
		}
		if ch.Usage != nil {
			l.usage = ch.Usage
		}
		if ch.Fingerprint != "" {
			l.fingerprint = ch.Fingerprint
		}
		if len(ch.Choices) > 0 {
			if len(l.tokens) == 0 {
				l.token = ch.token()
			}
			if len(l.tokens) >= 2*want+64 {
				l.failure = fail(record.ReasonStreamError, "more than %d chunks with tokens, and %d tokens were asked for", len(l.tokens), want)
				return l
			}
			l.tokens = append(l.tokens, now)
		}
	}
	// Read to the end, so that the connection can be used again.
	end := time.AfterFunc(errorTime, func() { _ = res.Body.Close() })
	rest, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxDocument))
	switch {
	case !end.Stop() && err != nil:
		l.failure = fail(record.ReasonStreamError, "the stream did not end within %s after [DONE]", errorTime)
	case err != nil:
		l.failure = transportFailure(ctx, err)
	case rest == maxDocument:
		l.failure = fail(record.ReasonStreamError, "the stream goes on after [DONE] for more than %d bytes", rest)
	}
	return l
}

func streamFailure(ctx context.Context, err error, tokens int) *failure {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fail(record.ReasonTruncated, "the stream ended after %d tokens without [DONE]", tokens)
	case errors.Is(err, sse.ErrTooLong):
		return fail(record.ReasonStreamError, "%v", err)
	}
	f := transportFailure(ctx, err)
	if f.reason == record.ReasonConnection {
		f = fail(record.ReasonTruncated, "the connection broke after %d tokens: %v", tokens, err)
	}
	return f
}

// statusError is an answer whose status is not 200.
type statusError struct {
	url  string
	code int
	body string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("GET %s: %d %s: %s", e.url, e.code, http.StatusText(e.code), e.body)
}

// get reads a document of an engine, of at most limit bytes and within
// [documentTime].
func (c *Client) get(ctx context.Context, url string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, documentTime, fmt.Errorf("%w: it was not whole after %s", ErrLimit, documentTime))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, late(ctx, explained(err))
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, &statusError{url, res.StatusCode, errorText(res)}
	}
	body, err := readAll(res.Body, limit)
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", url, late(ctx, err))
	}
	return body, nil
}

// late says of an error that came from ctx's end why it ended.
func late(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(err, ctx.Err()) && errors.Is(cause, ErrLimit) {
		return cause
	}
	return err
}

// scrape reads the metrics of an engine.
func (c *Client) scrape(ctx context.Context, base string) (metrics.Reading, error) {
	at := time.Now()
	body, err := c.get(ctx, base+"/metrics", metrics.MaxPage)
	if err != nil {
		return metrics.Reading{}, err
	}
	r, err := metrics.Parse(bytes.NewReader(body))
	if err != nil {
		return metrics.Reading{}, fmt.Errorf("%s/metrics: %w", base, err)
	}
	r.At = at
	return r, nil
}

// warm opens n connections to base and leaves them idle. Any answer will do: a
// proxy need not know /health.
func (c *Client) warm(ctx context.Context, base string, n int) error {
	// All must be in flight at once, or they would share a connection; a handler
	// that answers before the last one is sent makes fewer, which the record shows.
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			var status *statusError
			if _, err := c.get(ctx, base+"/health", maxDocument); !errors.As(err, &status) {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
