package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/transport"
)

// ErrPeer is matched by the errors of a peer that cannot be reached, refuses,
// or is lost.
var ErrPeer = fault.New(fault.Unavailable, "peer unavailable")

// Client is the initiator's end of a session. It implements [transport.Peer]: each
// call is made by the peer's side, whose error keeps its kind ([transport.ErrTooLarge],
// [transport.ErrUnavailable], …) and its text. That the session is lost is an error
// that matches [ErrPeer].
type Client struct {
	conn   *grpc.ClientConn
	stream grpc.ClientStream
	in     <-chan received
	ctx    context.Context // ends with the session
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	send   sync.Mutex
	bye    chan beat

	session string
	key     string
	timeout time.Duration
	calling atomic.Value // the name of the last call that began, "" after it

	// Local and Remote are the control connection's addresses.
	Local, Remote net.IP
	// SameHost: the peer shares this process's network.
	SameHost bool
}

// Dial begins a session with the server at address (host:port). timeout is
// both for reaching it and, later, for how long it may be silent. The session
// ends with ctx.
func Dial(ctx context.Context, address string, s Secret, timeout time.Duration) (*Client, error) {
	return Join(ctx, address, s, "", timeout)
}

// Key is what a further initiator needs, beside the secret, to [Join] the session.
func (c *Client) Key() string { return c.key }

// Join is [Dial] for a further initiator of the session that has key, by the
// [Client.Key] of one that is in it. It is for a run of several initiators to one
// target. That the session is over is an error that matches [transport.ErrGone].
func Join(ctx context.Context, address string, s Secret, key string, timeout time.Duration) (*Client, error) {
	deadline := time.Now().Add(timeout)
	for wait := 50 * time.Millisecond; ; wait *= 3 {
		c, err := dialOnce(ctx, address, s, key, timeout)
		// Strangers may have pushed this one aside: a few more tries, not for ever.
		if !errors.Is(err, errTurnedAway) || wait > time.Second || time.Now().Add(wait).After(deadline) {
			return c, err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("%w: %s: %w", ErrPeer, address, context.Cause(ctx))
		}
	}
}

func dialOnce(ctx context.Context, address string, s Secret, key string, timeout time.Duration) (*Client, error) {
	c := &Client{timeout: timeout, bye: make(chan beat, 1)}
	var mu sync.Mutex
	var dialErr error
	cfg, err := s.clientTLS()
	if err != nil {
		return nil, err
	}
	// A target is parsed as a URL, which an IPv6 zone's % is not.
	conn, err := grpc.NewClient("passthrough:///peer",
		grpc.WithTransportCredentials(credentials.NewTLS(cfg)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			mu.Lock()
			defer mu.Unlock()
			dialErr = err
			if err == nil {
				c.Local, c.Remote = nc.LocalAddr().(*net.TCPAddr).IP, nc.RemoteAddr().(*net.TCPAddr).IP
			}
			return nc, err
		}),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{}), grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrPeer, address, err)
	}
	c.conn = conn
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	late := time.AfterFunc(timeout, func() { c.cancel(fmt.Errorf("no answer for %v", timeout)) })
	w, err := c.greet(key)
	late.Stop()
	if err != nil {
		if c.ctx.Err() != nil {
			err = context.Cause(c.ctx)
		}
		mu.Lock()
		if dialErr != nil {
			if next := shortOf(dialErr); next != "" {
				err = fmt.Errorf("%w%s", dialErr, next)
			} else {
				err = fmt.Errorf("%w; is xferbench serve running there?", dialErr)
			}
		}
		mu.Unlock()
		c.cancel(nil)
		return nil, errors.Join(fmt.Errorf("%w: %s: %w", ErrPeer, address, err), conn.Close())
	}
	boot, ns := identity()
	c.session, c.key, c.SameHost = w.Session, w.Key, w.BootID == boot && w.NetNS == ns
	c.wg.Add(1)
	go c.live()
	return c, nil
}

func (c *Client) greet(key string) (*welcome, error) {
	ctx, err := newHello(key, c.timeout).context(c.ctx)
	if err != nil {
		return nil, err
	}
	c.stream, err = c.conn.NewStream(ctx, &attendDesc, "/"+service+"/"+attendDesc.StreamName)
	if err != nil {
		return nil, greetError(err)
	}
	c.in = receive(c.stream)
	m, err := next(c.ctx, c.in, c.timeout)
	if err != nil {
		return nil, greetError(err)
	}
	if m.Welcome == nil {
		return nil, errors.New("its first message is no welcome: is it an xferbench serve?")
	}
	return m.Welcome, nil
}

