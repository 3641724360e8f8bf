package copier_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/cgo/copier"
	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/cuda"
	"github.com/xferbench/xferbench/internal/testenv"
	"github.com/xferbench/xferbench/internal/testenv/cudafake"
)

func group(t *testing.T, l *copier.Lane) *loop.Group {
	t.Helper()
	g, err := loop.NewGroup([]loop.Lane{l.Lane()}, loop.Config{Poll: loop.Yield})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.Close(), l.Close(), l.Close()); err != nil {
			t.Error(err)
		}
	})
	return g
}

func plan(t *testing.T, pieces ...loop.Piece) []*loop.Plan {
	t.Helper()
	p, err := loop.NewPlan(pieces)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Free)
	return []*loop.Plan{p}
}

func hostBuffer(t *testing.T, n int) *mem.Buffer {
	t.Helper()
	b, err := mem.New(mem.Host, 0, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Free(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestHost(t *testing.T) {
	dst, src := hostBuffer(t, 4096), hostBuffer(t, 4096)
	l, err := copier.New(dst.Address(), src.Address(), 4096)
	if err != nil {
		t.Fatal(err)
	}
	g := group(t, l)
	copy(src.Bytes()[100:], "abcdef")
	ps := plan(t, loop.Piece{Local: 10, Remote: 100, Len: 3}, loop.Piece{Local: 20, Remote: 103, Len: 3})
	if _, err := g.Transfer(t.Context(), loop.Read, ps, 1, 1); err != nil {
		t.Fatal(err)
	}
	if got := string(dst.Bytes()[10:13]) + string(dst.Bytes()[20:23]); got != "abcdef" {
		t.Errorf("READ: %q", got)
	}
	copy(dst.Bytes()[10:], "ghi")
	for _, op := range []loop.Op{loop.Write, loop.Send} {
		clear(src.Bytes())
		if _, err := g.Transfer(t.Context(), op, ps, 1, 64); err != nil {
			t.Fatal(err)
		}
		if got := string(src.Bytes()[100:103]); got != "ghi" {
			t.Errorf("%v: %q", op, got)
		}
	}
	if err := g.Arm(t.Context(), loop.Send, ps, 1); err == nil || !strings.Contains(err.Error(), "no target") {
		t.Errorf("a copy that was armed: %v", err)
	}
}

// A batch of long pieces is not one silence: the loop looks around once per GiB.
func TestLooksAround(t *testing.T) {
	const n = 64 << 20
	dst, src := hostBuffer(t, n), hostBuffer(t, n)
	l, err := copier.New(dst.Address(), src.Address(), n)
	if err != nil {
		t.Fatal(err)
	}
	pieces := make([]loop.Piece, 40) // 2.5 GiB
	for i := range pieces {
		pieces[i].Len = n
	}
	ss, err := group(t, l).Transfer(t.Context(), loop.Read, plan(t, pieces...), 1, len(pieces))
	if err != nil || ss[0].Polls != 3 || ss[0].EAgain != 0 || ss[0].Ops != 40 || ss[0].Bytes != 40*n {
		t.Errorf("%+v, %v", ss, err)
	}
}

func TestCUDA(t *testing.T) {
	d, err := cuda.Load(cudafake.Build(t))
	if err != nil {
		t.Fatal(err)
	}
	testCUDA(t, d)
}

func TestGPU(t *testing.T) {
	d, err := cuda.Load("")
	testenv.Need(t, "cuda", err)
	testCUDA(t, d)
}

func testCUDA(t *testing.T, d *cuda.Driver) {
	ctx, err := d.Retain(0)
	if err != nil {
		t.Fatal(err)
	}
	const n = 4096
	dst, err1 := ctx.Alloc(n)
	src, err2 := ctx.Alloc(n)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(ctx.Free(dst), ctx.Free(src), ctx.Close()); err != nil {
			t.Error(err)
		}
	})
	l, err := copier.NewCUDA(ctx, dst, src, n)
	if err != nil {
		t.Fatal(err)
	}
	g := group(t, l)
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i / 128)
	}
	if err := errors.Join(ctx.CopyToDevice(src, data), ctx.Set(dst, 0, n)); err != nil {
		t.Fatal(err)
	}
	pieces := make([]loop.Piece, 32)
	for i := range pieces { // in another order at the destination
		pieces[i] = loop.Piece{Local: uint64(31-i) * 128, Remote: uint64(i) * 128, Len: 128}
	}
	ss, err := g.Transfer(t.Context(), loop.Read, plan(t, pieces...), 2, 16)
	if err != nil || len(ss) != 2 || ss[1].Bytes != n || ss[1].DoneNs <= ss[1].BeginNs {
		t.Fatalf("%+v, %v", ss, err)
	}
	got := make([]byte, n)
	if err := ctx.CopyFromDevice(got, dst); err != nil {
		t.Fatal(err)
	}
	for i, b := range got {
		if b != byte(31-i/128) {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
	if _, err := g.Transfer(t.Context(), loop.Write, plan(t, loop.Piece{Local: 0, Remote: n, Len: 1}), 1, 1); !errors.Is(err, loop.ErrOutside) {
		t.Errorf("a piece outside: %v", err)
	}
}

// What the driver refuses is the transfer's error, in its words.
func TestCUDARefuses(t *testing.T) {
	d, err := cuda.Load(cudafake.Build(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := d.Retain(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ctx.Close(); err != nil {
			t.Error(err)
		}
	})
	l, err := copier.NewCUDA(ctx, 4096, 8192, 64)
	if err != nil {
		t.Fatal(err)
	}
	_, err = group(t, l).Transfer(t.Context(), loop.Read, plan(t, loop.Piece{Len: 64}), 1, 1)
	if err == nil || err.Error() != "cuMemcpyDtoDAsync_v2: CUDA_ERROR_INVALID_VALUE (1)" {
		t.Errorf("%v", err)
	}
}
