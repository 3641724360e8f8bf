// Package record is the file that a run leaves behind: JSON Lines, append-only,
// valid line by line even when the run dies. Every report and comparison reads
// records and nothing else.
//
// All numbers are integers in base units; a key's suffix names the unit (_ns,
// _bytes, _bits_per_s). Keys may be added within a schema version; one that
// changes its meaning raises it. A record of an older schema is read as if it
// were of the newest: see [Comparison].
package record

import "encoding/json"

// Schema is the version that this build writes, and the newest that it reads.
const Schema = 2

// Line is one line of a record.
type Line interface{ lineType() string }

// Run is the first line: what was run, where and by what.
type Run struct {
	Schema      int    `json:"schema"`
	ID          string `json:"id"`
	Kind        string `json:"kind"` // raw, sweep, ttft
	StartUnixNs int64  `json:"start_unix_ns"`
	ToolVersion string `json:"tool_version"`
	ToolCommit  string `json:"tool_commit"`
	// Argv has secrets (peer tokens) replaced by "…".
	Argv []string `json:"argv"`
	Seed uint64   `json:"seed"`
	Host Host     `json:"host"`
	Peer *Host    `json:"peer,omitempty"`
	// Env holds the allow-listed variables that were set.
	Env map[string]string `json:"env,omitempty"`
	// Spec is the experiment as a value, as docs/spec.md describes it, without
	// what gives access to a peer.
	Spec json.RawMessage `json:"spec,omitempty"`
	// Design says how the conditions are scheduled.
	Design *Design `json:"design,omitempty"`
	// Launches is how often the run was repeated with fresh processes; samples
	// say which launch they are of.
	Launches int `json:"launches,omitempty"`
	// Isolation says whether a run within one host had a network of its own,
	// "namespace", or "none" and why; absent for a run to a peer.
	Isolation string `json:"isolation,omitempty"`
	// Simulated is set when the whole run is a simulation.
	Simulated bool `json:"simulated,omitempty"`
}

// Design is the schedule: randomised blocks, and when it ends.
type Design struct {
	Blocks      int    `json:"blocks"`                 // asked for; 0: until the budget ends
	MinBlocks   int    `json:"min_blocks"`             // below this the run is too short for a verdict
	BudgetNs    int64  `json:"budget_ns,omitempty"`    // wall-clock time for the blocks
	UntilCIPpm  int64  `json:"until_ci_ppm,omitempty"` // stop at this relative half-width, in 1e-6
	Order       string `json:"order"`                  // "random" or "round-robin"
	Concurrency []int  `json:"concurrency,omitempty"`
	Iterations  int    `json:"iterations,omitempty"` // asked for, in each batch; 0: the tool's choice
	Reuse       bool   `json:"reuse,omitempty"`      // the same bytes in each transfer
	Unchecked   bool   `json:"unchecked,omitempty"`  // no data checks
}

// Host is the inventory of one side.
type Host struct {
	Hostname    string   `json:"hostname"`
	OS          string   `json:"os"`
	Kernel      string   `json:"kernel"`
	Arch        string   `json:"arch"`
	CPUModel    string   `json:"cpu_model"`
	CPUs        int      `json:"cpus"` // that this process may use
	MemoryBytes uint64   `json:"memory_bytes"`
	NUMANodes   int      `json:"numa_nodes"`
	Instance    string   `json:"instance_type,omitempty"` // EC2, from DMI
	GPUs        []GPU    `json:"gpus,omitempty"`
	NICs        []NIC    `json:"nics,omitempty"`
	Address     string   `json:"address,omitempty"` // of the control channel
	Memlock     string   `json:"memlock,omitempty"` // "unlimited"; MemlockSoft is absent then
	MemlockSoft *uint64  `json:"memlock_bytes,omitempty"`
	HugePages   int      `json:"hugepages_2mib"`
	Notes       []string `json:"notes,omitempty"`
}

// GPU is one device as NVML or the driver names it.
type GPU struct {
	Index       int    `json:"index"`
	Name        string `json:"name"`
	PCI         string `json:"pci"`
	NUMA        int    `json:"numa"`
	MemoryBytes uint64 `json:"memory_bytes,omitempty"`
	Driver      string `json:"driver,omitempty"`
}

