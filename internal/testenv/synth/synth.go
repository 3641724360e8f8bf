// Package synth makes records for the tests of reports. Nothing in them was
// measured: the times are a formula and a seeded generator, the hosts are
// called synthetic, and every record says so in its environment.
package synth

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// Note stands in the environment of every record made here.
const Note = "synthetic: made by internal/testenv/synth, not measured"

const startNs = 1_767_225_600_000_000_000 // 2026-01-01 00:00:00 UTC

// Truth is the model behind a condition: time = (Alpha + bytes·PerByte +
// descriptors·PerDesc) × block effect × noise.
type Truth struct {
	AlphaNs, NsPerByte, NsPerDesc float64
	// Noise and Block are relative standard deviations of iterations and blocks.
	Noise, Block float64
	// Warm multiplies the first WarmN samples.
	Warm  float64
	WarmN int
	// Counted is the share of the payload that NIC counters see, 1.0x with headers.
	Counted float64
	// Corrupt is the number of samples whose check fails.
	Corrupt int
}

// Cell is a condition and its truth.
type Cell struct {
	record.Condition
	Truth Truth
}

// Spec is a record to make.
type Spec struct {
	Name          string
	Seed          uint64
	Kind          string
	Argv          []string
	Hosts         int
	Blocks, Iters int
	Cells         []Cell
	Launches      int
	Unchecked     bool
	Events        []record.Event
	End           *record.End // nil: the record is cut off
	Later         int64       // ns after the other records' start
}

func host(name string) record.Host {
	return record.Host{
		Hostname: name, OS: "Synthetic OS 1", Kernel: "0.0.0-synthetic", Arch: "amd64", CPUModel: "synthetic CPU", CPUs: 8,
		MemoryBytes: 64 << 30, NUMANodes: 1, Address: "192.0.2.1", Memlock: "unlimited",
		NICs: []record.NIC{{Name: "lo", Kind: "net", MTU: 65536, NUMA: -1}, {Name: "eth0", Kind: "net", LinkBits: 25e9, MTU: 9001}},
	}
}

// transports by provider, as the tool records them.
func transport(provider string, hosts int) record.Transport {
	nic := record.NIC{Name: "lo", NUMA: -1}
	if hosts > 1 {
		nic = record.NIC{Name: "eth0", LinkBits: 25e9, MTU: 9001}
	}
	t := record.Transport{Provider: provider, Devices: []record.NIC{nic}, Streams: 1, Rails: 1, Depth: 16, Poll: "yield"}
	switch provider {
	case "tcp":
		t.Provider, t.API, t.Library, t.Version, t.Fabric = "tcp", "libfabric", "/usr/lib/synthetic/libfabric.so.1", "1.17.0", "192.0.2.0/24"
		t.Landing = map[string]string{"read": "local-completion", "write": "remote-cq-count"}
		t.Protocol = map[string]string{"read": "RMA over stream sockets"}
	case "ucx:tcp":
		t.Provider, t.API, t.Library, t.Version = "ucx", "ucx", "/usr/lib/synthetic/libucp.so.0", "1.13.1"
		t.Landing = map[string]string{"read": "local-completion", "write": "flush"}
		t.Settings = map[string]string{"UCX_TLS": "tcp", "UCX_RNDV_THRESH": "inf", "UCX_MAX_RMA_RAILS": "2"}
		t.Depth = 64
	case "efa":
		t.API, t.Library, t.Version, t.Fabric = "libfabric", "/usr/lib/synthetic/libfabric.so.1", "2.1.0", "efa"
		t.Devices = []record.NIC{{Name: "synthetic_0-rdm", Firmware: "0.0.0.0", LinkBits: 100e9}}
		t.Landing = map[string]string{"read": "local-completion", "write": "remote-cq-count"}
		t.Emulated, t.Simulated = []string{"write"}, true
	case "socket":
		t.API = "socket"
		t.Landing = map[string]string{"read": "local-completion", "write": "target-ack"}
	case "memcpy":
		t.API, t.Devices = "memcpy", nil
		t.Landing = map[string]string{"read": "copy", "write": "copy"}
	}
	return t
}

// KV is the condition of a KV cache of Qwen2.5-7B in tokens or bytes.
func KV(provider, op string, shape kv.Shape, hosts int, asked int64) record.Condition {
	m, _ := kv.Preset(kv.DefaultModel)
	x, err := kv.New(kv.Request{Model: m, Bytes: asked, Shape: shape})
	if err != nil {
		panic(err) // the arguments are constants of this package's specs
	}
	t := transport(provider, hosts)
	return record.Condition{
		Provider: provider, API: t.API, Op: op, Memory: "host", PeerMem: "host", Shape: string(shape), Layout: "packed",
		Model: m.Name, TP: 1, Tokens: x.Tokens, Block: 16, Asked: uint64(asked), Bytes: uint64(x.Bytes), Descs: x.Count(), Ops: x.Count(),
		Landing: t.Landing[op], Transport: t, Ceiling: provider == "socket" || provider == "memcpy", Simulated: t.Simulated,
		Name: fmt.Sprintf("%s %s %s %d", provider, op, shape, x.Bytes),
	}
}

