package transport

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/clock"
	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/host"
)

// A transfer over a connection begins with a header from the initiator:
// operation, iteration and bytes. For READ the target answers with the data; for
// WRITE and SEND the data follows and the target answers, once it has all of it in
// its memory, with one byte.
const (
	headerBytes = 16
	ackByte     = 0x06
	tokenBytes  = 32
	// helloBytes are a connection's first: token and lane.
	helloBytes   = tokenBytes + 4
	helloTimeout = 5 * time.Second
	maxStreams   = 1024
)

type header [headerBytes]byte

func (h *header) set(op loop.Op, iteration uint32, n uint64) {
	binary.BigEndian.PutUint32(h[0:], uint32(op))
	binary.BigEndian.PutUint32(h[4:], iteration)
	binary.BigEndian.PutUint64(h[8:], n)
}

// socketEndpoint is the kernel's TCP: a connection for each lane, written and
// read by plain system calls.
type socketEndpoint struct {
	cfg   Config
	buf   []byte
	lanes []*socketLane

	// Target only.
	listeners []*net.TCPListener // a rail
	token     []byte
	serving   sync.WaitGroup

	mu        sync.Mutex
	changed   chan struct{} // closed and replaced when what follows changes
	armed     *socketArmed
	fault     error
	closed    bool
	connected int
	conns     map[net.Conn]bool // being greeted
}

// socketArmed is what the target expects.
type socketArmed struct {
	op    loop.Op
	iters int
	data  []*vectors // a lane
	bytes []uint64
	done  []int // iterations, a lane
}

// socketLane is one connection and what it needs for a transfer.
type socketLane struct {
	s         *stream
	iteration uint32
	head, ack vectors
	headWord  *header
	ackWord   *[1]byte
}

func newSocketLane(conn *net.TCPConn, timeout time.Duration) (*socketLane, error) {
	s, err := newStream(conn, timeout)
	if err != nil {
		return nil, err
	}
	l := &socketLane{s: s, headWord: new(header), ackWord: new([1]byte)}
	l.head.add(unsafe.Pointer(l.headWord), headerBytes)
	l.ack.add(unsafe.Pointer(l.ackWord), 1)
	return l, nil
}

// OpenSocket opens provider "socket", kernel TCP: the ceiling for what goes
// over the host's IP network. Streams is the number of connections. A target
// listens on Bind, or on loopback without it, and only for connections that
// begin with the token of its Address.
func OpenSocket(_ context.Context, cfg Config) (Endpoint, error) {
	if cfg.Provider != "socket" {
		return nil, fmt.Errorf("provider %q: socket takes no options", cfg.Provider)
	}
	cfg.Streams = max(cfg.Streams, 1)
	if len(cfg.Bind) == 0 {
		cfg.Bind = []string{host.Loopback()}
	}
	if cfg.Rails > len(cfg.Bind) {
		return nil, fmt.Errorf("%w: %d rails asked for, %d local addresses given; name one address a rail", ErrUnavailable, cfg.Rails, len(cfg.Bind))
	}
	if cfg.Rails <= 0 {
		cfg.Rails = len(cfg.Bind)
	}
	lanes := cfg.Streams * cfg.Rails
	if lanes > maxStreams {
		return nil, fmt.Errorf("%d streams over %d rails: at most %d connections", cfg.Streams, cfg.Rails, maxStreams)
	}
	if cfg.Timeout <= 0 {
		return nil, errors.New("socket needs a timeout")
	}
	e := &socketEndpoint{
		cfg: cfg, lanes: make([]*socketLane, lanes),
		changed: make(chan struct{}), conns: map[net.Conn]bool{},
	}
	if cfg.Role != Target {
		return e, nil
	}
	e.token = make([]byte, tokenBytes)
	if _, err := rand.Read(e.token); err != nil {
		return nil, err
	}
	for _, bind := range cfg.Bind[:cfg.Rails] {
		ip := net.ParseIP(bind)
		if ip == nil {
			return nil, errors.Join(fmt.Errorf("address %q: not an IP address", bind), e.Close())
		}
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: ip})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%w: listening on %s: %w", ErrUnavailable, bind, err), e.Close())
		}
		e.listeners = append(e.listeners, l)
	}
	return e, nil
}

