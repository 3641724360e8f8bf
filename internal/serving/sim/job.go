package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/xferbench/xferbench/internal/serving/wait"
)

// errClient wraps the error of writing to a client that went away.
var errClient = errors.New("client went away")

// job is one request on its way through an engine.
type job struct {
	e                         *Engine
	q                         *request
	w                         http.ResponseWriter
	arrived, scheduled, first time.Time
	headers                   bool // of a stream are out
	held                      held
	local, cached, external   int // prompt tokens by source
	made                      int // output tokens
}

// scheduledNow ends the time in the queue.
func (j *job) scheduledNow() {
	j.scheduled = time.Now()
	j.e.count(func(t *tally) { t.waiting--; t.running++ })
}

// compute takes blocks and the engine's compute for the prompt.
func (j *job) compute(ctx context.Context) error {
	e, q := j.e, j.q
	if j.held.groups == nil {
		// All of a prompt is computed before a window gives anything up.
		n := len(e.cfg.Geometry.windows())
		blocks, err := e.alloc(ctx, slices.Repeat([]int{e.cfg.Geometry.Blocks(q.tokens)}, n))
		if err != nil {
			return err
		}
		j.held = held{blocks, make([]int, n)}
	}
	select {
	case e.gpu <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-e.gpu }()
	if j.scheduled.IsZero() {
		j.scheduledNow()
	}
	begin := time.Now()
	j.local = q.tokens
	if e.cfg.Role != Decode && e.hits(PrefixHit) {
		// The last block is always computed.
		j.cached = (q.tokens - 1) / e.cfg.Geometry.BlockTokens * e.cfg.Geometry.BlockTokens
		j.local -= j.cached
	}
	e.write(q.hash, j.held)
	return wait.Until(ctx, begin.Add(e.cfg.PrefillTime+time.Duration(j.local)*e.cfg.PrefillPerToken))
}

// hashed is how many of the job's blocks are full, by layer group.
func (j *job) hashed() []int {
	full := (j.q.tokens + max(j.made-1, 0)) / j.e.cfg.Geometry.BlockTokens
	out := make([]int, len(j.held.groups))
	for i, n := range j.held.skipped {
		out[i] = max(0, full-n)
	}
	return out
}

// grow takes the blocks that the output needs beside the prompt's.
func (j *job) grow(ctx context.Context) error {
	g, q := j.e.cfg.Geometry, j.q
	for range g.Blocks(q.tokens+q.output-1) - g.Blocks(q.tokens) {
		more, err := j.e.alloc(ctx, slices.Repeat([]int{1}, len(j.held.groups)))
		if err != nil {
			return err
		}
		for i, b := range more {
			j.held.groups[i] = append(j.held.groups[i], b...)
		}
	}
	return nil
}

func (j *job) freeBlocks() {
	if j.held.groups != nil {
		j.e.free(j.held.groups, j.hashed())
		j.held = held{}
	}
}

// prefillLeg computes the prompt, keeps the blocks and answers with parameters.
func (j *job) prefillLeg(ctx context.Context) error {
	e, q := j.e, j.q
	defer j.freeBlocks()
	if q.Stream {
		return errors.New("only an answer without stream carries kv_transfer_params")
	}
	if err := j.compute(ctx); err != nil {
		return err
	}
	j.first = time.Now()
	j.made = 1
	var answer any
	if !e.hits(NullParams) {
		at := e.mover.Address()
		expiry := float64(time.Now().Add(e.cfg.Lease).UnixNano()) / 1e9
		p := params{DoRemotePrefill: true, BlockIDs: j.handedOver(), EngineID: &e.id, RequestID: &q.id, Host: &at.Host, Port: &at.Port, Token: &at.Token,
			TPSize: e.cfg.Geometry.Ranks, NumTokens: q.tokens, Expiry: &expiry, Mode: map[bool]string{true: "push", false: "pull"}[e.cfg.Push], PoolBlocks: e.cfg.Blocks}
		answer = p
		dies := e.hits(DyingPeer)
		e.keep(q.id, j.held.groups, j.hashed())
		j.held = held{}
		if dies {
			e.mu.Lock()
			e.cut[q.id] = true
			e.mu.Unlock()
		}
		if e.hits(ExpiredLease) {
			e.expireNow(q.id)
		}
	}
	j.finish()
	body := j.body(0, "length")
	body["usage"] = j.usage()
	body["kv_transfer_params"] = answer
	reply(j.w, http.StatusOK, body)
	return nil
}

