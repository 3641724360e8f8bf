package mem

import (
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cuda"
	"github.com/xferbench/xferbench/internal/testenv"
	"github.com/xferbench/xferbench/internal/testenv/cudafake"
)

func check(t *testing.T, b *Buffer, key uint64, spans ...Span) error {
	t.Helper()
	return b.Check(t.Context(), slices.Values(spans), key)
}

func newBuffer(t *testing.T, kind Kind, n int) *Buffer {
	t.Helper()
	b, err := New(kind, 0, n)
	if errors.Is(err, cuda.ErrUnavailable) {
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
	spans := []Span{{At: 0, From: 40003, Len: 9001}, {At: 9001, From: 5, Len: 20000}, {At: 30001, From: 49004, Len: 7}}
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
			key := Key(7, 3)
			if err := errors.Join(src.Fill(t.Context(), size, key), dst.Poison(t.Context(), size)); err != nil {
				t.Fatal(err)
			}
			for _, s := range spans {
				copy(dst.Bytes()[s.At:s.At+s.Len], src.Bytes()[s.From:])
			}
			tt.damage(dst.Bytes(), src.Bytes())
			err := check(t, dst, key, spans...)
			var m *Mismatch
			if tt.piece < 0 {
				if err != nil {
					t.Fatal(err)
				}
				// A stale payload: the same bytes are wrong for the next iteration.
				if err := check(t, dst, Key(7, 4), spans...); !errors.As(err, &m) {
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
	for _, s := range []Span{{At: 4000, Len: 97}, {At: 1 << 63, Len: 1}, {At: 1, Len: 1 << 63}} {
		if err := check(t, b, 1, s); err == nil || !strings.Contains(err.Error(), "outside") {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

// Spans are checked many per call; the number that a wrong byte is given counts all.
func TestCheckCountsSpans(t *testing.T) {
	const n = 3*spansPerCall + 7
	b := newBuffer(t, Host, 64*n)
	if err := b.Fill(t.Context(), 64*n, 5); err != nil {
		t.Fatal(err)
	}
	spans := make([]Span, n)
	for i := range spans {
		spans[i] = Span{At: uint64(64 * i), From: uint64(64 * i), Len: 64}
	}
	if err := errors.Join(check(t, b, 5, spans...), check(t, b, 5)); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, spansPerCall - 1, spansPerCall, n - 1} {
		b.Bytes()[64*i+3]++
		var m *Mismatch
		if err := check(t, b, 5, spans...); !errors.As(err, &m) || m.Piece != i || m.Offset != uint64(64*i+3) {
			t.Errorf("a wrong byte in span %d: %v", i, err)
		}
		b.Bytes()[64*i+3]--
	}
}

func TestCheckAtAnotherOffset(t *testing.T) {
	b := newBuffer(t, Host, 4096)
	key := Key(1, 1)
	if err := b.Fill(t.Context(), 4096, key); err != nil {
		t.Fatal(err)
	}
	if err := check(t, b, key, Span{At: 64, From: 64, Len: 100}); err != nil {
		t.Error(err)
	}
	if err := check(t, b, key, Span{At: 64, From: 72, Len: 100}); err == nil {
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
	if _, err := New(Host, 0, 1<<62); !errors.Is(err, syscall.ENOMEM) || !strings.Contains(err.Error(), "bytes of host memory") {
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

// Device memory is filled, poisoned and checked through the host, here over a
// stand-in for the driver and by TestDeviceMemory over a GPU.
func TestDeviceMemoryOfAStandIn(t *testing.T) {
	so := cudafake.Build(t)
	was := loadCUDA
	loadCUDA = func() (*cuda.Driver, error) { return cuda.Load(so) }
	t.Cleanup(func() { loadCUDA = was })
	testDeviceMemory(t)
	t.Setenv("FAKECUDA_BYTES", "1000")
	for _, k := range []Kind{CUDA, CUDAHost} {
		if _, err := New(k, 1, 1001); !errors.Is(err, cuda.ErrorOutOfMemory) || !strings.Contains(err.Error(), "1001 bytes of "+string(k)+" memory on device 1") {
			t.Errorf("too much: %v", err)
		}
	}
	if _, err := New(CUDA, 2, 1); !errors.Is(err, cuda.ErrorInvalidDevice) {
		t.Errorf("a device that is none: %v", err)
	}
}

func TestDeviceMemory(t *testing.T) { testDeviceMemory(t) }

func testDeviceMemory(t *testing.T) {
	const size = 9 << 20
	before := Allocated()
	spans := []Span{{At: 8, From: 8, Len: 5 << 20}, {At: 6 << 20, From: 6 << 20, Len: 4096}}
	key := Key(2, 2)
	for _, kind := range []Kind{CUDA, CUDAHost} {
		b := newBuffer(t, kind, size)
		if (b.Bytes() == nil) != kind.OnDevice() || b.Context() == nil || Allocated() < before+size {
			t.Errorf("%s: %d bytes seen by the CPU, context %v, %d bytes accounted", kind, len(b.Bytes()), b.Context(), Allocated()-before)
		}
		if err := b.Poison(t.Context(), size); err != nil {
			t.Fatal(err)
		}
		var m *Mismatch
		if err := check(t, b, key, spans...); !errors.As(err, &m) || m.Piece != 0 || m.Offset != 8 {
			t.Errorf("%s: poison passed: %v", kind, err)
		}
		if err := b.Fill(t.Context(), size, key); err != nil {
			t.Fatal(err)
		}
		if err := check(t, b, key, spans...); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if err := check(t, b, key, spans[0], Span{At: 6 << 20, From: 7 << 20, Len: 64}); !errors.As(err, &m) || m.Piece != 1 || m.SourceBytes != 7<<20 {
			t.Errorf("%s: the payload of another offset: %v", kind, err)
		}
		if err := b.Free(); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkFill(b *testing.B) {
	benchmark(b, func(m *Buffer) error { return m.Fill(context.Background(), m.Len(), 1) })
}
func BenchmarkCheck(b *testing.B) {
	whole := slices.Values([]Span{{Len: 64 << 20}})
	benchmark(b, func(m *Buffer) error { return m.Check(context.Background(), whole, 1) })
}

func benchmark(b *testing.B, f func(*Buffer) error) {
	m, err := New(Host, 0, 64<<20)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Free()
	if err := m.Fill(b.Context(), m.Len(), 1); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(64 << 20)
	for b.Loop() {
		if err := f(m); err != nil {
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
	one, many := slices.Values([]Span{{Len: size}}), slices.Values([]Span{{Len: 1 << 20}, {At: 1 << 20, From: 1 << 20, Len: Part}})
	for name, err := range map[string]error{"Fill": b.Fill(ctx, size, 1), "Poison": b.Poison(ctx, size),
		"Check": b.Check(ctx, one, 1), "Check of pieces": b.Check(ctx, many, 1)} {
		if !errors.Is(err, why) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b.Bytes()[0] != 0 {
		t.Error("a method wrote after its context had ended")
	}
	// Parts leave no seam, and a wrong byte in the last one is found.
	if err := errors.Join(b.Fill(t.Context(), size, 1), b.Check(t.Context(), one, 1), b.Check(t.Context(), many, 1)); err != nil {
		t.Fatal(err)
	}
	b.Bytes()[size-1]++
	var m *Mismatch
	if err := b.Check(t.Context(), one, 1); !errors.As(err, &m) || m.Offset != size-1 || m.SourceBytes != size-1 {
		t.Errorf("Check: %v", err)
	}
	b.Bytes()[Part]++
	if err := b.Check(t.Context(), many, 1); !errors.As(err, &m) || m.Piece != 1 || m.Offset != Part {
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

// Each system call of mem.c is named by a doc comment.
func TestWrapsAreNamed(t *testing.T) {
	code, err := os.ReadFile("mem.c")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("bindings.go")
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]bool{}
	for _, m := range regexp.MustCompile(`\b(m(?:map|unmap|advise|protect|lock))\(`).FindAllSubmatch(code, -1) {
		calls[string(m[1])] = true
	}
	if len(calls) != 3 {
		t.Errorf("calls %v", calls)
	}
	for c := range calls {
		if !regexp.MustCompile(`Wraps:[^\n]*\b` + c + `\(2\)`).Match(docs) {
			t.Errorf("%s is called and no Wraps: names it", c)
		}
	}
}
