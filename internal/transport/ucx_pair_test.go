package transport

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/testenv"
)

// A pair is a transfer between this process and a second one: the test binary
// again, running TestTargetProcess, which obeys requests on a pipe.

type pairRequest struct {
	Do      string // open, connect, fill, poison, arm, settle, check, close
	Config  Config
	Kind    mem.Kind // open: of the target's buffer
	Bytes   int
	Address []byte
	Op      loop.Op
	Plans   [][]loop.Piece
	Iters   int
	Key     uint64
}

type pairReply struct {
	Err     string
	Address []byte
	Arrived int
	Info    Info
}

const pairVar = "XFERBENCH_TEST_TARGET"

// pairDeadline ends everything that a pair does.
const pairDeadline = 3 * time.Minute

func TestTargetProcess(t *testing.T) {
	if os.Getenv(pairVar) == "" {
		return // only as a pair's second process
	}
	time.AfterFunc(pairDeadline, func() { os.Exit(9) })
	in, out := gob.NewDecoder(os.NewFile(3, "requests")), gob.NewEncoder(os.NewFile(4, "replies"))
	s := &target{}
	for {
		var r pairRequest
		if err := in.Decode(&r); err != nil {
			s.close()
			return // the test ended
		}
		rep, err := s.do(r)
		if err != nil {
			rep.Err = err.Error()
		}
		if err := out.Encode(rep); err != nil {
			t.Fatal(err)
		}
		if r.Do == "close" {
			return
		}
	}
}

type target struct {
	ep    Endpoint
	buf   *mem.Buffer
	plans []*loop.Plan
}

func (s *target) do(r pairRequest) (rep pairReply, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), pairDeadline)
	defer cancel()
	switch r.Do {
	case "open":
		if s.buf, err = mem.New(r.Kind, 0, r.Bytes); err != nil {
			return rep, err
		}
		if s.ep, err = Open(ctx, r.Config); err != nil {
			return rep, err
		}
		if err = s.ep.Register(s.buf); err != nil {
			return rep, err
		}
		rep.Address, err = s.ep.Address()
	case "connect":
		err = s.ep.Connect(ctx, r.Address)
	case "fill":
		err = s.buf.Fill(ctx, r.Bytes, r.Key)
	case "poison":
		err = s.buf.Poison(ctx, r.Bytes)
	case "arm":
		freeAll(s.plans)
		if s.plans, err = newPlans(r.Plans); err == nil {
			err = s.ep.Arm(ctx, r.Op, s.plans, r.Iters)
		}
	case "settle":
		rep.Arrived, err = s.ep.Settle(ctx)
	case "check":
		plans := s.plans
		if r.Plans != nil { // in an order of the test's own
			if plans, err = newPlans(r.Plans); err != nil {
				return rep, err
			}
			defer freeAll(plans)
		}
		err = checkAll(s.buf, plans, false, r.Key)
	case "info":
		rep.Info = s.ep.Info()
	case "close":
		err = s.close()
	default:
		err = fmt.Errorf("request %q", r.Do)
	}
	return rep, err
}

func (s *target) close() error {
	var errs []error
	if s.ep != nil {
		errs = append(errs, s.ep.Close())
	}
	freeAll(s.plans)
	if s.buf != nil {
		errs = append(errs, s.buf.Free())
	}
	return errors.Join(errs...)
}

func newPlans(lanes [][]loop.Piece) ([]*loop.Plan, error) {
	var out []*loop.Plan
	for _, l := range lanes {
		p, err := loop.NewPlan(l)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func freeAll(plans []*loop.Plan) {
	for _, p := range plans {
		p.Free()
	}
}

func checkAll(buf *mem.Buffer, plans []*loop.Plan, toLocal bool, key uint64) error {
	for _, p := range plans {
		if err := buf.Check(context.Background(), spans(p, toLocal), key); err != nil {
			return err
		}
	}
	return nil
}

// pair is this process's side, the initiator, and the second process.
type pair struct {
	t      testing.TB
	ep     Endpoint
	buf    *mem.Buffer
	cmd    *exec.Cmd
	enc    *gob.Encoder
	dec    *gob.Decoder
	stdout strings.Builder
	closed bool
}

// startPair opens cfg on both sides with buffers of n bytes of host memory and
// connects them. An error is that of opening this side.
func startPair(t testing.TB, cfg Config, n int) (*pair, error) {
	return startPairOf(t, cfg, mem.Host, n)
}

func startPairOf(t testing.TB, cfg Config, kind mem.Kind, n int) (*pair, error) {
	t.Helper()
	p := &pair{t: t}
	var err error
	if p.buf, err = mem.New(kind, 0, n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.buf.Free() })
	ctx, cancel := context.WithTimeout(context.Background(), pairDeadline)
	t.Cleanup(cancel)
	cfg.Role = Initiator
	if p.ep, err = Open(ctx, cfg); err != nil {
		return nil, err
	}
	t.Cleanup(p.close)
	p.must(p.ep.Register(p.buf))
	mine, err := p.ep.Address()
	p.must(err)

	p.spawn()
	cfg.Role = Target
	theirs := p.ask(pairRequest{Do: "open", Config: cfg, Kind: kind, Bytes: n}).Address
	p.ask(pairRequest{Do: "connect", Address: mine})
	p.must(p.ep.Connect(ctx, theirs))
	return p, nil
}

func (p *pair) spawn() {
	inR, inW, err := os.Pipe()
	p.must(err)
	outR, outW, err := os.Pipe()
	p.must(err)
	p.cmd = exec.Command(testenv.Self(p.t), "-test.run=^TestTargetProcess$", "-test.v=false")
	p.cmd.Env = append(os.Environ(), pairVar+"=1")
	p.cmd.ExtraFiles = []*os.File{inR, outW}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.must(p.cmd.Start())
	inR.Close()
	outW.Close()
	p.enc, p.dec = gob.NewEncoder(inW), gob.NewDecoder(outR)
	p.must(outR.SetReadDeadline(time.Now().Add(pairDeadline)))
	p.t.Cleanup(func() {
		inW.Close()
		outR.Close()
		p.cmd.Process.Kill()
		p.cmd.Wait()
	})
}

func (p *pair) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) ask(r pairRequest) pairReply {
	p.t.Helper()
	p.must(p.enc.Encode(r))
	var rep pairReply
	if err := p.dec.Decode(&rep); err != nil {
		p.t.Fatalf("the target process: %s: %v", r.Do, err)
	}
	if rep.Err != "" {
		p.t.Fatalf("the target: %s: %s", r.Do, rep.Err)
	}
	return rep
}

