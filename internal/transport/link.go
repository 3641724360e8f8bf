package transport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/kv"
)

// ErrTransfer is matched by the error of a transfer that did not complete.
var ErrTransfer = fault.New(fault.Unavailable, "transfer failed")

// Pair is a local side and a peer, between which links are brought up. Several
// pairs may share a local side; they are sealed together ([Seal]). Its methods and those of its links are for one
// goroutine at a time. It owns neither side: what it opened ends with them at the
// latest.
type Pair struct {
	Local *Side
	Peer  Peer
	// Note, when set, is told at once what either side has to say of an endpoint,
	// for the user; its error ends the call.
	Note func(note string) error

	bound bool // some link goes over IP addresses that are known
}

// Allocate gives both sides a buffer, of the number that each request names, and
// returns how long each took, in ns. The peer is asked first: it refuses before this
// side has spent its time.
func (p *Pair) Allocate(ctx context.Context, local, peer MemoryRequest) (localNs, peerNs int64, err error) {
	peer.From = Self()
	theirs, err := p.Peer.Memory(ctx, peer)
	if err != nil {
		return 0, 0, fmt.Errorf("peer: %w", err)
	}
	p.Local.meet(theirs.From)
	local.Others = 0 // allocated by now
	own, err := p.Local.Memory(ctx, local)
	if err != nil {
		return 0, 0, err
	}
	return own.Ns, theirs.Ns, nil
}

// Link is two endpoints brought up with each other: this side's, which posts
// transfers and holds the clock, and the peer's.
type Link struct {
	pair  *Pair
	id    int // of the endpoint, on both sides
	over  Buffers
	cfg   Config
	peers Peer    // whose endpoint is the other one
	up    [2]bool // this side's endpoint is open, and the peer's

	local, peer  OpenReply
	reg, peerReg RegisterReply
	conn         ConnectReply
}

// inProcess is a peer in this process. What it uses is this process's, which the
// initiator counts.
type inProcess struct{ *Side }

// Arm is [Side.Arm] without the usage.
func (p inProcess) Arm(ctx context.Context, r ArmRequest) (UsageReply, error) {
	_, err := p.Side.Arm(ctx, r)
	return UsageReply{}, err
}

// Settle is [Side.Settle] without the usage.
func (p inProcess) Settle(ctx context.Context, r SettleRequest) (UsageReply, error) {
	rep, err := p.Side.Settle(ctx, r)
	return UsageReply{Arrived: rep.Arrived}, err
}

// Setup is how long the steps of bringing a link up took, in ns; the peer's are
// 0 where there is none.
type Setup struct {
	OpenNs, RegisterNs, ConnectNs int64
	PeerOpenNs, PeerRegisterNs    int64
}

// Buffers are the numbers of those that a link moves data between.
type Buffers struct{ Local, Peer int }

// Open is [Pair.OpenOver] the first buffers, number 0 on both sides.
func (p *Pair) Open(ctx context.Context, cfg Config) (*Link, error) {
	return p.OpenOver(ctx, cfg, Buffers{})
}

// OpenOver opens an endpoint of cfg on both sides, registers a buffer with each and
// brings the two up with each other; the roles are set here. On an error it closes
// what it has opened.
func (p *Pair) OpenOver(ctx context.Context, cfg Config, over Buffers) (*Link, error) {
	l := &Link{pair: p, id: p.Local.number(), over: over, cfg: cfg, peers: p.Peer}
	if cfg.Provider == "memcpy" {
		other, err := p.Local.opposite(ctx, over.Local)
		if err != nil {
			return nil, err
		}
		l.peers, l.over.Peer, l.cfg.Bind = inProcess{other}, over.Local, nil
	}
	if err := l.open(ctx); err != nil {
		return nil, errors.Join(err, l.abandon(ctx))
	}
	return l, nil
}

func (l *Link) open(ctx context.Context) error {
	p := l.pair
	l.cfg.Role = Initiator
	target := l.cfg
	target.Role = Target
	err := p.peers(ctx, &l.cfg, &target)
	if err != nil {
		return err
	}
	if l.local, err = p.Local.Open(ctx, OpenRequest{l.id, l.cfg}); err != nil {
		return err
	}
	l.up[0] = true
	if l.reg, err = p.Local.Register(ctx, RegisterRequest{l.id, l.over.Local}); err != nil {
		return err
	}
	if l.peer, err = l.peers.Open(ctx, OpenRequest{l.id, target}); err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	l.up[1] = true
	if l.local.Lanes != l.peer.Lanes {
		return fmt.Errorf("%w: %s has %d lanes here and %d on the peer; set --rails to the smaller number of NICs",
			ErrUnavailable, l.cfg.Provider, l.local.Lanes, l.peer.Lanes)
	}
	if here, there := l.local.Info.Version, l.peer.Info.Version; here != there {
		if err := p.note(fmt.Sprintf("%s: library version %s here, %s on the peer", l.cfg.Provider, here, there)); err != nil {
			return err
		}
	}
	if l.peerReg, err = l.peers.Register(ctx, RegisterRequest{l.id, l.over.Peer}); err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	// The target connects first: from then on it progresses its queues, and
	// the initiator's first operation is answered.
	peerConn, err := l.peers.Connect(ctx, ConnectRequest{l.id, l.reg.Address})
	if err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	if l.conn, err = p.Local.Connect(ctx, ConnectRequest{l.id, l.peerReg.Address}); err != nil {
		return err
	}
	p.bound = p.bound || len(l.cfg.Bind) > 0
	return errors.Join(p.notes("", l.reg.Notes, l.conn.Notes), p.notes("peer: ", l.peerReg.Notes, peerConn.Notes))
}