func (e *socketEndpoint) Info() Info {
	return Info{
		Provider: "socket", API: "socket",
		Landing: map[string]string{"read": "local-completion", "write": "target-ack", "send": "target-ack"},
		Streams: e.cfg.Streams, Rails: e.cfg.Rails, Depth: 1, Chunk: e.cfg.Chunk, Poll: "epoll",
	}
}

func (e *socketEndpoint) Lanes() int { return len(e.lanes) }

func (e *socketEndpoint) Register(buf *mem.Buffer) error {
	if e.buf != nil {
		return errors.New("the endpoint has its region already")
	}
	if e.buf = buf.Bytes(); e.buf == nil {
		return fmt.Errorf("%w: kernel TCP moves host memory, not %s; use --memory host", ErrUnsupported, buf.Kind())
	}
	return nil
}

// socketAddress is what a target's Address carries, as JSON.
type socketAddress struct {
	API   string   `json:"api"`
	Addrs []string `json:"addresses"` // of the rails
	Token []byte   `json:"token"`
}

func (e *socketEndpoint) Address() ([]byte, error) {
	if e.cfg.Role != Target {
		return json.Marshal(socketAddress{API: "socket"})
	}
	var addrs []string
	for _, l := range e.listeners {
		addrs = append(addrs, l.Addr().String())
	}
	return json.Marshal(socketAddress{API: "socket", Addrs: addrs, Token: e.token})
}

func parseSocketAddress(peer []byte) (socketAddress, []*net.TCPAddr, error) {
	var a socketAddress
	d := json.NewDecoder(bytes.NewReader(peer))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return a, nil, fmt.Errorf("the peer's socket address: %w", err)
	}
	if a.API != "socket" || len(a.Token) != tokenBytes || len(a.Addrs) == 0 {
		return a, nil, errors.New("the peer's socket address is incomplete")
	}
	var to []*net.TCPAddr
	for _, addr := range a.Addrs {
		ap, err := netip.ParseAddrPort(addr)
		if err != nil {
			return a, nil, fmt.Errorf("the peer's socket address: %w", err)
		}
		to = append(to, net.TCPAddrFromAddrPort(ap))
	}
	return a, to, nil
}

func (e *socketEndpoint) Connect(ctx context.Context, peer []byte) error {
	if e.buf == nil {
		return errors.New("the endpoint has no region yet")
	}
	if e.cfg.Role == Target {
		for _, l := range e.listeners {
			e.serving.Go(func() { e.accept(l) })
		}
		return nil
	}
	a, to, err := parseSocketAddress(peer)
	if err != nil {
		return err
	}
	if len(to) != e.cfg.Rails {
		return fmt.Errorf("%w: %d rails here, %d on the peer", ErrUnavailable, e.cfg.Rails, len(to))
	}
	for i := range e.lanes {
		rail := i % e.cfg.Rails
		dialer := net.Dialer{Timeout: e.cfg.Timeout, LocalAddr: &net.TCPAddr{IP: net.ParseIP(e.cfg.Bind[rail])}}
		conn, err := dialer.DialContext(ctx, "tcp", to[rail].String())
		if err != nil {
			return fmt.Errorf("%w: %w; is the port reachable from here?", ErrUnavailable, err)
		}
		tcp := conn.(*net.TCPConn)
		if e.lanes[i], err = newSocketLane(tcp, e.cfg.Timeout); err == nil {
			err = e.greet(tcp, a.Token, i)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("greeting the target at %s: %w", to[rail], err), tcp.Close())
		}
	}
	return nil
}

// greet shows the token and waits for the target's answer.
func (e *socketEndpoint) greet(conn *net.TCPConn, token []byte, lane int) error {
	if err := conn.SetDeadline(time.Now().Add(e.cfg.Timeout)); err != nil {
		return err
	}
	if _, err := conn.Write(binary.BigEndian.AppendUint32(bytes.Clone(token), uint32(lane))); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	if answer[0] != ackByte {
		return fmt.Errorf("it answered %#x", answer[0])
	}
	return nil
}