// Make returns the record as the bytes of its file.
func (s Spec) Make() ([]byte, error) {
	var b bytes.Buffer
	if err := s.Write(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Write writes the record line by line.
func (s Spec) Write(to io.Writer) error {
	w := record.NewWriter(to)
	var first error
	put := func(l record.Line) {
		if first == nil {
			first = w.Write(l)
		}
	}
	a, b := host("synthetic-a"), host("synthetic-b")
	run := record.Run{
		Schema: record.Schema, ID: s.Name, Kind: s.Kind, StartUnixNs: startNs + s.Later, ToolVersion: "0.1.0", ToolCommit: "synthetic",
		Argv: s.Argv, Seed: s.Seed, Host: a, Env: map[string]string{"XFERBENCH_NOTE": Note}, Launches: s.Launches,
		Design: &record.Design{Blocks: s.Blocks, MinBlocks: 6, Order: "random"},
	}
	if s.Hosts > 1 {
		run.Peer = &b
	} else {
		run.Peer = &a
	}
	put(run)
	for i := range s.Cells {
		s.Cells[i].ID = i
		put(s.Cells[i].Condition)
	}
	s.measure(put)
	for _, e := range s.Events {
		put(e)
	}
	if s.End != nil {
		end := *s.End
		end.EndUnixNs += s.Later
		put(end)
	}
	return first
}

func (s Spec) measure(put func(record.Line)) {
	rng := rand.New(rand.NewPCG(s.Seed, 0x5e17))
	yes, no := true, false
	now := int64(2e9)
	ran := make([]int, len(s.Cells))
	verdict := func(c Cell, n int) *bool {
		switch {
		case s.Unchecked:
			return nil
		case n < c.Truth.Corrupt:
			return &no
		}
		return &yes
	}
	first := map[string]bool{}
	for _, c := range s.Cells {
		if first[c.Provider] {
			continue
		}
		first[c.Provider] = true
		cold := int64(c.time(rng, 1) * 1.7)
		put(record.Cold{
			Provider: c.Provider, Condition: c.ID, OpenNs: 12_300_000, RegisterNs: int64(c.Bytes / 4), RegisterBytes: c.Bytes, ConnectNs: 2_100_000,
			FirstNs: cold, FirstBytes: c.Bytes, PeerOpenNs: 13_100_000, PeerRegisterNs: int64(c.Bytes / 4), MemoryNs: int64(c.Bytes / 3),
			PeerMemoryNs: int64(c.Bytes / 3), FirstVerified: !s.Unchecked, Simulated: c.Simulated,
		})
		put(record.Sample{
			Condition: c.ID, Phase: record.PhaseCold, BeginNs: now, PostNs: cold / 10, LocalNs: cold, TotalNs: cold, Bytes: c.Bytes,
			Ops: uint64(c.Ops), Verified: verdict(c, c.Truth.Corrupt), CPUNs: cold / 2, PeerCPUNs: cold / 3, Simulated: c.Simulated,
		})
		now += cold * 2
	}
	for n := range s.Blocks * max(1, s.Launches) {
		launch, b := n/s.Blocks, n%s.Blocks
		for place, i := range stats.Order(s.Seed+uint64(launch), b, len(s.Cells)) {
			c := s.Cells[i]
			effect := math.Exp(c.Truth.Block * rng.NormFloat64())
			for k := range s.Iters {
				t := int64(c.time(rng, effect))
				if ran[i] < c.Truth.WarmN {
					t = int64(float64(t) * c.Truth.Warm)
				}
				post := min(int64(1500+float64(c.Descs)*85*(1+0.05*rng.Float64())), t)
				put(record.Sample{
					Condition: i, Launch: launch, Block: b, Order: place, Iteration: k, Phase: record.PhaseMeasure, BeginNs: now, PostNs: post, LocalNs: t, TotalNs: t,
					Bytes: c.Bytes, Ops: uint64(c.Ops), EAgain: uint64(c.Descs / 700), Polls: uint64(t / 900), Verified: verdict(c, ran[i]),
					CPUNs: t * 6 / 10, PeerCPUNs: t * 5 / 10, Simulated: c.Simulated,
				})
				ran[i]++
				now += t + 50_000
			}
			if len(c.Transport.Devices) > 0 {
				put(s.path(c, b))
			}
			now += int64(c.Bytes / 8)
		}
	}
}

func (s Spec) path(c Cell, block int) record.Path {
	payload := c.Bytes * uint64(s.Iters)
	seen := uint64(float64(payload) * c.Truth.Counted)
	dev := c.Transport.Devices[0].Name
	return record.Path{
		Condition: c.ID, Block: block, Phase: record.PhaseMeasure, PayloadBytes: payload, Voluntary: int64(payload >> 20), Involuntary: 3, PeerVoluntary: int64(payload >> 19), PeerInvoluntary: 5,
		Counters: []record.Counter{
			{Side: "initiator", Device: dev, Name: "rx_bytes", Delta: seen},
			{Side: "initiator", Device: dev, Name: "tx_bytes", Delta: seen / 190},
			{Side: "initiator", Device: dev, Name: "rx_packets", Delta: seen / 8948},
			{Side: "target", Device: dev, Name: "tx_bytes", Delta: seen},
		},
	}
}

func (c Cell) time(rng *rand.Rand, effect float64) float64 {
	t := c.Truth.AlphaNs + float64(c.Bytes)*c.Truth.NsPerByte + float64(c.Descs)*c.Truth.NsPerDesc
	// Latencies are skewed: the noise only ever adds.
	return t * effect * (1 + c.Truth.Noise*math.Abs(rng.NormFloat64()))
}

// Files are the records in testdata/records, by file name.
func Files() (map[string][]byte, error) {
	out := map[string][]byte{}
	var err error
	for name, s := range Specs() {
		if out[name], err = s.Make(); err != nil {
			return nil, err
		}
	}
	if out["ttft.jsonl"], err = MakeTTFT("ttft", 21, 8, 3, 7648, 438_566_912); err != nil {
		return nil, err
	}
	return out, others(out)
}

const size = 438_000_000

// truths are those of most records, by provider.
var truths = map[string]Truth{
	"tcp":     {AlphaNs: 60_000, NsPerByte: 0.80, NsPerDesc: 900, Noise: 0.03, Block: 0.02, Counted: 1.0009},
	"ucx:tcp": {AlphaNs: 25_000, NsPerByte: 0.62, NsPerDesc: 2600, Noise: 0.03, Block: 0.02, Counted: 1.0009},
	"socket":  {AlphaNs: 20_000, NsPerByte: 0.43, Noise: 0.02, Block: 0.02, Counted: 1.0009},
	"memcpy":  {AlphaNs: 500, NsPerByte: 0.12, Noise: 0.02, Block: 0.01},
}

// argv measures what full returns.
var argv = []string{"xferbench", "--provider", "tcp,ucx:tcp", "--size", "438MB"}

// full are two transports in two shapes and both ceilings.
func full() []Cell {
	var cells []Cell
	for _, p := range []string{"tcp", "ucx:tcp"} {
		for _, sh := range []kv.Shape{kv.Merged, kv.Fragmented} {
			cells = append(cells, Cell{KV(p, "read", sh, 1, size), truths[p]})
		}
	}
	for _, p := range []string{"socket", "memcpy"} {
		cells = append(cells, Cell{KV(p, "read", kv.Merged, 1, size), truths[p]})
	}
	return cells
}

// Large is a record of n transfers in measured blocks: two transports in two shapes,
// 50 blocks. n is rounded down to whole blocks.
func Large(seed uint64, n int) Spec {
	s := Specs()["two-providers.jsonl"]
	s.Name, s.Seed, s.Cells, s.Blocks = fmt.Sprintf("large-%d", seed), seed, s.Cells[:4], 50
	s.Iters = max(1, n/(s.Blocks*len(s.Cells)))
	return s
}

// Specs are the raw records in testdata/records, by file name.
func Specs() map[string]Spec {
	ok := &record.End{Status: record.StatusOK, EndUnixNs: startNs + 30e9}
	out := map[string]Spec{}
	add := func(s Spec) { out[s.Name+".jsonl"] = s }

	add(Spec{Name: "two-providers", Seed: 7, Kind: "raw", Argv: argv, Hosts: 1, Blocks: 10, Iters: 4, Cells: full(), End: ok})

	slower := full()
	slower[0].Truth.NsPerByte *= 1.12
	slower[1].Truth.NsPerByte *= 1.02
	add(Spec{Name: "another-day", Seed: 8, Kind: "raw", Argv: argv, Hosts: 1, Blocks: 10, Iters: 4, Cells: slower, End: ok})

	short := full()[:3]
	short[0].Truth.Counted = 0.02 // a fallback to shared memory
	add(Spec{Name: "short", Seed: 9, Kind: "raw", Argv: argv, Hosts: 1, Blocks: 3, Iters: 2, Cells: short, Unchecked: true,
		Events: []record.Event{{TimeNs: 3e9, Level: record.Warning, Message: "2 CPUs: the pollers yield"}}})

	bad := full()
	bad[1].Truth.Corrupt = 3
	add(Spec{Name: "failed-check", Seed: 10, Kind: "raw", Argv: argv, Hosts: 1, Blocks: 6, Iters: 2, Cells: bad,
		End: &record.End{Status: record.StatusFailed, Error: "data check failed: tcp read fragmented, offset 4096", ExitCode: 4, EndUnixNs: startNs + 20e9}})

	efa := []Cell{{KV("efa", "read", kv.Merged, 1, size), truths["tcp"]}, {KV("efa", "write", kv.Merged, 1, size), truths["tcp"]}, {KV("socket", "read", kv.Merged, 1, size), truths["socket"]}}
	add(Spec{Name: "emulated", Seed: 11, Kind: "raw", Argv: []string{"xferbench", "--provider", "efa", "--op", "read,write", "--size", "438MB"}, Hosts: 1, Blocks: 6, Iters: 2, Cells: efa, End: ok})

	aa := []Cell{{KV("tcp", "read", kv.Merged, 2, 16_000_000), truths["tcp"]}, {KV("tcp", "read", kv.Merged, 2, 16_000_000), truths["tcp"]}}
	aa[1].Name += " again"
	aa[0].Truth.Warm, aa[0].Truth.WarmN = 1.8, 12
	add(Spec{Name: "same-twice", Seed: 12, Kind: "raw", Argv: []string{"xferbench", "--provider", "tcp,tcp", "--size", "16MB", "synthetic-b"}, Hosts: 2, Blocks: 10, Iters: 10, Cells: aa, End: ok})

	sizes := []int64{4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20}
	var cells []Cell
	for _, p := range []string{"tcp", "ucx:tcp", "socket"} {
		for _, n := range sizes {
			c := Cell{KV(p, "read", kv.Contiguous, 2, n), truths[p]}
			if p == "tcp" {
				c.Truth.AlphaNs, c.Truth.NsPerByte = 18_000, 0.80
			} else if p == "ucx:tcp" {
				c.Truth.AlphaNs, c.Truth.NsPerByte = 64_000, 0.62
			}
			cells = append(cells, c)
		}
	}
	slices.SortStableFunc(cells, func(a, b Cell) int { return int(int64(a.Bytes) - int64(b.Bytes)) })
	add(Spec{Name: "sweep", Seed: 13, Kind: "sweep", Argv: []string{"xferbench", "sweep", "--provider", "tcp,ucx:tcp", "--size", "4KiB:64MiB:x4", "--shape", "contiguous", "synthetic-b"}, Hosts: 2, Blocks: 10, Iters: 4, Cells: cells, End: ok})

	// ucx:tcp sends up to 32 KiB eagerly and has a rendezvous from there on, which
	// costs 57 µs to start: it wins below, loses at once, and wins again.
	cells = nil
	for _, n := range append([]int64{1 << 10}, sizes[:7]...) {
		a, b := Cell{KV("tcp", "read", kv.Contiguous, 2, n), truths["tcp"]}, Cell{KV("ucx:tcp", "read", kv.Contiguous, 2, n), truths["ucx:tcp"]}
		a.Truth.AlphaNs, a.Truth.NsPerByte = 18_000, 0.80
		b.Truth.AlphaNs, b.Truth.NsPerByte = 7_000, 0.70
		if n > 32<<10 {
			b.Truth.AlphaNs, b.Truth.NsPerByte = 64_000, 0.62
		}
		cells = append(cells, a, b)
	}
	add(Spec{Name: "switch", Seed: 16, Kind: "sweep", Argv: []string{"xferbench", "sweep", "--provider", "tcp,ucx:tcp", "--size", "1KiB:16MiB:x4", "--shape", "contiguous", "--no-ceiling", "synthetic-b"}, Hosts: 2, Blocks: 10, Iters: 2, Cells: cells, End: ok})

	cells = nil
	for _, n := range sizes[5:7] {
		for _, d := range []int{1, 64, 512, 4096} {
			c := Cell{KV("tcp", "read", kv.Contiguous, 2, n), truths["tcp"]}
			c.Descs, c.Ops = d, d
			c.Name += fmt.Sprintf(" %d descriptors", d)
			cells = append(cells, c)
		}
	}
	add(Spec{Name: "descriptors", Seed: 15, Kind: "sweep", Argv: []string{"xferbench", "sweep", "--provider", "tcp", "--size", "4MiB,16MiB", "--descriptors", "1,64,512,4096", "synthetic-b"}, Hosts: 2, Blocks: 8, Iters: 2, Cells: cells, End: ok})

	add(Spec{Name: "launches", Seed: 14, Kind: "raw", Argv: append(slices.Clone(argv), "--launches", "6"), Hosts: 1, Blocks: 2, Iters: 2, Launches: 6, Cells: full()[:4], End: ok})
	return out
}
