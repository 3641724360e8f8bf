// Package raw is the workload of raw transfers: a KV cache moved over one or more
// transports between this side and a peer.
package raw

import (
	"fmt"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/peer"
	"github.com/xferbench/xferbench/internal/schedule"
	"github.com/xferbench/xferbench/internal/spec"
	"github.com/xferbench/xferbench/internal/transport"
	"github.com/xferbench/xferbench/internal/units"
)

// Plan is what a spec means for transfers: the transports to open and the
// conditions to measure over them, in the order of their IDs.
type Plan struct {
	spec       *spec.Spec
	transports []transport.Config
	labels     []string // of the transports, unique
	cells      []cell
	memories   []memories
	over       []int // of the transports: the index of their memories
	where      where
}

// cell is one condition.
type cell struct {
	transport int // indexes Plan.transports
	move      transport.Move
	ceiling   bool // others are compared to it
}

// where is how the peer is reached; all zero for a child on this host.
type where struct {
	ssh     *peer.SSH
	address string
	secret  peer.Secret
}

// NewPlan is the plan of a completed spec of workload raw or sweep. Its errors are
// of kind Usage: nothing was started.
func NewPlan(s *spec.Spec) (*Plan, error) {
	p := &Plan{spec: s}
	if err := check(s); err != nil {
		return nil, err
	}
	var err error
	r := s.Raw
	if p.memories, err = combine(r); err != nil {
		return nil, err
	}
	if p.where, err = reach(s.Hosts); err != nil {
		return nil, err
	}
	var ops []loop.Op
	for _, w := range r.Op {
		op, err := loop.ParseOp(w)
		if err != nil {
			return nil, fault.Usagef("--op: %w", err)
		}
		// Named twice, as a size that is given twice, is one condition.
		if !slices.Contains(ops, op) {
			ops = append(ops, op)
		}
	}
	moves, err := moves(s)
	if err != nil {
		return nil, err
	}
	return p, p.cross(ops, moves)
}

// cross makes a transport of each provider and each combination of the factors
// that need endpoints of their own, and its conditions.
func (p *Plan) cross(ops []loop.Op, moves []transport.Move) error {
	count := map[string]int{}
	for _, name := range p.providers() {
		count[name]++
		label := name
		if count[name] > 1 {
			// The same provider twice is an A/A comparison.
			label = fmt.Sprintf("%s#%d", name, count[name])
		}
		base, err := p.config(name, ops)
		if err != nil {
			return err
		}
		added := !slices.Contains(p.spec.Raw.Provider, name)
		for _, v := range p.variants(base, added) {
			if err := transport.CheckConfig(v.config); err != nil {
				return fault.Usagef("%w", err)
			}
			if err := checkPieces(v.config, moves); err != nil {
				return err
			}
			p.labels = append(p.labels, label+v.suffix)
			p.over = append(p.over, v.memories)
			p.cells = append(p.cells, cells(len(p.transports), v.config.Ops, moves, added)...)
			p.transports = append(p.transports, v.config)
		}
	}
	return nil
}

// config is the transport of a provider without its factors.
func (p *Plan) config(name string, ops []loop.Op) (transport.Config, error) {
	c := transport.Config{Bind: p.spec.Hosts.Bind, Ops: ops, Timeout: p.spec.Raw.Timeout, Device: -1}
	var at string
	if c.Provider, at, _ = strings.Cut(name, "@"); at != "" {
		c.Bind = strings.Split(at, "+")
	}
	if slices.ContainsFunc(c.Bind, func(a string) bool { return net.ParseIP(a) == nil }) {
		return c, fault.Usagef("--provider %q: after @ want IP addresses of this host, joined by +", name)
	}
	if strings.HasPrefix(c.Provider, "ucx:") {
		// UCX_TLS is a list with commas; so is --provider.
		c.Provider = strings.ReplaceAll(c.Provider, "+", ",")
	}
	if err := transport.CheckConfig(c); err != nil {
		return c, fault.Usagef("--provider: %w", err)
	}
	return c, nil
}

