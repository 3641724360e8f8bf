package transport

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
)

func socketConfig(streams int) Config {
	return Config{Provider: "socket", Streams: streams, Bind: []string{"127.0.0.1"}, Timeout: 10 * time.Second, Device: -1}
}

func TestSocketTransfers(t *testing.T) {
	for _, streams := range []int{1, 2} {
		t.Run(fmt.Sprint(streams), func(t *testing.T) {
			runPair(t, socketConfig(streams), loop.Read, loop.Write, loop.Send)
		})
	}
}

// localSockets are both sides in this process.
func localSockets(t testing.TB, streams, n int) (ini, tgt Endpoint, iniBuf, tgtBuf *mem.Buffer) {
	t.Helper()
	ctx := context.Background()
	open := func(r Role) (Endpoint, *mem.Buffer) {
		buf, err := mem.New(mem.Host, 0, n)
		if err != nil {
			t.Fatal(err)
		}
		cfg := socketConfig(streams)
		cfg.Role, cfg.Timeout = r, 2*time.Second
		ep, err := OpenSocket(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ep.Close(); buf.Free() })
		if err := ep.Register(buf); err != nil {
			t.Fatal(err)
		}
		return ep, buf
	}
	tgt, tgtBuf = open(Target)
	ini, iniBuf = open(Initiator)
	if err := tgt.Connect(ctx, nil); err != nil {
		t.Fatal(err)
	}
	a, err := tgt.Address()
	if err != nil {
		t.Fatal(err)
	}
	if err := ini.Connect(ctx, a); err != nil {
		t.Fatal(err)
	}
	return ini, tgt, iniBuf, tgtBuf
}

func mustPlan(t testing.TB, pieces ...loop.Piece) *loop.Plan {
	t.Helper()
	p, err := loop.NewPlan(pieces)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Free)
	return p
}

