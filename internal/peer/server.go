package peer

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/xferbench/xferbench/internal/transport"
)

// Server is the target's end: it hands memory and transports to one session at
// a time.
type Server struct {
	Secret Secret
	// MaxMemory limits a session's buffer in bytes, 0 not at all.
	MaxMemory uint64
	// MaxSessions is after how many sessions Serve returns; 0: never.
	MaxSessions int
	// Bind holds the IP addresses for transports, one a rail; none: those from
	// which the initiator's are reached.
	Bind []string
	// Libfabric and Libucp are the libraries to load, "" for the loader's.
	Libfabric, Libucp string
	// Allow holds where connections may come from; none: from everywhere.
	Allow []netip.Prefix
	// Isolate gives each session a process of its own.
	Isolate bool
	// Trusted: whoever holds the secret is the user who started this process,
	// and may set what that user could; see [transport.Served].
	Trusted bool
	// Log is told when a session begins, ends or is refused.
	Log func(format string, args ...any)

	mu      sync.Mutex
	door    *door
	session *session
	count   int
	err     error // of the last session
	over    chan struct{}
}

// session is what one client opened.
type session struct {
	id   string
	from string // the client's address
	// confine is for its process.
	confine Confinement
	ctx     context.Context
	cancel  context.CancelCauseFunc
	call    sync.Mutex // held by the call in progress
	side    side
}

// handshakeTimeout ends a connection that does not get through its handshake, or
// opens no stream.
const handshakeTimeout = 10 * time.Second

// stopTimeout is how long an ending server waits for its connections: a client
// whose link is cut cannot close its own.
const stopTimeout = 2 * time.Second

// Serve serves on l until ctx ends or MaxSessions are over; it closes l, and
// the session in progress with all that it opened. Its error is that of the
// last session when MaxSessions is 1.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	cfg, err := s.Secret.serverTLS()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	s.over = make(chan struct{})
	s.door = newDoor(l, s.Secret, s.Allow, s.log)
	cfg.GetConfigForClient = s.door.hello
	g := grpc.NewServer(grpc.Creds(&doorKeeper{credentials.NewTLS(cfg), s.door}), grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: handshakeTimeout}),
		grpc.InTapHandle(s.tap), grpc.MaxHeaderListSize(maxHeaders), grpc.MaxRecvMsgSize(maxMessage),
		grpc.ForceServerCodec(codec{}), grpc.MaxConcurrentStreams(8))
	g.RegisterService(&serviceDesc, s)
	if s.Isolate {
		for _, missing := range unconfined() {
			s.log("this kernel has %s", missing)
		}
	}
	done := make(chan error, 1)
	go func() { done <- g.Serve(s.door) }()
	watch, unwatch := context.WithCancel(context.Background())
	defer unwatch()
	go s.door.watch(watch)
	select {
	case err = <-done:
	case <-ctx.Done():
	case <-s.over:
	}
	s.mu.Lock()
	if s.session != nil {
		s.session.cancel(errors.New("the peer was stopped"))
	}
	s.mu.Unlock()
	s.door.close()
	// The session's own stream closes what it opened; then the rest may go.
	stopped := make(chan struct{})
	go func() { g.GracefulStop(); close(stopped) }()
	select {
	case <-stopped:
	case <-time.After(stopTimeout):
		g.Stop()
		<-stopped
	}
	if err == nil && s.MaxSessions == 1 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.err
	}
	return err
}

func (s *Server) log(format string, args ...any) {
	if s.Log != nil {
		s.Log(format, args...)
	}
}

// tap looks at a stream's metadata before anything of its body is read: a hello
// must be one that a session can begin with, a call must be of the session, on
// the session's own connection.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	from := origin(ctx)
	if info.FullMethodName == "/"+service+"/"+attendDesc.StreamName {
		h, err := parseHello(info.Header)
		if err == nil {
			s.mu.Lock()
			err = s.free()
			s.mu.Unlock()
		}
		if err != nil {
			s.door.refusedPeer(from, errors.New(status.Convert(err).Message()))
			return nil, err
		}
		return context.WithValue(ctx, helloContext{}, h), nil
	}
	s.mu.Lock()
	ses := s.session
	s.mu.Unlock()
	id := info.Header.Get(sessionKey)
	if ses == nil || len(id) != 1 || subtle.ConstantTimeCompare([]byte(id[0]), []byte(ses.id)) != 1 || ses.from != from.String() {
		return nil, toStatus(errOver(errors.New("the peer has closed it")))
	}
	return ctx, nil
}

type helloContext struct{}

