package transport

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/xferbench/xferbench/cgo/gate"
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/host"
)

// ErrStranger is matched by the error of a side that somebody who is not the other
// side has connected to.
var ErrStranger = fault.New(fault.Unavailable, "a stranger has connected to the data plane")

// maxPeers bounds Config.Peers.
const maxPeers = maxBind

// maxConnections bounds those that a side tells of.
const maxConnections = 1 << 16

type (
	// RoutesRequest asks from which addresses a target will be reached, and
	// connect, when the initiator uses Bind.
	RoutesRequest struct {
		Bind []string `json:"bind"`
		// Chosen: the initiator's user chose UCX's devices, for the target too.
		Chosen bool `json:"chosen,omitempty"`
	}
	// RoutesReply tells the addresses, without ports, from which the target may connect.
	RoutesReply struct {
		Addresses []string `json:"addresses"`
	}
	// Connection is a TCP connection as one side has it.
	Connection struct {
		Local  netip.AddrPort `json:"local"`
		Remote netip.AddrPort `json:"remote"`
	}
	// SealRequest tells the initiator's connections with the target.
	SealRequest struct {
		Connections []Connection `json:"connections"`
	}
	// SealReply tells the target's connections with the initiator, and in Notes why
	// somebody may still connect.
	SealReply struct {
		Connections []Connection `json:"connections"`
		Notes       []string     `json:"notes,omitempty"`
	}
)

// Admit makes the sockets on which c's library will listen take c.Peers only, until
// withdraw is called; without Peers they take everybody.
func Admit(c Config) (withdraw func(), err error) {
	if len(c.Peers) == 0 {
		return func() {}, nil
	}
	var peers []netip.Addr
	for _, p := range c.Peers {
		a, err := netip.ParseAddr(p)
		if err != nil {
			return nil, fmt.Errorf("the peer's address: %w", err)
		}
		peers = append(peers, a)
	}
	return gate.Admit(peers)
}

// sources are the addresses from which this host may connect when it uses binds:
// these, and the others of their interfaces, of which UCX takes the first. Where the
// user chose UCX's devices, chosen, it is any of this host's.
func sources(binds []string, chosen bool) ([]string, error) {
	out := slices.Clone(binds)
	var names []string
	for _, b := range binds {
		name, err := interfaceOf(b)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		if !chosen && !slices.Contains(names, i.Name) {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("addresses of %s: %w", i.Name, err)
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && !slices.Contains(out, n.IP.String()) && len(out) < maxPeers {
				out = append(out, n.IP.String())
			}
		}
	}
	return out, nil
}

// Routes are the addresses from which this side, a target, will connect.
func (s *Side) Routes(_ context.Context, r RoutesRequest) (RoutesReply, error) {
	binds, err := s.routes(r.Bind)
	if err != nil {
		return RoutesReply{}, err
	}
	from, err := sources(binds, r.Chosen || ucxDevicesGiven(Config{}))
	return RoutesReply{Addresses: from}, err
}

// peers gives both sides' configurations the other's addresses, before either
// listens.
func (p *Pair) peers(ctx context.Context, local, target *Config) error {
	if len(local.Bind) == 0 {
		return nil
	}
	chosen := ucxDevicesGiven(*local)
	rep, err := p.Peer.Routes(ctx, RoutesRequest{local.Bind, chosen})
	if err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	local.Peers = rep.Addresses
	if target.Peers, err = sources(local.Bind, chosen); err != nil {
		return err
	}
	// A library that does not bind what it connects goes out by the kernel's route.
	for _, to := range rep.Addresses[:min(len(local.Bind), len(rep.Addresses))] {
		from, err := sourceFor(to)
		if err == nil && !slices.Contains(target.Peers, from) && len(target.Peers) < maxPeers {
			target.Peers = append(target.Peers, from)
		} // without a route nothing will connect, and the transport says so
	}
	return nil
}

// Seal is [Seal] for a pair that shares its local side with no other.
func (p *Pair) Seal(ctx context.Context) error { return Seal(ctx, p) }

// Seal ends that anybody connects. pairs are all those of one local side, whose links
// have their connections by now: libraries connect with the first transfer at the
// latest. The sides tell each other theirs, and each looks whether it has more; an
// error that matches [ErrStranger] says so.
func Seal(ctx context.Context, pairs ...*Pair) error {
	pairs = slices.DeleteFunc(slices.Clone(pairs), func(p *Pair) bool { return !p.bound })
	if len(pairs) == 0 {
		return nil
	}
	local := pairs[0].Local
	mine, err := local.close(local.peers(), true)
	if err != nil {
		return err
	}
	if err := pairs[0].notes("", mine.Notes); err != nil {
		return err
	}
	var known []Connection
	for _, p := range pairs {
		theirs, err := p.Peer.Seal(ctx, SealRequest{mine.Connections})
		if err != nil {
			return fmt.Errorf("peer: %w", err)
		}
		if err := p.notes("peer: ", theirs.Notes); err != nil {
			return err
		}
		known = append(known, theirs.Connections...)
	}
	return local.strangers(ctx, known, nil)
}