// handedOver are the blocks that a decode engine is to load, by layer group.
func (j *job) handedOver() [][]int {
	short := j.e.hits(ShortList)
	var out [][]int
	for i, n := range j.e.cfg.Geometry.clip(j.q.tokens) {
		blocks := j.held.groups[i]
		if blocks = blocks[len(blocks)-n:]; short && i == 0 {
			// One less than the decode engine loads.
			blocks = blocks[max(0, j.e.cfg.Geometry.skipped(j.q.tokens)[0]+1-(len(j.held.groups[0])-n)):]
		}
		out = append(out, slices.Clone(blocks))
	}
	return out
}

// decodeLeg loads the prompt's KV cache and makes the output.
func (j *job) decodeLeg(ctx context.Context) error {
	e, q := j.e, j.q
	defer j.freeBlocks()
	if err := j.begin(); err != nil {
		return err
	}
	if e.hits(SilentRecompute) {
		return j.answer(ctx)
	}
	remote, err := q.remote(e.cfg.Geometry)
	if err != nil {
		return err
	}
	sizes, all := make([]int, len(remote)), e.cfg.Geometry.Blocks(q.tokens)
	j.held.skipped = e.cfg.Geometry.skipped(q.tokens)
	for i, blocks := range remote {
		sizes[i] = min(len(blocks), all-j.held.skipped[i])
		remote[i], j.held.skipped[i] = blocks[len(blocks)-sizes[i]:], all-sizes[i]
	}
	if j.held.groups, err = e.alloc(ctx, sizes); err != nil {
		return err
	}
	skipped, moved, err := j.pull(ctx, remote)
	if err != nil {
		e.count(func(t *tally) { t.failedTransfers++ })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !e.cfg.Recompute {
			return fmt.Errorf("NIXL transfer failure: %w", err)
		}
		j.freeBlocks()
		return j.answer(ctx)
	}
	if err := j.accept(skipped, moved); err != nil {
		return err
	}
	// The last prompt token is computed again, for its logits.
	if err := wait.Until(ctx, j.scheduled.Add(e.cfg.StepTime)); err != nil {
		return err
	}
	return j.generate(ctx)
}

// remote are the prefill engine's blocks with the prompt's KV cache, by layer group.
func (q *request) remote(g Geometry) ([][]int, error) {
	p := q.params
	if len(p.BlockIDs) != len(g.windows()) || p.Host == nil || p.Port == nil || p.Token == nil || p.RequestID == nil || p.EngineID == nil || p.PoolBlocks < 2 {
		return nil, errors.New("incomplete kv_transfer_params")
	}
	if p.TPSize != g.Ranks {
		return nil, fmt.Errorf("the prefill engine has %d ranks and this one %d, which a simulated engine cannot read from", p.TPSize, g.Ranks)
	}
	for _, blocks := range p.BlockIDs {
		if len(blocks) < 1 || len(blocks) > g.Blocks(q.tokens) {
			return nil, fmt.Errorf("%d remote blocks for %d tokens", len(blocks), q.tokens)
		}
	}
	return p.BlockIDs, nil
}

// pull loads the remote blocks into the job's, all but those that an injected fault
// leaves out, and returns how many the engine had cached. Each rank makes a transfer.
func (j *job) pull(ctx context.Context, remote [][]int) (skipped int, moved []Moved, err error) {
	e, q := j.e, j.q
	e.poison(j.held)
	cached, twice, shortRank := e.hits(DecodePrefixHit), e.hits(ExcessTransfer), e.hits(ShortRank)
	less := make([]bool, len(remote))
	less[0] = e.hits(ShortWindow)
	less[len(less)-1] = e.hits(ShortTransfer) || less[len(less)-1]
	var from, to []int
	for i, blocks := range remote {
		local := j.held.groups[i]
		if n := len(blocks); less[i] {
			blocks, local = blocks[:n-1], local[:n-1]
		} else if cached {
			skipped = n - 1
			blocks, local = blocks[n-1:], local[n-1:]
		}
		from, to = append(from, blocks...), append(to, local...)
	}
	if n := len(from); twice && n > 0 {
		from, to = append(from, from[n-1]), append(to, to[n-1])
	}
	if cached || slices.Contains(less, true) || shortRank {
		e.write(q.hash, j.held) // what is not loaded
	}
	for rank := range e.cfg.Geometry.Ranks {
		if n := len(from); shortRank && rank == e.cfg.Geometry.Ranks-1 && n > 0 {
			from, to = from[:n-1], to[:n-1]
		}
		m, err := e.load(ctx, q, rank, to, from)
		if err != nil {
			return skipped, moved, err
		}
		moved = append(moved, m)
	}
	if e.hits(FailedTransfer) {
		err = errors.New("injected fault")
	}
	return skipped, moved, err
}

