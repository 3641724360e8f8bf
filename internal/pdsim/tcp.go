package pdsim

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

	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/kv"
)

// TCP is a [Mover] over kernel TCP: one connection a transfer at a time, kept
// for the next one.
//
// A pull sends the request's id and its descriptors; the peer answers with a
// status byte and the bytes in order, and gets one byte when all have arrived.
type TCP struct {
	listener net.Listener
	mu       sync.Mutex
	idle     map[string][]net.Conn
	open     map[net.Conn]bool // served ones
	closed   bool
	serving  sync.WaitGroup
	fault    error
}

// Wire limits and marks of [TCP].
const (
	tcpMaxDescs = 1 << 24
	tcpMaxID    = 4096
	tcpOK       = 0
	tcpNoLease  = 1
	tcpTimeout  = 30 * time.Second
)

// NewTCP listens on host, on a port of its own, for peers.
func NewTCP(host string) (*TCP, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("KV memory server: %w", err)
	}
	return &TCP{listener: l, idle: map[string][]net.Conn{}, open: map[net.Conn]bool{}}, nil
}

// Export implements [Mover].
func (t *TCP) Export(memory *mem.Buffer, leases Leases) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return net.ErrClosed
	}
	t.serving.Add(1)
	go t.accept(memory.Bytes(), leases)
	return nil
}

// Address implements [Mover].
func (t *TCP) Address() (string, int) {
	a := t.listener.Addr().(*net.TCPAddr)
	return a.IP.String(), a.Port
}

func (t *TCP) accept(memory []byte, leases Leases) {
	defer t.serving.Done()
	for {
		c, err := t.listener.Accept()
		if err != nil {
			t.mu.Lock()
			if !t.closed {
				t.fault = fmt.Errorf("KV memory server: %w", err)
			}
			t.mu.Unlock()
			return
		}
		t.mu.Lock()
		if t.closed {
			t.mu.Unlock()
			_ = c.Close() // nothing was said on it
			return
		}
		t.open[c] = true
		t.serving.Add(1)
		t.mu.Unlock()
		go func() {
			defer t.serving.Done()
			// The peer sees the end of a broken conversation; there is no one else to tell.
			_ = t.serve(c, memory, leases)
			t.mu.Lock()
			delete(t.open, c)
			t.mu.Unlock()
			_ = c.Close()
		}()
	}
}

// serve answers pulls on one connection until its end.
func (t *TCP) serve(c net.Conn, memory []byte, leases Leases) error {
	in := bufio.NewReaderSize(c, 64<<10)
	for {
		id, descs, err := readPull(in, len(memory))
		if err != nil {
			return err
		}
		if err := c.SetDeadline(time.Now().Add(tcpTimeout)); err != nil {
			return err
		}
		if err := leases.Begin(id); err != nil {
			if _, err := c.Write([]byte{tcpNoLease}); err != nil {
				return err
			}
			continue
		}
		if _, err := c.Write([]byte{tcpOK}); err != nil {
			return err
		}
		cut := leases.Cut(id)
		if cut {
			descs = descs[:len(descs)/2]
		}
		for _, d := range descs {
			if _, err := c.Write(memory[d.Remote : d.Remote+d.Len]); err != nil {
				return err
			}
		}
		if cut {
			return errors.New("cut by a fault")
		}
		if _, err := in.ReadByte(); err != nil {
			return err
		}
		leases.Done(id)
		if err := c.SetDeadline(time.Time{}); err != nil {
			return err
		}
	}
}

