package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/peer"
	"github.com/xferbench/xferbench/internal/transport"
)

// small is a run that only shows that serve still serves.
func (s *soak) small(line string) *proc {
	return s.run("socket", "--size", "1MB", "--shape", "contiguous", "--blocks", "1", line)
}

// growth is how much a server may grow over any number of sessions or
// strangers: the collector's slack, not a cost per case.
const growth = 64 << 20

// sessions runs one after another against one serve.
func (s *soak) sessions() error {
	r := s.table.row("sessions of one serve")
	srv := s.start("serve", "--listen", "127.0.0.1:0")
	line, err := srv.line()
	if err != nil {
		return err
	}
	var rss0, rss1 int64
	var fd0, fd1 int
	settle := max(1, s.n.sessions/10) // until here it may grow
	for i := range s.n.sessions {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		r.cases++
		start := time.Now()
		p := s.run(s.providers[i%len(s.providers)], "--size", "1MB", "--blocks", "1", line)
		code := p.wait(timeout + late)
		r.codes[code]++
		s.judge(r, p, code, []int{0}, fmt.Sprintf("session %d", i+1))
		r.slowest = max(r.slowest, time.Since(start))
		if i+1 != settle && i+1 != s.n.sessions {
			continue
		}
		if rss1, err = vm(srv.cmd.Process.Pid, "VmRSS"); err != nil {
			return err
		}
		if fd1, err = descriptors(srv.cmd.Process.Pid); err != nil {
			return err
		}
		if i+1 == settle {
			rss0, fd0 = rss1, fd1
		}
	}
	r.note = fmt.Sprintf("resident %d to %d MB, descriptors %d to %d", rss0/1e6, rss1/1e6, fd0, fd1)
	if rss1-rss0 > growth {
		r.fault("serve grew from %d to %d bytes", rss0, rss1)
	}
	if fd1-fd0 > 8 {
		r.fault("serve's descriptors grew from %d to %d", fd0, fd1)
	}
	return s.endServe(s.table.row("serve ends, after them"), srv)
}

// errFault is of what strangers were granted.
var errFault = errors.New("serve")

// strangers are connections to serve without its secret.
func (s *soak) strangers() error {
	for _, k := range []struct {
		name string
		do   func(ctx context.Context, address string) (string, error)
	}{
		{"strangers: refused hellos", s.hellos},
		{"strangers: bodies of 4 MiB, 60 connections", s.bodies},
		{"strangers: garbage", garbage},
		{"strangers: silent connections", silent},
	} {
		r := s.table.row(k.name)
		srv := s.start("serve", "--listen", "127.0.0.1:0")
		line, err := srv.line()
		if err != nil {
			return err
		}
		// One session first: memory is compared from here on.
		s.served(r, line, "before")
		rss0, err := vm(srv.cmd.Process.Pid, "VmHWM")
		if err != nil {
			return err
		}
		address, _, err := peer.ParseLine(line, nil)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(s.ctx)
		done := make(chan struct{})
		var note string
		go func() { note, err = k.do(ctx, address); close(done) }()
		// A real user in the middle of it, and one after it.
		time.Sleep(time.Second)
		s.served(r, line, "during")
		select {
		case <-done:
		case <-time.After(3 * time.Minute):
			cancel()
			<-done
			r.fault("the strangers were not through within 3 minutes")
		}
		cancel()
		switch {
		case errors.Is(err, errFault):
			r.fault("%v", err)
		case err != nil:
			return fmt.Errorf("%s: %w", k.name, err)
		}
		s.served(r, line, "after")
		rss1, err := vm(srv.cmd.Process.Pid, "VmHWM")
		if err != nil {
			return err
		}
		fds, err := descriptors(srv.cmd.Process.Pid)
		if err != nil {
			return err
		}
		r.note = fmt.Sprintf("%s; most resident %d, before %d MB; %d descriptors", note, rss1/1e6, rss0/1e6, fds)
		if rss1-rss0 > growth {
			r.fault("serve grew from %d to %d bytes", rss0, rss1)
		}
		if err := s.endServe(r, srv); err != nil {
			return err
		}
	}
	return nil
}