// Seal lets nobody connect any more, and ends with an error that matches
// [ErrStranger] when somebody has who is not the initiator.
func (s *Side) Seal(ctx context.Context, r SealRequest) (SealReply, error) {
	return s.seal(ctx, r.Connections, s.peers(), nil)
}

// seal is Seal for one of several initiators. known are the connections that they
// have told so far, peers the addresses of the one who asks, later those of whom has
// yet to seal: until then they may connect, and they alone.
func (s *Side) seal(ctx context.Context, known []Connection, peers, later []string) (SealReply, error) {
	rep, err := s.close(peers, len(later) == 0)
	if err != nil {
		return rep, err
	}
	return rep, s.strangers(ctx, known, later)
}

// peers are the addresses of the other sides of all endpoints.
func (s *Side) peers() []string {
	var out []string
	for _, e := range s.endpoints {
		out = append(out, e.peers...)
	}
	return out
}

// close returns the connections with peers, after it has let nobody connect any more
// where it should.
func (s *Side) close(peers []string, shut bool) (rep SealReply, err error) {
	if shut {
		if err := gate.Seal(); err != nil {
			rep.Notes = append(rep.Notes, err.Error())
		}
	}
	own, err := s.data(host.Root("").OwnSockets())
	if err != nil {
		return rep, err
	}
	for _, o := range own {
		if o.State == host.Connected && isPeer(peers, o.Remote.Addr()) && len(rep.Connections) < maxConnections {
			rep.Connections = append(rep.Connections, Connection{o.Local, o.Remote})
		}
	}
	return rep, nil
}

// data leaves out what is not TCP and what was there before the first endpoint.
func (s *Side) data(all []host.Socket, err error) ([]host.Socket, error) {
	return slices.DeleteFunc(all, func(o host.Socket) bool { return o.Net != "tcp" || s.before[o.Inode] }), err
}

// isPeer reports whether address a is one of peers'.
func isPeer(peers []string, a netip.Addr) bool {
	return slices.ContainsFunc(peers, func(p string) bool {
		b, err := netip.ParseAddr(p)
		return err == nil && b.Unmap() == a
	})
}

// A connection that one side has closed a moment ago, as libfabric does with one of
// two that cross, the other still has for a moment: on a host that is busy, until the
// library's thread has had its turn.
const (
	strangerWait = 3 * time.Second
	strangerStep = 20 * time.Millisecond
)

// strangers ends with an error when a connection to what this process listens on is
// none of theirs and comes from none of the addresses of later.
func (s *Side) strangers(ctx context.Context, theirs []Connection, later []string) error {
	known := map[Connection]bool{}
	for _, c := range theirs {
		known[Connection{unmapped(c.Remote), unmapped(c.Local)}] = true
	}
	for late := time.Now().Add(strangerWait); ; {
		found, err := s.unknown(known, later)
		if err != nil || len(found) == 0 {
			return err
		}
		if time.Now().After(late) {
			return fmt.Errorf("%w: %s; only the two sides of a run may reach these ports: see who is at that address, or use another network (--bind)",
				ErrStranger, strings.Join(found, ", "))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(strangerStep):
		}
	}
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// unknown are the connections that came in and are not known, nor from an address of
// later: accepted ones and those that wait for it.
func (s *Side) unknown(known map[Connection]bool, later []string) ([]string, error) {
	all, err := s.data(host.Root("").Sockets())
	if err != nil {
		return nil, err
	}
	var doors []netip.AddrPort
	for _, o := range all {
		if o.State == host.Listening && o.FD >= 0 {
			doors = append(doors, o.Local)
		}
	}
	var out []string
	for _, o := range all {
		if o.State != host.Connected || known[Connection{o.Local, o.Remote}] || isPeer(later, o.Remote.Addr()) {
			continue
		}
		if slices.ContainsFunc(doors, func(d netip.AddrPort) bool {
			return d.Port() == o.Local.Port() && (d.Addr() == o.Local.Addr() || d.Addr().IsUnspecified())
		}) {
			out = append(out, fmt.Sprintf("%s at port %s", o.Remote, o.Local))
		}
	}
	return out, nil
}