// accept checks the KV cache that was loaded, counts it and ends the time in the
// queue.
func (j *job) accept(skipped int, moved []Moved) error {
	e, q := j.e, j.q
	if err := e.check(q.hash, j.held); err != nil {
		return fmt.Errorf("the KV cache that arrived is not the prompt's: %w", err)
	}
	j.cached = skipped * e.cfg.Geometry.BlockTokens
	j.external = q.tokens - j.cached
	if !e.cfg.Push {
		e.count(func(t *tally) {
			for _, m := range moved {
				t.moved(m)
			}
		})
	}
	j.scheduledNow()
	return nil
}

// answer computes the prompt and makes the output.
func (j *job) answer(ctx context.Context) error {
	if err := j.compute(ctx); err != nil {
		return err
	}
	return j.generate(ctx)
}

// load pulls a rank's part of remote blocks into local ones.
func (e *Engine) load(ctx context.Context, q *request, rank int, local, remote []int) (Moved, error) {
	ctx, cancel := context.WithTimeout(ctx, wireTimeout)
	defer cancel()
	p := q.params
	begin := time.Now()
	list := e.cfg.Geometry.list(rank, local, remote, e.cfg.Blocks, p.PoolBlocks)
	m, err := e.mover.Pull(ctx, Remote{Host: *p.Host, Port: *p.Port, Token: *p.Token, Request: *p.RequestID}, e.memory, list)
	if err != nil {
		return m, err
	}
	if e.cfg.MoverDelay > 0 {
		m.Total += e.cfg.MoverDelay
		err = wait.Until(ctx, begin.Add(m.Total))
	}
	return m, err
}

// alone computes the prompt and makes the output in one engine.
func (j *job) alone(ctx context.Context) error {
	defer j.freeBlocks()
	if err := j.begin(); err != nil {
		return err
	}
	return j.answer(ctx)
}

// begin sends the headers of a stream, as vLLM does long before the first token.
func (j *job) begin() error {
	if !j.q.Stream {
		return nil
	}
	j.w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	j.w.WriteHeader(http.StatusOK)
	j.headers = true
	return j.flush()
}

func (j *job) flush() error {
	if err := http.NewResponseController(j.w).Flush(); err != nil {
		return fmt.Errorf("%w: %w", errClient, err)
	}
	return nil
}