// accept takes connections until every lane has one.
func (e *socketEndpoint) accept(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return // closed
		}
		e.mu.Lock()
		full := e.closed || len(e.conns) >= 2*len(e.lanes)+8
		if !full {
			e.conns[conn] = true
			e.serving.Go(func() { e.welcome(conn) })
		}
		e.mu.Unlock()
		if full {
			conn.Close()
		}
	}
}

// welcome checks a connection's hello and then serves it.
func (e *socketEndpoint) welcome(conn *net.TCPConn) {
	lane, l, err := e.admit(conn)
	e.mu.Lock()
	delete(e.conns, conn)
	ok := err == nil && !e.closed && e.lanes[lane] == nil
	if ok {
		e.lanes[lane] = l
		if e.connected++; e.connected == len(e.lanes) {
			for _, l := range e.listeners {
				l.Close() // the rest of the world need not knock
			}
		}
	}
	e.mu.Unlock()
	if !ok {
		conn.Close() // a stranger's connection is no fault of the run
		return
	}
	*l.ackWord = [1]byte{ackByte}
	if err := l.s.write(&l.ack); err != nil {
		e.fail(err)
		return
	}
	e.serve(lane, l)
}

func (e *socketEndpoint) admit(conn *net.TCPConn) (int, *socketLane, error) {
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return 0, nil, err
	}
	var hello [helloBytes]byte
	if _, err := io.ReadFull(conn, hello[:]); err != nil {
		return 0, nil, err
	}
	lane := binary.BigEndian.Uint32(hello[tokenBytes:])
	if subtle.ConstantTimeCompare(hello[:tokenBytes], e.token) != 1 || lane >= uint32(len(e.lanes)) {
		return 0, nil, errors.New("wrong token")
	}
	l, err := newSocketLane(conn, e.cfg.Timeout)
	return int(lane), l, err
}

// serve answers one connection's transfers until it ends.
func (e *socketEndpoint) serve(lane int, l *socketLane) {
	for {
		if err := l.s.rest(); err != nil {
			e.fail(err)
			return
		}
		if err := l.s.wait(&l.head); err != nil {
			e.fail(err)
			return
		}
		if err := e.answer(lane, l); err != nil {
			e.fail(err)
			return
		}
	}
}

func (e *socketEndpoint) answer(lane int, l *socketLane) error {
	e.mu.Lock()
	a := e.armed
	e.mu.Unlock()
	l.iteration++
	var want header
	if a != nil {
		want.set(a.op, l.iteration, a.bytes[lane])
	}
	if a == nil || *l.headWord != want {
		return fmt.Errorf("the initiator's header is %x, this side expects %x", *l.headWord, want)
	}
	var err error
	if a.op == loop.Read {
		err = l.s.write(a.data[lane])
	} else if err = l.s.read(a.data[lane]); err == nil {
		*l.ackWord = [1]byte{ackByte}
		err = l.s.write(&l.ack)
	}
	if err != nil {
		return err
	}
	e.mu.Lock()
	a.done[lane]++
	last := a.done[lane] == a.iters
	e.mu.Unlock()
	if last {
		e.change(func() {})
	}
	return nil
}

// change does f under the lock and wakes who waits.
func (e *socketEndpoint) change(f func()) {
	e.mu.Lock()
	f()
	close(e.changed)
	e.changed = make(chan struct{})
	e.mu.Unlock()
}

// fail notes the first failure and ends every connection, so that the peer does
// not wait for what will not come.
func (e *socketEndpoint) fail(err error) {
	e.change(func() {
		if e.fault == nil && !e.closed {
			e.fault = err
		}
	})
	e.interrupt()
}

func (e *socketEndpoint) interrupt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.lanes {
		if l != nil {
			l.s.interrupt()
		}
	}
}

func (e *socketEndpoint) Arm(_ context.Context, op loop.Op, plans []*loop.Plan, iters int) error {
	data, sizes, err := e.vectors(op, plans)
	if err != nil {
		return err
	}
	a := &socketArmed{op: op, iters: iters, data: data, bytes: sizes, done: make([]int, len(plans))}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fault != nil {
		return e.fault
	}
	e.armed = a
	return nil
}