// variants cross the factors of a transport. A ceiling that nobody asked for has
// one for each combination of memories that it can move.
func (p *Plan) variants(base transport.Config, added bool) (out []variant) {
	if added {
		base.Ops = []loop.Op{loop.Read}
	}
	for i, m := range p.memories {
		v := variant{config: base, memories: i}
		if added && base.Provider == "socket" && (m.local.Kind.OnDevice() || m.peer.Kind.OnDevice()) {
			continue // the kernel's TCP cannot read or write device memory
		}
		if m.local.Kind.OnDevice() {
			v.config.Device = m.local.Device
		}
		if len(p.memories) > 1 {
			v.suffix = " m=" + m.word
		}
		out = append(out, v)
	}
	for _, f := range factors(p.spec.Raw) {
		if f.of(base.Provider) && (!added || f.always) {
			out = vary(out, f, added)
		}
	}
	return out
}

// variant is one combination of a transport's factors.
type variant struct {
	config   transport.Config
	memories int    // index of Plan.memories
	suffix   string // tells its label from the others'
}

// factor is a setting of transports that a spec may give several values.
type factor struct {
	values []string // as the label has them
	name   string   // in the label, "s" of "s=4"
	of     func(provider string) bool
	set    func(c *transport.Config, i int)
	always bool // also of a ceiling that nobody asked for, with its first value
}

// vary crosses variants with a factor; the values that are there twice count once.
func vary(in []variant, f factor, first bool) (out []variant) {
	distinct := slices.Compact(slices.Sorted(slices.Values(f.values)))
	for _, v := range in {
		for i, word := range f.values {
			if slices.Index(f.values, word) != i || first && i > 0 {
				continue
			}
			n := v
			n.config.Options = maps.Clone(v.config.Options)
			f.set(&n.config, i)
			if len(distinct) > 1 && !first {
				n.suffix += fmt.Sprintf(" %s=%s", f.name, word)
			}
			out = append(out, n)
		}
	}
	return out
}

// factors are those of a transport, in the order of the label. One that was left
// to the provider has no value.
func factors(r *spec.RawWorkload) []factor {
	every := func(string) bool { return true }
	fabric := func(p string) bool { return api(p) == "libfabric" }
	ucx := func(p string) bool { return api(p) == "ucx" }
	numbers := func(name string, list []int, set func(*transport.Config, int)) factor {
		f := factor{name: name, of: every, set: func(c *transport.Config, i int) { set(c, list[i]) }}
		for _, n := range list {
			f.values = append(f.values, fmt.Sprint(n))
		}
		return f
	}
	chunks := factor{name: "c", of: every, set: func(c *transport.Config, i int) { c.Chunk = uint64(r.Chunk[i]) }}
	for _, n := range r.Chunk {
		chunks.values = append(chunks.values, units.CompactBytes(n))
	}
	out := []factor{
		numbers("s", r.Streams, func(c *transport.Config, n int) { c.Streams = n }),
		numbers("d", r.Depth, func(c *transport.Config, n int) { c.Depth = n }),
		chunks,
		numbers("r", r.Rails, func(c *transport.Config, n int) { c.Rails = n }),
		{name: "poll", values: r.Poll, of: every, always: true, set: func(c *transport.Config, i int) { c.Poll = polls[r.Poll[i]]() }},
		{name: "lib", values: r.Libfabric, of: fabric, set: func(c *transport.Config, i int) { c.Library = r.Libfabric[i] }},
		{name: "lib", values: r.Libucp, of: ucx, set: func(c *transport.Config, i int) { c.Library = r.Libucp[i] }},
	}
	settings := func(of func(string) bool, s spec.Settings, key func(string) string) {
		for _, k := range slices.Sorted(maps.Keys(s)) {
			out = append(out, factor{name: k, values: s[k], of: of, set: func(c *transport.Config, i int) {
				if c.Options == nil {
					c.Options = map[string]string{}
				}
				c.Options[key(k)] = s[k][i]
			}})
		}
	}
	settings(ucx, r.UCXConfig, func(k string) string { return strings.TrimPrefix(k, "UCX_") })
	settings(fabric, r.Set, func(k string) string { return k })
	for i := range out {
		if len(out[i].values) == 0 {
			out[i].of = func(string) bool { return false }
		}
	}
	return out
}

