package cuda_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/cgo/dl"
	"github.com/xferbench/xferbench/cuda"
	"github.com/xferbench/xferbench/internal/testenv"
	"github.com/xferbench/xferbench/internal/testenv/cudafake"
)

func load(t *testing.T) *cuda.Driver {
	t.Helper()
	d, err := cuda.Load(cudafake.Build(t))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func retain(t *testing.T, d *cuda.Driver, ordinal int) *cuda.Context {
	t.Helper()
	c, err := d.Retain(ordinal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func alloc(t *testing.T, c *cuda.Context, n uint64) cuda.Pointer {
	t.Helper()
	p, err := c.Alloc(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Free(p); err != nil {
			t.Error(err)
		}
	})
	return p
}

func read(t *testing.T, c *cuda.Context, p cuda.Pointer, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if err := c.CopyFromDevice(b, p); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDevices(t *testing.T) {
	so := cudafake.Build(t)
	before, _, err := dl.SignalHandler(int(syscall.SIGINT))
	if err != nil {
		t.Fatal(err)
	}
	d, err := cuda.Load(so)
	if err != nil {
		t.Fatal(err)
	}
	if after, _, err := dl.SignalHandler(int(syscall.SIGINT)); err != nil || after != before || before == 0 {
		t.Errorf("the handler of SIGINT was %#x and is %#x (%v)", before, after, err)
	}
	if again, err := cuda.Load(so); again != d || err != nil {
		t.Errorf("a second Load: %p, %v; want %p", again, err, d)
	}
	if d.Path() != so || d.Version().String() != "12.4" {
		t.Errorf("%s, CUDA %v", d.Path(), d.Version())
	}
	got, err := d.Devices()
	want := []cuda.Device{
		{Ordinal: 0, Name: "Fake 0", PCI: "0000:10:1c.0", UUID: "GPU-00102030-4050-6070-8090-a0b0c0d0e0f0", MemoryBytes: 80 << 30},
		{Ordinal: 1, Name: "Fake 1", PCI: "0000:10:1d.0", UUID: "GPU-01112131-4151-6171-8191-a1b1c1d1e1f1", MemoryBytes: 40 << 30},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, err := range []error{second(d.Device(2)), second(d.Retain(-1)), second(d.CanAccessPeer(0, 7))} {
		if !errors.Is(err, cuda.ErrorInvalidDevice) || !strings.Contains(err.Error(), "cuDeviceGet: CUDA_ERROR_INVALID_DEVICE, invalid device ordinal (101)") {
			t.Errorf("a device that is none: %v", err)
		}
	}
	if can, err := d.CanAccessPeer(0, 1); !can || err != nil {
		t.Errorf("access between the devices: %v, %v", can, err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestNoDriver(t *testing.T) {
	none := filepath.Join(t.TempDir(), "libcuda.so.1")
	if _, err := cuda.Load(none); !errors.Is(err, cuda.ErrUnavailable) || !strings.Contains(err.Error(), "cannot open shared object file") {
		t.Errorf("no file: %v", err)
	}
	if _, err := cuda.Load("libm.so.6"); !errors.Is(err, cuda.ErrUnavailable) || !strings.Contains(err.Error(), "cuMemAlloc_v2") {
		t.Errorf("another library: %v", err)
	}
	t.Setenv("FAKECUDA_INIT", "100")
	_, err := cuda.Load(cudafake.Build(t))
	if !errors.Is(err, cuda.ErrUnavailable) || !errors.Is(err, cuda.ErrorNoDevice) || !strings.Contains(err.Error(), "cuInit: CUDA_ERROR_NO_DEVICE, no CUDA-capable device") {
		t.Errorf("cuInit refuses: %v", err)
	}
	t.Setenv("FAKECUDA_INIT", "12345")
	_, err = cuda.Load(cudafake.Build(t))
	if !errors.Is(err, cuda.Result(12345)) || !strings.Contains(err.Error(), "cuInit: unknown CUDA error (12345)") {
		t.Errorf("a code that the driver has no words for: %v", err)
	}
}

func TestMemory(t *testing.T) {
	d := load(t)
	c := retain(t, d, 1)
	p := alloc(t, c, 4096)
	a, err := d.Attributes(p + 100)
	if diff := cmp.Diff(cuda.Attributes{Type: cuda.DeviceMemory, Device: 1, Base: p, Bytes: 4096}, a); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := d.Attributes(1); !errors.Is(err, cuda.ErrorInvalidValue) {
		t.Errorf("attributes of an address of nobody: %v", err)
	}
	if err := errors.Join(c.SyncMemops(p), c.CopyToDevice(p+8, []byte("abcdef")), c.Set(p+10, 'x', 2), c.Copy(p+100, p+8, 6), c.CopyToDevice(p, nil)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, p+100, 6); string(got) != "abxxef" {
		t.Errorf("%q", got)
	}
	if err := c.CopyFromDevice(make([]byte, 10), p+4090); !errors.Is(err, cuda.ErrorInvalidValue) {
		t.Errorf("a copy beyond the allocation: %v", err)
	}
	h, err := c.AllocHost(64, cuda.Portable)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := d.Attributes(cuda.Pointer(uintptr(h))); err != nil || a.Type != cuda.HostMemory {
		t.Errorf("pinned memory: %+v, %v", a, err)
	}
	if err := c.FreeHost(h); err != nil {
		t.Error(err)
	}
	t.Setenv("FAKECUDA_BYTES", "1000")
	_, err = c.Alloc(1001)
	var e *cuda.Error
	if !errors.As(err, &e) || !errors.Is(err, cuda.ErrorOutOfMemory) || errors.Is(err, cuda.ErrorInvalidValue) ||
		err.Error() != "cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY, out of memory (2)" {
		t.Errorf("too much: %v", err)
	}
}

func TestPeers(t *testing.T) {
	d := load(t)
	a, b := retain(t, d, 0), retain(t, d, 1)
	p, q := alloc(t, a, 64), alloc(t, b, 64)
	for range 2 { // the second time it is enabled already
		if err := a.EnablePeer(b); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(a.CopyToDevice(p, []byte("hello")), a.CopyPeer(b, q, p, 5)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, b, q, 5); string(got) != "hello" {
		t.Errorf("%q", got)
	}
	if err := b.CopyPeer(a, p, p, 5); !errors.Is(err, cuda.ErrorInvalidValue) {
		t.Errorf("a source that is not on the device: %v", err)
	}
	h, err := a.IPCHandle(p)
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := a.OpenIPC(h)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, a, mapped, 5); string(got) != "hello" {
		t.Errorf("%q", got)
	}
	if err := a.CloseIPC(mapped); err != nil {
		t.Error(err)
	}
	if _, err := a.OpenIPC(cuda.IPCHandle{}); !errors.Is(err, cuda.ErrorInvalidValue) {
		t.Errorf("a handle of nothing: %v", err)
	}
}

func TestStreamsAndEvents(t *testing.T) {
	d := load(t)
	a, b := retain(t, d, 0), retain(t, d, 1)
	p, q := alloc(t, a, 64), alloc(t, b, 64)
	h, err := a.AllocHost(64, 0)
	if err != nil {
		t.Fatal(err)
	}
	host := unsafe.Slice((*byte)(h), 64)
	copy(host, "stream")
	s, err := a.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	from, err1 := a.NewEvent()
	to, err2 := a.NewEvent()
	if err := errors.Join(err1, err2, s.Record(from), s.CopyToDevice(p, h, 6), s.Set(p+2, '-', 2), s.Copy(p+8, p, 6),
		s.CopyPeer(b, q, p+8, 6), s.CopyFromDevice(unsafe.Add(h, 32), p, 6), s.Record(to), s.After(to)); err != nil {
		t.Fatal(err)
	}
	if done, err := s.Query(); done || err != nil {
		t.Errorf("done at once: %v, %v", done, err)
	}
	if done, err := to.Query(); done || err != nil || host[32] != 0 {
		t.Errorf("the event was passed at once: %v, %v", done, err)
	}
	if err := errors.Join(s.Wait(), to.Wait()); err != nil {
		t.Fatal(err)
	}
	for _, q := range []func() (bool, error){s.Query, to.Query} {
		if done, err := q(); !done || err != nil {
			t.Errorf("after the wait: %v, %v", done, err)
		}
	}
	if took, err := to.Since(from); took != 1500*time.Microsecond || err != nil {
		t.Errorf("%v, %v", took, err)
	}
	if got := string(host[32:38]); got != "st--am" || string(read(t, b, q, 6)) != got {
		t.Errorf("%q here, %q at the peer", got, read(t, b, q, 6))
	}
	if err := errors.Join(s.Close(), s.Close(), from.Close(), from.Close(), a.FreeHost(h)); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{"Wait": s.Wait(), "Query": second(s.Query()), "Record": s.Record(to), "After": s.After(to),
		"Set": s.Set(p, 0, 1), "Copy": s.Copy(p, p, 1), "event's Query": second(from.Query()), "Since": second(to.Since(from)), "Since of": second(from.Since(to))} {
		if !errors.Is(err, cuda.ErrorInvalidHandle) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if err := to.Close(); err != nil {
		t.Error(err)
	}
}

func TestClosedContext(t *testing.T) {
	d := load(t)
	c, err := d.Retain(0)
	if err != nil {
		t.Fatal(err)
	}
	if c.Ordinal() != 0 || c.Driver() != d || c.Handle() == nil {
		t.Errorf("%+v", c)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := c.SetCurrent(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	for name, err := range map[string]error{"Alloc": second(c.Alloc(1)), "Set": c.Set(0, 0, 1), "Copy": c.Copy(0, 0, 1), "NewStream": second(c.NewStream()),
		"CopyToDevice": c.CopyToDevice(0, []byte("x"))} {
		if !errors.Is(err, cuda.ErrorInvalidContext) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if err := c.SetCurrent(); err != nil { // none is current any more
		t.Error(err)
	}
}

func TestExample(t *testing.T) {
	if err := roundTrip(load(t), []byte("over and back")); err != nil {
		t.Error(err)
	}
}

// The same on a real GPU.
func TestThisHost(t *testing.T) {
	d, err := cuda.Load("")
	testenv.Need(t, "cuda", err)
	devices, err := d.Devices()
	if err != nil || len(devices) == 0 {
		testenv.Need(t, "cuda", none(err))
	}
	t.Logf("%s, CUDA %v: %+v", d.Path(), d.Version(), devices)
	const n = 32 << 20
	if err := roundTrip(d, bytes.Repeat([]byte("0123456789abcdef"), n/16)); err != nil {
		t.Fatal(err)
	}
	c := retain(t, d, 0)
	p, q := alloc(t, c, n), alloc(t, c, n)
	if err := errors.Join(c.SyncMemops(p), c.Set(p, 7, n)); err != nil {
		t.Fatal(err)
	}
	if a, err := d.Attributes(p + 5); err != nil || a != (cuda.Attributes{Type: cuda.DeviceMemory, Base: p, Bytes: n}) {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := d.Attributes(1); !errors.Is(err, cuda.ErrorInvalidValue) {
		t.Errorf("attributes of an address of nobody: %v", err)
	}
	h, err := c.AllocHost(n, cuda.Portable)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	from, err1 := c.NewEvent()
	to, err2 := c.NewEvent()
	if err := errors.Join(err1, err2, s.Record(from), s.Copy(q, p, n), s.CopyFromDevice(h, q, n), s.Record(to), s.After(to)); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for done := false; !done; {
		if done, err = s.Query(); err != nil || time.Now().After(deadline) {
			t.Fatalf("done %v, %v", done, err)
		}
	}
	if host := unsafe.Slice((*byte)(h), n); slices.Min(host) != 7 || slices.Max(host) != 7 {
		t.Error("the copies changed the bytes")
	}
	if took, err := to.Since(from); took <= 0 || err != nil {
		t.Errorf("%v, %v", took, err)
	} else {
		t.Logf("%d bytes over the device and out of it in %v", n, took)
	}
	if handle, err := c.IPCHandle(p); err != nil || handle == (cuda.IPCHandle{}) {
		t.Errorf("%v, %v", handle, err)
	}
	if _, err := c.Alloc(1 << 60); !errors.Is(err, cuda.ErrorOutOfMemory) || !strings.Contains(err.Error(), "CUDA_ERROR_OUT_OF_MEMORY") {
		t.Errorf("2^60 bytes: %v", err)
	}
	if err := errors.Join(from.Close(), to.Close(), s.Close(), c.FreeHost(h)); err != nil {
		t.Error(err)
	}
	if len(devices) < 2 {
		return
	}
	peer := retain(t, d, 1)
	r := alloc(t, peer, n)
	if can, err := d.CanAccessPeer(0, 1); err != nil {
		t.Error(err)
	} else if can {
		if err := errors.Join(c.EnablePeer(peer), c.EnablePeer(peer)); err != nil {
			t.Error(err)
		}
	}
	if err := c.CopyPeer(peer, r, p, n); err != nil {
		t.Fatal(err)
	}
	if got := read(t, peer, r, n); slices.Min(got) != 7 || slices.Max(got) != 7 {
		t.Error("the copy to the peer changed the bytes")
	}
}

func none(err error) error {
	if err != nil {
		return err
	}
	return errors.New("the driver shows no device")
}

// Each function of the driver that is bound is named by a doc comment.
func TestWrapsAreNamed(t *testing.T) {
	header, err := os.ReadFile("cuda.h")
	if err != nil {
		t.Fatal(err)
	}
	var docs strings.Builder
	for _, f := range []string{"bindings.go", "bindings_stream.go"} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		docs.Write(b)
	}
	var wraps strings.Builder
	for _, w := range regexp.MustCompile(`(?s)Wraps:(.*?)\nfunc`).FindAllStringSubmatch(docs.String(), -1) {
		wraps.WriteString(w[1] + "\n")
	}
	symbols := regexp.MustCompile(`X\(\w+, "(cu\w+)"`).FindAllStringSubmatch(string(header), -1)
	for _, s := range symbols {
		if s[1] == "cuCtxPushCurrent_v2" || s[1] == "cuCtxPopCurrent_v2" {
			continue // of every call
		}
		if !regexp.MustCompile(`\b` + s[1] + `\b`).MatchString(wraps.String()) {
			t.Errorf("%s is bound and no Wraps: names it", s[1])
		}
	}
	if len(symbols) < 40 {
		t.Errorf("only %d functions found", len(symbols))
	}
}