// served holds serve to serve a real user.
func (s *soak) served(r *row, line, when string) {
	r.cases++
	start := time.Now()
	p := s.small(line)
	code := p.wait(timeout + late)
	r.codes[code]++
	s.judge(r, p, code, []int{0}, "a real user, "+when)
	r.slowest = max(r.slowest, time.Since(start))
}

// hellos dials with a wrong secret, from several clients at once, as often as
// serve's brake lets them.
func (s *soak) hellos(ctx context.Context, address string) (string, error) {
	wrong, err := peer.NewSecret()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, s.n.hellos)
	defer cancel()
	var refused, granted atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				c, err := peer.Dial(ctx, address, wrong, timeout)
				if err == nil {
					granted.Add(1)
					_ = c.Close()
				}
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	if n := granted.Load(); n > 0 {
		return "", fmt.Errorf("%w: a wrong secret was let in %d times", errFault, n)
	}
	return fmt.Sprintf("%d hellos refused in %.0f s", refused.Load(), s.n.hellos.Seconds()), nil
}

// bodies sends calls with large bodies over many connections.
func (s *soak) bodies(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.n.flood)
	defer cancel()
	body := make([]byte, 4<<20-64)
	var sent, connections atomic.Int64
	var wg sync.WaitGroup
	for range 60 {
		wg.Go(func() {
			conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})),
				grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})))
			if err != nil {
				return
			}
			defer conn.Close()
			connections.Add(1)
			var calls sync.WaitGroup
			for range 4 {
				calls.Go(func() {
					for ctx.Err() == nil {
						var reply []byte
						// Refused, whatever the reason; only serve's state matters.
						_ = conn.Invoke(ctx, "/xferbench.Peer/Memory", &body, &reply)
						sent.Add(1)
						select {
						case <-ctx.Done():
						case <-time.After(5 * time.Millisecond):
						}
					}
				})
			}
			calls.Wait()
		})
	}
	wg.Wait()
	return fmt.Sprintf("%d calls over %d connections", sent.Load(), connections.Load()), nil
}

// rawCodec carries bytes as they are.
type rawCodec struct{}

func (rawCodec) Name() string                       { return "xferbench-json" }
func (rawCodec) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }

var _ encoding.Codec = rawCodec{}

// garbage writes random bytes, and TLS records that are none.
func garbage(ctx context.Context, address string) (string, error) {
	n := 0
	for ; n < 500 && ctx.Err() == nil; n++ {
		c, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, "tcp", address)
		if err != nil {
			continue // turned away
		}
		b := make([]byte, 4096)
		if _, err := rand.Read(b); err != nil {
			return "", errors.Join(err, c.Close())
		}
		if n%2 == 0 {
			copy(b, "\x16\x03\x01\x0f\xfb")
		}
		if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
			return "", errors.Join(err, c.Close())
		}
		// Either may fail: serve hangs up when it likes.
		_, _ = c.Write(b)
		_, _ = io.CopyN(io.Discard, c, 1)
		_ = c.Close()
	}
	return fmt.Sprintf("%d connections", n), nil
}

// silent opens connections that say nothing, every other one after a TLS
// handshake, and waits until serve has closed them all.
func silent(ctx context.Context, address string) (string, error) {
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	refused := 0
	for i := range 100 {
		c, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, "tcp", address)
		if err != nil {
			refused++
			continue
		}
		if i%2 == 0 {
			t := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			hctx, cancel := context.WithTimeout(ctx, timeout)
			if t.HandshakeContext(hctx) == nil {
				c = t
			}
			cancel()
		}
		conns = append(conns, c)
	}
	start := time.Now()
	open := 0
	for _, c := range conns {
		if err := c.SetReadDeadline(start.Add(time.Minute)); err != nil {
			return "", err
		}
		_, err := io.Copy(io.Discard, c)
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			open++
		}
	}
	if open > 0 {
		return "", fmt.Errorf("%w: %d of %d silent connections were still open after a minute", errFault, open, len(conns))
	}
	return fmt.Sprintf("%d connections, all closed within %.0f s", len(conns)+refused, time.Since(start).Seconds()), nil
}

