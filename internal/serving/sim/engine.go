package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/analysis/pool"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/transport"
)

// Engine is one simulated engine. It owns its memory and its [Mover].
type Engine struct {
	cfg    Config
	id     string // engine_id
	memory *mem.Buffer
	mover  Mover
	gpu    chan struct{} // computes Config.Parallel prompts at a time
	life   context.Context
	end    context.CancelFunc
	work   sync.WaitGroup // requests and lease timers

	bodyTime time.Duration // for tests; see the constant

	mu     sync.Mutex
	pool   *pool.Pool
	freed  chan struct{} // closed and replaced when blocks come free
	leases map[string]*lease
	cut    map[string]bool // requests whose transfer dies
	seq    map[Fault]int   // requests so far, for Injection.Every
	m      tally
}

// lease is what a prefill engine keeps for a decode engine.
type lease struct {
	blocks [][]int // by layer group
	hashed []int
	ranks  int // that have yet to read
	timer  *time.Timer
}

// NewEngine returns an engine over mover, which it closes with itself.
func NewEngine(cfg Config, mover Mover) (*Engine, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, errors.Join(err, mover.Close())
	}
	pool, err := pool.NewPool(cfg.Blocks, cfg.Order, cfg.Caching)
	if err != nil {
		return nil, errors.Join(err, mover.Close())
	}
	g := cfg.Geometry
	size := cfg.Blocks * g.blockBytes() * g.Regions
	if err := transport.Fits("", transport.MemoryRequest{Kind: mem.Host, Bytes: uint64(size)}); err != nil {
		return nil, errors.Join(fmt.Errorf("KV memory of the %s engine: %w", cfg.Role, err), mover.Close())
	}
	memory, err := mem.New(mem.Host, -1, size)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("KV memory of the %s engine: %w", cfg.Role, err), mover.Close())
	}
	e := &Engine{cfg: cfg, id: newID(), memory: memory, mover: mover, gpu: make(chan struct{}, cfg.Parallel), pool: pool,
		freed: make(chan struct{}), leases: map[string]*lease{}, cut: map[string]bool{}, seq: map[Fault]int{}, bodyTime: bodyTime}
	e.life, e.end = context.WithCancel(context.Background())
	e.m.init()
	if err := mover.Export(memory, Leases{Begin: e.leaseHeld, Cut: e.leaseCut, Done: e.release}); err != nil {
		e.end()
		return nil, errors.Join(err, mover.Close(), memory.Free())
	}
	return e, nil
}

// Config is the engine's configuration with its defaults filled in.
func (e *Engine) Config() Config { return e.cfg }

// Close cancels what runs, waits for it and frees the memory.
func (e *Engine) Close() error {
	e.end()
	e.mu.Lock()
	for id, l := range e.leases {
		l.timer.Stop()
		delete(e.leases, id)
	}
	e.mu.Unlock()
	err := e.mover.Close()
	e.work.Wait()
	if errors.Is(err, transport.ErrNotClosed) {
		return err // an endpoint may still write to the memory
	}
	return errors.Join(err, e.memory.Free())
}

// hits reports whether fault f hits this request, and counts the request.
func (e *Engine) hits(f Fault) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, in := range e.cfg.Faults {
		if in.Fault == f {
			e.seq[f]++
			return e.seq[f]%in.Every == 0
		}
	}
	return false
}

