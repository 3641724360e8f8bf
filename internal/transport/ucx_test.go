package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/testenv"
	"github.com/xferbench/xferbench/internal/testenv/hosttest"
	"github.com/xferbench/xferbench/ucx"
)

func needUCX(t *testing.T) *ucx.Library {
	t.Helper()
	lib, err := ucx.Load("")
	testenv.Need(t, "ucx", err)
	return lib
}

func ucxConfig(provider string, streams int) Config {
	return Config{Provider: provider, Streams: streams, Depth: 64, Poll: loop.Yield, Timeout: 10 * time.Second, Device: -1}
}

func TestUCXTransfers(t *testing.T) {
	needUCX(t)
	for _, provider := range []string{"ucx:tcp", "ucx:shm", "ucx"} {
		for _, streams := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s/%d", provider, streams), func(t *testing.T) {
				runPair(t, ucxConfig(provider, streams), loop.Read, loop.Write, loop.Send)
			})
		}
	}
}

// GPU memory needs a UCX built with CUDA (XFERBENCH_LIBUCP names it). Over
// cuda_ipc a WRITE goes from one process's GPU memory to the other's (UCX 1.22
// reads through host memory all the same); without it, through host memory.
func TestUCXCUDA(t *testing.T) {
	needUCX(t)
	buf, err := mem.New(mem.CUDA, 0, 4096)
	testenv.Need(t, "cuda", err)
	if err := buf.Free(); err != nil {
		t.Fatal(err)
	}
	for _, provider := range []string{"ucx:cuda_ipc,cuda_copy,tcp", "ucx:cuda_copy,tcp", "ucx"} {
		t.Run(provider, func(t *testing.T) {
			p := runPairOf(t, ucxConfig(provider, 2), mem.CUDA, loop.Read, loop.Write, loop.Send)
			info := p.ep.Info()
			t.Logf("%v", info.Protocol)
			if strings.Contains(provider, "cuda_ipc") && !strings.Contains(info.Protocol["write"], "cuda_ipc") {
				t.Errorf("WRITE does not use cuda_ipc: %q", info.Protocol["write"])
			}
		})
	}
	// Without cuda_copy UCX cannot tell GPU memory from host memory, and would
	// read it with the CPU.
	ep, err := Open(context.Background(), ucxConfig("ucx:tcp", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer ep.Close()
	if buf, err = mem.New(mem.CUDA, 0, 4096); err != nil {
		t.Fatal(err)
	}
	defer buf.Free()
	if err := ep.Register(buf); !errors.Is(err, ErrUnsupported) {
		t.Errorf("GPU memory over tcp alone: %v, want ErrUnsupported", err)
	}
}

// A peer that dies must end the transfer and the closing in bounded time.
func TestPeerKilled(t *testing.T) {
	needUCX(t)
	for _, tt := range []struct {
		provider string
		ops      []loop.Op
	}{
		{"ucx:tcp", []loop.Op{loop.Read, loop.Write, loop.Send}},
		{"ucx:shm", []loop.Op{loop.Read, loop.Write, loop.Send}},
		{"socket", []loop.Op{loop.Read, loop.Write}},
	} {
		for _, op := range tt.ops {
			t.Run(tt.provider+"/"+op.String(), func(t *testing.T) {
				shared := sharedMemoryFiles(t)
				cfg := ucxConfig(tt.provider, 2)
				cfg.Timeout = time.Second
				p, err := startPair(t, cfg, pairBytes)
				if err != nil {
					t.Fatal(err)
				}
				lanes := deal(pairCases()[2].pieces, 2)
				const iters = 1_000_000
				p.ask(pairRequest{Do: "arm", Op: op, Plans: lanes, Iters: iters})
				plans, err := newPlans(lanes)
				p.must(err)
				defer freeAll(plans)
				time.AfterFunc(200*time.Millisecond, func() { p.cmd.Process.Kill() })
				start := time.Now()
				ss, err := p.ep.Transfer(context.Background(), op, plans, iters)
				if err == nil {
					t.Fatalf("%d transfers with a killed peer", len(ss))
				}
				t.Logf("%v after %d transfers: %v", time.Since(start).Round(time.Millisecond), len(ss), err)
				if d := time.Since(start); d > 10*time.Second {
					t.Errorf("the transfer ended after %v", d)
				}
				if tt.provider == "ucx:tcp" && !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "UCX") {
					t.Errorf("error %q says nothing of the connection", err)
				}
				start = time.Now()
				p.closed = true
				// Without error handling nothing ends what the peer owes.
				if err := p.ep.Close(); err != nil && !(tt.provider == "ucx:shm" && errors.Is(err, ErrNotClosed)) {
					t.Errorf("closing: %v", err)
				}
				if d := time.Since(start); d > 6*time.Second {
					t.Errorf("closing took %v", d)
				}
				for f := range sharedMemoryFiles(t) {
					if !shared[f] {
						t.Errorf("left behind: /dev/shm/%s", f)
					}
				}
			})
		}
	}
}

// sharedMemoryFiles are UCX's in /dev/shm.
func sharedMemoryFiles(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("/dev/shm/ucx*")
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]bool{}
	for _, f := range files {
		m[filepath.Base(f)] = true
	}
	return m
}

