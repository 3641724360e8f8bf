// Package twoleg holds vLLM's two-leg protocol for prefill/decode disaggregation
// with the NIXL connector: what a client or a proxy changes in a completion
// request for the prefill engine, and how the prefill engine's answer goes
// to the decode engine.
//
// Prefill leg: the request with stream off and one token, and kv_transfer_params
// that ask for remote decode. The answer carries kv_transfer_params with
// the blocks that hold the KV cache. Decode leg: the request as it was, with
// that object verbatim. Both legs carry the same X-Request-Id, by which vLLM up
// to 0.12 frees the prefill engine's blocks.
//
// Source: vLLM, tests/v1/kv_connector/nixl_integration/toy_proxy_server.py.
package twoleg

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// ParamsKey is the member of requests and answers with the transfer parameters.
const ParamsKey = "kv_transfer_params"

// RequestIDHeader carries the id that both legs of a request share.
const RequestIDHeader = "X-Request-Id"

// askParams asks a prefill engine to keep the KV cache for a decode engine.
const askParams = `{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null}`

var (
	// ErrNoParams is matched when the answer of the prefill engine has no usable
	// kv_transfer_params. A decode engine would compute the prompt again without
	// a word, and one that gets an incomplete object can die of it
	// (CVE-2026-94622), so the request must fail here.
	ErrNoParams = errors.New("no usable kv_transfer_params in the prefill engine's answer")
	// ErrRequest is matched when the request cannot be disaggregated: the client's
	// fault.
	ErrRequest = errors.New("request cannot be disaggregated")
)

// Check tells why a request cannot go over two legs, or nil. The parameters
// belong to one sequence of one prompt.
func Check(req Object) error {
	if raw := req.Get("n"); raw != nil {
		var n *float64 // 1.0 is 1, as for the engines
		if err := json.Unmarshal(raw, &n); err != nil || n != nil && *n != 1 {
			return fmt.Errorf("%w: n is %.20s and must be 1, because kv_transfer_params describe one sequence", ErrRequest, raw)
		}
	}
	if req.Get(ParamsKey) != nil && string(req.Get(ParamsKey)) != "null" {
		return fmt.Errorf("%w: it already carries %s", ErrRequest, ParamsKey)
	}
	// A list of numbers is one prompt, of token ids; a list of one prompt is one.
	if several(req.Get("prompt")) {
		return fmt.Errorf("%w: it holds a list of prompts; send one prompt a request", ErrRequest)
	}
	return nil
}

// PrefillBody is the body of the prefill leg. The one token that the prefill
// engine samples is thrown away; that it must not end the request (an EOS or
// stop word made vLLM 0.10 return null parameters) is asked for explicitly.
func PrefillBody(req Object) ([]byte, error) {
	p := req.Without("stream", "stream_options", "max_tokens", "min_tokens", "min_completion_tokens",
		"stop", "stop_token_ids", "ignore_eos", ParamsKey)
	if p.Get("max_completion_tokens") != nil {
		p = p.With("max_completion_tokens", json.RawMessage("1"))
	}
	p = append(p,
		Member{"stream", json.RawMessage("false")},
		Member{"max_tokens", json.RawMessage("1")},
		Member{"ignore_eos", json.RawMessage("true")},
		Member{ParamsKey, json.RawMessage(askParams)})
	return p.Bytes()
}

// DecodeBody is the body of the decode leg: the request as it came, with the
// prefill engine's parameters.
func DecodeBody(req Object, params json.RawMessage) ([]byte, error) {
	return req.With(ParamsKey, params).Bytes()
}

// Params takes the parameters out of a prefill engine's answer, byte for byte:
// fields are added with every release, and block ids and times must not pass
// through a float. The error wraps [ErrNoParams] unless the object is one that
// a decode engine will pull from.
func Params(answer []byte) (json.RawMessage, error) {
	obj, err := ParseObject(answer)
	if err != nil {
		return nil, fmt.Errorf("%w: the answer is %w", ErrNoParams, err)
	}
	raw := obj.Get(ParamsKey)
	if said := obj.Get("error"); raw == nil && said != nil && string(said) != "null" {
		return nil, fmt.Errorf("%w: the engine says: %.2000s", ErrNoParams, said)
	}
	if raw == nil {
		return nil, fmt.Errorf("%w: the member is missing; is the engine running with a kv_connector?", ErrNoParams)
	}
	if string(raw) == "null" {
		return nil, fmt.Errorf("%w: it is null, so the engine kept no KV cache (request ended early, or no kv_connector)", ErrNoParams)
	}
	params, err := ParseObject(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoParams, err)
	}
	if string(params.Get("do_remote_prefill")) != "true" {
		return nil, fmt.Errorf("%w: do_remote_prefill is not true", ErrNoParams)
	}
	for _, key := range []string{"remote_engine_id", "remote_block_ids", "remote_host", "remote_port"} {
		if v := params.Get(key); v == nil || string(v) == "null" || string(v) == `""` {
			return nil, fmt.Errorf("%w: %s is missing or null", ErrNoParams, key)
		}
	}
	if !bytes.ContainsAny(params.Get("remote_block_ids"), "0123456789") {
		return nil, fmt.Errorf("%w: remote_block_ids is empty", ErrNoParams)
	}
	if !json.Valid(raw) {
		return nil, fmt.Errorf("%w: it is not valid JSON", ErrNoParams)
	}
	return raw, nil
}
