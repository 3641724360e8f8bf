package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Server is an engine that listens on a TCP address of its own.
type Server struct {
	*Engine
	URL  string
	http *http.Server
	done chan error
}

// Listen starts an engine on host whose KV cache moves over cfg.Transport. Port 0
// is any free one.
func Listen(cfg Config, host string, port int) (*Server, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("%s engine: %w", cfg.Role, err)
	}
	if cfg.Transport == "" {
		cfg.Transport = "socket"
	}
	mover, err := NewWire(cfg.Transport, host)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	e, err := NewEngine(cfg, mover)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s := &Server{Engine: e, URL: "http://" + l.Addr().String(), done: make(chan error, 1),
		http: &http.Server{Handler: e.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Second, MaxHeaderBytes: 64 << 10}}
	go func() { s.done <- s.http.Serve(l) }()
	return s, nil
}

// Wait returns when the server ends, with the error that ended it, or nil once
// ctx is done.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case err := <-s.done:
		s.done <- err
		return fmt.Errorf("%s engine: %w", s.cfg.Role, err)
	case <-ctx.Done():
		return nil
	}
}

// Close ends the server and its engine; requests under way are cut.
func (s *Server) Close() error {
	s.Engine.end()
	err := s.http.Close()
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	s.done <- http.ErrServerClosed
	return errors.Join(err, s.Engine.Close())
}

// Set is a prefill and a decode engine and, if asked for, a unified one.
type Set struct {
	Prefill, Decode, Unified *Server // Unified may be nil
}

// StartSet starts engines on host with free ports; their roles are set here.
// faults go to the engines in which they take place.
func StartSet(cfg Config, host string, unified bool) (*Set, error) {
	set := &Set{}
	start := func(role Role) (*Server, error) {
		c := cfg
		c.Role = role
		return Listen(c, host, 0)
	}
	var err error
	if set.Prefill, err = start(Prefill); err == nil {
		set.Decode, err = start(Decode)
	}
	if err == nil && unified {
		set.Unified, err = start(Unified)
	}
	if err != nil {
		return nil, errors.Join(err, set.Close())
	}
	return set, nil
}

// Close ends all engines, decode first.
func (s *Set) Close() error {
	var err error
	for _, e := range []*Server{s.Unified, s.Decode, s.Prefill} {
		if e != nil {
			err = errors.Join(err, e.Close())
		}
	}
	return err
}
