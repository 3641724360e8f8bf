package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xferbench/xferbench/cgo/loop"
)

// maxVectors is the kernel's limit of one readv or writev (IOV_MAX).
const maxVectors = 1024

// vectors is a list of memory pieces that one direction of a transfer fills or
// empties, over and over.
type vectors struct {
	iov  []unix.Iovec
	at   int        // first that is not done
	full unix.Iovec // what iov[at] was before a part of it was done
	part bool
}

// add appends n bytes at p, joined to the last piece when they touch.
func (v *vectors) add(p unsafe.Pointer, n uint64) {
	if n == 0 {
		return
	}
	if k := len(v.iov) - 1; k >= 0 && uint64(uintptr(unsafe.Pointer(v.iov[k].Base)))+v.iov[k].Len == uint64(uintptr(p)) {
		v.iov[k].Len += n
		return
	}
	v.iov = append(v.iov, unix.Iovec{Base: (*byte)(p), Len: n})
}

// addPieces appends one side of a plan over a buffer.
func (v *vectors) addPieces(buf []byte, plan *loop.Plan, local bool) error {
	for i, q := range plan.Pieces() {
		off := q.Remote
		if local {
			off = q.Local
		}
		if off > uint64(len(buf)) || q.Len > uint64(len(buf))-off {
			return fmt.Errorf("piece %d (offset %d, %d bytes) is outside the buffer of %d", i, off, q.Len, len(buf))
		}
		if q.Len > 0 {
			v.add(unsafe.Pointer(&buf[off]), q.Len)
		}
	}
	return nil
}

func (v *vectors) rewind() {
	if v.part {
		v.iov[v.at] = v.full
		v.part = false
	}
	v.at = 0
}

func (v *vectors) done() bool { return v.at == len(v.iov) }

func (v *vectors) advance(n uint64) {
	for n > 0 {
		p := &v.iov[v.at]
		if n < p.Len {
			if !v.part {
				v.full, v.part = *p, true
			}
			p.Base = (*byte)(unsafe.Add(unsafe.Pointer(p.Base), n))
			p.Len -= n
			return
		}
		n -= p.Len
		if v.part {
			*p, v.part = v.full, false
		}
		v.at++
	}
}

// stream is a TCP connection that moves vectors with readv and writev and gives
// up when nothing moved for timeout. It is for one goroutine at a time, except
// interrupt and close.
type stream struct {
	conn          *net.TCPConn
	raw           syscall.RawConn
	timeout       time.Duration
	deadline      time.Time // that is set on conn: it ends a look
	still         Patience  // since bytes last moved
	v             *vectors  // in hand
	errno         syscall.Errno
	n             uintptr
	readf, writef func(uintptr) bool
	calls, again  uint64 // system calls, and those refused for lack of room or data
}

func newStream(conn *net.TCPConn, timeout time.Duration) (*stream, error) {
	if err := conn.SetNoDelay(true); err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &stream{conn: conn, raw: raw, timeout: timeout}
	s.readf = func(fd uintptr) bool { return s.call(unix.SYS_READV, fd) }
	s.writef = func(fd uintptr) bool { return s.call(unix.SYS_WRITEV, fd) }
	return s, nil
}

// call does one readv or writev of what is left; false asks to be called again
// once the socket is ready.
func (s *stream) call(trap, fd uintptr) bool {
	left := s.v.iov[s.v.at:]
	for {
		s.calls++
		s.n, _, s.errno = unix.Syscall(trap, fd, uintptr(unsafe.Pointer(&left[0])), uintptr(min(len(left), maxVectors)))
		switch s.errno {
		case unix.EINTR:
		case unix.EAGAIN:
			s.again++
			return false
		default:
			return true
		}
	}
}

// read fills all of v.
func (s *stream) read(v *vectors) error { return s.fill(v, true) }

// wait fills all of v, however long its first byte takes.
func (s *stream) wait(v *vectors) error { return s.fill(v, false) }

func (s *stream) fill(v *vectors, bounded bool) error {
	v.rewind()
	s.v = v
	for !v.done() {
		if bounded {
			if err := s.extend("reading"); err != nil {
				return err
			}
		}
		if err := s.raw.Read(s.readf); bounded && errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		} else if err != nil {
			return s.failed("reading", err)
		}
		if s.errno != 0 {
			return s.failed("reading", s.errno)
		}
		if s.n == 0 {
			return s.failed("reading", io.EOF)
		}
		s.still = Patience{}
		v.advance(uint64(s.n))
	}
	return nil
}

// write sends all of v.
func (s *stream) write(v *vectors) error {
	v.rewind()
	s.v = v
	for !v.done() {
		if err := s.extend("writing"); err != nil {
			return err
		}
		if err := s.raw.Write(s.writef); errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		} else if err != nil {
			return s.failed("writing", err)
		}
		if s.errno != 0 {
			return s.failed("writing", s.errno)
		}
		s.still = Patience{}
		v.advance(uint64(s.n))
	}
	return nil
}

// extend moves the connection's deadline to the end of the next look, but not
// for each call: a timer costs as much as a small read. It is an error once
// nothing has moved for the timeout.
func (s *stream) extend(doing string) error {
	now, look := time.Now(), s.timeout/Looks
	if s.still.Look(now, s.timeout) > s.timeout {
		return fmt.Errorf("%w: %s the TCP connection to %s for %v", loop.ErrTimeout, doing, s.conn.RemoteAddr(), s.timeout)
	}
	if s.deadline.Sub(now) > look-look/8 {
		return nil
	}
	s.deadline = now.Add(look)
	if err := s.conn.SetDeadline(s.deadline); err != nil {
		return s.failed("setting a deadline", err)
	}
	return nil
}

// rest takes the deadline away: the peer decides when the next transfer comes.
func (s *stream) rest() error {
	s.deadline = time.Time{}
	return s.conn.SetDeadline(time.Time{})
}

// interrupt makes a read or write in hand, and later ones, fail at once.
func (s *stream) interrupt() error { return s.conn.Close() }

func (s *stream) failed(doing string, err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return fmt.Errorf("%s: the peer closed the TCP connection to %s: %w", doing, s.conn.RemoteAddr(), err)
	}
	return fmt.Errorf("%s the TCP connection to %s: %w", doing, s.conn.RemoteAddr(), err)
}