// readPull reads one request of a peer and holds it to memory's size.
func readPull(in *bufio.Reader, memory int) (string, []kv.Desc, error) {
	var head [8]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return "", nil, err
	}
	idLen, n := binary.BigEndian.Uint32(head[:4]), binary.BigEndian.Uint32(head[4:])
	if idLen > tcpMaxID || n > tcpMaxDescs {
		return "", nil, fmt.Errorf("a pull with an id of %d bytes and %d descriptors", idLen, n)
	}
	id := make([]byte, idLen)
	if _, err := io.ReadFull(in, id); err != nil {
		return "", nil, err
	}
	var descs []kv.Desc
	for range n {
		var b [16]byte
		if _, err := io.ReadFull(in, b[:]); err != nil {
			return "", nil, err
		}
		d := kv.Desc{Remote: binary.BigEndian.Uint64(b[:8]), Len: binary.BigEndian.Uint64(b[8:])}
		if d.Len > uint64(memory) || d.Remote > uint64(memory)-d.Len {
			return "", nil, fmt.Errorf("a pull of %d bytes at %d of %d", d.Len, d.Remote, memory)
		}
		descs = append(descs, d)
	}
	return string(id), descs, nil
}

// Pull implements [Mover].
func (t *TCP) Pull(ctx context.Context, from Remote, memory *mem.Buffer, descs []kv.Desc) (Moved, error) {
	addr := net.JoinHostPort(from.Host, strconv.Itoa(from.Port))
	begin := time.Now()
	c, err := t.take(ctx, addr)
	if err != nil {
		return Moved{}, fmt.Errorf("KV transfer from %s: %w", addr, err)
	}
	m, err := pull(ctx, c, from.Request, memory.Bytes(), descs, begin)
	if err != nil {
		_ = c.Close() // the transfer's error is the one that counts
		return m, fmt.Errorf("KV transfer from %s: %w", addr, err)
	}
	return m, t.give(addr, c)
}

func pull(ctx context.Context, c net.Conn, id string, memory []byte, descs []kv.Desc, begin time.Time) (m Moved, err error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(tcpTimeout)
	}
	if err := c.SetDeadline(deadline); err != nil {
		return m, err
	}
	// A cancelled context wakes a blocked read or write.
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	msg := make([]byte, 8, 8+len(id)+16*len(descs))
	binary.BigEndian.PutUint32(msg, uint32(len(id)))
	binary.BigEndian.PutUint32(msg[4:], uint32(len(descs)))
	msg = append(msg, id...)
	for _, d := range descs {
		msg = binary.BigEndian.AppendUint64(msg, d.Remote)
		msg = binary.BigEndian.AppendUint64(msg, d.Len)
	}
	if _, err := c.Write(msg); err != nil {
		return m, err
	}
	m.Post = time.Since(begin)
	var status [1]byte
	if _, err := io.ReadFull(c, status[:]); err != nil {
		return m, err
	}
	switch status[0] {
	case tcpOK:
	case tcpNoLease:
		return m, ErrLease
	default:
		return m, fmt.Errorf("the peer refused with status %d", status[0])
	}
	for _, d := range descs {
		n, err := io.ReadFull(c, memory[d.Local:d.Local+d.Len])
		m.Bytes += int64(n)
		if err != nil {
			return m, fmt.Errorf("after %d bytes: %w", m.Bytes, err)
		}
		m.Descriptors++
	}
	m.Total = time.Since(begin)
	if _, err := c.Write([]byte{tcpOK}); err != nil {
		return m, err
	}
	return m, c.SetDeadline(time.Time{})
}

// take returns an idle connection to addr, or a new one.
func (t *TCP) take(ctx context.Context, addr string) (net.Conn, error) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, net.ErrClosed
	}
	if list := t.idle[addr]; len(list) > 0 {
		c := list[len(list)-1]
		t.idle[addr] = list[:len(list)-1]
		t.mu.Unlock()
		return c, nil
	}
	t.mu.Unlock()
	d := net.Dialer{Timeout: 5 * time.Second}
	return d.DialContext(ctx, "tcp", addr)
}

func (t *TCP) give(addr string, c net.Conn) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return c.Close()
	}
	t.idle[addr] = append(t.idle[addr], c)
	return nil
}

// Close implements [Mover].
func (t *TCP) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	err := errors.Join(t.fault, t.listener.Close())
	for c := range t.open {
		err = errors.Join(err, c.Close())
	}
	for _, list := range t.idle {
		for _, c := range list {
			err = errors.Join(err, c.Close())
		}
	}
	t.idle = nil
	t.mu.Unlock()
	t.serving.Wait()
	return err
}
