// Package sim is a reference for disaggregated inference with a known truth: a
// prefill engine, a decode engine and a unified one that speak vLLM's HTTP
// interface (completions, streaming, kv_transfer_params, /metrics with vLLM's
// names) and compute nothing. Prefill and decode take the times that they are
// told; the KV cache is real memory that really moves from the prefill to the
// decode engine through a [Mover], by default over one of the project's own transports
// ([Wire]).
//
// It is the ground truth of the tests of package ttft, where each [Fault] must
// come out as the right reason, and the demo of `xferbench ttft --sim`. Its
// /version says "simulated", so that whoever measures it can say so too.
package sim