// origin is the address that a stream's connection comes from.
func origin(ctx context.Context) net.Addr {
	if p, ok := grpcpeer.FromContext(ctx); ok {
		return p.Addr
	}
	return &net.TCPAddr{}
}

// free reports why no session can begin now.
func (s *Server) free() error {
	switch {
	case s.session != nil:
		return status.Error(codes.ResourceExhausted, "the peer is busy with another session: try again when it is over")
	case s.MaxSessions > 0 && s.count >= s.MaxSessions:
		return status.Error(codes.ResourceExhausted, "the peer has served all the sessions that it was started for: start xferbench serve again")
	}
	return nil
}

// begin makes a session for a client at from that said hello.
func (s *Server) begin(ctx context.Context, from string, confine Confinement) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.free(); err != nil {
		return nil, err
	}
	s.count++
	sctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s.session = &session{id: rand.Text(), from: from, confine: confine, ctx: sctx, cancel: cancel}
	return s.session, nil
}

// open makes the session's side.
func (s *Server) open(ses *session, timeout time.Duration) error {
	ses.call.Lock()
	defer ses.call.Unlock()
	if !s.Isolate {
		ses.side = &transport.Served{Trusted: s.Trusted, Side: &transport.Side{MaxMemory: s.MaxMemory, Bind: s.Bind, Libfabric: s.Libfabric, Libucp: s.Libucp}}
		return nil
	}
	w, err := startWorker(ses.ctx, timeout, task{MaxMemory: s.MaxMemory, Bind: s.Bind, Libraries: Libraries{s.Libfabric, s.Libucp}, Confine: ses.confine})
	if err != nil {
		return err
	}
	ses.side = w
	context.AfterFunc(w.Context(), func() {
		lost := strings.TrimPrefix(context.Cause(w.Context()).Error(), ErrPeer.Error()+": ")
		ses.cancel(&remoteError{"the session's process: " + lost, ErrPeer})
	})
	return nil
}

// end closes what the session opened, after the call in progress.
func (s *Server) end(ses *session, cause error) error {
	ses.cancel(cause)
	ses.call.Lock()
	var err error
	if ses.side != nil {
		err = guarded(ses.ctx, ses.side, func(context.Context, transport.Peer) error { return ses.side.Close() })
	}
	ses.call.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session = nil
	s.err = errors.Join(cause, err)
	if s.MaxSessions > 0 && s.count >= s.MaxSessions {
		close(s.over)
	}
	return err
}

// errBye is the end of a session whose client said goodbye.
var errBye = errors.New("goodbye")

// attend is a session's life.
func (s *Server) attend(stream grpc.ServerStream) error {
	addr := origin(stream.Context())
	from := addr.String()
	hello, ok := stream.Context().Value(helloContext{}).(*hello)
	if !ok {
		return status.Error(codes.InvalidArgument, "no hello")
	}
	confine := ConfineRemote
	if p, ok := grpcpeer.FromContext(stream.Context()); ok {
		confine = confinementFor(p.LocalAddr, p.Addr)
	}
	ses, err := s.begin(stream.Context(), from, confine)
	if err != nil {
		s.door.refusedPeer(addr, errors.New(status.Convert(err).Message()))
		return err
	}
	in := receive(stream)
	s.log("session from %s", from)
	timeout := time.Duration(hello.TimeoutNs)
	cause := s.open(ses, timeout)
	if cause == nil {
		cause = s.live(stream, ses, in, timeout)
	}
	if errors.Is(cause, errBye) {
		cause = nil
	}
	cerr := s.end(ses, cause)
	switch {
	case cause != nil:
		if cerr != nil {
			cause = fmt.Errorf("%w; %w", cause, cerr)
		}
		s.log("session from %s ended: %v", from, cause)
		return status.Error(codes.Aborted, cause.Error())
	case cerr != nil:
		s.log("session from %s: closing: %v", from, cerr)
		return stream.SendMsg(&beat{Bye: true, Error: cerr.Error()})
	}
	s.log("session from %s over", from)
	return stream.SendMsg(&beat{Bye: true})
}