// NIC is one network or RDMA device. What is not known is zero.
type NIC struct {
	Name     string `json:"name"`
	Kind     string `json:"kind,omitempty"` // of a host's: "net" or "rdma"
	LinkBits uint64 `json:"link_bits_per_s,omitempty"`
	MTU      int    `json:"mtu_bytes,omitempty"`
	PCI      string `json:"pci,omitempty"` // address: "0000:00:06.0"
	NUMA     int    `json:"numa"`          // node, -1: unknown
	Firmware string `json:"firmware,omitempty"`
	Driver   string `json:"driver,omitempty"`
	DeviceID string `json:"device_id,omitempty"`       // of the PCI device: "0xefa2"
	Emulated bool   `json:"emulated_device,omitempty"` // a stand-in
}

// Transport is one open transport: what carries the bytes.
type Transport struct {
	Provider string `json:"provider"`         // as the library names it: "tcp;ofi_rxm", "ucx"
	API      string `json:"api"`              // libfabric, ucx, socket, memcpy
	Library  string `json:"library_path"`     // file that was loaded, "" for none
	Version  string `json:"library_version"`  // its own word
	Fabric   string `json:"fabric,omitempty"` // libfabric: fabric name
	// Devices are the NICs of the rails: libfabric domains or UCX devices.
	Devices []NIC `json:"devices,omitempty"`
	// Landing names, by operation, what proves that data landed:
	// "local-completion", "delivery-complete", "remote-cq-count", "flush",
	// "target-ack", "copy".
	Landing map[string]string `json:"landing"`
	// Protocol is the library's own report of what it uses, by operation:
	// "device RDMA", "emulated", UCX's protocol lines.
	Protocol map[string]string `json:"protocol,omitempty"`
	// Emulated lists the operations whose RMA the provider makes of messages.
	Emulated []string `json:"emulated_rma,omitempty"`
	// Simulated is set when the device itself is a stand-in (EFA firmware
	// 0.0.0.0): nothing here is then a measurement.
	Simulated bool   `json:"emulated_device,omitempty"`
	Streams   int    `json:"streams"`
	Rails     int    `json:"rails"`
	Depth     int    `json:"depth"`
	Chunk     uint64 `json:"chunk_bytes"` // 0: descriptors are not split
	// MaxPiece is how long one operation may be where that is less than Chunk,
	// by operation.
	MaxPiece map[string]uint64 `json:"max_piece_bytes,omitempty"`
	Poll     string            `json:"poll"`
	Settings map[string]string `json:"settings,omitempty"` // that were in force: UCX_*, FI_*
	Notes    []string          `json:"notes,omitempty"`    // for the header: "same-host peers go over shm", …
}

// Condition is one cell of the experiment: what is held the same for all of
// its samples. ID is unique within the run and counts from 0.
type Condition struct {
	ID       int    `json:"id"`
	Name     string `json:"name"`     // provider as asked for, unique with op, shape and bytes
	Provider string `json:"provider"` // as asked for
	API      string `json:"api"`
	Op       string `json:"op"`
	Memory   string `json:"memory"`
	PeerMem  string `json:"peer_memory"`
	Shape    string `json:"shape"`
	Layout   string `json:"kv_layout,omitempty"`
	Model    string `json:"model,omitempty"`
	TP       int    `json:"tensor_parallel,omitempty"`
	Tokens   int64  `json:"tokens,omitempty"` // whole blocks
	Block    int    `json:"block_tokens,omitempty"`
	Asked    uint64 `json:"asked_bytes"` // before rounding to whole blocks
	Bytes    uint64 `json:"bytes"`
	Descs    int    `json:"descriptors"`
	Ops      int    `json:"operations"` // after splitting by chunk and lane
	// Ceiling marks a row that others are compared to.
	Ceiling   bool      `json:"ceiling,omitempty"`
	Landing   string    `json:"landing"`
	Transport Transport `json:"transport"`
	// Serving is of an end-to-end condition whose KV cache moves.
	Serving *Serving `json:"serving,omitempty"`
	// Simulated: the device is emulated; the row is not a measurement.
	Simulated bool `json:"simulated,omitempty"`
}