// clients hold the secret and ask for what no side should give.
func (s *soak) clients() error {
	r := s.table.row("clients with the secret, absurd requests")
	srv := s.start("serve", "--listen", "127.0.0.1:0")
	line, err := srv.line()
	if err != nil {
		return err
	}
	address, secret, err := peer.ParseLine(line, nil)
	if err != nil {
		return err
	}
	for _, a := range absurd {
		r.cases++
		start := time.Now()
		if err := s.ask(address, secret, a.do); err != nil {
			r.fault("%s: %v", a.name, err)
		}
		r.slowest = max(r.slowest, time.Since(start))
		s.served(r, line, "after: "+a.name)
	}
	return s.endServe(r, srv)
}

// errGiven is the fault of a request that was granted.
var errGiven = errors.New("granted")

// ask makes a session and a request in it that must be refused, in time.
func (s *soak) ask(address string, secret peer.Secret, do func(context.Context, *peer.Client) error) error {
	ctx, cancel := context.WithTimeout(s.ctx, late)
	defer cancel()
	c, err := peer.Dial(ctx, address, secret, timeout)
	if err != nil {
		return fmt.Errorf("no session: %w", err)
	}
	err = do(ctx, c)
	// The session may be over by now; that is an answer too.
	_ = c.Close()
	switch {
	case err == nil:
		return errGiven
	case ctx.Err() != nil:
		return fmt.Errorf("no answer within %v", late)
	}
	return nil
}

func config(change func(*transport.Config)) transport.Config {
	c := transport.Config{Provider: "tcp", Role: transport.Target, Bind: []string{"127.0.0.1"}, Ops: []loop.Op{loop.Read},
		Streams: 1, Depth: 16, Timeout: timeout, Device: -1, SameHost: true}
	change(&c)
	return c
}

func open(change func(*transport.Config)) func(context.Context, *peer.Client) error {
	return func(ctx context.Context, c *peer.Client) error {
		_, err := c.Open(ctx, transport.OpenRequest{Endpoint: 0, Config: config(change)})
		return err
	}
}

// planned asks for a plan over an endpoint in order.
func planned(q transport.PlanRequest) func(context.Context, *peer.Client) error {
	return func(ctx context.Context, c *peer.Client) error {
		if _, err := c.Memory(ctx, transport.MemoryRequest{Kind: mem.Host, Bytes: 64 << 20}); err != nil {
			return nil // not what is asked about: counted as granted
		}
		if _, err := c.Open(ctx, transport.OpenRequest{Endpoint: 0, Config: config(func(*transport.Config) {})}); err != nil {
			return nil
		}
		_, err := c.Plan(ctx, q)
		return err
	}
}

var tiny = kv.Request{Model: kv.Uniform("x", 1, 1, 1, 1, kv.BF16), Bytes: 64 << 20, Shape: kv.Contiguous}