// abandon closes what open has opened before it failed.
func (l *Link) abandon(ctx context.Context) error {
	var err error
	if l.up[0] {
		_, err = l.pair.Local.Shut(ctx, EndpointRequest{l.id})
	}
	if l.up[1] {
		// The error of open counts; what stays here closes with the peer's side.
		_, _ = l.peers.Shut(ctx, EndpointRequest{l.id})
	}
	return err
}

// Close closes both endpoints and frees the link's plans.
func (l *Link) Close(ctx context.Context) error {
	_, err := l.pair.Local.Shut(ctx, EndpointRequest{l.id})
	if _, perr := l.peers.Shut(ctx, EndpointRequest{l.id}); perr != nil {
		err = errors.Join(err, fmt.Errorf("peer: %w", perr))
	}
	return err
}

// note tells a note, if anybody wants it.
func (p *Pair) note(text string) error {
	if p.Note == nil {
		return nil
	}
	return p.Note(text)
}

// notes tells what a side said of an endpoint.
func (p *Pair) notes(side string, lists ...[]string) error {
	for _, n := range slices.Concat(lists...) {
		if err := p.note(side + n); err != nil {
			return err
		}
	}
	return nil
}

// Setup is how long bringing the link up took.
func (l *Link) Setup() Setup {
	return Setup{OpenNs: l.local.Ns, RegisterNs: l.reg.Ns, ConnectNs: l.conn.Ns, PeerOpenNs: l.peer.Ns, PeerRegisterNs: l.peerReg.Ns}
}

// Info is what this side's endpoint is made of, as far as its library knows by
// now: some know it only after the first transfer. It is simulated where one of
// the two is.
func (l *Link) Info() Info {
	info := l.local.Info
	if ep, err := l.pair.Local.endpoint(l.id); err == nil {
		info = ep.Info()
	}
	info.Simulated = info.Simulated || l.peer.Info.Simulated
	return info
}

// Move is what a transfer moves, and how.
type Move struct {
	// Name names the transfer in errors and faults, and to the peer; it may be empty.
	Name string
	Op   loop.Op
	KV   kv.Request
	// List, when set, takes the place of KV: its transfers have no payload that
	// could be checked, so their batches are unchecked ones.
	List *List
	// Pieces cuts a contiguous transfer into that many descriptors; 0: one.
	Pieces int
	// Reuse lays all pieces of a lane over one piece of memory, as ucx_perftest
	// and iperf3 work: for comparisons with them, without checks.
	Reuse bool
}

// pieceBytes is the length of the pieces of a contiguous transfer that is cut
// into n.
func pieceBytes(r kv.Request, n int) (uint64, error) {
	t, err := kv.New(r)
	if err != nil {
		return 0, err
	}
	return (uint64(t.Bytes) + uint64(n) - 1) / uint64(n), nil
}

// Plan is a move laid out over a link, on both sides.
type Plan struct {
	link *Link
	id   int // on both sides
	move Move
	// Ops is how many operations a transfer takes.
	Ops int
}

// Plan lays m out on both sides. The plan lasts as long as the link, or until it is
// dropped.
func (l *Link) Plan(ctx context.Context, m Move) (*Plan, error) {
	req := PlanRequest{Name: m.Name, Plan: l.pair.Local.number(), Endpoint: l.id, Op: m.Op, KV: m.KV, List: m.List, Lanes: l.local.Lanes, Chunk: l.chunk(m.Op), Reuse: m.Reuse}
	if m.Pieces > 0 {
		piece, err := pieceBytes(m.KV, m.Pieces)
		if err != nil {
			return nil, err
		}
		if req.Chunk == 0 || piece < req.Chunk {
			req.Chunk = piece
		}
	}
	rep, err := l.pair.Local.Plan(ctx, req)
	if err != nil {
		return nil, err
	}
	if _, err := l.peers.Plan(ctx, req); err != nil {
		_, derr := l.pair.Local.Drop(ctx, DropRequest{req.Plan})
		return nil, errors.Join(fmt.Errorf("peer: %w", err), derr)
	}
	return &Plan{link: l, id: req.Plan, move: m, Ops: rep.Ops}, nil
}

