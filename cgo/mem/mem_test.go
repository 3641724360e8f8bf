package mem

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/internal/testenv"
)

func newPlan(t *testing.T, pieces ...loop.Piece) *loop.Plan {
	t.Helper()
	p, err := loop.NewPlan(pieces)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Free)
	return p
}

func newBuffer(t *testing.T, kind Kind, n int) *Buffer {
	t.Helper()
	b, err := New(kind, 0, n)
	if errors.Is(err, ErrNoCUDA) {
		testenv.Need(t, "cuda", err)
	}
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

// Each fault that a transfer can have must be found, at the right byte; odd
// offsets and lengths exercise the payload's unaligned ends.
func TestCheckFindsFaults(t *testing.T) {
	const size = 1 << 16
	pieces := []loop.Piece{{Local: 0, Remote: 40003, Len: 9001}, {Local: 9001, Remote: 5, Len: 20000}, {Local: 30001, Remote: 49004, Len: 7}}
	for name, tt := range map[string]struct {
		damage func(dst, src []byte)
		piece  int // -1: none
		offset uint64
	}{
		"right":                  {func(dst, src []byte) {}, -1, 0},
		"one bit":                {func(dst, src []byte) { dst[9001+12345] ^= 1 }, 1, 9001 + 12345},
		"last byte":              {func(dst, src []byte) { dst[30007]++ }, 2, 30007},
		"nothing arrived":        {func(dst, src []byte) { poison(dst) }, 0, 0},
		"pieces in wrong places": {func(dst, src []byte) { copy(dst[0:], src[5:9006]) }, 0, 0},
		"shifted by a word":      {func(dst, src []byte) { copy(dst[9001:], src[13:13+20000]) }, 1, 9001},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := newBuffer(t, Host, size), newBuffer(t, Host, size)
			plan := newPlan(t, pieces...)
			key := Key(7, 3)
			for _, err := range []error{src.Fill(t.Context(), size, key), dst.Poison(t.Context(), size), dst.CopyPieces(src, plan)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			tt.damage(dst.Bytes(), src.Bytes())
			err := dst.Check(t.Context(), plan, true, key)
			var m *Mismatch
			if tt.piece < 0 {
				if err != nil {
					t.Fatal(err)
				}
				// A stale payload: the same bytes are wrong for the next iteration.
				if err := dst.Check(t.Context(), plan, true, Key(7, 4)); !errors.As(err, &m) {
					t.Errorf("the last iteration's payload passed: %v", err)
				}
				return
			}
			if !errors.As(err, &m) || m.Piece != tt.piece || m.Offset != tt.offset {
				t.Errorf("Check: %v, want piece %d, byte %d", err, tt.piece, tt.offset)
			}
		})
	}
}

func poison(b []byte) {
	for i := range b {
		b[i] = 0xDB
	}
}

