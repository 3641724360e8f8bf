// Package raw runs the tool's main job: transfers of a KV cache over one or
// more transports to a peer, recorded and summed up.
package raw

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/peer"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/transport"
)

// Options are what a raw run is asked for.
type Options struct {
	Peer         string // "" for a second process on this host
	SecretFile   string
	Program      string // xferbench on the ssh host
	PushBinary   bool
	SSHCommand   string // the shell's words that start ssh; "": ssh
	Providers    []string
	Ops          []string
	Sizes        []int64 // bytes; empty: Tokens
	Tokens       []int64
	Shapes       []string
	Layout       string
	BlockTokens  []int
	Descriptors  []int // contiguous bytes in this many pieces; not with Shapes
	Model, DType string
	TP           int
	Memory       string // host, host-huge, cuda[:N], cuda-host[:N]
	PeerMemory   string // "": as Memory
	Streams      []int  // 0: the provider's best
	Depth        []int
	Rails        int
	Chunk        int64
	Poll         string // auto, spin, yield
	Blocks       int
	MinBlocks    int
	Budget       time.Duration
	Iterations   int
	RoundRobin   bool
	UntilCI      float64 // relative half-width; 0: not used
	Launches     int
	Tune         bool // search for Streams, Depth and Chunk where they are 0
	Reuse        bool // see transport.Run.Reuse
	Seed         uint64
	NoVerify     bool
	NoCeiling    bool
	Kind         string // of the record: raw or sweep
	// Launch is set in the process of one launch; -1 elsewhere.
	Launch    int
	Timeout   time.Duration
	Bind      []string // local addresses, one a rail
	Libfabric string
	Libucp    string
	UCXConfig []string // KEY=VALUE
	Set       []string // KEY=VALUE, options of libfabric transports
	Argv      []string
	// Isolation is what the record says of this process's network; see
	// [Options.Isolable].
	Isolation string

	resumed *record.Record
	done    map[batchKey]bool
}

// ReuseFlag is the hidden flag that lays all operations of a lane over one
// piece of memory, as ucx_perftest and iperf3 do; make bench compares by it.
const ReuseFlag = "reuse"

// ErrUsage is matched by the errors of options that cannot be run.
var ErrUsage = errors.New("usage")

func usage(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrUsage, fmt.Errorf(format, args...))
}

// plan is what the options mean.
type plan struct {
	transports []transport.Config
	labels     []string // of the transports, unique
	specs      []transport.Spec
	memory     transport.MemoryRequest
	peerMemory transport.MemoryRequest
	where      where
}

// where is how the peer is reached; all zero for a child on this host.
type where struct {
	ssh     *peer.SSH
	address string
	secret  peer.Secret
}

func (o *Options) where() (w where, err error) {
	if o.Peer == "" {
		return w, nil
	}
	if strings.HasPrefix(o.Peer, "ssh://") {
		s, err := peer.ParseSSH(o.Peer)
		if err != nil {
			return w, usage("%w", err)
		}
		s.Program, s.Push, s.SSH = o.Program, o.PushBinary, o.SSHCommand
		return where{ssh: &s}, nil
	}
	var shared *peer.Secret
	if o.SecretFile != "" {
		f, err := peer.ReadSecret(o.SecretFile)
		if err != nil {
			return w, usage("--secret-file: %w", err)
		}
		shared = &f
	}
	if w.address, w.secret, err = peer.ParseLine(o.Peer, shared); err != nil {
		return w, usage("%w", err)
	}
	return w, nil
}

// describe is what condition i will be; the options have been validated.
func (p *plan) describe(i int) Cell {
	s := p.specs[i]
	c := Cell{Provider: p.labels[s.Transport], Op: s.Op.String()}
	if t, err := kv.New(s.KV); err == nil {
		c.Shape, c.Bytes, c.Block, c.Tokens = string(t.Shape), uint64(t.Bytes), t.BlockTokens, t.Tokens
		c.Descriptors = max(t.Count(), s.Pieces)
	}
	return c
}

// ceilings are the rows that every other is compared to: one copy in memory,
// and the kernel's TCP.
var ceilings = []string{"memcpy", "socket"}

