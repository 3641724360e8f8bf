package sim

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/transport"
)

// Wire is a [Mover] over a transport of package transport: kernel TCP ("socket") or
// any provider of libfabric or UCX. The decode engine reads, as vLLM's
// NixlConnector does.
//
// Each connection is a control connection over TCP and a pair of endpoints, used
// for one transfer at a time and kept for the next one. After an exchange of
// addresses a pull sends the request's id and its descriptors; the peer answers
// with a status byte when it is ready, and gets one byte when all has landed.
type Wire struct {
	provider string
	listener net.Listener
	life     context.Context
	end      context.CancelFunc
	serving  sync.WaitGroup

	mu     sync.Mutex
	idle   map[string][]*wireConn
	open   map[net.Conn]bool // served ones
	closed bool
	fault  error
}

// wireConn is the initiator's end of a connection.
type wireConn struct {
	net.Conn
	in       *bufio.Reader
	endpoint transport.Endpoint
}

// Close closes the endpoint and then the control connection.
func (c *wireConn) Close() error { return errors.Join(c.endpoint.Close(), c.Conn.Close()) }

// Limits and marks of the control connection.
const (
	wireMaxDescs   = 1 << 24
	wireMaxID      = 4096
	wireMaxAddress = 1 << 20
	wireOK         = 0
	wireNoLease    = 1
	wireTimeout    = 30 * time.Second
)