// A transport that this host lacks never falls back to another.
func TestUCXUnavailable(t *testing.T) {
	needUCX(t)
	for _, provider := range []string{"ucx:warp", "ucx:warp,warp2"} {
		ep, err := Open(context.Background(), ucxConfig(provider, 1))
		if err == nil {
			ep.Close()
		}
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: error %v, want ErrUnavailable", provider, err)
		}
	}
	cfg := ucxConfig("ucx:tcp", 1)
	cfg.Library = "/nonexistent/libucp.so"
	if _, err := Open(context.Background(), cfg); !errors.Is(err, ErrUnavailable) {
		t.Errorf("without a library: %v, want ErrUnavailable", err)
	}
	for _, provider := range []string{"ucx:", "ucx:,"} {
		if ep, err := Open(context.Background(), ucxConfig(provider, 1)); err == nil {
			ep.Close()
			t.Errorf("provider %q was taken", provider)
		}
	}
}

func TestUCXInfo(t *testing.T) {
	lib := needUCX(t)
	cfg := ucxConfig("ucx:tcp", 1)
	cfg.Bind, cfg.Options = []string{"127.0.0.1"}, map[string]string{"RNDV_THRESH": "64k"}
	p, err := startPair(t, cfg, pairBytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range []loop.Op{loop.Read, loop.Write, loop.Send} {
		p.run(op, deal(pairCases()[2].pieces, 1), 1, 5)
	}
	info := p.ep.Info()
	if info.API != "ucx" || info.Library != lib.Path() || info.Version != lib.Version() || info.Streams != 1 || info.Depth != 64 {
		t.Errorf("info %+v", info)
	}
	for k, want := range map[string]string{"UCX_TLS": "tcp", "UCX_NET_DEVICES": "lo", "UCX_RNDV_THRESH": "64k", "ERR_HANDLING": "peer"} {
		if info.Settings[k] != want {
			t.Errorf("%s is %q, want %q", k, info.Settings[k], want)
		}
	}
	if len(info.Devices) != 1 || info.Devices[0].Name != "tcp/lo" {
		t.Errorf("devices %+v, want tcp/lo alone", info.Devices)
	}
	// No UCX has a get over tcp; put has been there since 1.19 or so.
	if !slices.Contains(info.Emulated, "read") {
		t.Errorf("read over tcp is software emulation; protocol %q, emulated %v", info.Protocol["read"], info.Emulated)
	}
	for _, op := range []string{"read", "write"} {
		if info.Protocol[op] == "" || strings.Contains(info.Protocol[op], "software emulation") != slices.Contains(info.Emulated, op) {
			t.Errorf("%s: protocol %q, emulated %v", op, info.Protocol[op], info.Emulated)
		}
	}
	if !strings.Contains(info.Protocol["lanes"], "tcp/lo") || info.Protocol["send"] == "" {
		t.Errorf("protocol %v", info.Protocol)
	}
	p.close()
	if p.stdout.String() != "" && !strings.HasPrefix(p.stdout.String(), "PASS") {
		t.Errorf("the target wrote to standard output: %q", p.stdout.String())
	}
}

// On every version UCX listens on the interfaces of Bind and on no other, and no
// RDMA device is hidden.
func TestUCXDevices(t *testing.T) {
	rdma := hosttest.Tree(t, map[string]string{
		"sys/class/infiniband/mlx5_0/ports/1/state":   "4: ACTIVE",
		"sys/class/infiniband/mlx5_0/ports/2/state":   "1: DOWN",
		"sys/class/infiniband/rdmap0s6/ports/1/state": "4: ACTIVE",
	})
	none := hosttest.Tree(t, nil)
	for _, tt := range []struct {
		root            host.Root
		tls, bind, want string
	}{
		{rdma, "tcp", "127.0.0.1", "lo"},
		{rdma, "tcp", "127.0.0.2", "lo"},
		{rdma, "tcp,cuda_copy", "127.0.0.1", "lo"},
		{rdma, "self,tcp,sm", "127.0.0.1", "lo"},
		{rdma, "tcp,rc", "127.0.0.1", "mlx5_0:1,rdmap0s6:1,lo"},
		{rdma, "rc", "127.0.0.1", "mlx5_0:1,rdmap0s6:1,lo"},
		{rdma, "", "127.0.0.1", "mlx5_0:1,rdmap0s6:1,lo"},
		{rdma, "^tcp", "127.0.0.1", "mlx5_0:1,rdmap0s6:1,lo"},
		{rdma, "all", "127.0.0.1", "mlx5_0:1,rdmap0s6:1,lo"},
		{none, "", "127.0.0.1", "lo"},
		{none, "^shm", "127.0.0.1 127.0.0.2", "lo"},
		{none, "tcp,rc", "127.0.0.1", "lo"},
		{rdma, "shm", "127.0.0.1", ""},
		{rdma, "self,cma", "127.0.0.1", ""},
		{rdma, "tcp", "", ""},
	} {
		if got, err := ucxDevices(tt.root, tt.tls, strings.Fields(tt.bind)); err != nil || got != tt.want {
			t.Errorf("ucxDevices(%q, %q) = %q, %v; want %q", tt.tls, tt.bind, got, err, tt.want)
		}
	}
	for _, tls := range []string{"tcp", "", "^shm"} {
		if _, err := ucxDevices(none, tls, []string{"192.0.2.1"}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%q, an address of no interface: %v, want ErrUnavailable", tls, err)
		}
		if _, err := ucxDevices(none, tls, []string{"lo"}); err == nil {
			t.Errorf("%q: an interface's name was taken for an address", tls)
		}
	}
}

// The user's own UCX_NET_DEVICES wins, wherever he set it.
func TestUCXDevicesGiven(t *testing.T) {
	needUCX(t)
	open := func(options map[string]string) string {
		cfg := ucxConfig("ucx", 1)
		cfg.Bind, cfg.Options = []string{"127.0.0.1"}, options
		ep, err := Open(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer ep.Close()
		return ep.Info().Settings["UCX_NET_DEVICES"]
	}
	if got := open(nil); !slices.Contains(strings.Split(got, ","), "lo") {
		t.Errorf("UCX_NET_DEVICES is %q, want lo in it", got)
	}
	for _, key := range []string{"NET_DEVICES", "UCX_NET_DEVICES"} {
		if got := open(map[string]string{key: "all"}); got != "all" {
			t.Errorf("%s=all: UCX_NET_DEVICES is %q", key, got)
		}
	}
	t.Setenv("UCX_NET_DEVICES", "all")
	if got := open(nil); got != "all" {
		t.Errorf("with UCX_NET_DEVICES=all in the environment it is %q", got)
	}
}

func FuzzUCXAddress(f *testing.F) {
	good, err := json.Marshal(ucxAddress{API: "ucx", Version: "1.13.1", Workers: [][]byte{{1}, {2}}, Labels: []uint32{1, 2}, Key: []byte{3}, Base: 4096, Length: 10})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"api":"ucx","workers":[""],"key":"AA==","base":18446744073709551615,"length_bytes":2}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseUCXAddress(b, 2)
		if err == nil && (len(a.Workers) != 2 || len(a.Labels) != 2 || len(a.Workers[0]) == 0 || len(a.Workers[1]) == 0 || len(a.Key) == 0 || a.Base+a.Length < a.Base) {
			t.Errorf("%q was read as %+v", b, a)
		}
	})
}
