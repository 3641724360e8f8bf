package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

const (
	maxBody = 64 << 20 // bytes of a request's or a prefill answer's body
	// firstBody is what is set aside for a body of which nothing is here yet,
	// whatever length it announces.
	firstBody = 8 << 10
	// copies is how often a body is in memory: as it came and as each leg sends it.
	copies = 3
	// bodyTime and bodyRate are how long a body may take: that, and a second more
	// for so many bytes that are here.
	bodyTime = 10 * time.Second
	bodyRate = 64 << 10
)

var (
	errTooLong = fmt.Errorf("longer than %d bytes, or than a third of the memory for bodies", maxBody)
	errFull    = errors.New("the bodies of other requests take all memory that is set aside for them; try again")
)

// budget is the memory that all bodies share.
type budget struct {
	limit int64
	used  atomic.Int64
}

// share is one body's part of a budget.
type share struct {
	of   *budget
	held int64
}

// grow makes the share one of a body of n bytes.
func (s *share) grow(n int) error {
	if copies*int64(n) > s.of.limit {
		return errTooLong // also alone
	}
	more := copies*int64(n) - s.held
	if s.of.used.Add(more) > s.of.limit {
		s.of.used.Add(-more)
		return errFull
	}
	s.held += more
	return nil
}

func (s *share) free() {
	s.of.used.Add(-s.held)
	s.held = 0
}

// read reads all of r into memory that grows with what is here, not with what
// was announced. before is called before each read with the bytes so far.
func (s *share) read(r io.Reader, announced int64, before func(have int) error) ([]byte, error) {
	if announced > maxBody {
		return nil, errTooLong
	}
	var b []byte
	for {
		if len(b) == cap(b) {
			size := min(max(firstBody, 2*cap(b)), maxBody+1)
			if announced >= 0 && announced < int64(size) {
				size = int(announced) + 1 // one to see the end in
			}
			if err := s.grow(size); err != nil {
				return nil, err
			}
			b = append(make([]byte, 0, max(size, len(b)+1)), b...)
		}
		if before != nil {
			if err := before(len(b)); err != nil {
				return nil, err
			}
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case len(b) > maxBody:
			return nil, errTooLong
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return nil, err
		}
	}
}

// request reads the body of a client's request. Not ok means that the client
// has its answer. The share is the caller's to free.
func (p *Proxy) request(w http.ResponseWriter, r *http.Request, s *share) (body []byte, ok bool) {
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		p.refuse(w, http.StatusUnsupportedMediaType, fmt.Sprintf("Content-Encoding %s: send the request as plain JSON", e))
		return nil, false
	}
	out := http.NewResponseController(w)
	begin := time.Now()
	var unlimited error
	body, err := s.read(r.Body, r.ContentLength, func(have int) error {
		unlimited = out.SetReadDeadline(begin.Add(p.bodyTime + time.Duration(have/bodyRate)*time.Second))
		if errors.Is(unlimited, http.ErrNotSupported) {
			return nil // a writer without deadlines is a test's
		}
		return unlimited
	})
	if err == nil && unlimited == nil {
		err = out.SetReadDeadline(time.Time{})
	}
	if err == nil {
		return body, true
	}
	status := http.StatusBadRequest
	switch {
	case errors.Is(err, errTooLong):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, errFull):
		status = http.StatusServiceUnavailable
	case errors.Is(err, os.ErrDeadlineExceeded):
		status, err = http.StatusRequestTimeout, fmt.Errorf("it did not come within %s and a second more for each %d bytes", p.bodyTime, bodyRate)
	}
	// What is left of the body is not read.
	w.Header().Set("Connection", "close")
	p.refuse(w, status, fmt.Sprintf("reading the request: %v", err))
	return nil, false
}