// api is the library of a provider.
func api(provider string) string {
	switch name, _, _ := strings.Cut(provider, ":"); name {
	case "ucx", "socket", "memcpy":
		return name
	}
	return "libfabric"
}

// polls choose how to wait: a spinning poller on each side needs cores of its own,
// and one more for everything else.
var polls = map[string]func() loop.Poll{
	"spin":  func() loop.Poll { return loop.Spin },
	"yield": func() loop.Poll { return loop.Yield },
	"auto": func() loop.Poll {
		if runtime.NumCPU() >= 4 {
			return loop.Spin
		}
		return loop.Yield
	},
}

// ceilings are the rows that every other is compared to: one copy in memory,
// and the kernel's TCP.
var ceilings = []string{"memcpy", "socket"}

// providers are the ones asked for and, first, the ceilings.
func (p *Plan) providers() []string {
	r := p.spec.Raw
	if r.NoCeiling {
		return r.Provider
	}
	var out []string
	for _, c := range ceilings {
		if !slices.Contains(r.Provider, c) {
			out = append(out, c)
		}
	}
	return append(out, r.Provider...)
}

// cells are the conditions of one transport. A ceiling that nobody asked for
// runs each size once, in its best shape.
func cells(t int, ops []loop.Op, moves []transport.Move, ceiling bool) (out []cell) {
	seen := map[int64]bool{}
	for _, op := range ops {
		for _, m := range moves {
			if ceiling {
				k, err := kv.New(m.KV)
				if err != nil || seen[k.Bytes] {
					continue
				}
				seen[k.Bytes] = true
				m.KV = kv.Request{Model: m.KV.Model, Bytes: k.Bytes, Shape: kv.Contiguous, TensorParallel: m.KV.TensorParallel}
				m.Pieces = 0
			}
			m.Op = op
			out = append(out, cell{transport: t, move: m, ceiling: ceiling})
		}
	}
	return out
}

// checkPieces reports a --chunk or --descriptors that cuts a transfer into more
// operations than a plan may have.
func checkPieces(c transport.Config, moves []transport.Move) error {
	for _, m := range moves {
		t, err := kv.New(m.KV)
		if err != nil {
			return fault.Usagef("%w", err)
		}
		chunk := c.Chunk
		if n := uint64(max(m.Pieces, 1)); chunk == 0 || uint64(t.Bytes)/n < chunk && n > 1 {
			chunk = uint64(t.Bytes) / n
		}
		if _, err := transport.CheckPlan(t, max(c.Streams, 1)*max(c.Rails, 1), chunk); err != nil {
			return fault.Usagef("%w", err)
		}
	}
	return nil
}

// moves are the bytes to transfer and how they are cut, without their operation.
func moves(s *spec.Spec) (out []transport.Move, err error) {
	r := s.Raw
	m, err := kv.Resolve(r.Model, r.DType)
	if err != nil {
		return nil, fault.Usagef("--model: %w", err)
	}
	cuts, err := cuts(r)
	if err != nil {
		return nil, err
	}
	for _, size := range sizes(r) {
		for _, move := range cuts {
			q := &move.KV
			q.Bytes, q.Tokens = size.Bytes, size.Tokens
			q.Model, q.TensorParallel, q.Seed = m, r.TensorParallel, *s.Seed
			t, err := kv.New(*q)
			if err != nil {
				return nil, fault.Usagef("%w", err)
			}
			if int64(move.Pieces) > t.Bytes {
				return nil, fault.Usagef("--descriptors %d: more than the %d bytes", move.Pieces, t.Bytes)
			}
			// Two sizes that round up to the same KV blocks are one condition.
			if !slices.ContainsFunc(out, func(o transport.Move) bool { return coincide(o, move) }) {
				out = append(out, move)
			}
		}
	}
	if len(out) == 0 {
		return nil, fault.Usagef("no size: give --size or --tokens")
	}
	return out, nil
}