// Drop frees the plan on both sides.
func (p *Plan) Drop(ctx context.Context) error {
	_, err := p.link.pair.Local.Drop(ctx, DropRequest{p.id})
	if _, perr := p.link.peers.Drop(ctx, DropRequest{p.id}); perr != nil {
		err = errors.Join(err, fmt.Errorf("peer: %w", perr))
	}
	return err
}

// chunk is the longest piece of op that both sides of a link take; 0 is any.
func (l *Link) chunk(op loop.Op) uint64 {
	least := uint64(0)
	for _, i := range []Info{l.local.Info, l.peer.Info} {
		for _, n := range []uint64{i.Chunk, i.MaxPiece[op.String()]} {
			if n != 0 && (least == 0 || n < least) {
				least = n
			}
		}
	}
	return least
}

// Batch asks for transfers of a plan.
type Batch struct {
	// Iters is how many, back to back.
	Iters int
	// Key is that of their payload, which is laid out before the first, and checked
	// after the last.
	Key uint64
	// Unchecked transfers carry whatever lies in the buffers.
	Unchecked bool
}

// Outcome is what a batch came to.
type Outcome struct {
	Samples []loop.Sample
	// Verified says whether the payload arrived; nil: it was not checked.
	Verified *bool
	// Fault names the transfer, the side and the first wrong byte; "" when none is.
	Fault string
	// Before and After are this side's usage around the transfers, PeerBefore and
	// PeerAfter the peer's.
	Before, After, PeerBefore, PeerAfter host.Snapshot
}

// Transfer runs a batch. Outside the clock are: payload, poison, arming, usage
// and check. The error of a transfer that did not complete matches [ErrTransfer];
// wrong data is an outcome.
func (p *Plan) Transfer(ctx context.Context, b Batch) (out Outcome, err error) {
	local, peer := p.link.pair.Local, p.link.peers
	pay := PayloadRequest{Plan: p.id, Key: b.Key}
	if !b.Unchecked {
		if err := p.prepare(ctx, pay); err != nil {
			return out, err
		}
	}
	rep, err := peer.Arm(ctx, ArmRequest{p.id, b.Iters})
	if err != nil {
		return out, fmt.Errorf("peer: %w", err)
	}
	out.PeerBefore = rep.Usage
	if out.Before, err = local.Root.Usage(); err != nil {
		return out, err
	}
	samples, terr := local.transfer(ctx, p.id, b.Iters)
	if out.After, err = local.Root.Usage(); err != nil {
		return out, err
	}
	if terr != nil {
		return out, p.failed(errors.Join(terr, p.peerFault(ctx)))
	}
	out.Samples = samples
	if rep, err = peer.Settle(ctx, SettleRequest{p.id}); err != nil {
		return out, fmt.Errorf("peer: %w", err)
	}
	out.PeerAfter = rep.Usage
	if !b.Unchecked {
		out.Verified, out.Fault, err = p.check(ctx, pay)
	}
	return out, err
}

func (p *Plan) failed(err error) error {
	if p.move.Name == "" {
		return fmt.Errorf("%w: %w", ErrTransfer, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrTransfer, p.move.Name, err)
}

// peerFault is what went wrong on the peer, when a transfer failed here: often
// the reason for it. It does not wait for long.
func (p *Plan) peerFault(ctx context.Context) error {
	if ctx.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := p.link.peers.Settle(ctx, SettleRequest{p.id})
	if err == nil || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("peer: %w", err)
}

// prepare puts the payload where the data comes from and poison where it goes,
// both sides at once.
func (p *Plan) prepare(ctx context.Context, pay PayloadRequest) error {
	mine := p.link.pair.Local
	local, peer := mine.Fill, p.link.peers.Poison
	if p.move.Op == loop.Read {
		local, peer = mine.Poison, p.link.peers.Fill
	}
	theirs := make(chan error, 1)
	go func() {
		_, err := peer(ctx, pay)
		theirs <- err
	}()
	_, err := local(ctx, pay)
	if perr := <-theirs; perr != nil {
		return errors.Join(err, fmt.Errorf("peer: %w", perr))
	}
	return err
}

func (p *Plan) check(ctx context.Context, pay PayloadRequest) (verified *bool, fault string, err error) {
	check, side := p.link.pair.Local.Check, "initiator"
	if p.move.Op != loop.Read {
		check, side = p.link.peers.Check, "target"
	}
	rep, err := check(ctx, pay)
	if err != nil {
		return nil, "", err
	}
	ok := rep.Mismatch == nil
	if !ok {
		fault = fmt.Sprintf("%s, on the %s: %v", p.move.Name, side, rep.Mismatch)
	}
	return &ok, fault, nil
}