var absurd = []struct {
	name string
	do   func(context.Context, *peer.Client) error
}{
	{"memory of 2^63", func(ctx context.Context, c *peer.Client) error {
		_, err := c.Memory(ctx, transport.MemoryRequest{Kind: mem.Host, Bytes: 1 << 63})
		return err
	}},
	{"memory of 2^61", func(ctx context.Context, c *peer.Client) error {
		_, err := c.Memory(ctx, transport.MemoryRequest{Kind: mem.Host, Bytes: 1 << 61})
		return err
	}},
	{"memory of no kind", func(ctx context.Context, c *peer.Client) error {
		_, err := c.Memory(ctx, transport.MemoryRequest{Kind: "/dev/mem", Bytes: 1})
		return err
	}},
	{"memory of 0", func(ctx context.Context, c *peer.Client) error {
		_, err := c.Memory(ctx, transport.MemoryRequest{Kind: mem.Host})
		return err
	}},
	{"2^62 streams", open(func(c *transport.Config) { c.Streams = 1 << 62 })},
	{"-1 streams", open(func(c *transport.Config) { c.Streams = -1 })},
	{"streams times rails beyond int", open(func(c *transport.Config) { c.Streams, c.Rails = 1<<33, 1<<33 })},
	{"2^40 rails", open(func(c *transport.Config) { c.Rails = 1 << 40 })},
	{"depth 2^62", open(func(c *transport.Config) { c.Depth = 1 << 62 })},
	{"a timeout of 4 ns", open(func(c *transport.Config) { c.Timeout = 4 })},
	{"a timeout of 2^63 ns", open(func(c *transport.Config) { c.Timeout = math.MaxInt64 })},
	{"operation 99", open(func(c *transport.Config) { c.Ops = []loop.Op{99} })},
	{"poll mode 99", open(func(c *transport.Config) { c.Poll = 99 })},
	{"provider of 1 MiB", open(func(c *transport.Config) { c.Provider = string(make([]byte, 1<<20)) })},
	{"no such provider", open(func(c *transport.Config) { c.Provider = "fabric:../../../etc/passwd" })},
	{"UCX_MODULE_DIR", open(func(c *transport.Config) { c.Provider, c.Options = "ucx:tcp", map[string]string{"MODULE_DIR": "/tmp"} })},
	{"UCX_LOG_FILE", open(func(c *transport.Config) { c.Provider, c.Options = "ucx:tcp", map[string]string{"LOG_FILE": "/tmp/x"} })},
	{"binds to a name", open(func(c *transport.Config) { c.Bind = []string{"localhost; true"} })},
	{"10,000 binds", open(func(c *transport.Config) {
		c.Bind = make([]string, 10000)
		for i := range c.Bind {
			c.Bind[i] = "127.0.0.1"
		}
	})},
	{"chunk 1 on 64 MiB", planned(transport.PlanRequest{Op: loop.Read, KV: tiny, Lanes: 1, Chunk: 1})},
	{"a plan of 2^40 lanes", planned(transport.PlanRequest{Op: loop.Read, KV: tiny, Lanes: 1 << 40})},
	{"a plan of 2^62 layers", planned(transport.PlanRequest{Op: loop.Read, Lanes: 1,
		KV: kv.Request{Model: kv.Uniform("x", 1<<62, 1, 1, 1, kv.BF16), Tokens: 1 << 40, Shape: kv.Fragmented, BlockTokens: 1}})},
	{"a plan beyond the buffer", planned(transport.PlanRequest{Op: loop.Read, Lanes: 1,
		KV: kv.Request{Model: tiny.Model, Bytes: 1 << 40, Shape: kv.Contiguous}})},
	{"a plan of nothing", planned(transport.PlanRequest{Op: loop.Read, Lanes: 1})},
	{"arming of no plan", func(ctx context.Context, c *peer.Client) error {
		_, err := c.Arm(ctx, transport.ArmRequest{Plan: -1, Iters: 1 << 62})
		return err
	}},
	{"checking of no plan", func(ctx context.Context, c *peer.Client) error {
		_, err := c.Check(ctx, transport.PayloadRequest{Plan: 1 << 40})
		return err
	}},
	{"connecting to garbage", func(ctx context.Context, c *peer.Client) error {
		if _, err := c.Memory(ctx, transport.MemoryRequest{Kind: mem.Host, Bytes: 1 << 20}); err != nil {
			return nil
		}
		if _, err := c.Open(ctx, transport.OpenRequest{Endpoint: 0, Config: config(func(*transport.Config) {})}); err != nil {
			return nil
		}
		if _, err := c.Register(ctx, transport.RegisterRequest{Endpoint: 0}); err != nil {
			return nil
		}
		_, err := c.Connect(ctx, transport.ConnectRequest{Endpoint: 0, Address: make([]byte, 1<<20)})
		return err
	}},
	{"UCX: connecting to garbage", func(ctx context.Context, c *peer.Client) error {
		if _, err := c.Memory(ctx, transport.MemoryRequest{Kind: mem.Host, Bytes: 1 << 20}); err != nil {
			return nil
		}
		if _, err := c.Open(ctx, transport.OpenRequest{Endpoint: 0, Config: config(func(c *transport.Config) { c.Provider = "ucx:tcp" })}); err != nil {
			return nil
		}
		if _, err := c.Register(ctx, transport.RegisterRequest{Endpoint: 0}); err != nil {
			return nil
		}
		a := []byte(`{"api":"ucx","library_version":"1","workers":["/////////////////////w=="],"key":"/////////////////////w==","base":0,"length_bytes":1048576}`)
		_, err := c.Connect(ctx, transport.ConnectRequest{Endpoint: 0, Address: a})
		return err
	}},
	{"4,000 endpoints", func(ctx context.Context, c *peer.Client) error {
		for i := range 4000 {
			if _, err := c.Open(ctx, transport.OpenRequest{Endpoint: i, Config: config(func(c *transport.Config) { c.Provider = "socket" })}); err != nil {
				return err
			}
		}
		return nil
	}},
}
