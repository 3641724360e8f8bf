package main

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/peer"
	"github.com/xferbench/xferbench/internal/transport"
)

// kilobytes is a figure of /proc/PID/status, such as VmHWM.
func (p *proc) kilobytes(key string) int {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, key+":"); ok {
			var kb int
			if _, err := fmt.Sscanf(v, "%d kB", &kb); err != nil {
				p.t.Fatal(err)
			}
			return kb
		}
	}
	p.t.Fatalf("no %s", key)
	return 0
}

// target starts a serve and reads its line.
func target(t *testing.T, args ...string) (s *proc, address string, secret peer.Secret) {
	t.Helper()
	s = xferbench(t, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	address, secret, err := peer.ParseLine(s.line(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, address, secret
}

// session begins one and ends it with the test.
func session(t *testing.T, address string, secret peer.Secret) *peer.Client {
	t.Helper()
	c, err := peer.Dial(t.Context(), address, secret, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// knock is the name that clients call the server by, which anyone on the network
// can see; derived anew here.
func knock(t *testing.T, s peer.Secret) string {
	t.Helper()
	b, err := hkdf.Expand(sha256.New, s[:], "xferbench knock", 32)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b[:16])
}

// strangers are clients without the secret; each is one attempt.
func strangers(t *testing.T, address string, secret peer.Secret) map[string]func(context.Context) {
	body := make([]byte, 4<<20)
	dial := func(ctx context.Context) net.Conn {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil
		}
		context.AfterFunc(ctx, func() { c.Close() })
		return c
	}
	overTLS := func(name string) func(context.Context) {
		return func(ctx context.Context) {
			if c := dial(ctx); c != nil {
				defer c.Close()
				s := tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"h2"}})
				if s.HandshakeContext(ctx) == nil {
					s.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
					s.Write(body)
				}
			}
		}
	}
	return map[string]func(context.Context){
		"TLS":          overTLS("localhost"),
		"TLS, no name": overTLS(""),
		// Has listened on the network.
		"TLS with the name": overTLS(knock(t, secret)),
		"garbage": func(ctx context.Context) {
			if c := dial(ctx); c != nil {
				c.Write(body)
				c.Close()
			}
		},
		"silence": func(ctx context.Context) {
			if c := dial(ctx); c != nil {
				c.Read(make([]byte, 1)) // until it is closed there
				c.Close()
			}
		},
	}
}