// Serving is what is known of an arm's engines and of how they move the KV cache,
// which tells whether a raw transfer is theirs. What is not known is absent.
type Serving struct {
	Connector string `json:"connector,omitempty"`    // "NixlConnector"; "simulated"
	Backend   string `json:"backend,omitempty"`      // of NIXL: "UCX", "LIBFABRIC"
	Provider  string `json:"provider,omitempty"`     // as --provider names it: "efa", "ucx:tcp"
	Op        string `json:"op,omitempty"`           // "read": the decode engine reads; "write": the prefill engine writes
	Library   string `json:"library_path,omitempty"` // libfabric or UCX that the engines loaded
	// KVModel is the geometry whose bytes a transfer must have, as --model names it.
	KVModel string `json:"kv_model,omitempty"`
	// BatchTokens is how many tokens an engine computes at once; longer prompts are
	// computed in chunks.
	BatchTokens int `json:"max_batched_tokens,omitempty"`
	// PrefillHosts and DecodeHosts are the engines' hosts as their URLs name them; a
	// loopback address is the run's host.
	PrefillHosts []string `json:"prefill_hosts,omitempty"`
	DecodeHosts  []string `json:"decode_hosts,omitempty"`
}

// Cold holds the one-time costs of a transport, in ns; 0: none.
type Cold struct {
	Provider       string `json:"provider"`
	Condition      int    `json:"condition"` // whose first transfer it is
	OpenNs         int64  `json:"open_ns"`   // load the library and open endpoints
	RegisterNs     int64  `json:"register_ns"`
	RegisterBytes  uint64 `json:"register_bytes"`
	ConnectNs      int64  `json:"connect_ns"`
	FirstNs        int64  `json:"first_transfer_ns"`
	FirstBytes     uint64 `json:"first_transfer_bytes"`
	PeerOpenNs     int64  `json:"peer_open_ns"`
	PeerRegisterNs int64  `json:"peer_register_ns"`
	MemoryNs       int64  `json:"memory_ns"` // allocate and touch the buffer
	PeerMemoryNs   int64  `json:"peer_memory_ns"`
	FirstVerified  bool   `json:"first_verified"`
	FirstEAgain    uint64 `json:"first_eagain"`
	Simulated      bool   `json:"simulated,omitempty"`
}

// Phases of a sample.
const (
	PhaseCold    = "cold"    // the transport's first transfer
	PhaseWarmup  = "warmup"  // a condition's first transfer over a warm transport
	PhaseMeasure = "measure" // everything after, in blocks from 0
)

// Sample is one transfer. Times are ns; begin_ns counts from the run's start.
type Sample struct {
	Condition int    `json:"condition"`
	Launch    int    `json:"launch,omitempty"` // fresh processes; counts from 0
	Block     int    `json:"block"`
	Order     int    `json:"order"` // the condition's place within its block
	Iteration int    `json:"iteration"`
	Phase     string `json:"phase"`
	BeginNs   int64  `json:"begin_ns"`
	PostNs    int64  `json:"post_ns"`
	LocalNs   int64  `json:"local_ns"`
	TotalNs   int64  `json:"total_ns"`
	Bytes     uint64 `json:"bytes"`
	Ops       uint64 `json:"ops"`
	EAgain    uint64 `json:"eagain"`
	Polls     uint64 `json:"polls"`
	// Verified: the batch that this transfer was part of passed its data check
	// (made after the batch's last transfer). Absent when checks are off.
	Verified *bool `json:"verified,omitempty"`
	// CPU time of the batch divided by its transfers, by side.
	CPUNs     int64 `json:"cpu_ns"`
	PeerCPUNs int64 `json:"peer_cpu_ns"`
	// Simulated: not a measurement.
	Simulated bool `json:"simulated,omitempty"`
}

// Path is what the NICs counted while a condition's transfers ran, beside the
// payload that they moved.
type Path struct {
	Condition    int       `json:"condition"`
	Block        int       `json:"block"`
	Phase        string    `json:"phase"`
	PayloadBytes uint64    `json:"payload_bytes"`
	Counters     []Counter `json:"counters"`
	// Context switches of both sides' processes.
	Voluntary       int64 `json:"voluntary_switches"`
	Involuntary     int64 `json:"involuntary_switches"`
	PeerVoluntary   int64 `json:"peer_voluntary_switches"`
	PeerInvoluntary int64 `json:"peer_involuntary_switches"`
	// Simulated: counted by an emulated device.
	Simulated bool `json:"simulated,omitempty"`
}

// Counter is how far one counter moved: a file of hw_counters, or an
// interface's bytes in /proc/net/dev.
type Counter struct {
	Side   string `json:"side"`   // "initiator" or "target"
	Device string `json:"device"` // NIC
	Name   string `json:"name"`   // as the kernel names it
	Delta  uint64 `json:"delta"`
}