// Neither side may allocate in Go while transfers run.
func TestSocketAllocatesNothing(t *testing.T) {
	for _, op := range []loop.Op{loop.Read, loop.Write} {
		t.Run(op.String(), func(t *testing.T) {
			ini, tgt, _, _ := localSockets(t, 1, 1<<20)
			const runs = 200
			var pieces []loop.Piece
			for i := range uint64(30) {
				pieces = append(pieces, loop.Piece{Local: i * 30000, Remote: (29 - i) * 30000, Len: 20000})
			}
			plans := []*loop.Plan{mustPlan(t, pieces...)}
			if err := tgt.Arm(context.Background(), op, plans, runs+1); err != nil { // AllocsPerRun runs once more
				t.Fatal(err)
			}
			e := ini.(*socketEndpoint)
			data, sizes, err := e.vectors(op, plans)
			if err != nil {
				t.Fatal(err)
			}
			var s loop.Sample
			s.Bytes = sizes[0]
			n := testing.AllocsPerRun(runs, func() {
				if err := e.lanes[0].transfer(op, data[0], &s); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 {
				t.Errorf("%v allocations a transfer", n)
			}
			if got, err := tgt.Settle(context.Background()); err != nil || got != runs+1 {
				t.Errorf("settled %d, %v; want %d", got, err, runs+1)
			}
		})
	}
}

// A connection without the token gets no memory and disturbs nothing.
func TestSocketRefusesStrangers(t *testing.T) {
	ctx := context.Background()
	buf, err := mem.New(mem.Host, 0, 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer buf.Free()
	cfg := socketConfig(1)
	cfg.Role = Target
	tgt, err := OpenSocket(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer tgt.Close()
	if err := errors.Join(tgt.Register(buf), tgt.Connect(ctx, nil)); err != nil {
		t.Fatal(err)
	}
	b, err := tgt.Address()
	if err != nil {
		t.Fatal(err)
	}
	a, to, err := parseSocketAddress(b)
	if err != nil {
		t.Fatal(err)
	}
	for name, hello := range map[string][]byte{
		"wrong token": binary.BigEndian.AppendUint32(make([]byte, tokenBytes), 0),
		"wrong lane":  binary.BigEndian.AppendUint32(append([]byte{}, a.Token...), 1),
		"garbage":     []byte(strings.Repeat("GET / HTTP/1.1\r\n", 4)),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.DialTCP("tcp", nil, to[0])
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(hello); err != nil {
				t.Fatal(err)
			}
			if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, context.DeadlineExceeded) || err == nil {
				t.Errorf("read %d, %v; want a closed connection", n, err)
			}
		})
	}
	if err := tgt.Fault(); err != nil {
		t.Errorf("fault: %v", err)
	}
	c, err := net.DialTCP("tcp", nil, to[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(binary.BigEndian.AppendUint32(a.Token, 0)); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(c, answer); err != nil || answer[0] != ackByte {
		t.Errorf("with the token: %x, %v", answer, err)
	}
}

// A target that reads nothing must not hold the initiator for ever.
func TestSocketTimesOut(t *testing.T) {
	ini, tgt, _, _ := localSockets(t, 2, 64<<20)
	stuck := tgt.(*socketEndpoint)
	p := mustPlan(t, loop.Piece{Len: 32 << 20})
	stuck.mu.Lock() // the target's goroutines stop at the armed plan
	start := time.Now()
	_, err := ini.Transfer(context.Background(), loop.Write, []*loop.Plan{p, p}, 1)
	stuck.mu.Unlock()
	if !errors.Is(err, loop.ErrTimeout) {
		t.Errorf("error %v, want a timeout", err)
	}
	if d := time.Since(start); d > 8*time.Second {
		t.Errorf("took %v with a timeout of 2s", d)
	}
}

func TestSocketStopsWhenCancelled(t *testing.T) {
	ini, tgt, _, _ := localSockets(t, 2, 64<<20)
	stuck := tgt.(*socketEndpoint)
	p := mustPlan(t, loop.Piece{Len: 32 << 20})
	stuck.mu.Lock()
	defer stuck.mu.Unlock()
	cause := errors.New("the user pressed Ctrl-C")
	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	start := time.Now()
	_, err := ini.Transfer(ctx, loop.Read, []*loop.Plan{p, p}, 1)
	if !errors.Is(err, cause) {
		t.Errorf("error %v, want the cause of the cancellation", err)
	}
	if d := time.Since(start); d > 1500*time.Millisecond {
		t.Errorf("took %v after a cancellation", d)
	}
}

// A header that does not fit what is armed ends the run on both sides.
func TestSocketNoticesAnotherPlan(t *testing.T) {
	ini, tgt, _, _ := localSockets(t, 1, 4096)
	if err := tgt.Arm(context.Background(), loop.Read, []*loop.Plan{mustPlan(t, loop.Piece{Len: 100})}, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := ini.Transfer(context.Background(), loop.Read, []*loop.Plan{mustPlan(t, loop.Piece{Len: 200})}, 1); err == nil {
		t.Error("a transfer of twice the armed bytes succeeded")
	}
	if _, err := tgt.Settle(context.Background()); err == nil || !strings.Contains(err.Error(), "expects") {
		t.Errorf("the target settled with %v", err)
	}
}

func TestVectors(t *testing.T) {
	buf := make([]byte, 100)
	p := mustPlan(t, loop.Piece{Local: 0, Remote: 50, Len: 10}, loop.Piece{Local: 10, Remote: 0, Len: 0},
		loop.Piece{Local: 10, Remote: 20, Len: 5}, loop.Piece{Local: 90, Remote: 25, Len: 10})
	v := &vectors{}
	if err := v.addPieces(buf, p, true); err != nil {
		t.Fatal(err)
	}
	if len(v.iov) != 2 || v.iov[0].Len != 15 || v.iov[1].Len != 10 {
		t.Fatalf("vectors %+v: touching pieces must join", v.iov)
	}
	before := [2]uint64{v.iov[0].Len, v.iov[1].Len}
	for _, n := range []uint64{1, 13, 2, 4} { // parts, across the border
		v.advance(n)
	}
	if v.at != 1 || v.iov[0].Len != before[0] || v.iov[1].Len != 5 || v.iov[1].Base != &buf[95] {
		t.Errorf("after 20 bytes: at %d, %+v", v.at, v.iov)
	}
	v.rewind()
	if v.at != 0 || v.iov[0].Len != 15 || v.iov[0].Base != &buf[0] || v.iov[1].Len != 10 || v.iov[1].Base != &buf[90] {
		t.Errorf("after rewind: %+v", v.iov)
	}
	for _, bad := range []loop.Piece{{Local: 91, Len: 10}, {Local: 101, Len: 0}, {Local: 1, Len: 1 << 63}} {
		if err := (&vectors{}).addPieces(buf, mustPlan(t, bad), true); err == nil {
			t.Errorf("piece %+v in a buffer of 100 was taken", bad)
		}
	}
}

func FuzzSocketAddress(f *testing.F) {
	good, err := json.Marshal(socketAddress{API: "socket", Addrs: []string{"127.0.0.1:1"}, Token: make([]byte, tokenBytes)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"api":"socket","addresses":["[::1]:9"],"token":""}`))
	f.Add([]byte(`{"api":"socket"} trailing`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, to, err := parseSocketAddress(b)
		if err == nil && (len(a.Token) != tokenBytes || len(to) == 0 || to[0].IP == nil) {
			t.Errorf("%q was read as %+v %v", b, a, to)
		}
	})
}