func (p *pair) close() {
	if p.closed {
		return
	}
	p.closed = true
	if err := p.ep.Close(); err != nil {
		p.t.Errorf("closing: %v", err)
	}
}

// run moves lanes' pieces iters times and checks every byte at the
// destination.
func (p *pair) run(op loop.Op, lanes [][]loop.Piece, iters int, key uint64) []loop.Sample {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), pairDeadline)
	defer cancel()
	plans, err := newPlans(lanes)
	p.must(err)
	defer freeAll(plans)
	if op == loop.Read {
		p.must(p.buf.Poison(ctx, p.buf.Len()))
		p.ask(pairRequest{Do: "fill", Bytes: p.buf.Len(), Key: key})
	} else {
		p.must(p.buf.Fill(ctx, p.buf.Len(), key))
		p.ask(pairRequest{Do: "poison", Bytes: p.buf.Len()})
	}
	p.ask(pairRequest{Do: "arm", Op: op, Plans: lanes, Iters: iters})
	ss, err := p.ep.Transfer(ctx, op, plans, iters)
	p.must(err)
	arrived := p.ask(pairRequest{Do: "settle"}).Arrived
	if op == loop.Send && arrived != iters {
		p.t.Errorf("%d of %d transfers arrived at the target", arrived, iters)
	}
	if len(ss) != iters {
		p.t.Fatalf("%d samples of %d", len(ss), iters)
	}
	var bytes, ops uint64
	for _, l := range lanes {
		for _, q := range l {
			bytes, ops = bytes+q.Len, ops+1
		}
	}
	for i, s := range ss {
		if s.Bytes != bytes || s.Ops != ops {
			p.t.Errorf("sample %d: %d bytes in %d operations, want %d in %d", i, s.Bytes, s.Ops, bytes, ops)
		}
		if s.BeginNs <= 0 || s.PostedNs < s.BeginNs || s.LocalNs < s.BeginNs || s.DoneNs < s.LocalNs || s.DoneNs < s.PostedNs ||
			i > 0 && s.BeginNs < ss[i-1].DoneNs {
			p.t.Errorf("sample %d is out of order: %+v", i, s)
		}
	}
	if op == loop.Read {
		p.must(checkAll(p.buf, plans, true, key))
	} else {
		p.ask(pairRequest{Do: "check", Key: key})
	}
	return ss
}

// pairCase is a list of pieces for one lane.
type pairCase struct {
	name   string
	pieces []loop.Piece
}

// pairBytes holds every case below.
const pairBytes = 5 << 20

func pairCases() []pairCase {
	scrambled := make([]loop.Piece, 3000)
	r := rand.New(rand.NewPCG(1, 2))
	from, to := r.Perm(len(scrambled)), r.Perm(len(scrambled))
	for i := range scrambled { // odd lengths and offsets: 1 to 1399 bytes
		scrambled[i] = loop.Piece{Local: uint64(from[i]) * 1399, Remote: uint64(to[i]) * 1399, Len: uint64(1 + r.IntN(1399))}
	}
	var even []loop.Piece
	for i := range uint64(64) {
		even = append(even, loop.Piece{Local: i * 16384, Remote: i * 16384, Len: 16384})
	}
	return []pairCase{
		{"1 B", []loop.Piece{{Local: 3, Remote: 5, Len: 1}}},
		{"4 KiB", []loop.Piece{{Local: 4096, Remote: 0, Len: 4096}}},
		{"1 MiB in 64", even},
		{"1 MiB", []loop.Piece{{Local: 1, Remote: 1 << 20, Len: 1 << 20}}},
		{"3000 scrambled", scrambled},
	}
}

// deal gives each lane every lanes-th piece; a lane may get none.
func deal(pieces []loop.Piece, lanes int) [][]loop.Piece {
	out := make([][]loop.Piece, lanes)
	for i, q := range pieces {
		out[i%lanes] = append(out[i%lanes], q)
	}
	return out
}

// runPair is the matrix of ops and cases over one provider.
func runPair(t *testing.T, cfg Config, ops ...loop.Op) *pair {
	t.Helper()
	return runPairOf(t, cfg, mem.Host, ops...)
}

func runPairOf(t *testing.T, cfg Config, kind mem.Kind, ops ...loop.Op) *pair {
	t.Helper()
	p, err := startPairOf(t, cfg, kind, pairBytes)
	if err != nil {
		t.Fatal(err)
	}
	key := uint64(7)
	for _, op := range ops {
		for _, c := range pairCases() {
			t.Run(op.String()+"/"+c.name, func(t *testing.T) {
				old := p.t
				p.t = t
				defer func() { p.t = old }()
				key++
				p.run(op, deal(c.pieces, cfg.Streams), 3, key)
			})
		}
	}
	return p
}
