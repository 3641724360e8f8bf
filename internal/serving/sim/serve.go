package sim

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/xferbench/xferbench/internal/serving/twoleg"
)

// bodyTime is how long a request's body may take.
const bodyTime = time.Minute

// maxBody bounds a request's body in bytes: the longest prompt as token ids, and
// what else there is.
func (c Config) maxBody() int64 { return 1<<20 + 16*int64(c.MaxTokens) }

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return hex.EncodeToString(b[:])
}

// Handler serves the engine's HTTP interface.
func (e *Engine) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/completions", e.completions)
	mux.HandleFunc("POST /v1/chat/completions", e.completions)
	mux.HandleFunc("GET /metrics", e.metrics)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"version": e.cfg.Release, "simulated": true, "kv_transport": e.cfg.Transport})
	})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"object": "list", "data": []any{
			map[string]any{"id": e.cfg.Model, "object": "model", "owned_by": "xferbench sim", "max_model_len": e.cfg.MaxTokens}}})
	})
	return mux
}

func reply(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client went away: nothing to do
}

// problem is an error as OpenAI-compatible servers send it.
func problem(status int, err error) map[string]any {
	return map[string]any{"error": map[string]any{"message": err.Error(), "type": http.StatusText(status), "code": status}}
}

// request is a completion request as far as the simulation knows it.
type request struct {
	Model    string          `json:"model"`
	Prompt   json.RawMessage `json:"prompt"`
	Messages []struct {
		Content string `json:"content"`
	} `json:"messages"`
	Stream        bool `json:"stream"`
	StreamOptions *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	MaxTokens           *int            `json:"max_tokens"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	MinTokens           int             `json:"min_tokens"`
	N                   *float64        `json:"n"` // 1.0 is 1
	ReturnTokenIDs      bool            `json:"return_token_ids"`
	Params              json.RawMessage `json:"kv_transfer_params"`

	id     string
	chat   bool
	tokens int    // of the prompt
	hash   uint64 // of the prompt
	output int    // tokens to make
	params *params
}

// params are kv_transfer_params, in both directions.
type params struct {
	DoRemoteDecode  bool     `json:"do_remote_decode"`
	DoRemotePrefill bool     `json:"do_remote_prefill"`
	BlockIDs        [][]int  `json:"remote_block_ids"`
	EngineID        *string  `json:"remote_engine_id"`
	RequestID       *string  `json:"remote_request_id,omitempty"`
	Host            *string  `json:"remote_host"`
	Port            *int     `json:"remote_port"`
	TPSize          int      `json:"tp_size,omitempty"`
	NumTokens       int      `json:"remote_num_tokens,omitempty"`
	Expiry          *float64 `json:"remote_blocks_expiry_time,omitempty"`
	Mode            string   `json:"transfer_mode,omitempty"`
	// PoolBlocks and Token stand for what vLLM learns in the handshake.
	PoolBlocks int     `json:"sim_pool_blocks,omitempty"`
	Token      *string `json:"sim_token,omitempty"`
}

// parse reads a request and refuses what the engine does not do.
func (e *Engine) parse(w http.ResponseWriter, r *http.Request) (*request, error) {
	q := &request{output: 16, chat: r.URL.Path == "/v1/chat/completions", id: "cmpl-" + newID() + "-0"}
	if id := r.Header.Get(twoleg.RequestIDHeader); id != "" {
		q.id = "cmpl-" + id + "-0"
	}
	if err := e.read(w, r, q); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	if q.Model != "" && q.Model != e.cfg.Model {
		return nil, fmt.Errorf("the model %q does not exist; this engine serves %q", q.Model, e.cfg.Model)
	}
	if q.StreamOptions != nil && !q.Stream {
		return nil, errors.New("stream options can only be defined when stream is true")
	}
	if q.N != nil && *q.N != 1 {
		return nil, fmt.Errorf("n is %v; the simulation makes one sequence", *q.N)
	}
	if err := q.takePrompt(); err != nil {
		return nil, err
	}
	if err := q.takeOutput(e.cfg.MaxTokens); err != nil {
		return nil, err
	}
	if len(q.Params) > 0 && string(q.Params) != "null" {
		q.params = &params{}
		if err := json.Unmarshal(q.Params, q.params); err != nil {
			return nil, fmt.Errorf("kv_transfer_params: %w", err)
		}
	}
	return q, nil
}

// read decodes the body of r into q, as much and as long as a body may be.
func (e *Engine) read(w http.ResponseWriter, r *http.Request, q *request) error {
	out := http.NewResponseController(w)
	if err := out.SetReadDeadline(time.Now().Add(e.bodyTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, e.cfg.maxBody())).Decode(q); err != nil {
		return err
	}
	if err := out.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// takePrompt fills in the prompt's tokens, one per 4 bytes of a text, and its hash.
func (q *request) takePrompt() error {
	var ids []int32
	var text string
	var lists [][]int32
	var texts []string
	switch {
	case q.chat:
		for _, m := range q.Messages {
			text += m.Content
		}
	case json.Unmarshal(q.Prompt, &ids) == nil, json.Unmarshal(q.Prompt, &text) == nil:
	// A list of one prompt is that prompt.
	case json.Unmarshal(q.Prompt, &lists) == nil && len(lists) == 1:
		ids = lists[0]
	case json.Unmarshal(q.Prompt, &texts) == nil && len(texts) == 1:
		ids, text = nil, texts[0] // the try to read ids left zeros
	default:
		return errors.New("prompt is neither a text nor a list of token ids")
	}
	q.tokens = len(ids) + (len(text)+3)/4
	q.hash = promptHash(ids, text)
	return nil
}

// takeOutput fills in the tokens to make; limit is for them and the prompt's.
func (q *request) takeOutput(limit int) error {
	for _, n := range []*int{q.MaxTokens, q.MaxCompletionTokens} {
		if n != nil {
			q.output = *n
		}
	}
	if q.tokens < 1 || q.output < 1 || q.output > limit-q.tokens {
		return fmt.Errorf("a prompt of %d tokens and %d new ones: both at least 1 and together at most %d", q.tokens, q.output, limit)
	}
	if q.MinTokens > q.output {
		return fmt.Errorf("min_tokens is %d, more than max_tokens %d", q.MinTokens, q.output)
	}
	return nil
}

func (e *Engine) completions(w http.ResponseWriter, r *http.Request) {
	arrived := time.Now()
	e.work.Add(1)
	defer e.work.Done()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(e.life, cancel)()
	q, err := e.parse(w, r)
	if err != nil {
		status := http.StatusBadRequest
		if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
			status = http.StatusRequestEntityTooLarge
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			status = http.StatusRequestTimeout
		}
		reply(w, status, problem(status, err))
		return
	}
	if e.hits(ServerError) {
		reply(w, http.StatusInternalServerError, problem(http.StatusInternalServerError, errors.New("injected fault")))
		return
	}
	if e.hits(Hang) {
		<-ctx.Done()
		return
	}
	j := &job{e: e, q: q, arrived: arrived, w: w}
	e.count(func(t *tally) { t.waiting++ })
	switch {
	case q.params != nil && q.params.DoRemoteDecode && e.cfg.Role == Prefill:
		err = j.prefillLeg(ctx)
	case q.params != nil && q.params.DoRemotePrefill && e.cfg.Role == Decode:
		err = j.decodeLeg(ctx)
	default:
		err = j.alone(ctx)
	}
	e.count(func(t *tally) {
		if j.scheduled.IsZero() {
			t.waiting--
		} else {
			t.running--
		}
	})
	if err == nil || ctx.Err() != nil || errors.Is(err, errClient) {
		return // done, or nobody listens any more
	}
	j.fail(err)
}

func (e *Engine) count(f func(*tally)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.m)
}
