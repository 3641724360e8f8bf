package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/dl"
	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/internal/testenv"
)

// needFabric skips where there is no libfabric.
func needFabric(t testing.TB) *fabric.Library {
	t.Helper()
	lib, err := fabric.Load("")
	testenv.Need(t, "libfabric", err)
	return lib
}

func fabricConfig(provider string, ops ...loop.Op) Config {
	return Config{Provider: provider, Ops: ops, Bind: []string{"127.0.0.1"}, Streams: 1, Poll: loop.Yield,
		Timeout: 10 * time.Second, SameHost: true, Device: -1}
}

var everyOp = []loop.Op{loop.Read, loop.Write, loop.Send}

// cut splits pieces that are longer than most.
func cut(pieces []loop.Piece, most uint64) []loop.Piece {
	var out []loop.Piece
	for _, p := range pieces {
		for p.Len > most {
			out = append(out, loop.Piece{Local: p.Local, Remote: p.Remote, Len: most})
			p.Local, p.Remote, p.Len = p.Local+most, p.Remote+most, p.Len-most
		}
		out = append(out, p)
	}
	return out
}

// runFabric is the matrix of ops and cases over one provider.
func runFabric(t *testing.T, cfg Config, ops ...loop.Op) *pair {
	t.Helper()
	p, err := startPair(t, cfg, pairBytes)
	if err != nil {
		t.Fatal(err)
	}
	info := p.ep.Info()
	key := uint64(7)
	for _, op := range ops {
		most := uint64(pairBytes)
		if n := info.MaxPiece[op.String()]; n > 0 {
			most = n
		}
		for _, c := range pairCases() {
			t.Run(op.String()+"/"+c.name, func(t *testing.T) {
				old := p.t
				p.t = t
				defer func() { p.t = old }()
				key++
				p.run(op, deal(cut(c.pieces, most), cfg.Streams), 3, key)
			})
		}
	}
	return p
}

// Every provider that needs no hardware moves every shape, by every operation
// and either proof of landing, and each byte is looked at.
func TestFabricPair(t *testing.T) {
	needFabric(t)
	for _, c := range []struct {
		provider, landing string
		streams           int
		ops               []loop.Op
	}{
		{"tcp", "dc", 1, everyOp},
		{"tcp", "dc", 2, everyOp},
		{"tcp", "count", 2, []loop.Op{loop.Write}},
		{"tcp;ofi_rxm", "dc", 2, everyOp},
		{"tcp;ofi_rxm", "count", 1, []loop.Op{loop.Write}},
		{"shm", "dc", 1, everyOp},
		{"shm", "dc", 2, everyOp},
		{"shm", "count", 2, []loop.Op{loop.Write}},
		{"sockets", "dc", 1, everyOp},
		{"sockets", "count", 1, []loop.Op{loop.Write}},
	} {
		t.Run(fmt.Sprintf("%s/%s/streams %d", c.provider, c.landing, c.streams), func(t *testing.T) {
			cfg := fabricConfig(c.provider, everyOp...)
			cfg.Streams = c.streams
			cfg.Options = map[string]string{FabricLanding: c.landing}
			p := runFabric(t, cfg, c.ops...)
			want := map[string]string{"dc": "delivery-complete", "count": "remote-cq-count"}[c.landing]
			if got := p.ep.Info().Landing["write"]; got != want {
				t.Errorf("landing of write is %q, want %q", got, want)
			}
			if got := p.ep.Info().Protocol["send"]; !strings.HasPrefix(got, "tagged messages, injected up to ") {
				t.Errorf("protocol of send is %q", got)
			}
			if err := p.ep.Fault(); err != nil {
				t.Errorf("fault after the transfers: %v", err)
			}
		})
	}
	if left := shmFiles(t); len(left) > 0 {
		t.Errorf("left in /dev/shm: %v", left)
	}
}

// shmFiles are the shm provider's files of this process and its children.
func shmFiles(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("/dev/shm/*")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(f string) bool { return !strings.Contains(f, fmt.Sprint(os.Getpid())) })
}

// hog keeps n cores busy until the test ends.
func hog(t *testing.T, n int) {
	t.Helper()
	for range n {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
			cmd.Wait() // killed: its error says nothing
		})
	}
}