// poll chooses how to wait: a spinning poller on each side needs cores of its
// own, and one more for everything else.
func poll(word string) (loop.Poll, error) {
	switch word {
	case "spin":
		return loop.Spin, nil
	case "yield":
		return loop.Yield, nil
	case "auto", "":
		if runtime.NumCPU() >= 4 {
			return loop.Spin, nil
		}
		return loop.Yield, nil
	}
	return 0, usage("--poll %q: want auto, spin or yield", word)
}

func memory(word string) (r transport.MemoryRequest, err error) {
	kind, dev, has := strings.Cut(word, ":")
	r.Kind = mem.Kind(kind)
	if !slices.Contains(mem.Kinds(), r.Kind) {
		return r, usage("--memory %q: want one of %v, the CUDA kinds with :N for device N", word, mem.Kinds())
	}
	if has {
		if r.Kind != mem.CUDA && r.Kind != mem.CUDAHost {
			return r, usage("--memory %q: only the CUDA kinds take a device", word)
		}
		if _, err := fmt.Sscanf(dev+"\n", "%d\n", &r.Device); err != nil || r.Device < 0 {
			return r, usage("--memory %q: %q is no device number", word, dev)
		}
	}
	return r, nil
}

// onDevice reports whether a --memory is of a GPU.
func onDevice(word string) bool {
	m, err := memory(word)
	return err == nil && m.Kind.OnDevice()
}

func keyValues(flag string, list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, kv := range list {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, usage("--%s %q: want KEY=VALUE", flag, kv)
		}
		out[strings.TrimPrefix(k, "UCX_")] = v
	}
	return out, nil
}

func (o *Options) plan() (*plan, error) {
	p := &plan{}
	var err error
	if p.memory, err = memory(o.Memory); err != nil {
		return nil, err
	}
	if o.PeerMemory == "" {
		o.PeerMemory = o.Memory
	}
	if p.peerMemory, err = memory(o.PeerMemory); err != nil {
		return nil, err
	}
	if p.where, err = o.where(); err != nil {
		return nil, err
	}
	pollMode, err := poll(o.Poll)
	if err != nil {
		return nil, err
	}
	ucx, err := keyValues("ucx-config", o.UCXConfig)
	if err != nil {
		return nil, err
	}
	set, err := keyValues("set", o.Set)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	var ops []loop.Op
	for _, w := range o.Ops {
		op, err := loop.ParseOp(w)
		if err != nil {
			return nil, usage("--op: %w", err)
		}
		// Named twice, as a size that is given twice, is one condition.
		if !slices.Contains(ops, op) {
			ops = append(ops, op)
		}
	}
	reqs, err := o.requests()
	if err != nil {
		return nil, err
	}
	device := -1
	if p.memory.Kind.OnDevice() {
		device = p.memory.Device
	}
	base := transport.Config{Bind: o.Bind, Ops: ops, Rails: o.Rails,
		Chunk: uint64(o.Chunk), Poll: pollMode, Timeout: o.Timeout, Device: device}
	count := map[string]int{}
	for _, name := range o.allProviders() {
		c := base
		var at string
		if c.Provider, at, _ = strings.Cut(name, "@"); at != "" {
			c.Bind = strings.Split(at, "+")
		}
		if slices.ContainsFunc(c.Bind, func(a string) bool { return net.ParseIP(a) == nil }) {
			return nil, usage("--provider %q: after @ want IP addresses of this host, joined by +", name)
		}
		switch api, _, _ := strings.Cut(c.Provider, ":"); api {
		case "ucx":
			// UCX_TLS is a list with commas; so is --provider.
			c.Provider = strings.ReplaceAll(c.Provider, "+", ",")
			c.Library, c.Options = o.Libucp, ucx
		case "socket", "memcpy":
		default:
			c.Library, c.Options = o.Libfabric, set
		}
		if err := transport.CheckConfig(c); err != nil {
			return nil, usage("--provider: %w", err)
		}
		added := !slices.Contains(o.Providers, name)
		if added {
			c.Ops, c.Rails = []loop.Op{loop.Read}, 0
		}
		label := name
		if count[name]++; count[name] > 1 {
			// The same provider twice is an A/A comparison.
			label = fmt.Sprintf("%s#%d", name, count[name])
		}
		for _, w := range widths(o, added) {
			c.Streams, c.Depth = w.streams, w.depth
			if err := transport.CheckConfig(c); err != nil {
				return nil, usage("%w", err)
			}
			if err := checkPieces(c, reqs); err != nil {
				return nil, err
			}
			p.labels = append(p.labels, label+w.suffix)
			p.specs = append(p.specs, specs(len(p.transports), c.Ops, reqs, added)...)
			p.transports = append(p.transports, c)
		}
	}
	return p, nil
}