// NewWire listens on host, an IP address of this host, for peers that use the
// same provider. The provider is opened when the first transfer needs it.
func NewWire(provider, host string) (*Wire, error) {
	if err := transport.CheckConfig(transport.Config{Provider: provider}); err != nil {
		return nil, fmt.Errorf("transport %w", err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("KV memory server: %w", err)
	}
	w := &Wire{provider: provider, listener: l, idle: map[string][]*wireConn{}, open: map[net.Conn]bool{}}
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
	w.serving.Add(1)
	go w.accept(memory, leases)
	return nil
}

// Address implements [Mover].
func (w *Wire) Address() (string, int) {
	a := w.listener.Addr().(*net.TCPAddr)
	return a.IP.String(), a.Port
}

// endpoint opens this host's side of a transport over memory, on the address that
// the control connection uses here and for the one that it comes from.
func (w *Wire) endpoint(ctx context.Context, role transport.Role, memory *mem.Buffer, control net.Conn) (transport.Endpoint, []byte, error) {
	cfg := transport.Config{Provider: w.provider, Role: role, Ops: []loop.Op{loop.Read}, Streams: 1, Rails: 1,
		Bind:  []string{control.LocalAddr().(*net.TCPAddr).IP.String()},
		Peers: []string{control.RemoteAddr().(*net.TCPAddr).IP.String()},
		Poll:  loop.Yield, Timeout: wireTimeout, SameHost: sameHost(control), Device: -1}
	withdraw, err := transport.Admit(cfg)
	if err != nil {
		return nil, nil, err
	}
	ep, err := transport.Open(ctx, cfg)
	if err != nil {
		withdraw()
		return nil, nil, err
	}
	ep = &admitted{ep, withdraw}
	if err := ep.Register(memory); err != nil {
		return nil, nil, errors.Join(err, ep.Close())
	}
	address, err := ep.Address()
	if err != nil {
		return nil, nil, errors.Join(err, ep.Close())
	}
	return ep, address, nil
}

// admitted is an endpoint that takes its peer only.
type admitted struct {
	transport.Endpoint
	withdraw func()
}

func (a *admitted) Close() error {
	defer a.withdraw()
	return a.Endpoint.Close()
}

func (w *Wire) accept(memory *mem.Buffer, leases Leases) {
	defer w.serving.Done()
	for {
		c, err := w.listener.Accept()
		w.mu.Lock()
		if err != nil || w.closed {
			if !w.closed {
				w.fault = fmt.Errorf("KV memory server: %w", err)
			}
			w.mu.Unlock()
			if err == nil {
				_ = c.Close() // nothing was said on it
			}
			return
		}
		w.open[c] = true
		w.serving.Add(1)
		w.mu.Unlock()
		go func() {
			defer w.serving.Done()
			// The peer sees the end of a broken conversation; there is no one else to tell.
			_ = w.serve(c, memory, leases)
			w.mu.Lock()
			delete(w.open, c)
			w.mu.Unlock()
			_ = c.Close()
		}()
	}
}

// sameHost reports whether both ends of a connection are on one host.
func sameHost(c net.Conn) bool {
	return c.LocalAddr().(*net.TCPAddr).IP.Equal(c.RemoteAddr().(*net.TCPAddr).IP)
}

// serve is the target's side of one connection until its end.
func (w *Wire) serve(c net.Conn, memory *mem.Buffer, leases Leases) (err error) {
	in := bufio.NewReaderSize(c, 64<<10)
	if err := c.SetDeadline(time.Now().Add(wireTimeout)); err != nil {
		return err
	}
	theirs, err := readAddress(in)
	if err != nil {
		return err
	}
	ep, address, err := w.endpoint(w.life, transport.Target, memory, c)
	if err != nil {
		return err
	}
	defer func() {
		if ep != nil {
			err = errors.Join(err, ep.Close())
		}
	}()
	if err := writeAddress(c, address); err != nil {
		return err
	}
	if err := ep.Connect(w.life, theirs); err != nil {
		return err
	}
	if _, err := c.Write([]byte{wireOK}); err != nil {
		return err
	}
	for {
		if err := c.SetDeadline(time.Time{}); err != nil {
			return err
		}
		id, descs, err := readPull(in, memory.Len())
		if err != nil {
			return err
		}
		if err := c.SetDeadline(time.Now().Add(wireTimeout)); err != nil {
			return err
		}
		if err := leases.Begin(id); err != nil {
			if _, err := c.Write([]byte{wireNoLease}); err != nil {
				return err
			}
			continue
		}
		if leases.Cut(id) {
			// Gone before the peer begins: one that reads without help could be done
			// before it notices.
			gone := ep
			ep = nil
			err := gone.Close()
			if err == nil {
				_, err = c.Write([]byte{wireOK})
			}
			return errors.Join(err, errors.New("cut by a fault"))
		}
		if err := w.offer(ep, c, in, descs); err != nil {
			return err
		}
		leases.Done(id)
	}
}

// offer lets the peer read descs.
func (w *Wire) offer(ep transport.Endpoint, c net.Conn, in *bufio.Reader, descs []kv.Desc) error {
	plans, err := plansOf(ep, descs)
	if err != nil {
		return err
	}
	defer freePlans(plans)
	if err := ep.Arm(w.life, loop.Read, plans, 1); err != nil {
		return err
	}
	if _, err := c.Write([]byte{wireOK}); err != nil {
		return err
	}
	if _, err := in.ReadByte(); err != nil {
		return err
	}
	_, err = ep.Settle(w.life)
	return err
}

// plansOf lays all descriptors on an endpoint's first lane; it has no other
// with one stream over one rail.
func plansOf(ep transport.Endpoint, descs []kv.Desc) ([]*loop.Plan, error) {
	pieces := make([]loop.Piece, len(descs))
	for i, d := range descs {
		pieces[i] = loop.Piece{Local: d.Local, Remote: d.Remote, Len: d.Len}
	}
	var plans []*loop.Plan
	for range ep.Lanes() {
		p, err := loop.NewPlan(pieces)
		if err != nil {
			freePlans(plans)
			return nil, err
		}
		plans = append(plans, p)
		pieces = nil
	}
	return plans, nil
}

func freePlans(plans []*loop.Plan) {
	for _, p := range plans {
		p.Free()
	}
}

func writeAddress(c io.Writer, address []byte) error {
	_, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(address))), address...))
	return err
}

func readAddress(in io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > wireMaxAddress {
		return nil, fmt.Errorf("an address of %d bytes", n)
	}
	address := make([]byte, n)
	_, err := io.ReadFull(in, address)
	return address, err
}

// readPull reads one request of a peer and holds it to memory's size.
func readPull(in *bufio.Reader, memory int) (string, []kv.Desc, error) {
	var head [8]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return "", nil, err
	}
	idLen, n := binary.BigEndian.Uint32(head[:4]), binary.BigEndian.Uint32(head[4:])
	if idLen > wireMaxID || n > wireMaxDescs {
		return "", nil, fmt.Errorf("a pull with an id of %d bytes and %d descriptors", idLen, n)
	}
	id := make([]byte, idLen)
	if _, err := io.ReadFull(in, id); err != nil {
		return "", nil, err
	}
	var descs []kv.Desc
	for range n {
		var b [24]byte
		if _, err := io.ReadFull(in, b[:]); err != nil {
			return "", nil, err
		}
		d := kv.Desc{Local: binary.BigEndian.Uint64(b[:8]), Remote: binary.BigEndian.Uint64(b[8:16]), Len: binary.BigEndian.Uint64(b[16:])}
		if d.Len > uint64(memory) || d.Remote > uint64(memory)-d.Len {
			return "", nil, fmt.Errorf("a pull of %d bytes at %d of %d", d.Len, d.Remote, memory)
		}
		descs = append(descs, d)
	}
	return string(id), descs, nil
}

