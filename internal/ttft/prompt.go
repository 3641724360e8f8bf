package ttft

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
)

// PromptKind says how prompts are made.
type PromptKind string

const (
	// TokenPrompts are lists of token ids of exact length whose first block is
	// unique.
	TokenPrompts PromptKind = "tokens"
	// TextPrompts are a text that is the same for all requests with a random
	// suffix, as the study behind this tool sent: the engine's tokenizer decides
	// their length, and prefix caching would hit.
	TextPrompts PromptKind = "text"
)

// ParsePromptKind reads a PromptKind.
func ParsePromptKind(s string) (PromptKind, error) {
	if k := PromptKind(s); k == TokenPrompts || k == TextPrompts {
		return k, nil
	}
	return "", fmt.Errorf("unknown kind of prompts %q; use tokens or text", s)
}

// prompts makes the prompts of a run.
type prompts struct {
	kind  PromptKind
	seed  uint64
	vocab int
}

// indexBits bounds the number of requests whose prompts are unique.
const indexBits = 40

// lowest returns the smallest token id in use: the first ones are often special.
func (p prompts) lowest() int { return min(256, p.vocab/4) }

// digits is how many tokens at the start make a prompt unique.
func (p prompts) digits() int {
	return int(math.Ceil(indexBits / math.Log2(float64(p.vocab-p.lowest()))))
}

// check reports whether prompts of n tokens can be made.
func (p prompts) check(n int) error {
	if p.vocab < 16 {
		return fmt.Errorf("a vocabulary of %d token ids is too small; give the model's with --vocab-size", p.vocab)
	}
	if p.kind == TokenPrompts && n < p.digits() {
		return fmt.Errorf("a prompt of %d tokens is too short to be unique; with this vocabulary it takes %d", n, p.digits())
	}
	return nil
}

// mix spreads bits (the finaliser of SplitMix64), so that neighbouring seeds
// and indices have nothing in common.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// ids returns the prompt of request index with n tokens. The first tokens are
// the index, shifted by the seed, written in the base of the usable ids: an
// engine hashes blocks in a chain from the first on, so that two prompts of one
// run can never share one.
func (p prompts) ids(index uint64, n int) []int32 {
	low := p.lowest()
	base := uint64(p.vocab - low)
	out := make([]int32, n)
	d := min(p.digits(), n)
	code := (index + mix(p.seed)) & (1<<indexBits - 1)
	for i := range d {
		out[i] = int32(uint64(low) + code%base)
		code /= base
	}
	rng := rand.New(rand.NewPCG(p.seed, mix(index)))
	for i := d; i < n; i++ {
		out[i] = int32(uint64(low) + rng.Uint64N(base))
	}
	return out
}

// filler is English of about one token a word.
const filler = "The quick brown fox jumps over the lazy dog while the old river runs past the stone bridge and the small town "

// text returns a text of about n tokens with a suffix of its own.
func (p prompts) text(index uint64, n int) string {
	suffix := fmt.Sprintf("%016x", mix(mix(p.seed)^index))
	words := strings.Fields(filler)
	var b strings.Builder
	for i := range max(n-12, 1) {
		b.WriteString(words[i%len(words)])
		b.WriteByte(' ')
	}
	return b.String() + suffix
}

// prepared is a request ready to be written: nothing is marshalled while the
// clock runs.
type prepared struct {
	id     string
	tokens int
	// whole goes to a unified engine or a proxy; prefill is the first leg's. The
	// decode leg is whole without its last brace, the parameters and a brace.
	whole, prefill []byte
	decode         []byte // whole without its brace, with room for parameters
}

// prepare makes the bodies of request index.
func (p prompts) prepare(index uint64, id, model string, tokens, maxTokens int) (*prepared, error) {
	var prompt []byte
	var err error
	if p.kind == TextPrompts {
		if prompt, err = json.Marshal(p.text(index, tokens)); err != nil {
			return nil, fmt.Errorf("prompt: %w", err)
		}
	} else {
		prompt = append(prompt, '[')
		for i, t := range p.ids(index, tokens) {
			if i > 0 {
				prompt = append(prompt, ',')
			}
			prompt = strconv.AppendInt(prompt, int64(t), 10)
		}
		prompt = append(prompt, ']')
	}
	name, err := json.Marshal(model)
	if err != nil {
		return nil, fmt.Errorf("model name: %w", err)
	}
	// No return_token_ids: the engine would send the whole prompt back, in the clock.
	// No min_tokens, which ignore_eos makes idle: proxies that pass it on with
	// max_tokens 1, as vLLM's own toy proxy does, get status 400 for it.
	common := fmt.Sprintf(`{"model":%s,"prompt":%s,"temperature":0,"n":1,"ignore_eos":true`, name, prompt)
	r := &prepared{id: id, tokens: tokens}
	r.whole = fmt.Appendf(nil, `%s,"max_tokens":%d,"stream":true,"stream_options":{"include_usage":true}}`, common, maxTokens)
	r.prefill = fmt.Appendf(nil, `%s,"max_tokens":1,"stream":false,"kv_transfer_params":{"do_remote_decode":true,"do_remote_prefill":false,`+
		`"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null}}`, common)
	r.decode = append(make([]byte, 0, len(r.whole)+64<<10), r.whole[:len(r.whole)-1]...)
	return r, nil
}

// decodeBody is the decode leg with the prefill engine's parameters, verbatim.
func (r *prepared) decodeBody(params json.RawMessage) []byte {
	b := append(r.decode, `,"kv_transfer_params":`...)
	b = append(b, params...)
	return append(b, '}')
}
