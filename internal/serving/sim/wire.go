package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/peer"
	"github.com/xferbench/xferbench/internal/transport"
)

// Wire is a [Mover] over links of package transport: kernel TCP ("socket") or any
// provider of libfabric or UCX. The decode engine reads, as vLLM's NixlConnector does.
//
// An engine that exports is a server of package peer whose one session all others
// join. A pull lays its descriptors out over a link, reads once and drops the plan; the
// plan's name is the request's id. Links are used for one pull at a time and kept for
// the next one.
type Wire struct {
	provider string
	secret   peer.Secret
	listener net.Listener
	life     context.Context
	end      context.CancelFunc
	serving  chan error        // how the server ended; nil: nothing is exported
	side     *transport.Served // what is exported

	mu     sync.Mutex
	idle   map[Remote][]*wireLink // by where they lead to
	slots  map[Remote]chan struct{}
	closed bool
	fault  error // of what peers had open
}

const (
	// wireTimeout bounds a pull, and for how long a peer may be silent.
	wireTimeout = 30 * time.Second
	// maxLinks bounds the pulls at a time from one peer, whose server has room for
	// those of a few engines.
	maxLinks = 16
)

// NewWire listens on host, an IP address of this host, for peers that use the
// same provider. The provider is opened when the first transfer needs it.
func NewWire(provider, host string) (*Wire, error) {
	if err := transport.CheckConfig(transport.Config{Provider: provider}); err != nil {
		return nil, fmt.Errorf("transport %w", err)
	}
	secret, err := peer.NewSecret()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("KV memory server: %w", err)
	}
	w := &Wire{provider: provider, secret: secret, listener: l, idle: map[Remote][]*wireLink{}, slots: map[Remote]chan struct{}{}}
	w.life, w.end = context.WithCancel(context.Background())
	return w, nil
}

// Export implements [Mover].
func (w *Wire) Export(memory *mem.Buffer, leases Leases) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return net.ErrClosed
	}
	w.side = &transport.Served{Side: &transport.Side{}}
	if err := w.side.Lend(0, memory); err != nil {
		return err
	}
	s := &peer.Server{Secret: w.secret, Shared: true, Side: func() peer.Side {
		return &export{Served: w.side.Join(), w: w, leases: leases, pulls: map[int]exported{}}
	}}
	w.serving = make(chan error, 1)
	go func() { w.serving <- s.Serve(w.life, w.listener) }()
	return nil
}

// Address implements [Mover].
func (w *Wire) Address() Remote {
	a := w.listener.Addr().(*net.TCPAddr)
	return Remote{Host: a.IP.String(), Port: a.Port, Token: w.secret.String()}
}

// export is one peer's way to the exported memory: it may read what is under a lease.
type export struct {
	*transport.Served
	w      *Wire
	leases Leases
	pulls  map[int]exported // by plan
}

type exported struct {
	request  string
	endpoint int
	moved    Moved // but for the time
	begin    time.Time
}

func refuse(what string) error { return fmt.Errorf("%w: %s", transport.ErrRefused, what) }

// Memory gives a peer no memory.
func (e *export) Memory(context.Context, transport.MemoryRequest) (transport.MemoryReply, error) {
	return transport.MemoryReply{}, refuse("a simulated engine's memory is its own")
}

// Open opens an endpoint that can be read from.
func (e *export) Open(ctx context.Context, r transport.OpenRequest) (transport.OpenReply, error) {
	r.Config.Ops = []loop.Op{loop.Read}
	return e.Served.Open(ctx, r)
}

// Plan lays out a pull of blocks that are still there.
func (e *export) Plan(ctx context.Context, r transport.PlanRequest) (transport.PlanReply, error) {
	if r.List == nil || r.Op != loop.Read {
		return transport.PlanReply{}, refuse("a simulated engine's memory is read, by a list")
	}
	if err := e.leases.Begin(r.Name); err != nil {
		return transport.PlanReply{}, fmt.Errorf("%w: %w", transport.ErrGone, err)
	}
	rep, err := e.Served.Plan(ctx, r)
	if err == nil {
		x := exported{request: r.Name, endpoint: r.Endpoint, begin: time.Now()}
		x.moved.Descriptors = r.List.Count()
		for d := range r.List.Descs() {
			x.moved.Bytes += int64(d.Len)
		}
		e.pulls[r.Plan] = x
	}
	return rep, err
}

// Arm readies the endpoint, or plays the engine that dies: its endpoint is gone before
// the peer begins, which would wait for one in vain over some providers, and is told.
func (e *export) Arm(ctx context.Context, r transport.ArmRequest) (transport.UsageReply, error) {
	if p, has := e.pulls[r.Plan]; has && e.leases.Cut(p.request) {
		_, err := e.Shut(ctx, transport.EndpointRequest{Endpoint: p.endpoint})
		return transport.UsageReply{}, errors.Join(errors.New("cut by a fault"), err)
	}
	return e.Served.Arm(ctx, r)
}

