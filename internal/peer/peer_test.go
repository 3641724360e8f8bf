package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/transport"
	"github.com/xferbench/xferbench/internal/version"
)

func TestMain(m *testing.M) {
	if os.Getenv(helperConfined) != "" {
		os.Exit(confinedHelper())
	}
	goleak.VerifyTestMain(m)
}

// served is a server on loopback with its log.
type served struct {
	*Server
	address string
	stop    func() error

	mu  sync.Mutex
	log bytes.Buffer
}

func serve(t *testing.T, s *Server) *served {
	t.Helper()
	out := &served{Server: s}
	var err error
	if s.Secret, err = NewSecret(); err != nil {
		t.Fatal(err)
	}
	s.Log = func(format string, args ...any) {
		out.mu.Lock()
		defer out.mu.Unlock()
		fmt.Fprintf(&out.log, format+"\n", args...)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	var once sync.Once
	out.stop = func() (err error) {
		once.Do(func() {
			cancel()
			select {
			case err = <-done:
			case <-time.After(20 * time.Second):
				err = errors.New("the server did not end")
			}
		})
		return err
	}
	t.Cleanup(func() {
		if err := out.stop(); err != nil {
			t.Error(err)
		}
	})
	return out
}

func (s *served) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

func dial(t *testing.T, s *served, timeout time.Duration) *Client {
	t.Helper()
	c, err := Dial(context.Background(), s.address, s.Secret, timeout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// eventually polls until ok, for at most 20 s.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 20 s: %s", what)
}

func TestSessionsOneAfterAnother(t *testing.T) {
	s := serve(t, &Server{MaxMemory: 1 << 20})
	before := mem.Allocated()
	for range 3 {
		c := dial(t, s, 5*time.Second)
		ctx := c.Context()
		if !c.SameHost || c.Local == nil {
			t.Errorf("same host %v, local %v", c.SameHost, c.Local)
		}
		h, err := c.Inventory(ctx)
		if err != nil || h.CPUs < 1 {
			t.Fatalf("inventory %+v, %v", h, err)
		}
		if _, err := c.Memory(ctx, transport.MemoryRequest{Kind: mem.Host, Bytes: 1 << 21}); !errors.Is(err, transport.ErrTooLarge) || !strings.Contains(err.Error(), "--max-memory") {
			t.Errorf("memory over the limit: %v", err)
		}
		if _, err := c.Memory(ctx, transport.MemoryRequest{Kind: mem.Host, Bytes: 1 << 20}); err != nil {
			t.Fatal(err)
		}
		if got := mem.Allocated() - before; got != 1<<20 {
			t.Errorf("%d bytes allocated", got)
		}
		if _, err := c.Open(ctx, transport.OpenRequest{Config: transport.Config{Provider: "ucx:no-such-transport"}}); err == nil {
			t.Error("an unknown transport was opened")
		}
		if _, err := c.Arm(ctx, transport.ArmRequest{Plan: 7}); !errors.Is(err, transport.ErrRefused) {
			t.Errorf("arming a plan that is not there: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if got := mem.Allocated() - before; got != 0 {
			t.Errorf("%d bytes left after goodbye", got)
		}
	}
}

// greetWith begins a session with any hello and returns the server's error.
func greetWith(t *testing.T, s *served, h *hello) error {
	t.Helper()
	conn := connection(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var err error
	if h != nil {
		if ctx, err = h.context(ctx); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := conn.NewStream(ctx, &attendDesc, "/"+service+"/"+attendDesc.StreamName)
	if err == nil {
		err = stream.RecvMsg(&beat{})
	}
	return err
}

// connection is one of a client that holds the secret and keeps no rules.
func connection(t *testing.T, s *served) *grpc.ClientConn {
	t.Helper()
	cfg, err := s.Secret.clientTLS()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+s.address, grpc.WithTransportCredentials(credentials.NewTLS(cfg)),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// alerted reports whether the other side ended a TLS handshake with an alert.
func alerted(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

func TestRefusals(t *testing.T) {
	s := serve(t, &Server{})
	other, err := NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("wrong token", func(t *testing.T) {
		_, err := Dial(context.Background(), s.address, other, 5*time.Second)
		if !errors.Is(err, ErrPeer) || !strings.Contains(err.Error(), "does not belong to this token") {
			t.Errorf("Dial: %v", err)
		}
	})
	t.Run("no client key", func(t *testing.T) {
		// A client that has seen the server's name on the wire.
		c, err := tls.Dial("tcp", s.address, &tls.Config{ServerName: s.Secret.knock(), InsecureSkipVerify: true})
		if err == nil {
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if !alerted(err) {
			t.Errorf("TLS without a key: %v", err)
		}
		cfg, err := other.clientTLS()
		if err != nil {
			t.Fatal(err)
		}
		cfg.ServerName, cfg.VerifyConnection = s.Secret.knock(), nil
		if c, err = tls.Dial("tcp", s.address, cfg); err == nil {
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if !alerted(err) {
			t.Errorf("TLS with another key: %v", err)
		}
	})
	t.Run("other version", func(t *testing.T) {
		h := newHello("", 5*time.Second)
		h.Version = version.Version + "-other"
		err := greetWith(t, s, h)
		if err == nil || !strings.Contains(err.Error(), "run the same build on both sides") || !strings.Contains(err.Error(), h.Version) {
			t.Errorf("begin: %v", err)
		}
	})
	t.Run("absurd timeouts", func(t *testing.T) {
		for _, d := range []time.Duration{4, -1, 0, math.MaxInt64, math.MinInt64} {
			if err := greetWith(t, s, newHello("", d)); status.Code(err) != codes.InvalidArgument {
				t.Errorf("%v: %v", d, err)
			}
		}
	})
	t.Run("no hello", func(t *testing.T) {
		if err := greetWith(t, s, nil); status.Code(err) != codes.InvalidArgument {
			t.Errorf("without: %v", err)
		}
	})
	t.Run("busy", func(t *testing.T) {
		c := dial(t, s, 5*time.Second)
		_, err := Dial(context.Background(), s.address, s.Secret, 5*time.Second)
		if !errors.Is(err, ErrPeer) || !strings.Contains(err.Error(), "busy") {
			t.Errorf("Dial: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		a := l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		_, err = Dial(context.Background(), a, s.Secret, 5*time.Second)
		if !errors.Is(err, ErrPeer) || !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "xferbench serve") {
			t.Errorf("Dial: %v", err)
		}
	})
	t.Run("not TLS", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n"))
				c.Close()
			}
		}()
		_, err = Dial(context.Background(), l.Addr().String(), s.Secret, 5*time.Second)
		if !errors.Is(err, ErrPeer) {
			t.Errorf("Dial: %v", err)
		}
	})
	t.Run("silent listener", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		start := time.Now()
		_, err = Dial(context.Background(), l.Addr().String(), s.Secret, 300*time.Millisecond)
		if !errors.Is(err, ErrPeer) {
			t.Errorf("Dial: %v", err)
		}
		if d := time.Since(start); d < 300*time.Millisecond || d > 10*time.Second {
			t.Errorf("gave up after %v", d)
		}
	})
}

func TestGarbageDoesNotHurt(t *testing.T) {
	s := serve(t, &Server{})
	for _, g := range []string{"", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\x05hello", strings.Repeat("\xff", 1<<16)} {
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(g)); err != nil {
			t.Logf("write: %v", err) // the server may have hung up
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := dial(t, s, 5*time.Second).Close(); err != nil {
		t.Errorf("a session after garbage: %v", err)
	}
}

func TestServerGoneEndsTheSession(t *testing.T) {
	s := serve(t, &Server{})
	c := dial(t, s, 5*time.Second)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Context().Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the session outlived its server")
	}
	if err := context.Cause(c.Context()); !errors.Is(err, ErrPeer) || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("cause: %v", err)
	}
	if _, err := c.Inventory(context.Background()); !errors.Is(err, ErrPeer) {
		t.Errorf("a call after the end: %v", err)
	}
}

func TestClientGoneFreesTheServer(t *testing.T) {
	s := serve(t, &Server{})
	before := mem.Allocated()
	c := dial(t, s, 5*time.Second)
	if _, err := c.Memory(c.Context(), transport.MemoryRequest{Kind: mem.Host, Bytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := c.conn.Close(); err != nil { // as a process that dies does
		t.Fatal(err)
	}
	eventually(t, "the server frees the session", func() bool { return mem.Allocated() == before })
	if err := dial(t, s, 5*time.Second).Close(); err != nil {
		t.Errorf("a session after one that died: %v", err)
	}
	if l := s.logged(); !strings.Contains(l, "gone") {
		t.Errorf("log %q", l)
	}
}

// A call can reach the server after the session's end and before the client
// has heard of it: the peer is as lost as when the client knows.
func TestCallOvertakesTheEnd(t *testing.T) {
	s := serve(t, &Server{})
	c := dial(t, s, 5*time.Second)
	own := c.session
	c.session = "ended"
	if _, err := c.Inventory(t.Context()); !errors.Is(err, ErrPeer) {
		t.Errorf("a session that was closed: %v", err)
	}
	c.session = own

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fmt.Errorf("%w: standard input ended", transport.ErrTooLarge)) // its kind does not matter any more
	ses := &session{}
	ses.all = []*attendant{{session: ses, id: "ending", ctx: ctx}}
	ending := &Server{session: ses}
	err := ending.call(metadata.NewIncomingContext(t.Context(), metadata.Pairs(sessionKey, "ending")),
		func(context.Context, transport.Peer) error { t.Error("the call was made"); return nil })
	if err = fromStatus(toStatus(err)); !errors.Is(err, ErrPeer) || errors.Is(err, transport.ErrTooLarge) {
		t.Errorf("a session that is being closed: %v", err)
	}
}

// A stopped process keeps its connections: only its silence tells.
func TestSilenceEndsTheSession(t *testing.T) {
	s := serve(t, &Server{})
	c := dial(t, s, 500*time.Millisecond)
	c.send.Lock() // the client's beats stop; the server's go on
	eventually(t, "the server gives a silent client up", func() bool { return strings.Contains(s.logged(), "has not answered") })
	c.send.Unlock()
	select {
	case <-c.Context().Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the client did not hear of it")
	}
}

func TestMaxSessions(t *testing.T) {
	s := serve(t, &Server{MaxSessions: 1})
	if err := dial(t, s, 5*time.Second).Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server ends after its session", func() bool {
		c, err := Dial(context.Background(), s.address, s.Secret, 5*time.Second)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

func TestParseLine(t *testing.T) {
	sec, err := NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"node2:1234":        "node2:1234",
		"node2":             "node2:" + DefaultPort,
		"10.0.0.1":          "10.0.0.1:" + DefaultPort,
		"[fe80::1]:1234":    "[fe80::1]:1234",
		"fe80::1":           "[fe80::1]:" + DefaultPort,
		"::1":               "[::1]:" + DefaultPort,
		"[::1]":             "[::1]:" + DefaultPort,
		"[::1]:65535":       "[::1]:65535",
		"fe80::1%eth0":      "[fe80::1%eth0]:" + DefaultPort,
		"[fe80::1%eth0]":    "[fe80::1%eth0]:" + DefaultPort,
		"[fe80::1%e-0.1]:1": "[fe80::1%e-0.1]:1",
		"::ffff:10.0.0.1":   "[::ffff:10.0.0.1]:" + DefaultPort,
	} {
		a, got, err := ParseLine(in+"#"+sec.String(), nil)
		if err != nil || a != want || got != sec {
			t.Errorf("ParseLine(%q): %q, %v", in, a, err)
		}
		if a, got, err = ParseLine(in, &sec); err != nil || a != want || got != sec {
			t.Errorf("ParseLine(%q) with a secret file: %q, %v", in, a, err)
		}
	}
	for in, want := range map[string]string{
		"node2:1234":                       "no token",
		"node2:1234#short":                 "paste its whole line",
		"node2:1234#" + sec.String() + "x": "paste its whole line",
		":1234#" + sec.String():            "want host",
		"a:b:c#" + sec.String():            "not an IPv6 address",
		"0]0#" + sec.String():              "want host",
		"[::1#" + sec.String():             "not closed",
		"[::1]1#" + sec.String():           "after the bracket",
		"[::1]:#" + sec.String():           "port",
		"[node2]:1#" + sec.String():        "not an IPv6 address",
		"[10.0.0.1]:1#" + sec.String():     "not an IPv6 address",
		"node2%eth0#" + sec.String():       "not an IPv6 address",
		"[fe80::1%]:1#" + sec.String():     "not an IPv6 address",
		"[fe80::1%a]b]:1#" + sec.String():  "after the bracket",
		"node2:0#" + sec.String():          "1 to 65535",
		"node2:65536#" + sec.String():      "1 to 65535",
		"node2:ssh#" + sec.String():        "1 to 65535",
		"node2:#" + sec.String():           "port",
		"node\x002#" + sec.String():        "want host",
		"a b#" + sec.String():              "want host",
		"#" + sec.String():                 "want host",
	} {
		if _, _, err := ParseLine(in, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseLine(%q): %v, want %q", in, err, want)
		}
	}
}

func TestParseSSH(t *testing.T) {
	for in, want := range map[string]remote.Host{
		"ssh://node2":            {Target: "node2", Ask: true},
		"ssh://me@node2:2222":    {Target: "me@node2", Port: "2222", Ask: true},
		"ssh://me@[fe80::1]:22/": {Target: "me@fe80::1", Port: "22", Ask: true},
	} {
		if got, err := ParseSSH(in); err != nil || got != (SSH{Host: want, Program: "xferbench"}) {
			t.Errorf("ParseSSH(%q): %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "local", "ssh://", "ssh:///x", "ssh://a/b", "ssh://a:b@c", "http://a", "ssh://-oProxyCommand=x", "ssh://a?b"} {
		if got, err := ParseSSH(in); err == nil {
			t.Errorf("ParseSSH(%q): %+v", in, got)
		}
	}
}

func TestSecretFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	a, err := ReadSecret(write("a", "sixteen bytes and more\n"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := ReadSecret(write("b", "  sixteen bytes and more"))
	if err != nil || a != b {
		t.Errorf("the same text makes two secrets (%v)", err)
	}
	if _, err := ReadSecret(write("c", "short")); err == nil {
		t.Error("a short secret was taken")
	}
	file := write("d", "sixteen bytes and more")
	for mode, want := range map[os.FileMode]bool{0o600: true, 0o400: true,
		// Of root and a group of ours: as Kubernetes' fsGroup.
		0o640: os.Getuid() == 0, 0o440: os.Getuid() == 0,
		0o604: false, 0o644: false, 0o620: false, 0o666: false} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		_, err := ReadSecret(file)
		if (err == nil) != want || err != nil && (!strings.Contains(err.Error(), fmt.Sprintf("%04o", mode)) || !strings.Contains(err.Error(), "chmod 600 "+file)) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if err := errors.Join(os.Chmod(file, 0o640), os.Chown(file, os.Getuid(), 54321)); err == nil { // as root only
		if _, err := ReadSecret(file); err == nil {
			t.Error("a file for a group that is not ours was taken")
		}
	}
	if a.Fingerprint() == (Secret{}).Fingerprint() || a.knock() == (Secret{}).knock() || a.key().Equal(a.clientKey()) {
		t.Error("two secrets, or two sides, share a key")
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add("node2:1234#" + Secret{}.String())
	f.Add("[::1]")
	f.Add("a#b#c")
	f.Add("0]0")
	f.Add("[fe80::1%eth0]:1234")
	f.Fuzz(func(t *testing.T, in string) {
		a, s, err := ParseLine(in, &Secret{})
		if err != nil {
			return
		}
		if _, _, err := net.SplitHostPort(a); err != nil {
			t.Errorf("ParseLine(%q) gave %q: %v", in, a, err)
		}
		if _, s2, err := ParseLine(Line(a, s), nil); err != nil || s2 != s {
			t.Errorf("%q does not read back: %v", Line(a, s), err)
		}
		if _, err := ParseSSH("ssh://" + in); err == nil && strings.HasPrefix(in, "-") {
			t.Errorf("ssh option %q was taken", in)
		}
	})
}

// A panic in a call is that session's error; the next one is served.
func TestPanicEndsOneSession(t *testing.T) {
	s := serve(t, &Server{})
	c := dial(t, s, 5*time.Second)
	s.mu.Lock()
	s.session.all[0].side = inProcess{} // any call on it panics
	s.mu.Unlock()
	if _, err := c.Inventory(t.Context()); err == nil || !strings.Contains(err.Error(), "internal error of the peer") {
		t.Errorf("a call that panics: %v", err)
	}
	select {
	case <-c.Context().Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the session did not end")
	}
	eventually(t, "the next session is served", func() bool {
		c, err := Dial(t.Context(), s.address, s.Secret, 5*time.Second)
		if err != nil {
			return false
		}
		_, err = c.Inventory(t.Context())
		return errors.Join(err, c.Close()) == nil
	})
}

// A connection that is through and opens no stream is closed too, and its place
// is free again.
func TestIdleConnectionIsClosed(t *testing.T) {
	s := serve(t, &Server{})
	cfg, err := s.Secret.clientTLS()
	if err != nil {
		t.Fatal(err)
	}
	cfg.NextProtos = []string{"h2"}
	for name, words := range map[string]string{"no HTTP/2": "", "no stream": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := tls.Dial("tcp", s.address, cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(c, words); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, c); err != nil && os.IsTimeout(err) {
				t.Errorf("still open: %v", err)
			}
			eventually(t, "its place is free", func() bool {
				s.door.mu.Lock()
				defer s.door.mu.Unlock()
				return s.door.inside == 0 && len(s.door.waiting) == 0
			})
		})
	}
}

// pretend is a connection from an address.
type pretend struct {
	net.Conn
	from   net.Addr
	closed bool
}

func (p *pretend) RemoteAddr() net.Addr { return p.from }
func (p *pretend) Close() error         { p.closed = true; return nil }

func from(ip string) *pretend { return &pretend{from: &net.TCPAddr{IP: net.ParseIP(ip), Port: 9}} }

// Over the cap the oldest unknown connection gives way, of the same address first;
// one that has shown that it knows the secret keeps its place.
func TestDoorPlaces(t *testing.T) {
	var log []string
	d := newDoor(nil, Secret{}, nil, func(f string, a ...any) { log = append(log, fmt.Sprintf(f, a...)) })
	known := from("fd00::1:1")
	v := d.admit(known)
	v.known = true
	first := from("fd00::1:2") // of the same /64
	d.admit(first)
	for range maxWaitingAddress - 2 {
		d.admit(from("fd00::1:3"))
	}
	if first.closed || len(d.waiting) != maxWaitingAddress {
		t.Errorf("%d waiting, the first closed %v", len(d.waiting), first.closed)
	}
	d.admit(from("fd00::1:4"))
	if !first.closed || known.closed || len(d.waiting) != maxWaitingAddress {
		t.Errorf("over the cap: %d waiting, the first closed %v, the known one %v", len(d.waiting), first.closed, known.closed)
	}
	for i := range 2 * maxWaiting {
		d.admit(from(fmt.Sprintf("10.1.%d.%d", i/200, i%200)))
	}
	if len(d.waiting) != maxWaiting || known.closed {
		t.Errorf("%d waiting of all, the known one closed %v", len(d.waiting), known.closed)
	}
	if err := d.handshaken(v, nil); err != nil || d.inside != 1 || len(d.waiting) != maxWaiting-1 {
		t.Errorf("handshake: %v; %d inside, %d waiting", err, d.inside, len(d.waiting))
	}
	if err := v.Close(); err != nil || d.inside != 0 {
		t.Errorf("closed: %v, %d inside", err, d.inside)
	}
	// One line for the first refusal of an address, one for all others.
	w := d.admit(from("10.9.9.9"))
	log = nil
	for range 100 {
		d.refused(w, errStranger)
	}
	d.summary()
	if len(log) != 2 || !strings.HasPrefix(log[0], "refused 10.9.9.9:9") || !strings.Contains(log[1], "99 more connections, from 1 known address") {
		t.Errorf("log %q", log)
	}
}

// linked brings a link up between a side of this process and a session's, and moves
// something over it.
func linked(t *testing.T, c *Client, key uint64) (again func(key uint64) error) {
	t.Helper()
	side := &transport.Side{}
	t.Cleanup(func() {
		if err := side.Close(); err != nil {
			t.Error(err)
		}
	})
	p := &transport.Pair{Local: side, Peer: c}
	want := transport.MemoryRequest{Kind: mem.Host, Bytes: 1 << 18}
	if _, _, err := p.Allocate(t.Context(), want, want); err != nil {
		t.Fatal(err)
	}
	l, err := p.Open(t.Context(), transport.Config{Provider: "socket", Bind: []string{c.Local.String()}, Timeout: 5 * time.Second, SameHost: true, Device: -1})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := l.Plan(t.Context(), transport.Move{Op: loop.Write, KV: kv.Request{Bytes: 1 << 18, Shape: kv.Contiguous}})
	if err != nil {
		t.Fatal(err)
	}
	again = func(key uint64) error {
		out, err := plan.Transfer(t.Context(), transport.Batch{Iters: 2, Key: key})
		if err == nil && !*out.Verified {
			err = errors.New(out.Fault)
		}
		return err
	}
	if err := errors.Join(again(key), p.Seal(t.Context())); err != nil {
		t.Fatal(err)
	}
	return again
}

// Further initiators join a session by its key and work beside the first, whoever
// leaves first; what one opened ends with it, the session with the last.
func TestInitiatorsJoinASession(t *testing.T) {
	s := serve(t, &Server{MaxSessions: 1, MaxMemory: 3 << 18})
	before := mem.Allocated()
	first := dial(t, s, 5*time.Second)
	for _, key := range []string{"", "wrong"} {
		if c, err := Join(t.Context(), s.address, s.Secret, key, 5*time.Second); !errors.Is(err, ErrPeer) {
			t.Errorf("joined with the key %q: %v, %v", key, c, err)
		}
	}
	var others []*Client
	for range 2 {
		c, err := Join(t.Context(), s.address, s.Secret, first.Key(), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if c.Key() != first.Key() || c.session == first.session {
			t.Errorf("key %q and session %q beside %q and %q", c.Key(), c.session, first.Key(), first.session)
		}
		others = append(others, c)
	}
	again := []func(uint64) error{linked(t, first, 1), linked(t, others[0], 2), linked(t, others[1], 3)}
	// At the same time, each with its own data.
	var wg sync.WaitGroup
	for i, f := range again {
		wg.Go(func() {
			for n := range 5 {
				if err := f(uint64(100*i + n)); err != nil {
					t.Errorf("initiator %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := others[1].Memory(t.Context(), transport.MemoryRequest{Buffer: 1, Kind: mem.Host, Bytes: 1}); !errors.Is(err, transport.ErrTooLarge) {
		t.Errorf("more memory than a session may have: %v", err)
	}
	held := mem.Allocated()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "the first one's buffer is free", func() bool { return mem.Allocated() == held-1<<18 })
	if err := errors.Join(again[1](7), again[2](8)); err != nil {
		t.Errorf("after the first has left: %v", err)
	}
	if err := others[0].conn.Close(); err != nil { // as a process that dies does
		t.Fatal(err)
	}
	if err := again[2](9); err != nil {
		t.Errorf("after another has died: %v", err)
	}
	if err := others[1].Close(); err != nil {
		t.Error(err)
	}
	if _, err := Join(t.Context(), s.address, s.Secret, first.Key(), time.Second); err == nil {
		t.Error("joined a session that is over")
	}
	eventually(t, "the session is over", func() bool {
		select {
		case <-s.over:
			return true
		default:
			return false
		}
	})
	if err := s.stop(); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("a session of which one initiator died: %v", err)
	}
	if got := mem.Allocated(); got > before+3<<18 { // this side's own three are left
		t.Errorf("%d bytes are left of the session", got-before)
	}
}

// One initiator's calls are not another's, however it names itself.
func TestInitiatorsAreToldApart(t *testing.T) {
	s := serve(t, &Server{})
	first := dial(t, s, 5*time.Second)
	second, err := Join(t.Context(), s.address, s.Secret, first.Key(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	own := second.session
	second.session = first.session
	if _, err := second.Inventory(t.Context()); !errors.Is(err, ErrPeer) {
		t.Errorf("another's name over its own connection: %v", err)
	}
	second.session = first.Key()
	if _, err := second.Inventory(t.Context()); !errors.Is(err, ErrPeer) {
		t.Errorf("the session's key as a name: %v", err)
	}
	second.session = own
	if _, err := second.Inventory(t.Context()); err != nil {
		t.Error(err)
	}
}

// A session has an end to how many join it; where it is shared, no key is needed.
func TestInitiatorsAreBounded(t *testing.T) {
	s := &Server{Shared: true, session: &session{key: "key"}}
	for range maxInitiators - 1 {
		s.session.all = append(s.session.all, &attendant{})
	}
	for _, h := range []*hello{{}, {Join: "key"}} {
		if err := s.free(h); err != nil {
			t.Errorf("the last place: %v", err)
		}
	}
	s.session.all = append(s.session.all, &attendant{})
	for _, h := range []*hello{{}, {Join: "key"}} {
		if err := s.free(h); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one more: %v", err)
		}
	}
	s.session.all, s.Shared = nil, false
	if err := s.free(&hello{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("without a key: %v", err)
	}
}

// A session that another host's initiator could reach more of than its own is not
// open to it.
func TestRemoteInitiatorDoesNotJoinALocalSession(t *testing.T) {
	for _, c := range []struct {
		session, joining Confinement
		isolate, ok      bool
	}{
		{ConfineLocal, ConfineRemote, true, false},
		{ConfineLocal, ConfineLocal, true, true},
		{ConfineRemote, ConfineRemote, true, true},
		{ConfineRemote, ConfineLocal, true, true},
		{ConfineLocal, ConfineRemote, false, true},
	} {
		s := &Server{Isolate: c.isolate, session: &session{key: "key", confine: c.session}}
		a, err := s.begin(t.Context(), "host", c.joining, &hello{Join: "key"})
		if (err == nil) != c.ok || c.ok != (len(s.session.all) == 1) {
			t.Errorf("%+v: %v, %v", c, a, err)
		}
	}
}
