// Package spec holds an experiment as a value: what is measured, over which
// factors, in which design and where. Flags and files make it, a record keeps
// it, a run that goes on compares it, and a process that measures for another
// gets it on its standard input.
//
// Each key is that of the flag of the same name, with _ for -; docs/spec.md lists
// them. A key that holds a list is a factor: each combination of one value of
// each is a condition.
package spec

import (
	"time"

	"github.com/xferbench/xferbench/internal/kv"
)

// Version is that of the keys; a later one may change what a key means.
const Version = 1

// Workloads.
const (
	Raw   = "raw"   // transfers
	Sweep = "sweep" // transfers over a grid, with cost models
	TTFT  = "ttft"  // requests to engines, end to end
)

// Spec is an experiment. A nil pointer and an empty list mean that the tool
// chooses; [Spec.Complete] fills them in.
type Spec struct {
	Version  int    `yaml:"spec"`
	Workload string `yaml:"workload"`
	// Seed is of block order, KV block ids and payload, or of prompts and arrivals.
	Seed   *uint64       `yaml:"seed,omitempty"`
	Raw    *RawWorkload  `yaml:"raw,omitempty"`
	TTFT   *TTFTWorkload `yaml:"ttft,omitempty"`
	Design Design        `yaml:"design"`
	Hosts  Hosts         `yaml:"hosts,omitempty"`
	// Files are the SHA-256 sums of files that the spec names and that change what
	// is measured, by their paths.
	Files map[string]string `yaml:"files,omitempty"`
}

// RawWorkload is transfers of KV caches over transports.
type RawWorkload struct {
	Provider List[string] `yaml:"provider,flow"`
	Op       List[string] `yaml:"op,flow"`
	// Size is in bytes of one rank, rounded up to whole KV blocks; Tokens the same
	// in tokens.
	Size        Sizes        `yaml:"size,flow,omitempty"`
	Tokens      Tokens       `yaml:"tokens,flow,omitempty"`
	Shape       List[string] `yaml:"shape,flow"`
	KVLayout    string       `yaml:"kv_layout"`
	BlockTokens List[int]    `yaml:"block_tokens,flow"`
	// Descriptors cuts the same contiguous bytes into that many; it replaces Shape.
	Descriptors List[int] `yaml:"descriptors,flow,omitempty"`
	Model       string    `yaml:"model"`
	DType       string    `yaml:"dtype"`
	// TensorParallel is the number of ranks that share the cache; one rank's part
	// is moved.
	TensorParallel int          `yaml:"tensor_parallel"`
	Memory         List[string] `yaml:"memory,flow"`
	PeerMemory     List[string] `yaml:"peer_memory,flow,omitempty"` // empty: as Memory

	// Of a transport; 0 is the provider's best.
	Streams   List[int]    `yaml:"streams,flow,omitempty"` // per NIC
	Depth     List[int]    `yaml:"depth,flow,omitempty"`   // operations per stream
	Chunk     Sizes        `yaml:"chunk,flow,omitempty"`   // bytes
	Rails     List[int]    `yaml:"rails,flow,omitempty"`   // NICs
	Poll      List[string] `yaml:"poll,flow"`
	Libfabric List[string] `yaml:"libfabric,flow,omitempty"` // file to load
	Libucp    List[string] `yaml:"libucp,flow,omitempty"`
	UCXConfig Settings     `yaml:"ucx_config,omitempty"`
	Set       Settings     `yaml:"set,omitempty"` // of libfabric transports

	// Timeout is how long to wait without progress.
	Timeout   time.Duration `yaml:"timeout"`
	NoVerify  bool          `yaml:"no_verify,omitempty"`
	NoCeiling bool          `yaml:"no_ceiling,omitempty"`
	// Reuse lays all pieces of a lane over one piece of memory.
	Reuse bool `yaml:"reuse,omitempty"`
	// Tune searches Streams, Depth and Chunk first, where they are 0.
	Tune bool `yaml:"tune,omitempty"`
}

// TTFTWorkload is requests to inference engines.
type TTFTWorkload struct {
	URL     string       `yaml:"url,omitempty"`
	Prefill List[string] `yaml:"prefill,flow,omitempty"`
	Decode  List[string] `yaml:"decode,flow,omitempty"`
	Mode    string       `yaml:"mode,omitempty"` // "": as the URLs say
	Path    string       `yaml:"path,omitempty"`
	Arm     List[string] `yaml:"arm,omitempty"`    // NAME=URL,…
	Launch  string       `yaml:"launch,omitempty"` // file of engines to start
	Sim     bool         `yaml:"sim,omitempty"`    // start simulated ones
	Engine  SimEngine    `yaml:"sim_engine"`

	PromptTokens Tokens        `yaml:"prompt_tokens,flow"`
	MaxTokens    int           `yaml:"max_tokens"`                 // of each answer
	Concurrency  List[int]     `yaml:"concurrency,flow,omitempty"` // closed loop
	Rate         List[float64] `yaml:"rate,flow,omitempty"`        // open loop, arrivals per second
	Measurement  string        `yaml:"measurement"`                // online, offline
	Prompt       string        `yaml:"prompt"`                     // tokens, text
	VocabSize    int           `yaml:"vocab_size"`
	Model        string        `yaml:"model,omitempty"`    // served name; "": the engine's first
	KVModel      string        `yaml:"kv_model,omitempty"` // "": by the served name
	DType        string        `yaml:"dtype"`
	// KVTP is the tensor-parallel size of all engines, or of prefill and decode engines;
	// none: by the engines' own word. KVDraftLayers are those of a draft head.
	KVTP          List[int] `yaml:"kv_tp,flow,omitempty"`
	KVDraftLayers int       `yaml:"kv_draft_layers,omitempty"`
	// MaxInvalid is the share of invalid requests above which a run has failed.
	MaxInvalid Percent       `yaml:"max_invalid"`
	Timeout    time.Duration `yaml:"timeout"` // of a request
	Settle     time.Duration `yaml:"settle"`  // for the engines' counts after it
}