// checkPieces reports a --chunk or --descriptors that cuts a transfer into more
// operations than a plan may have.
func checkPieces(c transport.Config, reqs []request) error {
	for _, q := range reqs {
		t, err := kv.New(q.kv)
		if err != nil {
			return usage("%w", err)
		}
		chunk := c.Chunk
		if n := uint64(max(q.pieces, 1)); chunk == 0 || uint64(t.Bytes)/n < chunk && n > 1 {
			chunk = uint64(t.Bytes) / n
		}
		if _, err := transport.CheckPlan(t, max(c.Streams, 1)*max(c.Rails, 1), chunk); err != nil {
			return usage("%w", err)
		}
	}
	return nil
}

// width is one combination of the factors that need endpoints of their own.
type width struct {
	streams, depth int
	suffix         string // tells its label from the others'
}

// widths crosses --streams with --depth; a ceiling that was added has one.
func widths(o *Options, added bool) []width {
	if added {
		return []width{{}}
	}
	var out []width
	for _, s := range o.Streams {
		for _, d := range o.Depth {
			w := width{streams: s, depth: d}
			if slices.ContainsFunc(out, func(o width) bool { return o.streams == s && o.depth == d }) {
				continue
			}
			if len(o.Streams) > 1 {
				w.suffix += fmt.Sprintf(" s=%d", s)
			}
			if len(o.Depth) > 1 {
				w.suffix += fmt.Sprintf(" d=%d", d)
			}
			out = append(out, w)
		}
	}
	return out
}

// allProviders are the ones asked for and, first, the ceilings.
func (o *Options) allProviders() []string {
	if o.NoCeiling {
		return o.Providers
	}
	var out []string
	for _, c := range ceilings {
		// The kernel's TCP cannot read or write device memory.
		device := c == "socket" && (onDevice(o.Memory) || onDevice(o.PeerMemory))
		if !device && !slices.Contains(o.Providers, c) {
			out = append(out, c)
		}
	}
	return append(out, o.Providers...)
}

// request is the bytes of a condition: a transfer, and into how many pieces a
// contiguous one is cut.
type request struct {
	kv     kv.Request
	pieces int
}

// specs are the conditions of one transport. A ceiling that nobody asked for
// runs each size once, in its best shape.
func specs(t int, ops []loop.Op, reqs []request, ceiling bool) []transport.Spec {
	var out []transport.Spec
	seen := map[int64]bool{}
	for _, op := range ops {
		for _, q := range reqs {
			if ceiling {
				k, err := kv.New(q.kv)
				if err != nil || seen[k.Bytes] {
					continue
				}
				seen[k.Bytes] = true
				q = request{kv: kv.Request{Model: q.kv.Model, Bytes: k.Bytes, Shape: kv.Contiguous, TensorParallel: q.kv.TensorParallel}}
			}
			out = append(out, transport.Spec{Transport: t, Op: op, KV: q.kv, Pieces: q.pieces, Ceiling: ceiling})
		}
	}
	return out
}