// Pull implements [Mover].
func (w *Wire) Pull(ctx context.Context, from Remote, memory *mem.Buffer, descs []kv.Desc) (Moved, error) {
	addr := net.JoinHostPort(from.Host, strconv.Itoa(from.Port))
	c, err := w.take(ctx, addr, memory)
	if err != nil {
		return Moved{}, fmt.Errorf("KV transfer from %s: %w", addr, err)
	}
	m, err := c.pull(ctx, from.Request, descs)
	if err != nil && !errors.Is(err, ErrLease) {
		_ = c.Close() // the transfer's error is the one that counts
		return m, fmt.Errorf("KV transfer from %s: %w", addr, err)
	}
	return m, errors.Join(err, w.give(addr, c))
}

// watch makes ctx's end and deadline those of the control connection.
func watch(ctx context.Context, c net.Conn) (stop func() bool, err error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(wireTimeout)
	}
	if err := c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }), nil
}

func (c *wireConn) pull(ctx context.Context, id string, descs []kv.Desc) (m Moved, err error) {
	stop, err := watch(ctx, c.Conn)
	if err != nil {
		return m, err
	}
	defer stop()
	plans, err := plansOf(c.endpoint, descs)
	if err != nil {
		return m, err
	}
	defer freePlans(plans)
	msg := make([]byte, 8, 8+len(id)+24*len(descs))
	binary.BigEndian.PutUint32(msg, uint32(len(id)))
	binary.BigEndian.PutUint32(msg[4:], uint32(len(descs)))
	msg = append(msg, id...)
	for _, d := range descs {
		msg = binary.BigEndian.AppendUint64(msg, d.Local)
		msg = binary.BigEndian.AppendUint64(msg, d.Remote)
		msg = binary.BigEndian.AppendUint64(msg, d.Len)
	}
	if _, err := c.Write(msg); err != nil {
		return m, err
	}
	switch status, err := c.in.ReadByte(); {
	case err != nil:
		return m, err
	case status == wireNoLease:
		return m, ErrLease
	case status != wireOK:
		return m, fmt.Errorf("the peer refused with status %d", status)
	}
	if len(descs) > 0 {
		samples, err := c.endpoint.Transfer(ctx, loop.Read, plans, 1)
		if err != nil {
			return m, err
		}
		s := samples[0]
		m = Moved{Bytes: int64(s.Bytes), Descriptors: len(descs), Post: s.Post(), Total: s.Total()}
	}
	if _, err := c.Write([]byte{wireOK}); err != nil {
		return m, err
	}
	return m, nil
}

// take returns an idle connection to addr, or a new one.
func (w *Wire) take(ctx context.Context, addr string, memory *mem.Buffer) (*wireConn, error) {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil, net.ErrClosed
	}
	if list := w.idle[addr]; len(list) > 0 {
		c := list[len(list)-1]
		w.idle[addr] = list[:len(list)-1]
		w.mu.Unlock()
		return c, nil
	}
	w.mu.Unlock()
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c, err := w.greet(ctx, conn, memory)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// greet opens the initiator's endpoint and connects it with the peer's.
func (w *Wire) greet(ctx context.Context, conn net.Conn, memory *mem.Buffer) (c *wireConn, err error) {
	stop, err := watch(ctx, conn)
	if err != nil {
		return nil, err
	}
	defer stop()
	ep, address, err := w.endpoint(ctx, transport.Initiator, memory, conn)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ep.Close())
		}
	}()
	if err := writeAddress(conn, address); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	theirs, err := readAddress(in)
	if err != nil {
		return nil, fmt.Errorf("the peer did not open its end: %w", err)
	}
	if err := ep.Connect(ctx, theirs); err != nil {
		return nil, err
	}
	if _, err := in.ReadByte(); err != nil {
		return nil, fmt.Errorf("the peer did not connect its end: %w", err)
	}
	return &wireConn{Conn: conn, in: in, endpoint: ep}, nil
}

func (w *Wire) give(addr string, c *wireConn) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return c.Close()
	}
	w.idle[addr] = append(w.idle[addr], c)
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
	err := errors.Join(w.fault, w.listener.Close())
	for _, list := range w.idle {
		for _, c := range list {
			err = errors.Join(err, c.Close())
		}
	}
	w.idle = nil
	w.end()
	for c := range w.open {
		err = errors.Join(err, c.Close())
	}
	w.mu.Unlock()
	w.serving.Wait()
	return err
}