// event sends one event of the stream.
func (j *job) event(data []byte) error {
	msg := append(append([]byte("data: "), data...), "\n\n"...)
	if j.e.cfg.Pings {
		msg = append([]byte(": ping\n\n"), msg...)
	}
	half := len(msg)
	if j.e.cfg.Split {
		half /= 2
	}
	for _, part := range [][]byte{msg[:half], msg[half:]} {
		if len(part) == 0 {
			continue
		}
		if _, err := j.w.Write(part); err != nil {
			return fmt.Errorf("%w: %w", errClient, err)
		}
		if err := j.flush(); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) eventJSON(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return j.event(data)
}

// generate makes the output, the first token at once.
func (j *job) generate(ctx context.Context) error {
	e, q := j.e, j.q
	if err := j.grow(ctx); err != nil {
		return err
	}
	output := q.output
	if e.hits(EarlyEOS) {
		output = 1
	}
	truncated, broken := e.hits(TruncatedStream), e.hits(StreamError)
	for ; j.made < output; j.made++ {
		var reason any
		if j.made+1 == output {
			if reason = "length"; output < q.output {
				reason = "stop"
			}
		}
		data, err := json.Marshal(j.body(j.made, reason))
		if err != nil {
			return err
		}
		if j.made == 0 {
			j.first = time.Now() // all that is left is to send it
		} else {
			if err := wait.Until(ctx, j.first.Add(time.Duration(j.made)*e.cfg.StepTime)); err != nil {
				return err
			}
			if broken {
				return errors.New("injected fault")
			}
			if truncated {
				return j.cutOff()
			}
		}
		if !q.Stream {
			continue
		}
		if err := j.event(data); err != nil {
			return err
		}
	}
	j.finish()
	return j.close(output < q.output)
}

// close sends what follows the last token, or the whole answer without stream.
func (j *job) close(early bool) error {
	q := j.q
	reason := "length"
	if early {
		reason = "stop"
	}
	if !q.Stream {
		body := j.body(0, reason)
		body["usage"] = j.usage()
		reply(j.w, http.StatusOK, body)
		return nil
	}
	if q.StreamOptions != nil && q.StreamOptions.IncludeUsage && !j.e.hits(NoUsage) {
		body := j.body(0, nil)
		body["choices"] = []any{}
		body["usage"] = j.usage()
		if err := j.eventJSON(body); err != nil {
			return err
		}
	}
	return j.event([]byte("[DONE]"))
}

// cutOff drops the connection in the middle of the stream.
func (j *job) cutOff() error {
	c, _, err := http.NewResponseController(j.w).Hijack()
	if err != nil {
		return err
	}
	if err := c.Close(); err != nil {
		return fmt.Errorf("%w: %w", errClient, err)
	}
	return errClient
}

// body is an answer or a chunk with output token i.
func (j *job) body(i int, reason any) map[string]any {
	token := int(stamp(j.q.hash, 0, i, 0) % 32_000)
	object, choice := "text_completion", map[string]any{"index": 0, "text": fmt.Sprintf(" t%d", token), "logprobs": nil, "finish_reason": reason}
	if j.q.chat {
		object = "chat.completion.chunk"
		delete(choice, "text")
		choice["delta"] = map[string]any{"content": fmt.Sprintf(" t%d", token)}
	}
	if j.q.ReturnTokenIDs {
		choice["token_ids"] = []int{token}
	}
	out := map[string]any{"id": j.q.id, "object": object, "created": j.arrived.Unix(), "model": j.e.cfg.Model, "choices": []any{choice}}
	if !j.e.cfg.before(32) {
		out["system_fingerprint"] = j.e.cfg.fingerprint()
	}
	return out
}

// fingerprint names the release and the ranks, where there are several, as vLLM does.
func (c Config) fingerprint() string {
	if c.Geometry.Ranks > 1 {
		return fmt.Sprintf("vllm-%s-tp%d-simulated", c.Release, c.Geometry.Ranks)
	}
	return "vllm-" + c.Release + "-simulated"
}

func (j *job) usage() map[string]any {
	// Loaded tokens were cached ones in 0.15.1, all but the last, and are not in
	// 0.32.0.
	cached := j.cached
	if j.e.cfg.before(32) {
		cached = max(j.cached+j.external-min(j.external, 1), 0)
	}
	return map[string]any{"prompt_tokens": j.q.tokens, "completion_tokens": j.made, "total_tokens": j.q.tokens + j.made,
		"prompt_tokens_details": map[string]any{"cached_tokens": cached},
		// The truth to which a client's clock can be held: arrival to first token.
		"sim_first_token_ns": j.first.Sub(j.arrived).Nanoseconds()}
}

// finish counts a request that succeeded.
func (j *job) finish() {
	done := time.Now()
	j.e.count(func(t *tally) {
		t.requests++
		t.promptTokens += int64(j.q.tokens)
		t.generated += int64(j.made)
		t.localCompute += int64(j.local)
		t.localHit += int64(j.cached)
		t.external += int64(j.external)
		t.prefixQueries += int64(j.q.tokens)
		t.prefixHits += int64(j.cached)
		if j.q.params != nil && j.q.params.DoRemotePrefill {
			t.externalQueries += int64(j.q.tokens - j.cached)
			t.externalHits += int64(j.external)
		}
		// The same with the tokens that were computed: 1 of a loaded prompt in
		// 0.15.1, all of it in 0.32.0.
		computed := max(j.local, 1)
		if !j.e.cfg.before(32) {
			computed = j.q.tokens - j.cached
		}
		t.kvComputed.add(float64(computed))
		t.ttft.addTime(j.first.Sub(j.arrived))
		t.e2e.addTime(done.Sub(j.arrived))
		t.queue.addTime(j.scheduled.Sub(j.arrived))
		t.prefill.addTime(j.first.Sub(j.scheduled))
		t.decode.addTime(done.Sub(j.first))
		t.inference.addTime(done.Sub(j.scheduled))
	})
}

// fail tells the client of err, inside the stream if it has begun.
func (j *job) fail(err error) {
	if !j.headers {
		reply(j.w, http.StatusInternalServerError, problem(http.StatusInternalServerError, err))
		return
	}
	if err := j.eventJSON(problem(http.StatusInternalServerError, err)); err == nil {
		_ = j.event([]byte("[DONE]")) // the client went away: nothing to do
	}
}