func TestCheckRefusesPiecesOutside(t *testing.T) {
	b := newBuffer(t, Host, 4096)
	for _, p := range []loop.Piece{{Local: 4000, Len: 97}, {Local: 1 << 63, Len: 1}, {Local: 1, Len: 1 << 63}} {
		if err := b.Check(t.Context(), newPlan(t, p), true, 1); err == nil || !strings.Contains(err.Error(), "outside") {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestCheckWritesFromRemote(t *testing.T) {
	b := newBuffer(t, Host, 4096)
	key := Key(1, 1)
	if err := b.Fill(t.Context(), 4096, key); err != nil {
		t.Fatal(err)
	}
	if err := b.Check(t.Context(), newPlan(t, loop.Piece{Local: 64, Remote: 64, Len: 100}), false, key); err != nil {
		t.Error(err)
	}
	if err := b.Check(t.Context(), newPlan(t, loop.Piece{Local: 72, Remote: 64, Len: 100}), false, key); err == nil {
		t.Error("a payload of another offset passed")
	}
}

func TestNewAccountsAndFrees(t *testing.T) {
	before := Allocated()
	b, err := New(Host, 0, 12345)
	if err != nil {
		t.Fatal(err)
	}
	if got := Allocated() - before; got != 12345 {
		t.Errorf("%d bytes accounted", got)
	}
	for range 2 {
		if err := b.Free(); err != nil {
			t.Error(err)
		}
	}
	if got := Allocated() - before; got != 0 {
		t.Errorf("%d bytes left after Free", got)
	}
	if _, err := New("vram", 0, 1); err == nil {
		t.Error("an unknown kind was allocated")
	}
	if _, err := New(Host, 0, 1<<62); !errors.Is(err, syscall.ENOMEM) || !strings.Contains(err.Error(), "--size") {
		t.Errorf("2^62 bytes: %v", err)
	}
}

// Key must separate every seed and iteration that a run can have.
func TestKeyDistinct(t *testing.T) {
	seen := map[uint64]bool{}
	for seed := range uint64(100) {
		for it := range uint64(100) {
			k := Key(seed, it)
			if seen[k] {
				t.Fatalf("Key(%d, %d) repeats", seed, it)
			}
			seen[k] = true
		}
	}
}

func TestDeviceMemory(t *testing.T) {
	const size = 9 << 20
	src := newBuffer(t, CUDA, size)
	dst, host := newBuffer(t, CUDA, size), newBuffer(t, CUDAHost, size)
	plan := newPlan(t, loop.Piece{Local: 16, Remote: 8, Len: 5 << 20}, loop.Piece{Local: 6 << 20, Remote: 6 << 20, Len: 4096})
	key := Key(2, 2)
	for _, err := range []error{src.Fill(t.Context(), size, key), dst.Poison(t.Context(), size), host.Poison(t.Context(), size)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []*Buffer{dst, host} {
		var m *Mismatch
		if err := d.Check(t.Context(), plan, true, key); !errors.As(err, &m) {
			t.Errorf("%s: poison passed: %v", d.Kind(), err)
		}
		if err := d.CopyPieces(src, plan); err != nil {
			t.Fatal(err)
		}
		if err := d.Check(t.Context(), plan, true, key); err != nil {
			t.Errorf("%s: %v", d.Kind(), err)
		}
	}
}

func BenchmarkFill(b *testing.B) {
	benchmark(b, func(m *Buffer, p *loop.Plan) error { return m.Fill(context.Background(), m.Len(), 1) })
}
func BenchmarkCheck(b *testing.B) {
	benchmark(b, func(m *Buffer, p *loop.Plan) error { return m.Check(context.Background(), p, true, 1) })
}

func benchmark(b *testing.B, f func(*Buffer, *loop.Plan) error) {
	m, err := New(Host, 0, 64<<20)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Free()
	p, err := loop.NewPlan([]loop.Piece{{Len: 64 << 20}})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Free()
	if err := m.Fill(b.Context(), m.Len(), 1); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(64 << 20)
	for b.Loop() {
		if err := f(m, p); err != nil {
			b.Fatal(err)
		}
	}
}

// Each method that works on a whole buffer ends with its context, within a part:
// a Ctrl-C does not wait for gigabytes.
func TestLongCallsEndWithTheirContext(t *testing.T) {
	const size = 2*Part + 12345
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	before := Allocated()
	if _, err := NewContext(ctx, Host, 0, size); !errors.Is(err, why) {
		t.Errorf("NewContext: %v", err)
	}
	if got := Allocated() - before; got != 0 {
		t.Errorf("%d bytes accounted after an allocation that was given up", got)
	}
	b := newBuffer(t, Host, size)
	one, many := newPlan(t, loop.Piece{Len: size}), newPlan(t, loop.Piece{Len: 1 << 20}, loop.Piece{Local: 1 << 20, Remote: 1 << 20, Len: Part})
	for name, err := range map[string]error{"Fill": b.Fill(ctx, size, 1), "Poison": b.Poison(ctx, size),
		"Check": b.Check(ctx, one, true, 1), "Check of pieces": b.Check(ctx, many, true, 1)} {
		if !errors.Is(err, why) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b.Bytes()[0] != 0 {
		t.Error("a method wrote after its context had ended")
	}
	// Parts leave no seam, and a wrong byte in the last one is found.
	if err := errors.Join(b.Fill(t.Context(), size, 1), b.Check(t.Context(), one, true, 1), b.Check(t.Context(), many, true, 1)); err != nil {
		t.Fatal(err)
	}
	b.Bytes()[size-1]++
	var m *Mismatch
	if err := b.Check(t.Context(), one, true, 1); !errors.As(err, &m) || m.Offset != size-1 || m.SourceBytes != size-1 {
		t.Errorf("Check: %v", err)
	}
	b.Bytes()[Part]++
	if err := b.Check(t.Context(), many, true, 1); !errors.As(err, &m) || m.Piece != 1 || m.Offset != Part {
		t.Errorf("Check of pieces: %v", err)
	}
}

// While a buffer is populated the process's memory lock must be free again and
// again: the Go runtime maps memory too, and all goroutines wait with it. In one
// call the whole time of the allocation is one silence.
func TestAllocationLetsOthersIn(t *testing.T) {
	const size = 1 << 30
	var rounds int
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			m, err := syscall.Mmap(-1, 0, 1<<16, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
			if err != nil {
				t.Error(err)
				return
			}
			if err := syscall.Munmap(m); err != nil {
				t.Error(err)
				return
			}
			rounds++
			time.Sleep(time.Millisecond)
		}
	}()
	b, err := New(Host, 0, size)
	close(stop)
	<-done
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Free(); err != nil {
		t.Error(err)
	}
	if rounds < 5 {
		t.Errorf("%d mappings were made while 1 GiB was allocated: the memory lock was held throughout", rounds)
	}
}
