package record

// Request is one end-to-end request of a TTFT run. Times are in ns; those
// ending in _at_ns count from the run's start, the others are durations. What
// was not observed is left out.
type Request struct {
	Condition int    `json:"condition"`
	Arm       string `json:"arm"`
	Mode      string `json:"mode"`             // unified, disaggregated
	Path      string `json:"path"`             // unified, two-leg, proxy, direct
	Launch    int    `json:"launch,omitempty"` // fresh processes; counts from 0
	Block     int    `json:"block"`
	Order     int    `json:"order"`     // the condition's place within its block
	Iteration int    `json:"iteration"` // within the condition, from 0
	Sequence  int    `json:"sequence"`  // within the arm in order of intended start, from 0, warm-up included
	Phase     string `json:"phase"`     // PhaseWarmup or PhaseMeasure
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
	// Proof says how the decision was made: ProofSample, from the counts of this
	// request alone; ProofBatch, from the counts of all requests of the batch, which
	// must add up; ProofNone, the answer decided.
	Proof string `json:"proof"`
	// Rule is what the KV cache that moved was held to: RuleBlocks, RuleGeometry or
	// RuleTokens; left out where the answer decided.
	Rule string `json:"rule,omitempty"`
	// KVBlocks is how many KV blocks of each layer group had to cross, by the prefill
	// engine's answer and what the model's windows cover. PrefillTP and DecodeTP are the engines' tensor-parallel sizes,
	// by their own answers.
	KVBlocks  []int `json:"kv_blocks,omitempty"`
	PrefillTP int   `json:"prefill_tp,omitempty"`
	DecodeTP  int   `json:"decode_tp,omitempty"`
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
	Scope       string `json:"scope"`        // sample, batch
	By          string `json:"by,omitempty"` // the engine that counted it: ByDecode, which read, or ByPrefill, which wrote
	Transfers   int64  `json:"transfers"`
	Bytes       int64  `json:"bytes"`
	Descriptors int64  `json:"descriptors"` // after merging
	XferNs      int64  `json:"xfer_ns"`     // sum over transfers: start of posting to the poll that saw the end
	PostNs      int64  `json:"post_ns"`     // sum over transfers
}

// Which engine moves the KV cache.
const (
	ByDecode  = "decode"
	ByPrefill = "prefill"
)

// Reason says why a request does not count.
type Reason string

// Reasons, the most telling first: where several apply, the first is given.
const (
	ReasonNullParams      Reason = "null-params"        // the prefill engine returned no usable parameters
	ReasonExpiredLease    Reason = "expired-lease"      // the prefill engine gave its blocks up before they were fetched
	ReasonFailedTransfer  Reason = "failed-transfer"    // NIXL counted a failed transfer
	ReasonTimeout         Reason = "timeout"            // no end within --timeout
	ReasonConnection      Reason = "connection"         // the connection could not be made or broke
	ReasonHTTPError       Reason = "http-error"         // a status other than 200
	ReasonStreamError     Reason = "stream-error"       // an error inside the stream, or not the expected format
	ReasonTruncated       Reason = "truncated-stream"   // the stream ended without [DONE]
	ReasonNoToken         Reason = "no-token"           // a stream without a token
	ReasonNoUsage         Reason = "no-usage"           // no usage chunk
	ReasonShortCompletion Reason = "short-completion"   // not as many tokens as asked for
	ReasonPromptLength    Reason = "prompt-length"      // the engine counted another number of prompt tokens
	ReasonMetricsMissing  Reason = "metrics-missing"    // a series that the proof needs is not there
	ReasonEngineRestart   Reason = "engine-restart"     // counts went backwards
	ReasonForeignTraffic  Reason = "foreign-traffic"    // someone else's requests are in the counts
	ReasonPrefixHit       Reason = "prefix-hit"         // an engine found the prompt in its own cache
	ReasonLocalRecompute  Reason = "local-recompute"    // the decode engine computed the prompt itself
	ReasonNoTransfer      Reason = "no-transfer"        // no transfer was counted
	ReasonShortBytes      Reason = "short-bytes"        // fewer bytes than the prompt's blocks hold
	ReasonExcessBytes     Reason = "excess-bytes"       // more
	ReasonUnexpectedMove  Reason = "unexpected-kv-move" // a unified or direct request moved KV
	ReasonInterrupted     Reason = "interrupted"        // the run was stopped
)

// Modes of a deployment, and the paths of a request through it.
const (
	ModeUnified       = "unified"
	ModeDisaggregated = "disaggregated"

	PathUnified = "unified" // one engine does all
	PathTwoLeg  = "two-leg" // this tool drives prefill and decode
	PathProxy   = "proxy"   // a P/D proxy does
	PathDirect  = "direct"  // the prefill engine alone: no transfer
)

// Kinds of load.
const (
	LoadClosed  = "closed"  // a fixed number of requests in flight
	LoadOpen    = "open"    // Poisson arrivals at a rate
	LoadOffline = "offline" // all requests of a block at once
)

// What a decision on a request rests on, and what a Moved counts.
const (
	ProofSample = "sample"
	ProofBatch  = "batch"
	ProofNone   = "none"
)

// What the bytes of a request are held to.
const (
	RuleBlocks   = "block-lists" // the blocks that the prefill engine listed, each of known bytes
	RuleGeometry = "geometry"    // what the model's layers must move
	RuleTokens   = "tokens"      // nothing: the engines' counts of tokens alone decided
)

func (Request) lineType() string { return "request" }