// coincide reports whether two moves of one model are the same transfer.
func coincide(a, b transport.Move) bool {
	t, err := kv.New(a.KV)
	if err != nil {
		return false
	}
	u, err := kv.New(b.KV)
	return err == nil && t.Bytes == u.Bytes && t.BlockTokens == u.BlockTokens && a.KV.Shape == b.KV.Shape && a.Pieces == b.Pieces
}

// sizes are those that a spec names, in its order.
func sizes(r *spec.RawWorkload) (out []kv.Request) {
	for _, b := range r.Size {
		out = append(out, kv.Request{Bytes: b})
	}
	for _, t := range r.Tokens {
		out = append(out, kv.Request{Tokens: t})
	}
	return out
}

// cuts are the ways in which the bytes of each size are cut into descriptors.
func cuts(r *spec.RawWorkload) (out []transport.Move, err error) {
	layout, err := kv.ParseLayout(r.KVLayout)
	if err != nil {
		return nil, fault.Usagef("--kv-layout: %w", err)
	}
	shapes, err := kv.ParseShapes(strings.Join(r.Shape, ","))
	if err != nil {
		return nil, fault.Usagef("--shape: %w", err)
	}
	for _, n := range r.Descriptors {
		out = append(out, transport.Move{KV: kv.Request{Shape: kv.Contiguous}, Pieces: n, Reuse: r.Reuse})
	}
	if len(out) > 0 {
		return out, nil
	}
	for _, b := range r.BlockTokens {
		for _, sh := range shapes {
			out = append(out, transport.Move{KV: kv.Request{BlockTokens: b, Layout: layout, Shape: sh}, Reuse: r.Reuse})
		}
	}
	return out, nil
}

// Cell is what tells one condition from another before it is run.
type Cell struct {
	Provider, Op, Shape string
	Bytes               uint64
	Block               int // tokens per KV block
	Tokens              int64
	Descriptors         int
}

// Cells are the conditions, in their order.
func (p *Plan) Cells() []Cell {
	out := make([]Cell, len(p.cells))
	for i, c := range p.cells {
		out[i] = Cell{Provider: p.labels[c.transport], Op: c.move.Op.String()}
		if t, err := kv.New(c.move.KV); err == nil { // it was made before
			out[i].Shape, out[i].Bytes, out[i].Block, out[i].Tokens = string(t.Shape), uint64(t.Bytes), t.BlockTokens, t.Tokens
			out[i].Descriptors = max(t.Count(), c.move.Pieces)
		}
	}
	return out
}

func reach(h spec.Hosts) (w where, err error) {
	if h.Peer == "" {
		return w, nil
	}
	if strings.HasPrefix(h.Peer, "ssh://") {
		s, err := peer.ParseSSH(h.Peer)
		if err != nil {
			return w, fault.Usagef("%w", err)
		}
		s.Program, s.Push, s.SSH = h.PeerProgram, h.PushBinary, h.SSHCommand
		return where{ssh: &s}, nil
	}
	var shared *peer.Secret
	if h.SecretFile != "" {
		f, err := peer.ReadSecret(h.SecretFile)
		if err != nil {
			return w, fault.Usagef("--secret-file: %w", err)
		}
		shared = &f
	}
	if w.address, w.secret, err = peer.ParseLine(h.Peer, shared); err != nil {
		return w, fault.Usagef("%w", err)
	}
	return w, nil
}

