package ttft

// Line is one request in a record, of type "request". Times are in ns; those
// ending in _at_ns count from the run's start, the others are durations. What
// was not observed is left out.
type Line struct {
	Condition int    `json:"condition"`
	Arm       string `json:"arm"`
	Mode      string `json:"mode"` // unified, disaggregated
	Path      string `json:"path"` // unified, two-leg, proxy, direct
	Block     int    `json:"block"`
	Order     int    `json:"order"`     // the condition's place within its block
	Iteration int    `json:"iteration"` // within the condition, from 0
	Sequence  int    `json:"sequence"`  // within the arm in order of intended start, from 0, warm-up included
	Phase     string `json:"phase"`     // warmup, measure: see package record
	Batch     int    `json:"batch"`     // requests of one batch were in flight together
	Simulated bool   `json:"simulated"`

	RequestID    string `json:"request_id"`
	Prefill      string `json:"prefill_url,omitempty"`
	Decode       string `json:"decode_url,omitempty"`
	PromptTokens int    `json:"prompt_tokens"`
	MaxTokens    int    `json:"max_tokens"`
	Completion   int    `json:"completion_tokens"`
	Load         string `json:"load"`                       // closed, open, offline
	Concurrency  int    `json:"concurrency,omitempty"`      // closed loop: requests kept in flight
	RateMilli    int64  `json:"rate_milli_per_s,omitempty"` // open loop: arrivals in 1,000 s

	// IntendedAtNs is when the request was to start; all latencies are measured
	// from it. BeginAtNs is when writing it began: the same in a closed loop.
	IntendedAtNs int64   `json:"intended_at_ns"`
	BeginAtNs    int64   `json:"begin_at_ns"`
	TTFTNs       int64   `json:"ttft_ns,omitempty"`
	E2ENs        int64   `json:"e2e_ns,omitempty"`
	ITLNs        []int64 `json:"itl_ns,omitempty"` // between chunks that carry tokens
	// ConnReused and PrefillConnReused: no connection had to be opened.
	ConnReused        bool  `json:"conn_reused"`
	PrefillConnReused *bool `json:"prefill_conn_reused,omitempty"`

	// Legs holds t0…t5 of the two-leg path from IntendedAtNs on.
	Legs *Legs `json:"legs,omitempty"`
	// Split says where the TTFT went.
	Split *Split `json:"split,omitempty"`
	// Moved is what NIXL counted.
	Moved *Moved `json:"nixl,omitempty"`

	Valid  bool   `json:"valid"`
	Reason Reason `json:"reason,omitempty"` // why it is not
	Detail string `json:"detail,omitempty"`
	// Proof says how the decision was made: "sample", from the counts of this
	// request alone; "batch", from the counts of all requests of the batch, which
	// must add up; "none", the answer decided.
	Proof string `json:"proof"`
	// PoolBlocks and BlockTokens are those of the prefill engine's block pool, 0 if
	// not known: what is needed to predict when the pool wraps around.
	PoolBlocks  int `json:"pool_blocks,omitempty"`
	BlockTokens int `json:"block_tokens,omitempty"`
	// FirstTokenMatch: the prefill engine's token and the first one of the decode
	// engine are the same. Kernels may differ in the last bit, so that false does
	// not make a request invalid.
	FirstTokenMatch *bool `json:"first_token_match,omitempty"`
	// TruthNs is a simulated engine's own time to its first token (of the last
	// leg), to which the client's clock is held.
	TruthNs int64 `json:"sim_first_token_ns,omitempty"`
}

// Legs are the times of the two-leg path.
type Legs struct {
	SendPrefill    int64 `json:"t0_ns"` // writing the prefill request begins
	PrefillHeaders int64 `json:"t1_ns"`
	PrefillBody    int64 `json:"t2_ns"` // read and its parameters found
	SendDecode     int64 `json:"t3_ns"` // writing the decode request begins
	DecodeHeaders  int64 `json:"t4_ns"`
	FirstToken     int64 `json:"t5_ns"`
}

// Split is a TTFT in parts that add up to it; see docs/ttft.md.
type Split struct {
	// Wait is how much later than intended the request was sent (open loop).
	Wait int64 `json:"wait_ns"`
	// Prefill is the prefill engine's time in its queue and computing, by its own
	// counts; on a unified engine the engine's.
	Prefill int64 `json:"prefill_ns"`
	// HandOver is from the prefill engine's answer to the decode request.
	HandOver int64 `json:"handover_ns"`
	// DecodeQueue is the decode engine's time in its queue: handshake, transfer
	// and the wait for the engine to see its end.
	DecodeQueue int64 `json:"decode_queue_ns"`
	// OneToken is the decode engine's forward pass over the last prompt token.
	OneToken int64 `json:"one_token_ns"`
	// Network is the rest: HTTP, the API servers, the wire.
	Network int64 `json:"network_ns"`
	// Engine is false where the engines' own counts were not to be had for this
	// request alone: Prefill and DecodeQueue are then whole legs, with HTTP.
	Engine bool `json:"from_engine"`
}

// Moved is a transfer as NIXL saw it, or several if Scope is "batch".
type Moved struct {
	Scope       string `json:"scope"` // sample, batch
	Transfers   int64  `json:"transfers"`
	Bytes       int64  `json:"bytes"`
	Descriptors int64  `json:"descriptors"` // after merging
	XferNs      int64  `json:"xfer_ns"`     // sum over transfers: start of posting to the poll that saw the end
	PostNs      int64  `json:"post_ns"`     // sum over transfers
}

// Reason says why a request does not count.
type Reason string

// Reasons, the most telling first: where several apply, the first is given.
const (
	NullParams      Reason = "null-params"        // the prefill engine returned no usable parameters
	ExpiredLease    Reason = "expired-lease"      // the prefill engine gave its blocks up before they were fetched
	FailedTransfer  Reason = "failed-transfer"    // NIXL counted a failed transfer
	Timeout         Reason = "timeout"            // no end within --timeout
	Connection      Reason = "connection"         // the connection could not be made or broke
	HTTPError       Reason = "http-error"         // a status other than 200
	StreamError     Reason = "stream-error"       // an error inside the stream, or not the expected format
	Truncated       Reason = "truncated-stream"   // the stream ended without [DONE]
	NoToken         Reason = "no-token"           // a stream without a token
	NoUsage         Reason = "no-usage"           // no usage chunk
	ShortCompletion Reason = "short-completion"   // not as many tokens as asked for
	PromptLength    Reason = "prompt-length"      // the engine counted another number of prompt tokens
	MetricsMissing  Reason = "metrics-missing"    // a series that the proof needs is not there
	EngineRestart   Reason = "engine-restart"     // counts went backwards
	ForeignTraffic  Reason = "foreign-traffic"    // someone else's requests are in the counts
	PrefixHit       Reason = "prefix-hit"         // an engine found the prompt in its own cache
	LocalRecompute  Reason = "local-recompute"    // the decode engine computed the prompt itself
	NoTransfer      Reason = "no-transfer"        // no transfer was counted
	ShortBytes      Reason = "short-bytes"        // fewer bytes than the prompt's blocks hold
	ExcessBytes     Reason = "excess-bytes"       // more
	UnexpectedMove  Reason = "unexpected-kv-move" // a unified or direct request moved KV
	Interrupted     Reason = "interrupted"        // the run was stopped
)