// With every core busy, a WRITE that is reported done is at the target in full.
// Plain writes are not: the local completion alone left up to 11 of 64 MB out in
// 9 of 12 runs.
func TestFabricLandedUnderLoad(t *testing.T) {
	needFabric(t)
	const size, piece = 64 << 20, 1 << 20
	for _, landing := range []string{"dc", "count"} {
		t.Run(landing, func(t *testing.T) {
			cfg := fabricConfig("tcp;ofi_rxm", loop.Write)
			cfg.Options = map[string]string{FabricLanding: landing}
			p, err := startPair(t, cfg, size)
			if err != nil {
				t.Fatal(err)
			}
			hog(t, 2)
			var pieces []loop.Piece
			for off := uint64(0); off < size; off += piece {
				pieces = append(pieces, loop.Piece{Local: off, Remote: off, Len: piece})
			}
			last := slices.Clone(pieces) // what would be missing is looked at first
			slices.Reverse(last)
			plans, err := newPlans([][]loop.Piece{pieces})
			p.must(err)
			defer freeAll(plans)
			for key := range uint64(4) {
				p.must(p.buf.Fill(t.Context(), size, key))
				p.ask(pairRequest{Do: "poison", Bytes: size})
				p.ask(pairRequest{Do: "arm", Op: loop.Write, Plans: [][]loop.Piece{pieces}, Iters: 1})
				_, err := p.ep.Transfer(t.Context(), loop.Write, plans, 1)
				p.must(err)
				p.ask(pairRequest{Do: "check", Plans: [][]loop.Piece{last}, Key: key})
				p.ask(pairRequest{Do: "settle"})
			}
		})
	}
}

// More operations than any queue holds: the provider says FI_EAGAIN, and all
// arrives.
func TestFabricQueueFull(t *testing.T) {
	needFabric(t)
	pieces := make([]loop.Piece, 20000)
	for i := range pieces {
		pieces[i] = loop.Piece{Local: uint64(i) * 200, Remote: uint64(len(pieces)-1-i) * 200, Len: 200}
	}
	for _, provider := range []string{"tcp", "tcp;ofi_rxm", "shm"} {
		t.Run(provider, func(t *testing.T) {
			cfg := fabricConfig(provider, everyOp...)
			cfg.Depth = len(pieces)
			p, err := startPair(t, cfg, 4000000)
			if err != nil {
				t.Fatal(err)
			}
			var eagain uint64
			for i, op := range everyOp {
				for _, s := range p.run(op, [][]loop.Piece{pieces}, 1, uint64(i)) {
					eagain += s.EAgain
				}
			}
			if eagain == 0 {
				t.Error("no post was refused: the flood was none")
			}
		})
	}
}

// A peer that dies ends the transfer with an error in bounded time, closing
// works, and nothing of it stays.
func TestFabricPeerKilled(t *testing.T) {
	needFabric(t)
	for _, provider := range []string{"tcp", "tcp;ofi_rxm", "shm", "sockets"} {
		for _, op := range []loop.Op{loop.Read, loop.Write} {
			t.Run(provider+"/"+op.String(), func(t *testing.T) {
				cfg := fabricConfig(provider, loop.Read, loop.Write)
				cfg.Timeout = time.Second
				p, err := startPair(t, cfg, pairBytes)
				if err != nil {
					t.Fatal(err)
				}
				lanes := [][]loop.Piece{{{Len: pairBytes}}}
				lanes[0] = cut(lanes[0], 64<<10)
				plans, err := newPlans(lanes)
				p.must(err)
				defer freeAll(plans)
				p.ask(pairRequest{Do: "arm", Op: op, Plans: lanes, Iters: 1 << 14})
				time.AfterFunc(100*time.Millisecond, func() { p.cmd.Process.Kill() })
				begin := time.Now()
				ss, err := p.ep.Transfer(t.Context(), op, plans, 1<<14)
				if err == nil {
					t.Fatal("the transfer ended well without its peer")
				}
				t.Logf("after %d transfers: %v", len(ss), err)
				if d := time.Since(begin); d > 15*time.Second {
					t.Errorf("the error came after %v", d)
				}
				begin = time.Now()
				p.closed = true
				// A peer of shm may die inside a lock that both share.
				if err := p.ep.Close(); err != nil && !(provider == "shm" && errors.Is(err, ErrNotClosed)) {
					t.Errorf("closing: %v", err)
				}
				if d := time.Since(begin); d > 15*time.Second {
					t.Errorf("closing took %v", d)
				}
				for _, pid := range []int{p.cmd.Process.Pid, os.Getpid()} {
					if left, err := filepath.Glob(fmt.Sprintf("/dev/shm/%d:*", pid)); err != nil || len(left) > 0 {
						t.Errorf("left in /dev/shm of process %d: %v %v", pid, left, err)
					}
				}
			})
		}
	}
}