// Strangers on 60 connections at a time, with bodies of 4 MiB: memory stays
// small, the log short, and who has the secret is served meanwhile.
func TestStrangersCostLittle(t *testing.T) {
	s, address, secret := target(t)
	session(t, address, secret).Close() // serve has done all that it does
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, one := range strangers(t, address, secret) {
		for range 12 {
			wg.Go(func() {
				for ctx.Err() == nil {
					one(ctx)
				}
			})
		}
	}
	for range 5 {
		time.Sleep(500 * time.Millisecond)
		c := session(t, address, secret)
		if _, err := c.Inventory(t.Context()); err != nil {
			t.Errorf("a user with the secret: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	cancel()
	wg.Wait()
	if hwm := s.kilobytes("VmHWM"); hwm > 150<<10 {
		t.Errorf("serve took %d kB for strangers", hwm)
	} else {
		t.Logf("VmHWM %d kB", hwm)
	}
	s.Signal(syscall.SIGTERM)
	s.exits(130)
	log := s.Errs.String()
	if n := strings.Count(log, "refused"); n > 4 || !strings.Contains(log, "more connections") {
		t.Errorf("%d lines of refusals:\n%s", n, log)
	}
}

// Refusals leave nothing: of strangers, and of clients that hold the secret while
// another has the session.
func TestRefusalsLeaveNothing(t *testing.T) {
	s, address, secret := target(t)
	held := session(t, address, secret)
	refuse := func(n int) {
		var wg sync.WaitGroup
		var done atomic.Int64
		for range 8 {
			wg.Go(func() {
				// Some workers are delayed; the others go on.
				for done.Add(1) <= int64(n) {
					if c, err := peer.Dial(t.Context(), address, secret, 20*time.Second); err == nil || !strings.Contains(err.Error(), "busy") {
						t.Errorf("not refused: %v, %v", c, err)
						return
					}
					strangers(t, address, secret)["TLS, no name"](t.Context())
				}
			})
		}
		wg.Wait()
	}
	refuse(400)
	before := s.kilobytes("VmRSS")
	refuse(2000)
	// 42 kB each would be 168 MB.
	if grown := s.kilobytes("VmRSS") - before; grown > 20<<10 {
		t.Errorf("2,000 refused hellos and 2,000 strangers: %d kB more", grown)
	} else {
		t.Logf("%d kB more, VmHWM %d kB", grown, s.kilobytes("VmHWM"))
	}
	if _, err := held.Inventory(t.Context()); err != nil {
		t.Errorf("the session that is served: %v", err)
	}
}

// A connection that says nothing is closed, before TLS and after it.
func TestIdleConnectionsAreClosed(t *testing.T) {
	t.Parallel() // it waits more than it works
	_, address, _ := target(t)
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("a silent connection: %v", err)
	}
}

// absurd asks a session for what nobody can need, and fails where it is given.
func absurd(t *testing.T, c *peer.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	refused := func(what string, err error) {
		t.Helper()
		if err == nil || ctx.Err() != nil || c.Context().Err() != nil {
			t.Errorf("%s: %v (session: %v)", what, err, context.Cause(c.Context()))
		}
	}
	config := func() transport.Config {
		return transport.Config{Provider: "tcp", Role: transport.Target, Bind: []string{"127.0.0.1"}, Streams: 1, Timeout: 5 * time.Second, Device: -1,
			Ops: []loop.Op{loop.Read}}
	}
	for what, change := range map[string]func(*transport.Config){
		"streams 2^62":           func(c *transport.Config) { c.Streams = 1 << 62 },
		"streams × rails":        func(c *transport.Config) { c.Streams, c.Rails = 1<<32, 1<<32 },
		"socket streams × rails": func(c *transport.Config) { c.Provider, c.Streams, c.Rails = "socket", 1<<62, 4 },
		"ucx streams":            func(c *transport.Config) { c.Provider, c.Streams = "ucx:tcp", 1<<62 },
		"depth":                  func(c *transport.Config) { c.Depth = math.MaxInt },
		"timeout":                func(c *transport.Config) { c.Timeout = 4 },
		"device":                 func(c *transport.Config) { c.Device = math.MaxInt },
		"UCX_MODULE_DIR":         func(c *transport.Config) { c.Provider, c.Options = "ucx", map[string]string{"UCX_MODULE_DIR": "/tmp"} },
		"memcpy":                 func(c *transport.Config) { c.Provider = "memcpy" },
	} {
		q := config()
		change(&q)
		_, err := c.Open(ctx, transport.OpenRequest{Endpoint: 1, Config: q})
		refused(what, err)
	}
	_, err := c.Open(ctx, transport.OpenRequest{Endpoint: -1, Config: config()})
	refused("endpoint -1", err)
	_, err = c.Memory(ctx, transport.MemoryRequest{Kind: mem.Host, Bytes: math.MaxUint64})
	refused("2^64-1 bytes", err)
	if _, err := c.Memory(ctx, transport.MemoryRequest{Kind: mem.Host, Bytes: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	// A library of its own choice, as initiator: neither is heard.
	q := config()
	q.Role, q.Library = transport.Initiator, "/nonexistent/any.so"
	if _, err := c.Open(ctx, transport.OpenRequest{Endpoint: 1, Config: q}); err != nil {
		t.Errorf("the initiator's library was looked for: %v", err)
	}
	_, err = c.Connect(ctx, transport.ConnectRequest{Endpoint: 1, Address: make([]byte, 1<<20)})
	refused("connecting before registration", err)
	if _, err := c.Register(ctx, transport.RegisterRequest{Endpoint: 1}); err != nil {
		t.Fatal(err)
	}
	_, err = c.Connect(ctx, transport.ConnectRequest{Endpoint: 1, Address: make([]byte, 1<<20)})
	refused("an address of 1 MiB of nothing", err)
	for what, r := range map[string]transport.PlanRequest{
		"chunk 1":  {Endpoint: 1, Lanes: 1, Chunk: 1, KV: kv.Request{Bytes: 64 << 20, Shape: kv.Contiguous}},
		"plan -1":  {Plan: -1, Endpoint: 1, Lanes: 1, KV: kv.Request{Bytes: 1 << 20, Shape: kv.Contiguous}},
		"lanes":    {Endpoint: 1, Lanes: 1 << 62, KV: kv.Request{Bytes: 1 << 20, Shape: kv.Contiguous}},
		"too long": {Endpoint: 1, Lanes: 1, KV: kv.Request{Bytes: math.MaxInt64, MaxBytes: math.MaxInt64, Shape: kv.Contiguous}},
		"layers": {Endpoint: 1, Lanes: 1, KV: kv.Request{Tokens: math.MaxInt64, MaxBytes: math.MaxInt64, MaxDescs: math.MaxInt, Shape: kv.Fragmented,
			Model: kv.Uniform("", 10000, 1, 1, 1, kv.BF16)}},
	} {
		r.Op = loop.Read
		_, err := c.Plan(ctx, r)
		refused(what, err)
	}
	_, err = c.Arm(ctx, transport.ArmRequest{Plan: 0, Iters: math.MaxInt})
	refused("arming nothing", err)
	_, err = c.Shut(ctx, transport.EndpointRequest{Endpoint: math.MinInt})
	refused("shutting nothing", err)
}

// Who holds the secret cannot end serve, nor a session, by what it asks for.
func TestAbsurdRequests(t *testing.T) {
	for name, args := range map[string][]string{"sessions": nil, "once": {"--once"}} {
		t.Run(name, func(t *testing.T) {
			s, address, secret := target(t, append(args, "--max-memory", "64MiB")...)
			c := session(t, address, secret)
			absurd(t, c)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if name == "once" {
				s.exits(0)
				return
			}
			c = session(t, address, secret)
			if _, err := c.Memory(t.Context(), transport.MemoryRequest{Kind: mem.Host, Bytes: 1 << 20}); err != nil {
				t.Errorf("the next session: %v", err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			s.Signal(syscall.SIGTERM)
			s.exits(130)
		})
	}
}

func TestAllow(t *testing.T) {
	s, address, secret := target(t, "--allow", "10.66.0.1,127.0.0.0/8,::1")
	if err := session(t, address, secret).Close(); err != nil {
		t.Error(err)
	}
	s.Signal(syscall.SIGTERM)
	s.exits(130)
	s, address, secret = target(t, "--allow", "10.66.0.0/16", "--allow", "fd00::/8")
	c, err := peer.Dial(t.Context(), address, secret, 5*time.Second)
	if err == nil || !strings.Contains(err.Error(), "--allow") {
		t.Errorf("from elsewhere: %v, %v", c, err)
	}
	s.Until("serve says so", func() bool { return strings.Contains(s.Errs.String(), "not in --allow") })
	s.Signal(syscall.SIGTERM)
	s.exits(130)
}

// The process of a session has given up what it does not need, all its threads
// have, and it serves as before.
func TestSessionProcess(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not for libraries")
	t.Setenv("UCX_KEEPALIVE_INTERVAL", "20s")
	inherited, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer inherited.Close()
	cmd := exec.Command(bin, "serve", "--listen", "127.0.0.1:0")
	cmd.ExtraFiles = []*os.File{inherited}
	s := spawn(t, cmd)
	line := s.line()
	address, secret, err := peer.ParseLine(line, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := session(t, address, secret)
	if _, err := c.Memory(t.Context(), transport.MemoryRequest{Kind: mem.Host, Bytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	q := transport.Config{Provider: "ucx", Role: transport.Target, Streams: 2, Timeout: 20 * time.Second, Device: -1, Ops: []loop.Op{loop.Read}}
	if _, err := c.Open(t.Context(), transport.OpenRequest{Config: q}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Register(t.Context(), transport.RegisterRequest{}); err != nil {
		t.Fatal(err)
	}
	children := s.children()
	if len(children) != 1 {
		t.Fatalf("processes of the session: %v", children)
	}
	proc := fmt.Sprintf("/proc/%d", children[0])
	threads, err := filepath.Glob(proc + "/task/*/status")
	if err != nil || len(threads) < 3 {
		t.Fatalf("threads %v, %v", threads, err)
	}
	for _, f := range threads {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // over
		}
		for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s does not say %q", f, want)
			}
		}
	}
	env, err := os.ReadFile(proc + "/environ")
	if err != nil || strings.Contains(string(env), "AWS_SECRET") || !strings.Contains(string(env), "UCX_KEEPALIVE_INTERVAL=20s") {
		t.Errorf("environment %q, %v", env, err)
	}
	fds, err := filepath.Glob(proc + "/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fds {
		if to, err := os.Readlink(f); err == nil && to == "/etc/passwd" {
			t.Errorf("%s is serve's own %s", f, to)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	r := xferbench(t, "--provider", "tcp,ucx:tcp,shm,ucx:shm,ucx,socket", "--op", "read,write,send", "--size", "1MB", "--shape", "merged", "--no-ceiling",
		"--blocks", "1", "--no-record", line)
	r.exits(0)
	s.Signal(syscall.SIGTERM)
	s.exits(130)
}
