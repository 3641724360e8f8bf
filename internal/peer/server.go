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
	"slices"
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
	// Shared lets everybody who holds the secret join the session in progress, who
	// would need its key otherwise.
	Shared bool
	// Side, when set, makes what each initiator works on, in place of a side of this
	// server's with the limits and libraries below. Of one session, one call is made
	// at a time. Close is called when the initiator leaves.
	Side func() Side
	// MaxMemory limits a session's buffers, together, in bytes; 0 not at all.
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

// session is what one client opened, and those that joined it.
type session struct {
	key string
	// confine is for its process.
	confine Confinement
	call    sync.Mutex        // held by the call in progress
	served  *transport.Served // the side in this process; nil: it is elsewhere
	worker  *worker           // nil: no process of its own
	all     []*attendant      // guarded by Server.mu
	err     error             // of those that have left; guarded by Server.mu
	ending  bool              // the last leaves; guarded by Server.mu
}

// attendant is one initiator of a session.
type attendant struct {
	*session
	id     string
	from   string // the client's address
	first  bool   // it began the session
	ctx    context.Context
	cancel context.CancelCauseFunc
	side   Side
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
		for _, a := range s.session.all {
			a.cancel(errors.New("the peer was stopped"))
		}
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
// must be one that a session can begin with or take in, a call must be of an
// initiator of the session, on its own connection.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	from := origin(ctx)
	if info.FullMethodName == "/"+service+"/"+attendDesc.StreamName {
		h, err := parseHello(info.Header)
		if err == nil {
			s.mu.Lock()
			err = s.free(h)
			s.mu.Unlock()
		}
		if err != nil {
			s.door.refusedPeer(from, errors.New(status.Convert(err).Message()))
			return nil, err
		}
		return context.WithValue(ctx, helloContext{}, h), nil
	}
	if a := s.attendant(info.Header); a == nil || a.from != from.String() {
		return nil, toStatus(errOver(errors.New("the peer has closed it")))
	}
	return ctx, nil
}

// attendant is the initiator that a call's metadata names; nil: none.
func (s *Server) attendant(md metadata.MD) *attendant {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := md.Get(sessionKey)
	if s.session == nil || len(id) != 1 {
		return nil
	}
	for _, a := range s.session.all {
		if subtle.ConstantTimeCompare([]byte(id[0]), []byte(a.id)) == 1 {
			return a
		}
	}
	return nil
}

type helloContext struct{}

// origin is the address that a stream's connection comes from.
func origin(ctx context.Context) net.Addr {
	if p, ok := grpcpeer.FromContext(ctx); ok {
		return p.Addr
	}
	return &net.TCPAddr{}
}

// maxInitiators bounds those of a session.
const maxInitiators = maxInside

// joins reports whether a hello is for the session in progress.
func (s *Server) joins(h *hello) bool { return h.Join != "" || s.Shared && s.session != nil }

// free reports why a session cannot begin now, or take in who says h.
func (s *Server) free(h *hello) error {
	switch ses := s.session; {
	case h.Join != "" && (ses == nil || subtle.ConstantTimeCompare([]byte(h.Join), []byte(ses.key)) != 1):
		return status.Error(codes.NotFound, "the session to join is over, or its key is another")
	case s.joins(h) && ses.ending:
		return status.Error(codes.ResourceExhausted, "the session is ending: try again when it is over")
	case s.joins(h) && len(ses.all) >= maxInitiators:
		return status.Errorf(codes.ResourceExhausted, "the session has %d initiators: want no more", maxInitiators)
	case s.joins(h):
		return nil
	case ses != nil:
		return status.Error(codes.ResourceExhausted, "the peer is busy with another session: try again when it is over")
	case s.MaxSessions > 0 && s.count >= s.MaxSessions:
		return status.Error(codes.ResourceExhausted, "the peer has served all the sessions that it was started for: start xferbench serve again")
	}
	return nil
}

// begin makes a session for a client at from that said h, or takes it into the one
// in progress.
func (s *Server) begin(ctx context.Context, from string, confine Confinement, h *hello) (*attendant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.free(h); err != nil {
		return nil, err
	}
	a := &attendant{id: rand.Text(), from: from}
	if a.first = !s.joins(h); a.first {
		s.count++
		s.session = &session{key: rand.Text(), confine: confine}
	} else if s.Isolate && s.session.confine == ConfineLocal && confine != ConfineLocal {
		return nil, status.Error(codes.FailedPrecondition, "the session was begun on the peer's own host, so its process is confined less than one for other hosts: let an initiator of another host begin it")
	}
	a.session = s.session
	a.ctx, a.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	a.all = append(a.all, a)
	return a, nil
}

// open makes the initiator's side.
func (s *Server) open(a *attendant, timeout time.Duration) error {
	a.call.Lock()
	defer a.call.Unlock()
	switch {
	case s.Side != nil:
		a.side = s.Side()
	case s.Isolate:
		return s.openWorker(a, timeout)
	case a.first:
		a.served = &transport.Served{Trusted: s.Trusted, Side: &transport.Side{MaxMemory: s.MaxMemory, Bind: s.Bind, Libfabric: s.Libfabric, Libucp: s.Libucp}}
		a.side = inProcess{a.served}
	case a.served == nil:
		return errOver(errors.New("its side was not made"))
	default:
		a.side = inProcess{a.served.Join()}
	}
	return nil
}

// inProcess is one initiator's part of a side in this process.
type inProcess struct{ *transport.Served }