// errTurnedAway is of a server that hung up before it said anything.
var errTurnedAway = errors.New("it closed the connection before TLS: its --allow may not name the address that this host comes from, or others hold all its places")

// greetError words a failed beginning by its cause.
func greetError(err error) error {
	text := status.Convert(err).Message()
	switch {
	case strings.Contains(text, errKey.Error()), strings.Contains(text, "remote error: tls:"):
		return errKey // the server's key is another, or it takes this one's for a stranger's
	case strings.Contains(text, "handshake failed: EOF"), strings.Contains(text, "connection reset by peer"), strings.Contains(text, "broken pipe"):
		return fmt.Errorf("%w (%s)", errTurnedAway, text)
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		return fmt.Errorf("what listens there does not speak TLS, so it is no xferbench serve (%s)", text)
	case status.Code(err) == codes.Unavailable:
		return errors.New(text)
	}
	return fromStatus(err)
}

// live exchanges beats until the session ends.
func (c *Client) live() {
	defer c.wg.Done()
	tick := time.NewTicker(c.timeout / transport.Looks)
	defer tick.Stop()
	var quiet transport.Patience
	quiet.Begin(time.Now())
	for {
		select {
		case m := <-c.in:
			switch {
			case m.err != nil:
				c.cancel(fmt.Errorf("%w: it is gone: %w", ErrPeer, gone(m.err)))
				return
			case m.beat.Bye:
				c.bye <- m.beat
				return
			}
			quiet.Begin(time.Now())
		case <-tick.C:
			if d := quiet.Look(time.Now(), c.timeout); d > c.timeout {
				c.cancel(fmt.Errorf("%w: it has not answered for %v%s", ErrPeer, d.Round(time.Second), c.busy()))
				return
			}
			// A failed send shows as a failed receive, with its reason.
			if err := c.sendBeat(&beat{}); err != nil {
				continue
			}
		case <-c.ctx.Done():
			return
		}
	}
}

// busy names the call in progress when it is one in which the kernel or a
// library can hold the peer's process, so that it sends no beats.
func (c *Client) busy() string {
	switch name, _ := c.calling.Load().(string); name {
	case "Memory", "Open", "Register", "Connect":
		return fmt.Sprintf(", and is in its call %s: a large buffer can keep the kernel or the library busy for longer, which a longer --timeout allows", name)
	}
	return ""
}

func (c *Client) sendBeat(b *beat) error {
	c.send.Lock()
	defer c.send.Unlock()
	return c.stream.SendMsg(b)
}

// Context ends when the session does; its cause says why.
func (c *Client) Context() context.Context { return c.ctx }

// Close says goodbye, waits until the peer has closed what the session opened,
// and reports what went wrong there. It may be called twice.
func (c *Client) Close() error {
	if c.conn == nil {
		return nil
	}
	var err error
	if c.ctx.Err() == nil {
		if serr := c.sendBeat(&beat{Bye: true}); serr == nil {
			t := time.NewTimer(c.timeout)
			defer t.Stop()
			select {
			case b := <-c.bye:
				if b.Error != "" {
					err = fmt.Errorf("peer: closing: %s", b.Error)
				}
			case <-c.ctx.Done():
				err = context.Cause(c.ctx)
			case <-t.C:
				err = fmt.Errorf("%w: no goodbye for %v", ErrPeer, c.timeout)
			}
		}
	}
	c.cancel(nil)
	c.wg.Wait()
	err = errors.Join(err, c.conn.Close())
	c.conn = nil
	return err
}

// invoke is one call. A lost session is its error's cause, whatever the
// channel says.
func invoke[A any](ctx context.Context, c *Client, name string, q any) (a A, err error) {
	if c.ctx.Err() != nil {
		return a, context.Cause(c.ctx)
	}
	ctx, cancel := context.WithCancelCause(metadata.AppendToOutgoingContext(ctx, sessionKey, c.session))
	defer cancel(nil)
	defer context.AfterFunc(c.ctx, func() { cancel(context.Cause(c.ctx)) })()
	c.calling.Store(name)
	err = c.conn.Invoke(ctx, "/"+service+"/"+name, q, &a)
	if c.ctx.Err() == nil {
		c.calling.Store("")
	}
	switch {
	case err == nil:
		return a, nil
	case c.ctx.Err() != nil:
		return a, context.Cause(c.ctx)
	case status.Code(err) == codes.Unavailable:
		// The connection broke; the stream's end has the same news.
		return a, fmt.Errorf("%w: it is gone: %w", ErrPeer, gone(err))
	}
	return a, fromStatus(err)
}