func (o *Options) requests() ([]request, error) {
	m, err := kv.Resolve(o.Model, o.DType)
	if err != nil {
		return nil, usage("--model: %w", err)
	}
	layout, err := kv.ParseLayout(o.Layout)
	if err != nil {
		return nil, usage("--kv-layout: %w", err)
	}
	shapes, err := kv.ParseShapes(strings.Join(o.Shapes, ","))
	if err != nil {
		return nil, usage("--shape: %w", err)
	}
	var out []request
	add := func(q kv.Request, pieces int) error {
		q.Model, q.TensorParallel, q.Seed = m, o.TP, o.Seed
		t, err := kv.New(q)
		if err != nil {
			return usage("%w", err)
		}
		if int64(pieces) > t.Bytes {
			return usage("--descriptors %d: more than the %d bytes", pieces, t.Bytes)
		}
		same := func(r request) bool {
			u, err := kv.New(r.kv)
			return err == nil && u.Bytes == t.Bytes && r.kv.Shape == q.Shape && u.BlockTokens == t.BlockTokens && r.pieces == pieces
		}
		if slices.ContainsFunc(out, same) {
			// Two sizes that round up to the same blocks are one condition.
			return nil
		}
		out = append(out, request{q, pieces})
		return nil
	}
	size := func(tokens, bytes int64) error {
		for _, n := range o.Descriptors {
			if err := add(kv.Request{Tokens: tokens, Bytes: bytes, Shape: kv.Contiguous}, n); err != nil {
				return err
			}
		}
		if len(o.Descriptors) > 0 {
			return nil
		}
		for _, b := range o.BlockTokens {
			for _, s := range shapes {
				if err := add(kv.Request{Tokens: tokens, Bytes: bytes, BlockTokens: b, Layout: layout, Shape: s}, 0); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for _, b := range o.Sizes {
		if err := size(0, b); err != nil {
			return nil, err
		}
	}
	for _, t := range o.Tokens {
		if err := size(t, 0); err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return nil, usage("no size: give --size or --tokens")
	}
	return out, nil
}

// Validate reports options that cannot be run, before anything is started.
func (o *Options) Validate() error {
	_, err := o.plan()
	return err
}

// Bounds of options, far above what a run can use.
const (
	maxBlocks      = 1 << 20
	maxDescriptors = 1 << 22
)

func (o *Options) check() error {
	for name, ns := range map[string][]int{"streams": o.Streams, "depth": o.Depth, "rails": {o.Rails}, "iterations": {o.Iterations}} {
		for _, n := range ns {
			if n < 0 || n > 1<<16 {
				return usage("--%s %d: want a number from 1 to 65536, or 0 for the provider's best", name, n)
			}
		}
	}
	for _, n := range o.Descriptors {
		if n < 1 || n > maxDescriptors {
			return usage("--descriptors %d: want 1 to %d", n, maxDescriptors)
		}
	}
	switch {
	case len(o.Providers) == 0:
		return usage("--provider: name at least one; xferbench providers lists what this host can run")
	case len(o.Ops) == 0:
		return usage("--op: name at least one of read, write, send")
	case o.Chunk < 0:
		return usage("--chunk %d: want 1 byte or more, or 0 for the provider's best", o.Chunk)
	case slices.ContainsFunc(o.Bind, func(a string) bool { return net.ParseIP(a) == nil }):
		return usage("--bind %s: want IP addresses of this host", strings.Join(o.Bind, ","))
	case o.Blocks < 1 || o.Blocks > maxBlocks:
		return usage("--blocks %d: want 1 to %d", o.Blocks, maxBlocks)
	case o.MinBlocks < 1 || o.MinBlocks > o.Blocks:
		return usage("--min-blocks %d: want 1 to --blocks (%d)", o.MinBlocks, o.Blocks)
	case o.Timeout < transport.MinTimeout || o.Timeout > transport.MaxTimeout:
		return usage("--timeout %v: want 100ms to 1h", o.Timeout)
	case o.Budget < 0:
		return usage("--budget %v: want 0 (no limit) or more", o.Budget)
	case o.Launches < 1 || o.Launches > 1000:
		return usage("--launches %d: want 1 to 1000", o.Launches)
	case o.UntilCI < 0 || o.UntilCI >= 1:
		return usage("--until-ci %v%%: want a percentage from 0%% (not used) to below 100%%", o.UntilCI*100)
	}
	if err := o.checkTune(); err != nil {
		return err
	}
	if o.Reuse && !o.NoVerify {
		return usage("--%s leaves nothing to check: give --no-verify too", ReuseFlag)
	}
	for _, p := range o.Providers {
		if p == "" || strings.ContainsAny(p, " \t\n#") {
			return usage("--provider: %q is no provider", p)
		}
	}
	return nil
}