// vectors are the plans' pieces in this side's buffer. What an initiator writes
// begins with the lane's header, so that both leave in one call.
func (e *socketEndpoint) vectors(op loop.Op, plans []*loop.Plan) (data []*vectors, sizes []uint64, err error) {
	if len(plans) != len(e.lanes) {
		return nil, nil, fmt.Errorf("%d plans for %d lanes", len(plans), len(e.lanes))
	}
	for i, p := range plans {
		v := &vectors{}
		if e.cfg.Role == Initiator && op != loop.Read {
			v.add(unsafe.Pointer(e.lanes[i].headWord), headerBytes)
		}
		if err := v.addPieces(e.buf, p, e.cfg.Role == Initiator); err != nil {
			return nil, nil, err
		}
		data, sizes = append(data, v), append(sizes, p.Bytes())
	}
	return data, sizes, nil
}

func (e *socketEndpoint) Settle(ctx context.Context) (int, error) {
	tick := time.NewTicker(e.cfg.Timeout / Looks)
	defer tick.Stop()
	var still Patience
	still.Begin(time.Now())
	last := 0
	for {
		e.mu.Lock()
		a, fault, changed := e.armed, e.fault, e.changed
		least, total := 0, 0
		if a != nil {
			least = a.iters
			for _, d := range a.done {
				least = min(least, d)
				total += d
			}
		}
		e.mu.Unlock()
		if a == nil {
			return 0, errors.New("nothing is armed")
		}
		if least == a.iters {
			return least, nil
		}
		if fault != nil {
			return least, fault
		}
		select {
		case <-changed:
		case <-tick.C:
			if now := time.Now(); total != last {
				last = total
				still.Begin(now)
			} else if still.Look(now, e.cfg.Timeout) > e.cfg.Timeout {
				return least, fmt.Errorf("%w: %d of %d transfers arrived", loop.ErrTimeout, least, a.iters)
			}
		case <-ctx.Done():
			return least, context.Cause(ctx)
		}
	}
}

func (e *socketEndpoint) Transfer(ctx context.Context, op loop.Op, plans []*loop.Plan, iters int) ([]loop.Sample, error) {
	if e.lanes[len(e.lanes)-1] == nil {
		return nil, errNotConnected
	}
	if err := e.Fault(); err != nil {
		return nil, err
	}
	data, sizes, err := e.vectors(op, plans)
	if err != nil {
		return nil, err
	}
	out, err := runLanes(ctx, len(plans), iters, func(lane int, s *loop.Sample) error {
		s.Bytes, s.Ops = sizes[lane], uint64(plans[lane].Len())
		return e.lanes[lane].transfer(op, data[lane], s)
	}, e.interrupt)
	if err != nil {
		e.fail(err) // what is left in the connections belongs to no transfer
	}
	return out, err
}

// transfer runs one iteration from the initiator.
func (l *socketLane) transfer(op loop.Op, data *vectors, s *loop.Sample) error {
	calls, again := l.s.calls, l.s.again
	l.iteration++
	l.headWord.set(op, l.iteration, s.Bytes)
	s.BeginNs = clock.Now()
	if op == loop.Read {
		if err := l.s.write(&l.head); err != nil {
			return err
		}
		s.PostedNs = clock.Now()
		if err := l.s.read(data); err != nil {
			return err
		}
		s.LocalNs = clock.Now()
		s.DoneNs = s.LocalNs
	} else {
		if err := l.s.write(data); err != nil {
			return err
		}
		s.PostedNs = clock.Now()
		s.LocalNs = s.PostedNs
		if err := l.s.read(&l.ack); err != nil {
			return err
		}
		s.DoneNs = clock.Now()
		if l.ackWord[0] != ackByte {
			return fmt.Errorf("the target answered %#x instead of an acknowledgement", l.ackWord[0])
		}
	}
	s.Polls, s.EAgain = l.s.calls-calls, l.s.again-again
	return nil
}

func (e *socketEndpoint) Fault() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.fault
}

func (e *socketEndpoint) Close() error {
	var errs []error
	e.mu.Lock()
	e.closed = true
	for _, l := range e.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	for conn := range e.conns {
		errs = append(errs, conn.Close())
	}
	for _, l := range e.lanes {
		if l == nil {
			continue
		}
		if err := l.s.interrupt(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	e.mu.Unlock()
	e.serving.Wait()
	e.buf = nil
	return errors.Join(errs...)
}