// Inventory describes the peer's host.
func (c *Client) Inventory(ctx context.Context) (record.Host, error) {
	return invoke[record.Host](ctx, c, "Inventory", transport.Done{})
}

// Memory makes the peer allocate a buffer. An error that matches
// [transport.ErrTooLarge] says that the peer or its host does not give as much.
func (c *Client) Memory(ctx context.Context, r transport.MemoryRequest) (transport.MemoryReply, error) {
	return invoke[transport.MemoryReply](ctx, c, "Memory", r)
}

// Routes asks from which addresses the peer would connect.
func (c *Client) Routes(ctx context.Context, r transport.RoutesRequest) (transport.RoutesReply, error) {
	return invoke[transport.RoutesReply](ctx, c, "Routes", r)
}

// Open opens an endpoint at the peer.
func (c *Client) Open(ctx context.Context, r transport.OpenRequest) (transport.OpenReply, error) {
	return invoke[transport.OpenReply](ctx, c, "Open", r)
}

// Register registers one of the peer's buffers with one of its endpoints. The
// address that it returns is what this side's endpoint connects to.
func (c *Client) Register(ctx context.Context, r transport.RegisterRequest) (transport.RegisterReply, error) {
	return invoke[transport.RegisterReply](ctx, c, "Register", r)
}

// Connect connects the peer's endpoint to the address of this side's.
func (c *Client) Connect(ctx context.Context, r transport.ConnectRequest) (transport.ConnectReply, error) {
	return invoke[transport.ConnectReply](ctx, c, "Connect", r)
}

// Plan makes the peer lay out a condition.
func (c *Client) Plan(ctx context.Context, r transport.PlanRequest) (transport.PlanReply, error) {
	return invoke[transport.PlanReply](ctx, c, "Plan", r)
}

// Fill writes the payload at the peer, from which it is to come.
func (c *Client) Fill(ctx context.Context, r transport.PayloadRequest) (transport.Done, error) {
	return invoke[transport.Done](ctx, c, "Fill", r)
}

// Poison overwrites what transfers will write at the peer, so that nothing stale
// passes [Client.Check].
func (c *Client) Poison(ctx context.Context, r transport.PayloadRequest) (transport.Done, error) {
	return invoke[transport.Done](ctx, c, "Poison", r)
}

// Check verifies the payload at the peer. Wrong data is a reply, not an error.
func (c *Client) Check(ctx context.Context, r transport.PayloadRequest) (transport.CheckReply, error) {
	return invoke[transport.CheckReply](ctx, c, "Check", r)
}

// Arm readies the peer for the transfers of a plan and returns its usage so far.
func (c *Client) Arm(ctx context.Context, r transport.ArmRequest) (transport.UsageReply, error) {
	return invoke[transport.UsageReply](ctx, c, "Arm", r)
}

// Settle ends what Arm began: how many transfers arrived at the peer, and its
// usage after them.
func (c *Client) Settle(ctx context.Context, r transport.SettleRequest) (transport.UsageReply, error) {
	return invoke[transport.UsageReply](ctx, c, "Settle", r)
}

// Drop frees a plan of the peer, of which no transfer may be under way.
func (c *Client) Drop(ctx context.Context, r transport.DropRequest) (transport.Done, error) {
	return invoke[transport.Done](ctx, c, "Drop", r)
}

// Seal tells the peer this side's connections and ends that anybody connects to it.
// An error that matches [transport.ErrStranger] says that somebody else has.
func (c *Client) Seal(ctx context.Context, r transport.SealRequest) (transport.SealReply, error) {
	return invoke[transport.SealReply](ctx, c, "Seal", r)
}

// Shut closes one of the peer's endpoints and frees its plans.
func (c *Client) Shut(ctx context.Context, r transport.EndpointRequest) (transport.Done, error) {
	return invoke[transport.Done](ctx, c, "Shut", r)
}