// alloc takes blocks for each layer group as soon as all are free.
func (e *Engine) alloc(ctx context.Context, sizes []int) ([][]int, error) {
	n := 0
	for _, k := range sizes {
		n += k
	}
	if n > e.cfg.Blocks-1 {
		return nil, fmt.Errorf("%d blocks are needed and the pool has %d", n, e.cfg.Blocks-1)
	}
	for {
		e.mu.Lock()
		blocks, err := e.pool.AllocGroups(sizes)
		freed := e.freed
		e.mu.Unlock()
		if err == nil {
			return blocks, nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (e *Engine) free(blocks [][]int, hashed []int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.freeLocked(blocks, hashed)
}

func (e *Engine) freeLocked(blocks [][]int, hashed []int) {
	e.pool.FreeGroups(blocks, hashed)
	close(e.freed)
	e.freed = make(chan struct{})
}

// keep puts blocks under a lease for a decode engine.
func (e *Engine) keep(request string, blocks [][]int, hashed []int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := &lease{blocks: blocks, hashed: hashed, ranks: e.cfg.Geometry.Ranks}
	l.timer = time.AfterFunc(e.cfg.Lease, func() { e.expire(request, l) })
	e.leases[request] = l
}

func (e *Engine) expire(request string, l *lease) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.leases[request] != l {
		return
	}
	delete(e.leases, request)
	e.m.expired++
	e.freeLocked(l.blocks, l.hashed)
}

// expireNow ends a lease as if its time were over.
func (e *Engine) expireNow(request string) {
	e.mu.Lock()
	l := e.leases[request]
	e.mu.Unlock()
	if l != nil && l.timer.Stop() {
		e.expire(request, l)
	}
}

func (e *Engine) leaseHeld(request string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.leases[request] == nil {
		return ErrLease
	}
	return nil
}

func (e *Engine) leaseCut(request string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cut[request]
}

// release ends a lease whose blocks all ranks have read.
func (e *Engine) release(request string, m Moved) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cfg.Push {
		e.m.moved(m)
	}
	l := e.leases[request]
	if l == nil {
		return
	}
	if l.ranks--; l.ranks > 0 {
		return
	}
	l.timer.Stop()
	delete(e.leases, request)
	e.freeLocked(l.blocks, l.hashed)
}

// regionBytes is the length of one region in a pool of blocks.
func (g Geometry) regionBytes(blocks int) int { return blocks * g.blockBytes() }

// held are the blocks of a request by layer group, with how many of its first ones each
// group does not hold.
type held struct {
	groups  [][]int
	skipped []int
}

// each calls f with every block of every region: its place in memory, and the stamp
// that a prompt's cache has there.
func (e *Engine) each(prompt uint64, h held, f func(at int, stamp uint64) error) error {
	g := e.cfg.Geometry
	for r := range g.Regions {
		for k, blocks := range h.groups {
			for i, blk := range blocks {
				at := r*g.regionBytes(e.cfg.Blocks) + blk*g.blockBytes()
				if err := f(at, stamp(prompt, k, h.skipped[k]+i, r)); err != nil {
					return fmt.Errorf("KV block %d of layer group %d in region %d %w", h.skipped[k]+i, k+1, r, err)
				}
			}
		}
	}
	return nil
}

// write puts the KV cache of a prompt into blocks: a stamp at the start of each
// block of each region, which depends on the prompt, the layer group, the block's
// place in the prompt and the region.
func (e *Engine) write(prompt uint64, h held) {
	b := e.memory.Bytes()
	_ = e.each(prompt, h, func(at int, stamp uint64) error { // which never fails
		binary.LittleEndian.PutUint64(b[at:], stamp)
		return nil
	})
}

// check reports whether blocks hold the KV cache of a prompt.
func (e *Engine) check(prompt uint64, h held) error {
	b := e.memory.Bytes()
	return e.each(prompt, h, func(at int, stamp uint64) error {
		if got := binary.LittleEndian.Uint64(b[at:]); got != stamp {
			return fmt.Errorf("holds %016x and not %016x", got, stamp)
		}
		return nil
	})
}

// poison makes old content of blocks unusable, so that a transfer that did not
// take place cannot look like one that did.
func (e *Engine) poison(h held) {
	b := e.memory.Bytes()
	_ = e.each(0, h, func(at int, _ uint64) error { // which never fails
		binary.LittleEndian.PutUint64(b[at:], 0xdead_dead_dead_dead)
		return nil
	})
}

func stamp(prompt uint64, group, block, region int) uint64 {
	x := prompt + uint64(block)*0x9e3779b97f4a7c15 + uint64(region)*0xbf58476d1ce4e5b9 + uint64(group)*0xd6e8feb86659fd93
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// promptHash identifies a prompt.
func promptHash(ids []int32, text string) uint64 {
	h := fnv.New64a()
	var b [4]byte
	for _, id := range ids {
		binary.LittleEndian.PutUint32(b[:], uint32(id))
		_, _ = h.Write(b[:]) // a hash takes everything
	}
	_, _ = h.Write([]byte(text))
	return h.Sum64()
}

// list merges the blocks of a rank's transfer as NIXL does.
func (g Geometry) list(rank int, local, remote []int, localBlocks, remoteBlocks int) transport.List {
	n := g.Regions / max(g.Ranks, 1)
	l := transport.List{Regions: n, LocalStride: uint64(g.regionBytes(localBlocks)), RemoteStride: uint64(g.regionBytes(remoteBlocks))}
	// A rank's regions follow those of the one before.
	localAt, remoteAt := uint64(rank*n)*l.LocalStride, uint64(rank*n)*l.RemoteStride
	for _, run := range pool.Runs(local, remote) {
		l.Pieces = append(l.Pieces, kv.Desc{Local: localAt + uint64(run.Local*g.blockBytes()), Remote: remoteAt + uint64(run.Remote*g.blockBytes()), Len: uint64(run.Blocks * g.blockBytes())})
	}
	return l
}
