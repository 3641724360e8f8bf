package mem

import (
	"errors"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/cgo/engine"
	"github.com/xferbench/xferbench/internal/testenv"
)

func newPlan(t *testing.T, pieces ...engine.Piece) *engine.Plan {
	t.Helper()
	p, err := engine.NewPlan(pieces)
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
	pieces := []engine.Piece{{Local: 0, Remote: 40003, Len: 9001}, {Local: 9001, Remote: 5, Len: 20000}, {Local: 30001, Remote: 49004, Len: 7}}
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
			for _, err := range []error{src.Fill(size, key), dst.Poison(size), dst.CopyPieces(src, plan)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			tt.damage(dst.Bytes(), src.Bytes())
			err := dst.Check(plan, true, key)
			var m *Mismatch
			if tt.piece < 0 {
				if err != nil {
					t.Fatal(err)
				}
				// A stale payload: the same bytes are wrong for the next iteration.
				if err := dst.Check(plan, true, Key(7, 4)); !errors.As(err, &m) {
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
	for _, p := range []engine.Piece{{Local: 4000, Len: 97}, {Local: 1 << 63, Len: 1}, {Local: 1, Len: 1<<64 - 1}} {
		if err := b.Check(newPlan(t, p), true, 1); err == nil || !strings.Contains(err.Error(), "outside") {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestCheckWritesFromRemote(t *testing.T) {
	b := newBuffer(t, Host, 4096)
	key := Key(1, 1)
	if err := b.Fill(4096, key); err != nil {
		t.Fatal(err)
	}
	if err := b.Check(newPlan(t, engine.Piece{Local: 64, Remote: 64, Len: 100}), false, key); err != nil {
		t.Error(err)
	}
	if err := b.Check(newPlan(t, engine.Piece{Local: 72, Remote: 64, Len: 100}), false, key); err == nil {
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
	if _, err := New(Host, 0, 1<<62); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "--size") {
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
	plan := newPlan(t, engine.Piece{Local: 16, Remote: 8, Len: 5 << 20}, engine.Piece{Local: 6 << 20, Remote: 6 << 20, Len: 4096})
	key := Key(2, 2)
	for _, err := range []error{src.Fill(size, key), dst.Poison(size), host.Poison(size)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []*Buffer{dst, host} {
		var m *Mismatch
		if err := d.Check(plan, true, key); !errors.As(err, &m) {
			t.Errorf("%s: poison passed: %v", d.Kind(), err)
		}
		if err := d.CopyPieces(src, plan); err != nil {
			t.Fatal(err)
		}
		if err := d.Check(plan, true, key); err != nil {
			t.Errorf("%s: %v", d.Kind(), err)
		}
	}
}

func BenchmarkFill(b *testing.B) {
	benchmark(b, func(m *Buffer, p *engine.Plan) error { return m.Fill(m.Len(), 1) })
}
func BenchmarkCheck(b *testing.B) {
	benchmark(b, func(m *Buffer, p *engine.Plan) error { return m.Check(p, true, 1) })
}

func benchmark(b *testing.B, f func(*Buffer, *engine.Plan) error) {
	m, err := New(Host, 0, 64<<20)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Free()
	p, err := engine.NewPlan([]engine.Piece{{Len: 64 << 20}})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Free()
	if err := m.Fill(m.Len(), 1); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(64 << 20)
	for b.Loop() {
		if err := f(m, p); err != nil {
			b.Fatal(err)
		}
	}
}
