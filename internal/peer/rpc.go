// Package peer is the control channel between the initiators and the target of
// a run: gRPC over TLS, one session at a time.
//
// A session begins with a stream, Attend, on which both sides send a beat
// every few seconds for as long as they live; a side that hears nothing for the
// timeout gives the other up. The calls of [transport.Peer] run beside it. When the
// stream ends, for whatever reason, the server closes all that its initiator
// opened.
//
// Further initiators may join a session, each with a stream of its own: those to
// which one that is in it has told the session's key. It is over when the last has
// left.
package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/transport"
	"github.com/xferbench/xferbench/internal/version"
)

// protocol rises with each change that an older peer would misunderstand.
const protocol = 4

// DefaultPort is the port of serve, and of a PEER without one.
const DefaultPort = "18517"

// Beat is the only message of the Attend stream, which the client's hello opens
// as metadata. The server's first one introduces it; the client's last says
// goodbye, the server's last that it has closed everything, with what went wrong.
type beat struct {
	Welcome *welcome `json:"welcome,omitempty"`
	Bye     bool     `json:"bye,omitempty"`
	Error   string   `json:"error,omitempty"`
}

type hello struct {
	Protocol  int    `json:"protocol"`
	Version   string `json:"version"`
	Schema    int    `json:"schema"`
	TimeoutNs int64  `json:"timeout_ns"`
	BootID    string `json:"boot_id"`
	NetNS     string `json:"netns"`
	Join      string `json:"join,omitempty"` // the key of the session to join
}

type welcome struct {
	Session string `json:"session"` // names the initiator's calls
	Key     string `json:"key"`     // to join the session
	BootID  string `json:"boot_id"`
	NetNS   string `json:"netns"`
}

func newHello(join string, timeout time.Duration) *hello {
	boot, ns := identity()
	return &hello{Join: join, Protocol: protocol, Version: version.Version, Schema: record.Schema,
		TimeoutNs: int64(timeout), BootID: boot, NetNS: ns}
}

// helloKey is the metadata that opens the Attend stream: a hello in JSON. A
// message could not be bounded apart from those of a session.
const helloKey = "xferbench-hello"

// context adds the hello to a client's stream.
func (h *hello) context(ctx context.Context) (context.Context, error) {
	b, err := json.Marshal(h)
	return metadata.AppendToOutgoingContext(ctx, helloKey, string(b)), err
}

// parseHello reads the hello of a stream's metadata.
func parseHello(md metadata.MD) (*hello, error) {
	v := md.Get(helloKey)
	if len(v) != 1 {
		return nil, status.Error(codes.InvalidArgument, "the stream does not begin with a hello: run the same build of xferbench on both sides")
	}
	h := &hello{}
	if err := json.Unmarshal([]byte(v[0]), h); err != nil {
		return nil, status.Error(codes.InvalidArgument, "the stream's hello is not JSON")
	}
	return h, h.check()
}

// check reports a hello that no session can begin with.
func (h *hello) check() error {
	if err := h.mismatch(); err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	if t := time.Duration(h.TimeoutNs); t < transport.MinTimeout || t > transport.MaxTimeout {
		return status.Errorf(codes.InvalidArgument, "a timeout of %v: want %v to %v", t, transport.MinTimeout, transport.MaxTimeout)
	}
	return nil
}

// mismatch says why two builds cannot run together.
func (h *hello) mismatch() error {
	if h.Protocol != protocol || h.Version != version.Version || h.Schema != record.Schema {
		return fmt.Errorf("the initiator is xferbench %.40s (protocol %d, schema %d), the peer %s (protocol %d, schema %d): run the same build on both sides",
			h.Version, h.Protocol, h.Schema, version.Version, protocol, record.Schema)
	}
	return nil
}

// codec carries the messages as JSON: they are few, small and outside every
// clock, and the Go types are their one definition.
type codec struct{}

func (codec) Name() string                       { return "xferbench-json" }
func (codec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (codec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

func init() { encoding.RegisterCodec(codec{}) }

const service = "xferbench.Peer"

// maxMessage bounds a session's message; addresses of many lanes are the
// largest. maxHeaders bounds what is read of a stream before its session is
// known.
const (
	maxMessage = 4 << 20
	maxHeaders = 8 << 10
)

// sessionKey is the metadata that names the session of a call.
const sessionKey = "xferbench-session"

// method makes the descriptor of one call of transport.Peer.
func method[Q, A any](name string, f func(transport.Peer, context.Context, Q) (A, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var q Q
		if err := decode(&q); err != nil {
			return nil, err
		}
		var a A
		err := srv.(*Server).call(ctx, func(ctx context.Context, side transport.Peer) (err error) {
			a, err = f(side, ctx, q)
			return err
		})
		if err != nil {
			return nil, toStatus(err)
		}
		return a, nil
	}}
}

// attendDesc is the client's view of the stream.
var attendDesc = grpc.StreamDesc{StreamName: "Attend", ServerStreams: true, ClientStreams: true}

var serviceDesc = grpc.ServiceDesc{
	ServiceName: service,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		method("Inventory", func(p transport.Peer, ctx context.Context, _ transport.Done) (record.Host, error) {
			return p.Inventory(ctx)
		}),
		method("Memory", transport.Peer.Memory),
		method("Routes", transport.Peer.Routes),
		method("Open", transport.Peer.Open),
		method("Register", transport.Peer.Register),
		method("Connect", transport.Peer.Connect),
		method("Plan", transport.Peer.Plan),
		method("Fill", transport.Peer.Fill),
		method("Poison", transport.Peer.Poison),
		method("Check", transport.Peer.Check),
		method("Arm", transport.Peer.Arm),
		method("Settle", transport.Peer.Settle),
		method("Drop", transport.Peer.Drop),
		method("Seal", transport.Peer.Seal),
		method("Shut", transport.Peer.Shut),
	},
	Streams: []grpc.StreamDesc{{
		StreamName: attendDesc.StreamName, ServerStreams: true, ClientStreams: true,
		Handler: func(srv any, stream grpc.ServerStream) error { return srv.(*Server).attend(stream) },
	}},
}

// The kinds of error that keep their meaning across the channel. An error that
// is of several is of the first: a lost peer, whatever it was lost over.
var kinds = []struct {
	code codes.Code
	err  error
}{
	{codes.Aborted, ErrPeer},
	{codes.PermissionDenied, transport.ErrStranger},
	{codes.FailedPrecondition, transport.ErrUnavailable},
	{codes.Unimplemented, transport.ErrUnsupported},
	{codes.OutOfRange, transport.ErrTooLarge},
	{codes.NotFound, transport.ErrGone},
	{codes.InvalidArgument, transport.ErrRefused},
}

func toStatus(err error) error {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return status.Error(k.code, err.Error())
		}
	}
	if errors.Is(err, context.Canceled) {
		return status.Error(codes.Canceled, err.Error())
	}
	return status.Error(codes.Unknown, err.Error())
}

// remoteError is a peer's error with its kind.
type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

func fromStatus(err error) error {
	s, ok := status.FromError(err)
	if !ok || err == nil {
		return err
	}
	for _, k := range kinds {
		if s.Code() == k.code {
			return &remoteError{s.Message(), k.err}
		}
	}
	return &remoteError{s.Message(), nil}
}