// Bounds of a spec, far above what a run can use.
const (
	maxBlocks      = 1 << 20
	maxDescriptors = 1 << 22
)

// check holds a spec to what can be run.
func check(s *spec.Spec) error {
	if err := checkNumbers(s); err != nil {
		return err
	}
	if err := checkWords(s); err != nil {
		return err
	}
	if err := checkDesign(s.Design); err != nil {
		return err
	}
	r := s.Raw
	switch {
	case r.Timeout < transport.MinTimeout || r.Timeout > transport.MaxTimeout:
		return fault.Usagef("--timeout %v: want 100ms to 1h", r.Timeout)
	case r.Reuse && !r.NoVerify:
		return fault.Usagef("--reuse leaves nothing to check: give --no-verify too")
	case r.Tune && max(len(r.Streams), len(r.Depth), len(r.Chunk)) > 1:
		return fault.Usagef("--tune chooses --streams, --depth and --chunk: give one number for what is to stay")
	case r.Tune && s.Design.Launches > 1:
		return fault.Usagef("--tune does not go with --launches: tune once, then give the flags that it names")
	}
	return nil
}

func checkNumbers(s *spec.Spec) error {
	r := s.Raw
	for name, ns := range map[string][]int{"streams": r.Streams, "depth": r.Depth, "rails": r.Rails, "iterations": {s.Design.Iterations}} {
		for _, n := range ns {
			if n < 0 || n > 1<<16 {
				return fault.Usagef("--%s %d: want a number from 1 to 65536, or 0 for the provider's best", name, n)
			}
		}
	}
	for _, n := range r.Descriptors {
		if n < 1 || n > maxDescriptors {
			return fault.Usagef("--descriptors %d: want 1 to %d", n, maxDescriptors)
		}
	}
	return nil
}

// checkWords reports what has no value, and words that are none of those known.
func checkWords(s *spec.Spec) error {
	r := s.Raw
	switch {
	case len(r.Provider) == 0:
		return fault.Usagef("--provider: name at least one; xferbench providers lists what this host can run")
	case len(r.Op) == 0:
		return fault.Usagef("--op: name at least one of read, write, send")
	case len(r.Poll) == 0:
		return fault.Usagef("--poll: want auto, spin or yield")
	case len(r.Memory) == 0:
		return fault.Usagef("--memory: name at least one of %v", mem.Kinds())
	case len(r.Libfabric) > 1 || len(r.Libucp) > 1:
		return fault.Usagef("--libfabric, --libucp: a process loads one build of a library: give one, and compare two records (xferbench compare A B)")
	case slices.ContainsFunc(s.Hosts.Bind, func(a string) bool { return net.ParseIP(a) == nil }):
		return fault.Usagef("--bind %s: want IP addresses of this host", strings.Join(s.Hosts.Bind, ","))
	}
	for _, p := range r.Provider {
		if p == "" || strings.ContainsAny(p, " \t\n#") {
			return fault.Usagef("--provider: %q is not a provider", p)
		}
	}
	for _, w := range r.Poll {
		if polls[w] == nil {
			return fault.Usagef("--poll %q: want auto, spin or yield", w)
		}
	}
	for _, settings := range []spec.Settings{r.Set, r.UCXConfig} {
		for k, v := range settings {
			if k == "" || len(v) == 0 {
				return fault.Usagef("setting %q: it needs a name and a value", k)
			}
		}
	}
	return nil
}

func checkDesign(d spec.Design) error {
	switch {
	case *d.Blocks < 1 || *d.Blocks > maxBlocks:
		return fault.Usagef("--blocks %d: want 1 to %d", *d.Blocks, maxBlocks)
	case d.Budget < 0:
		return fault.Usagef("--budget %v: want 0 (no limit) or more", d.Budget)
	}
	return schedule.CheckDesign(d)
}