// A stop leaves operations in flight. Those that still end are waited for; with
// others the endpoint is not closed: some libraries crash then.
func TestFabricClosesNothingInFlight(t *testing.T) {
	needFabric(t)
	for _, provider := range []string{"tcp", "tcp;ofi_rxm"} {
		for _, goesOn := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", provider, goesOn), func(t *testing.T) {
				cfg := fabricConfig(provider, loop.Read)
				cfg.Timeout = 3 * time.Second
				const size = 32 << 20
				p, err := startPair(t, cfg, size)
				if err != nil {
					t.Fatal(err)
				}
				lanes := [][]loop.Piece{cut([]loop.Piece{{Len: size}}, 1<<20)}
				plans, err := newPlans(lanes)
				p.must(err)
				defer freeAll(plans)
				p.ask(pairRequest{Do: "arm", Op: loop.Read, Plans: lanes, Iters: 1})
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(100*time.Millisecond, func() {
					p.must(p.cmd.Process.Signal(syscall.SIGSTOP))
					time.Sleep(100 * time.Millisecond)
					cancel()
				})
				if _, err := p.ep.Transfer(ctx, loop.Read, plans, 1<<14); !errors.Is(err, context.Canceled) {
					t.Fatalf("%v, want a transfer that was cancelled", err)
				}
				woken := make(chan error, 1)
				time.AfterFunc(100*time.Millisecond, func() {
					if !goesOn {
						woken <- nil
						return
					}
					woken <- p.cmd.Process.Signal(syscall.SIGCONT)
				})
				p.closed = true
				err = p.ep.Close()
				p.must(<-woken)
				if goesOn && err != nil || !goesOn && !errors.Is(err, ErrNotClosed) {
					t.Errorf("closing: %v, want ErrNotClosed: %v", err, !goesOn)
				}
			})
		}
	}
}

// Cancelling a transfer ends it at once.
func TestFabricCancelled(t *testing.T) {
	needFabric(t)
	p, err := startPair(t, fabricConfig("tcp", loop.Read), pairBytes)
	if err != nil {
		t.Fatal(err)
	}
	lanes := [][]loop.Piece{{{Len: 1 << 20}}}
	plans, err := newPlans(lanes)
	p.must(err)
	defer freeAll(plans)
	p.ask(pairRequest{Do: "arm", Op: loop.Read, Plans: lanes, Iters: 1})
	enough := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, enough)
	defer cancel()
	if _, err := p.ep.Transfer(ctx, loop.Read, plans, 1<<20); !errors.Is(err, enough) {
		t.Errorf("%v, want the context's cause", err)
	}
}

func TestFabricUnavailable(t *testing.T) {
	needFabric(t)
	for name, words := range map[string][]string{
		"efa":             {"this host has no EFA device", "No data available", "choose another --provider"},
		"efa-direct":      {"this host has no EFA device"},
		"fabric:nonesuch": {"offers no nonesuch on this host", "tcp", "--libfabric"},
	} {
		t.Run(name, func(t *testing.T) {
			ep, err := Open(t.Context(), fabricConfig(name, loop.Read))
			if ep != nil {
				ep.Close()
				testenv.Declare(t, "this host has "+name)
			}
			if !errors.Is(err, ErrUnavailable) {
				t.Errorf("%v, want ErrUnavailable", err)
			}
			for _, w := range words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
	t.Run("no library", func(t *testing.T) {
		cfg := fabricConfig("tcp", loop.Read)
		cfg.Library = "/nonexistent/libfabric.so.1"
		if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "/nonexistent/") {
			t.Errorf("%v, want ErrUnavailable with the path", err)
		}
	})
	t.Run("not a local address", func(t *testing.T) {
		cfg := fabricConfig("tcp", loop.Read)
		cfg.Bind = []string{"192.0.2.77"}
		if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "192.0.2.77") {
			t.Errorf("%v, want ErrUnavailable with the address", err)
		}
	})
	t.Run("rails", func(t *testing.T) {
		cfg := fabricConfig("tcp", loop.Read)
		cfg.Rails = 9
		if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "9 rails") {
			t.Errorf("%v, want ErrUnavailable that names the rails", err)
		}
	})
	t.Run("option", func(t *testing.T) {
		cfg := fabricConfig("tcp", loop.Read)
		cfg.Options = map[string]string{"write-landing": "hope"}
		if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "write-landing=hope") {
			t.Errorf("%v, want an error that names the option", err)
		}
	})
}