// Close closes what the initiator has opened.
func (p inProcess) Close() error { return p.Leave() }

// openWorker reaches the session's process, which the first initiator's call starts.
func (s *Server) openWorker(a *attendant, timeout time.Duration) error {
	var c *Client
	var err error
	switch {
	case a.first:
		if a.worker, err = s.startWorker(a, timeout); err == nil {
			c = a.worker.Client
		}
	case a.worker == nil:
		err = errOver(errors.New("its process did not start"))
	default:
		// One that is given up still closes its side in order.
		c, err = Join(context.WithoutCancel(a.ctx), a.worker.child.Address, a.worker.child.Secret, a.worker.key, timeout)
	}
	if err != nil {
		return err
	}
	a.side = c
	context.AfterFunc(c.Context(), func() {
		lost := strings.TrimPrefix(context.Cause(c.Context()).Error(), ErrPeer.Error()+": ")
		a.cancel(&remoteError{"the session's process: " + lost, ErrPeer})
	})
	return nil
}

func (s *Server) startWorker(a *attendant, timeout time.Duration) (*worker, error) {
	return startWorker(a.ctx, timeout, task{MaxMemory: s.MaxMemory, Bind: s.Bind, Libraries: Libraries{s.Libfabric, s.Libucp}, Confine: a.confine})
}

// end closes what the initiator opened, after the call in progress, and the session
// with the last one.
func (s *Server) end(a *attendant, cause error) error {
	a.cancel(cause)
	a.call.Lock()
	defer a.call.Unlock()
	s.mu.Lock()
	last := len(a.all) == 1
	// What all share goes with the last: nobody may join any more.
	a.ending = last && (a.worker != nil || a.served != nil)
	s.mu.Unlock()
	var errs []error
	closing := func(side Side) {
		errs = append(errs, guarded(a.ctx, side, func(context.Context, transport.Peer) error { return side.Close() }))
	}
	// A worker's Close is its client's as well, and knows its last words.
	if a.side != nil && !(last && a.first && a.worker != nil) {
		closing(a.side)
	}
	if last && a.worker != nil {
		closing(a.worker)
	}
	if last && a.served != nil {
		closing(a.served)
	}
	err := errors.Join(errs...)
	s.mu.Lock()
	defer s.mu.Unlock()
	a.all = slices.DeleteFunc(a.all, func(b *attendant) bool { return b == a })
	a.err = errors.Join(a.err, cause, err)
	if len(a.all) > 0 {
		return err
	}
	s.session, s.err = nil, a.err
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
	a, err := s.begin(stream.Context(), from, confine, hello)
	if err != nil {
		s.door.refusedPeer(addr, errors.New(status.Convert(err).Message()))
		return err
	}
	in := receive(stream)
	what := "session from " + from
	if !a.first {
		what = "initiator " + from
	}
	s.log("%s", what)
	timeout := time.Duration(hello.TimeoutNs)
	cause := s.open(a, timeout)
	if cause == nil {
		cause = s.live(stream, a, in, timeout)
	}
	if errors.Is(cause, errBye) {
		cause = nil
	}
	cerr := s.end(a, cause)
	switch {
	case cause != nil:
		if cerr != nil {
			cause = fmt.Errorf("%w; %w", cause, cerr)
		}
		s.log("%s ended: %v", what, cause)
		return status.Error(codes.Aborted, cause.Error())
	case cerr != nil:
		s.log("%s: closing: %v", what, cerr)
		return stream.SendMsg(&beat{Bye: true, Error: cerr.Error()})
	}
	s.log("%s over", what)
	return stream.SendMsg(&beat{Bye: true})
}

// live exchanges beats until one side ends the session, and says why.
func (s *Server) live(stream grpc.ServerStream, a *attendant, in <-chan received, timeout time.Duration) error {
	boot, ns := identity()
	if err := stream.SendMsg(&beat{Welcome: &welcome{Session: a.id, Key: a.key, BootID: boot, NetNS: ns}}); err != nil {
		return fmt.Errorf("the initiator is gone: %w", err)
	}
	tick := time.NewTicker(timeout / transport.Looks)
	defer tick.Stop()
	var quiet transport.Patience
	quiet.Begin(time.Now())
	for {
		select {
		case <-a.ctx.Done():
			return context.Cause(a.ctx)
		case m := <-in:
			if m.err != nil {
				return fmt.Errorf("the initiator is gone: %w", gone(m.err))
			}
			if m.beat.Bye {
				return errBye
			}
			quiet.Begin(time.Now())
		case <-tick.C:
			if d := quiet.Look(time.Now(), timeout); d > timeout {
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

// call runs f for the initiator that ctx names, one call at a time of the session.
func (s *Server) call(ctx context.Context, f func(context.Context, transport.Peer) error) error {
	md, _ := metadata.FromIncomingContext(ctx)
	a := s.attendant(md)
	if a == nil {
		return errOver(errors.New("the peer has closed it"))
	}
	a.call.Lock()
	defer a.call.Unlock()
	if a.ctx.Err() != nil {
		return errOver(context.Cause(a.ctx))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(a.ctx, func() { cancel(context.Cause(a.ctx)) })()
	err := guarded(ctx, a.side, f)
	if errors.Is(err, errPanic) {
		a.cancel(err)
		return err
	}
	if err != nil && a.ctx.Err() != nil {
		return errOver(context.Cause(a.ctx))
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