// SimEngine describes simulated engines.
type SimEngine struct {
	PrefillTime     time.Duration `yaml:"prefill_time"`
	PrefillPerToken time.Duration `yaml:"prefill_per_token"`
	StepTime        time.Duration `yaml:"step_time"`
	TransferDelay   time.Duration `yaml:"transfer_delay,omitempty"`
	Lease           time.Duration `yaml:"lease"`
	Blocks          int           `yaml:"blocks"` // KV blocks in the pool
	PoolOrder       string        `yaml:"pool_order"`
	PrefixCaching   bool          `yaml:"prefix_caching,omitempty"`
	Transport       string        `yaml:"transport"`
	Model           string        `yaml:"model"`
	DType           string        `yaml:"dtype,omitempty"` // "": the model's
	TP              int           `yaml:"tp,omitempty"`    // tensor-parallel size
	Push            bool          `yaml:"push,omitempty"`  // prefill counts the transfers
	BlockTokens     int           `yaml:"block_tokens"`
	VLLM            string        `yaml:"vllm"`
	Recompute       bool          `yaml:"recompute,omitempty"`
	Fault           List[string]  `yaml:"fault,flow,omitempty"` // NAME[:N]
}

// Design says how the conditions are repeated.
type Design struct {
	Blocks    *int `yaml:"blocks,omitempty"`
	MinBlocks *int `yaml:"min_blocks,omitempty"` // run even when the budget is over
	// Budget is the time for all blocks; 0: no limit.
	Budget time.Duration `yaml:"budget"`
	// Iterations is, of transfers, their number per block, and of requests, their
	// number over all blocks; 0: the tool's choice.
	Iterations int `yaml:"iterations,omitempty"`
	// UntilCI ends the run once each median's 95% interval is within this share of
	// it; 0: not used.
	UntilCI    Percent `yaml:"until_ci,omitempty"`
	Launches   int     `yaml:"launches"`
	RoundRobin bool    `yaml:"round_robin,omitempty"`
	// Warmup is the number of requests of each condition before its first block.
	Warmup int `yaml:"warmup,omitempty"`
}

// Hosts says where the two sides are.
type Hosts struct {
	Peer        string       `yaml:"peer,omitempty"` // "": a second process here
	SecretFile  string       `yaml:"secret_file,omitempty"`
	PeerProgram string       `yaml:"peer_program,omitempty"` // xferbench on an ssh host
	SSHCommand  string       `yaml:"ssh_command,omitempty"`
	PushBinary  bool         `yaml:"push_binary,omitempty"`
	Bind        List[string] `yaml:"bind,flow,omitempty"` // local addresses, one per rail
	NoNamespace bool         `yaml:"no_namespace,omitempty"`
}

// MaxInvalid is the default of TTFTWorkload.MaxInvalid.
const MaxInvalid = 0.05

// Default is the spec of a workload whose user gave nothing.
func Default(workload string) *Spec {
	s := &Spec{Version: Version, Workload: workload, Design: Design{Launches: 1}}
	switch workload {
	case Raw, Sweep:
		s.Raw = &RawWorkload{
			Provider: List[string]{"tcp"}, Op: List[string]{"read"}, Shape: List[string]{"merged", "fragmented"},
			KVLayout: string(kv.Packed), BlockTokens: List[int]{kv.DefaultBlockTokens}, Model: kv.DefaultModel, DType: "auto", TensorParallel: 1,
			Memory: List[string]{"host"}, Poll: List[string]{"auto"}, Timeout: 10 * time.Second,
		}
		s.Hosts = Hosts{PeerProgram: "xferbench", SSHCommand: "ssh"}
		if workload == Raw {
			s.Design.Budget = 20 * time.Second // a grid is as long as it is
		}
	case TTFT:
		s.TTFT = &TTFTWorkload{
			Engine: DefaultSimEngine(), PromptTokens: Tokens{1000}, MaxTokens: 16, Measurement: "online", Prompt: "tokens",
			VocabSize: 32_000, DType: "auto", MaxInvalid: MaxInvalid, Timeout: 2 * time.Minute, Settle: 2 * time.Second,
		}
		s.Design.Iterations, s.Design.Warmup = 40, 2
	}
	return s
}

// DefaultSimEngine is a simulated engine whose user gave nothing.
func DefaultSimEngine() SimEngine {
	return SimEngine{PrefillTime: 5 * time.Millisecond, PrefillPerToken: 10 * time.Microsecond, StepTime: 4 * time.Millisecond,
		Lease: 30 * time.Second, Blocks: 200, PoolOrder: "fifo", Transport: "socket", Model: kv.DefaultModel,
		BlockTokens: kv.DefaultBlockTokens, VLLM: "0.32.0"}
}