// live exchanges beats until one side ends the session, and says why.
func (s *Server) live(stream grpc.ServerStream, ses *session, in <-chan received, timeout time.Duration) error {
	boot, ns := identity()
	if err := stream.SendMsg(&beat{Welcome: &welcome{Session: ses.id, BootID: boot, NetNS: ns}}); err != nil {
		return fmt.Errorf("the initiator is gone: %w", err)
	}
	tick := time.NewTicker(timeout / beats)
	defer tick.Stop()
	quiet := newSilence(timeout)
	for {
		select {
		case <-ses.ctx.Done():
			return context.Cause(ses.ctx)
		case m := <-in:
			if m.err != nil {
				return fmt.Errorf("the initiator is gone: %w", gone(m.err))
			}
			if m.beat.Bye {
				return errBye
			}
			quiet.heard(time.Now())
		case <-tick.C:
			if d := quiet.tick(time.Now()); d > timeout {
				return fmt.Errorf("the initiator has not answered for %v", d.Round(time.Second))
			}
			if err := stream.SendMsg(&beat{}); err != nil {
				return fmt.Errorf("the initiator is gone: %w", gone(err))
			}
		}
	}
}

// errOver is of a call that came when its session had ended: the call can
// overtake the news of the end, and means the same.
func errOver(cause error) error { return fmt.Errorf("%w: the session is over: %w", ErrPeer, cause) }

// call runs f for the session that ctx names, one call at a time.
func (s *Server) call(ctx context.Context, f func(context.Context, transport.Peer) error) error {
	md, _ := metadata.FromIncomingContext(ctx)
	s.mu.Lock()
	ses := s.session
	s.mu.Unlock()
	if id := md.Get(sessionKey); ses == nil || len(id) != 1 || id[0] != ses.id {
		return errOver(errors.New("the peer has closed it"))
	}
	ses.call.Lock()
	defer ses.call.Unlock()
	if ses.ctx.Err() != nil {
		return errOver(context.Cause(ses.ctx))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ses.ctx, func() { cancel(context.Cause(ses.ctx)) })()
	err := guarded(ctx, ses.side, f)
	if errors.Is(err, errPanic) {
		ses.cancel(err)
		return err
	}
	if err != nil && ses.ctx.Err() != nil {
		return errOver(context.Cause(ses.ctx))
	}
	return err
}

// errPanic is an error of this program, which ends the session it came up in and
// no other.
var errPanic = errors.New("internal error of the peer")

// guarded runs f. A panic is its error: what one session sets off must not end
// the server.
func guarded(ctx context.Context, side transport.Peer, f func(context.Context, transport.Peer) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v at %s", errPanic, p, panicked())
		}
	}()
	return f(ctx, side)
}

// panicked is the place in this program where the panic in hand began.
func panicked() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "runtime.") {
			return fmt.Sprintf("%s:%d", filepath.Base(f.File), f.Line)
		}
		if !more {
			return "an unknown place"
		}
	}
}

// beats is how many of them go into the timeout.
const beats = 5

// silence is for how long the other side has said nothing that this process
// could have heard. A process that was stopped, or whose runtime waits while the
// kernel holds its memory lock, hears nothing: that time is not the other side's.
type silence struct {
	most  time.Duration // that one tick counts
	last  time.Time
	quiet time.Duration
}

func newSilence(timeout time.Duration) *silence {
	return &silence{most: 2 * timeout / beats, last: time.Now()}
}

func (s *silence) heard(now time.Time) { s.last, s.quiet = now, 0 }

// tick adds the time since the last tick and returns the sum.
func (s *silence) tick(now time.Time) time.Duration {
	s.quiet += min(now.Sub(s.last), s.most)
	s.last = now
	return s.quiet
}

type received struct {
	beat beat
	err  error
}

// receive reads a stream into a channel until it fails; the failure is its
// last message.
func receive(stream interface {
	RecvMsg(any) error
	Context() context.Context
}) <-chan received {
	c := make(chan received, 8)
	go func() {
		for {
			var m received
			m.err = stream.RecvMsg(&m.beat)
			select {
			case c <- m:
			default:
				// Nobody may read any more.
				select {
				case c <- m:
				case <-stream.Context().Done():
					return
				}
			}
			if m.err != nil {
				return
			}
		}
	}()
	return c
}

func next(ctx context.Context, in <-chan received, timeout time.Duration) (beat, error) {
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case m := <-in:
		return m.beat, m.err
	case <-ctx.Done():
		return beat{}, context.Cause(ctx)
	case <-t.C:
		return beat{}, fmt.Errorf("no answer for %v", timeout)
	}
}

// gone words the end of a stream.
func gone(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("its control connection was closed")
	}
	return errors.New(status.Convert(err).Message())
}

// identity is the boot and the network namespace of this process: two sides
// with both equal share their network.
func identity() (boot, netns string) {
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		boot = strings.TrimSpace(string(b))
	}
	netns, _ = os.Readlink("/proc/self/ns/net")
	return boot, netns
}