// A plan that the endpoint cannot run is refused before anything is posted.
func TestFabricPlansAreChecked(t *testing.T) {
	needFabric(t)
	p, err := startPair(t, fabricConfig("tcp", loop.Read), pairBytes)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		op    loop.Op
		piece loop.Piece
		want  error
	}{
		"local":  {loop.Read, loop.Piece{Local: pairBytes, Len: 1}, loop.ErrOutside},
		"remote": {loop.Read, loop.Piece{Remote: pairBytes - 1, Len: 2}, loop.ErrOutside},
		"far":    {loop.Read, loop.Piece{Local: 1 << 63, Len: 2}, loop.ErrOutside},
		"op":     {loop.Write, loop.Piece{Len: 1}, ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			plans, err := newPlans([][]loop.Piece{{c.piece}})
			p.must(err)
			defer freeAll(plans)
			if _, err := p.ep.Transfer(t.Context(), c.op, plans, 1); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

func TestParseFabricAddress(t *testing.T) {
	mine := fabricAddress{API: "libfabric", Provider: "tcp", Version: "1.17", Landing: "delivery-complete"}
	for name, c := range map[string]struct{ json, want string }{
		"garbage":  {"\x00", "libfabric address"},
		"unknown":  {`{"api":"libfabric","evil":1}`, "libfabric address"},
		"api":      {`{"api":"ucx"}`, "not of libfabric"},
		"provider": {`{"api":"libfabric","provider":"efa"}`, "opened libfabric provider efa"},
		"landing":  {`{"api":"libfabric","provider":"tcp","landing":"remote-cq-count","library_version":"2.1"}`, "same libfabric version"},
		"lanes":    {`{"api":"libfabric","provider":"tcp","landing":"delivery-complete","lanes":[]}`, "0 lanes"},
		"name":     {`{"api":"libfabric","provider":"tcp","landing":"delivery-complete","lanes":[{"len":1}]}`, "incomplete"},
		"wraps": {`{"api":"libfabric","provider":"tcp","landing":"delivery-complete","lanes":[{"name":"AAAA","base":18446744073709551615,"len":2}]}`,
			"incomplete"},
		"good": {`{"api":"libfabric","provider":"tcp","landing":"delivery-complete","lanes":[{"name":"AAAA","len":2}]}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseFabricAddress([]byte(c.json), mine, 1)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func FuzzParseFabricAddress(f *testing.F) {
	mine := fabricAddress{API: "libfabric", Provider: "tcp", Version: "1.17", Landing: "delivery-complete"}
	f.Add([]byte(`{"api":"libfabric","provider":"tcp","landing":"delivery-complete","lanes":[{"name":"AAAA","len":2}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseFabricAddress(b, mine, 1)
		if err == nil && (len(a.Lanes) != 1 || len(a.Lanes[0].Name) == 0 || a.Lanes[0].Len == 0) {
			t.Errorf("%q was accepted as %+v", b, a)
		}
	})
}

// Opening libfabric and moving data leaves the process's signal actions alone.
func TestFabricKeepsSignalActions(t *testing.T) {
	signals := []syscall.Signal{syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGABRT, syscall.SIGINT, syscall.SIGTERM}
	actions := func() []byte {
		var b bytes.Buffer
		for _, s := range signals {
			h, f, err := dl.SignalHandler(int(s))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%v %#x %#x\n", s, h, f)
		}
		return b.Bytes()
	}
	before := actions()
	needFabric(t)
	for _, provider := range []string{"tcp", "tcp;ofi_rxm", "shm", "sockets"} {
		p, err := startPair(t, fabricConfig(provider, loop.Read), pairBytes)
		if err != nil {
			t.Fatal(err)
		}
		p.run(loop.Read, [][]loop.Piece{{{Len: 4096}}}, 1, 3)
	}
	if after := actions(); !bytes.Equal(before, after) {
		t.Errorf("actions before\n%safter\n%s", before, after)
	}
}