// Drop ends a pull, whose blocks were read.
func (e *export) Drop(ctx context.Context, r transport.DropRequest) (transport.Done, error) {
	d, err := e.Served.Drop(ctx, r)
	if p, has := e.pulls[r.Plan]; has && err == nil {
		delete(e.pulls, r.Plan)
		p.moved.Total = time.Since(p.begin)
		e.leases.Done(p.request, p.moved)
	}
	return d, err
}

// Close closes what the peer has opened.
func (e *export) Close() error {
	err := e.Leave()
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	e.w.fault = errors.Join(e.w.fault, err)
	return err
}

// wireLink is a link to a peer's memory.
type wireLink struct {
	client *peer.Client
	side   *transport.Side
	link   *transport.Link
	cut    context.CancelFunc // ends the client without a goodbye
}

// close closes this side's end and says goodbye, with which the peer closes its own. A
// peer that is gone cannot answer.
func (l *wireLink) close() error {
	err := l.side.Close()
	cerr := l.client.Close()
	l.cut()
	if errors.Is(cerr, peer.ErrPeer) {
		cerr = nil
	}
	return errors.Join(err, cerr)
}

// Pull implements [Mover].
func (w *Wire) Pull(ctx context.Context, from Remote, memory *mem.Buffer, list transport.List) (Moved, error) {
	to := from
	to.Request = ""
	addr := net.JoinHostPort(from.Host, strconv.Itoa(from.Port))
	l, done, err := w.take(ctx, to, addr, memory)
	if err != nil {
		return Moved{}, fmt.Errorf("KV transfer from %s: %w", addr, err)
	}
	defer done()
	m, err := l.pull(ctx, from.Request, list)
	if errors.Is(err, transport.ErrGone) {
		return m, errors.Join(ErrLease, w.give(to, l))
	}
	if err != nil {
		l.cut()
		_ = l.close() // the transfer's error is the one that counts
		return m, fmt.Errorf("KV transfer from %s: %w", addr, err)
	}
	return m, w.give(to, l)
}

func (l *wireLink) pull(ctx context.Context, request string, list transport.List) (m Moved, err error) {
	plan, err := l.link.Plan(ctx, transport.Move{Name: request, Op: loop.Read, List: &list})
	if err != nil {
		return m, err
	}
	if list.Count() > 0 {
		out, err := plan.Transfer(ctx, transport.Batch{Iters: 1, Unchecked: true})
		if err != nil {
			return m, err
		}
		s := out.Samples[0]
		m = Moved{Bytes: int64(s.Bytes), Descriptors: list.Count(), Post: s.Post(), Total: s.Total()}
	}
	return m, plan.Drop(ctx)
}

// take returns an idle link, or a new one, once fewer than maxLinks pulls from there are
// under way. done ends this one.
func (w *Wire) take(ctx context.Context, to Remote, addr string, memory *mem.Buffer) (l *wireLink, done func(), err error) {
	w.mu.Lock()
	slots := w.slots[to]
	if slots == nil {
		slots = make(chan struct{}, maxLinks)
		w.slots[to] = slots
	}
	w.mu.Unlock()
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	done = func() { <-slots }
	if l, err = w.kept(to); l == nil && err == nil {
		l, err = w.dial(ctx, addr, to.Token, memory)
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return l, done, nil
}

// kept is an idle link whose peer is there; nil: none.
func (w *Wire) kept(to Remote) (*wireLink, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, net.ErrClosed
	}
	for list := w.idle[to]; len(list) > 0; list = w.idle[to] {
		l := list[len(list)-1]
		w.idle[to] = list[:len(list)-1]
		if l.client.Context().Err() == nil {
			return l, nil
		}
		if err := l.close(); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// dial brings a link up with the peer at addr. It lives longer than ctx.
func (w *Wire) dial(ctx context.Context, addr, token string, memory *mem.Buffer) (*wireLink, error) {
	secret, err := peer.ParseSecret(token)
	if err != nil {
		return nil, fmt.Errorf("the token of kv_transfer_params: %w", err)
	}
	life, cut := context.WithCancel(w.life)
	defer context.AfterFunc(ctx, cut)()
	l := &wireLink{side: &transport.Side{}, cut: cut}
	if l.client, err = peer.Dial(life, addr, secret, wireTimeout); err != nil {
		cut()
		return nil, err
	}
	if err = l.side.Lend(0, memory); err == nil {
		pair := &transport.Pair{Local: l.side, Peer: l.client}
		l.link, err = pair.Open(ctx, transport.Config{Provider: w.provider, Ops: []loop.Op{loop.Read}, Streams: 1, Rails: 1,
			Bind: []string{l.client.Local.String()}, Poll: loop.Yield, Timeout: wireTimeout, SameHost: l.client.SameHost, Device: -1})
	}
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (w *Wire) give(to Remote, l *wireLink) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return l.close()
	}
	w.idle[to] = append(w.idle[to], l)
	return nil
}

// Close implements [Mover].
func (w *Wire) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	idle := w.idle
	w.idle = nil
	w.mu.Unlock()
	var errs []error
	for _, list := range idle {
		for _, l := range list {
			errs = append(errs, l.close())
		}
	}
	w.end()
	if w.serving == nil {
		return errors.Join(append(errs, w.listener.Close())...)
	}
	errs = append(errs, <-w.serving, w.side.Close())
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(append(errs, w.fault)...)
}