// Summary is one condition's figures; reports compute their own from samples and
// requests, and this line serves other readers. Times are of the transfer, or of
// the TTFT for an end-to-end condition. Rates are not stored: bytes over time.
// What is not known, or not measured by that kind of run, is absent.
type Summary struct {
	Condition int `json:"condition"`
	// N counts the samples or valid requests behind the figures, in Blocks blocks.
	N      int `json:"n"`
	Blocks int `json:"blocks"`
	// Bytes are those of a transfer; end to end, the median of what NIXL counted.
	Bytes uint64 `json:"bytes,omitempty"`
	// MedianNs is the median of block medians, MedianLoNs to MedianHiNs its 95 %
	// interval. The other figures are over all samples or requests.
	MedianNs   int64 `json:"median_ns,omitempty"`
	MedianLoNs int64 `json:"median_lo_ns,omitempty"`
	MedianHiNs int64 `json:"median_hi_ns,omitempty"`
	MinNs      int64 `json:"min_ns,omitempty"`
	MaxNs      int64 `json:"max_ns,omitempty"`
	P95Ns      int64 `json:"p95_ns,omitempty"` // with enough samples for it
	P99Ns      int64 `json:"p99_ns,omitempty"` // end to end only

	// Of raw transfers.
	PostNs      int64  `json:"post_median_ns,omitempty"`
	SumBytes    uint64 `json:"sum_bytes,omitempty"`
	SumTotalNs  int64  `json:"sum_total_ns,omitempty"`
	CPUNs       int64  `json:"sum_cpu_ns,omitempty"`
	PeerCPUNs   int64  `json:"sum_peer_cpu_ns,omitempty"`
	Failed      *int   `json:"failed_checks,omitempty"`
	SteadyState string `json:"steady_state,omitempty"`

	// Of requests: Invalid counts those that are in no figure, E2ENs and ITLNs are
	// medians of the time to the last token and of that between tokens.
	Invalid *int  `json:"invalid,omitempty"`
	E2ENs   int64 `json:"e2e_median_ns,omitempty"`
	ITLNs   int64 `json:"itl_median_ns,omitempty"`

	Simulated bool `json:"simulated,omitempty"`
}

// Comparison is the verdict on two conditions; see package stats. What is not
// known, such as an unbounded end of the interval, is nil and absent. Early
// records of schema 1 have the time of A over that of B, and 0 for what is not
// known; reading turns them around.
type Comparison struct {
	A           int      `json:"a"`
	B           int      `json:"b"`
	Verdict     string   `json:"verdict"` // different, no-difference, too-few, refused
	Ratio       *float64 `json:"time_b_over_time_a,omitempty"`
	RatioLo     *float64 `json:"time_b_over_time_a_lo,omitempty"`
	RatioHi     *float64 `json:"time_b_over_time_a_hi,omitempty"`
	P           *float64 `json:"p,omitempty"`
	PHolm       *float64 `json:"p_holm,omitempty"`
	N           int      `json:"n"`
	Detectable  *float64 `json:"detectable,omitempty"` // relative difference found with 80 % power
	Interleaved bool     `json:"interleaved"`
	Reason      string   `json:"reason,omitempty"`
}

// Levels of an Event.
const (
	Info    = "info"
	Warning = "warning"
	Fault   = "fault"
)

// Event is something that happened, at a time from the run's start.
type Event struct {
	TimeNs    int64  `json:"time_ns"`
	Level     string `json:"level"`
	Message   string `json:"message"`
	Condition *int   `json:"condition,omitempty"`
}

// How a run ended.
const (
	StatusOK          = "ok"
	StatusFailed      = "failed"
	StatusInterrupted = "interrupted"
)

// End is the last line. A record without it was cut off.
type End struct {
	Status    string `json:"status"`
	Error     string `json:"error,omitempty"`
	ExitCode  int    `json:"exit_code"`
	EndUnixNs int64  `json:"end_unix_ns"`
}

func (Run) lineType() string        { return "run" }
func (Condition) lineType() string  { return "condition" }
func (Cold) lineType() string       { return "cold" }
func (Sample) lineType() string     { return "sample" }
func (Path) lineType() string       { return "path" }
func (Summary) lineType() string    { return "summary" }
func (Comparison) lineType() string { return "comparison" }
func (Event) lineType() string      { return "event" }
func (End) lineType() string        { return "end" }
