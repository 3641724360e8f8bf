package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv"
)

// brief are the flags of a run whose figures nobody looks at.
var brief = []string{"--no-record", "--no-ceiling", "--size", "1MB", "--shape", "merged", "--blocks", "2", "--timeout", "5s"}

// after runs xferbench after some lines of shell, which see its words as "$@".
func after(t *testing.T, shell string, args ...string) *proc {
	t.Helper()
	return spawn(t, exec.Command("bash", append([]string{"-ec", shell + "\nexec \"$@\"", "bash", bin}, args...)...))
}

// What is wrong with /dev/shm is said, with its size and the next step, by every
// provider that lives on it.
func TestSharedMemoryShort(t *testing.T) {
	testenv.NeedRoot(t)
	unshare := testenv.NeedTool(t, "unshare", "mount")
	testenv.Need(t, "mount", exec.Command(unshare, "-m", "true").Run())
	for name, c := range map[string]struct {
		shell string
		says  []string
	}{
		"full": {"mount -t tmpfs -o size=64k x /dev/shm; head -c 64k /dev/zero >/dev/shm/full",
			[]string{"/dev/shm is full: 0 of its 65536 bytes are free", "df /dev/shm", "--shm-size"}},
		"small": {"mount -t tmpfs -o size=1m x /dev/shm",
			[]string{"/dev/shm is too small or too full: 1048576 of its 1048576 bytes are free", "--shm-size"}},
		"read-only": {"mount -t tmpfs -o ro x /dev/shm",
			[]string{"/dev/shm is read-only", "remount,rw"}},
		// A /dev of the least that a process needs, without shm.
		"missing": {`d=$(mktemp -d); mount -t tmpfs x "$d"; cp -a /dev/null /dev/zero /dev/urandom /dev/random "$d"; mount --move "$d" /dev; rmdir "$d"`,
			[]string{"there is no /dev/shm", "mount -t tmpfs"}},
	} {
		for _, provider := range []string{"shm", "ucx:posix"} {
			t.Run(name+"/"+provider, func(t *testing.T) {
				inner := append([]string{"-m", "bash", "-ec", c.shell + "\nexec \"$@\"", "bash", bin, "-p", provider}, brief...)
				p := spawn(t, exec.Command(unshare, inner...))
				p.exits(3)
				p.says(c.says...)
				if strings.Contains(p.Errs.String(), "another libfabric") {
					t.Errorf("another library would not help: %s", p.Errs.String())
				}
			})
		}
	}
}

// Too few descriptors end no run with a crash or as an internal error, however
// few they are.
func TestFewFiles(t *testing.T) {
	for _, provider := range []string{"tcp", "tcp;ofi_rxm", "sockets", "ucx:tcp", "ucx", "socket"} {
		limits := []int{16, 20, 24, 32, 40}
		if provider == "tcp" {
			limits = append(limits, 8, 9, 10, 11, 12, 13) // there is no transport yet
		}
		for _, files := range limits {
			t.Run(fmt.Sprintf("%s/%d", provider, files), func(t *testing.T) {
				p := after(t, fmt.Sprintf("ulimit -n %d", files), append([]string{"-p", provider, "--streams", "32"}, brief...)...)
				if p.exits(3); strings.Contains(p.Errs.String(), "open files") {
					p.says("ulimit -n")
				} else {
					t.Errorf("not a word of open files: %s", p.Errs.String())
				}
			})
		}
	}
}

// The same holds for commands without transports, and their record ends with the
// code that the process ends with.
func TestFewFilesElsewhere(t *testing.T) {
	for _, files := range []int{8, 10, 13} {
		rec := filepath.Join(t.TempDir(), "r.jsonl")
		p := after(t, fmt.Sprintf("ulimit -n %d", files), "ttft", "--sim", "--iterations", "2", "--record", rec)
		p.exits(3)
		p.says("open files", "ulimit -n")
		if strings.Contains(p.Errs.String(), "--streams") {
			t.Errorf("%d files: ttft has no --streams: %s", files, p.Errs.String())
		}
		p.record = rec
		p.closed(record.StatusFailed, 3)
	}
	p := after(t, "ulimit -n 8", "sweep", "--size", "1MB", "--record", "/dev/null/x")
	p.exits(2) // no folder is no lack of descriptors
}

// A variable that keeps a provider from being seen is named with its value, for
// every provider that it hides.
func TestHiddenByVariable(t *testing.T) {
	for value, providers := range map[string]map[string]string{
		"tcp":      {"net": "hides net", "tcp": "hides net", "shm": "hides shm", "sockets": "hides sockets", "fabric:udp": "hides udp"},
		"^net":     {"net": "hides net", "tcp": "hides net"},
		"^tcp":     {"tcp;ofi_rxm": "hides tcp;ofi_rxm"},
		"^shm,net": {"shm": "hides shm"},
		"nonsense": {"tcp": "hides tcp and net", "verbs": "hides verbs;ofi_rxm"},
		"":         {"tcp": "hides tcp and net", "shm": "set and empty"},
	} {
		for provider, says := range providers {
			t.Run(value+"/"+provider, func(t *testing.T) {
				cmd := exec.Command(bin, append([]string{"-p", provider}, brief...)...)
				t.Setenv("FI_PROVIDER", value)
				p := spawn(t, cmd)
				p.exits(3)
				p.says("FI_PROVIDER="+value+" hides", says, "unset")
			})
		}
	}
}

// UCX's variables that are empty or nonsense are named.
func TestUCXVariables(t *testing.T) {
	for _, c := range [][]string{
		{"ucx:tcp", "UCX_RNDV_THRESH", "abc"}, {"ucx:tcp", "UCX_RNDV_THRESH", ""}, {"ucx", "UCX_TLS", ""}, {"ucx", "UCX_TLS", "nonsense"},
		{"ucx:tcp", "UCX_NET_DEVICES", "nonsense"}, {"ucx:tcp", "UCX_NET_DEVICES", ""}, {"ucx:tcp", "UCX_TCP_TX_SEG_SIZE", "q"},
	} {
		t.Run(strings.Join(c, " "), func(t *testing.T) {
			t.Setenv(c[1], c[2])
			p := xferbench(t, append([]string{"-p", c[0]}, brief...)...)
			p.exits(3)
			p.says("the environment has " + c[1] + "=" + c[2])
		})
	}
	p := xferbench(t, append([]string{"-p", "ucx:tcp", "--ucx-config", "RNDV_THRESH=abc"}, brief...)...)
	p.exits(3)
	p.says("RNDV_THRESH=abc")
}

// onlyIPv6 is a host whose loopback has no IPv4 address.
func onlyIPv6(t *testing.T) *testenv.NetNS {
	t.Helper()
	n, _, _ := testenv.Hosts(t)
	for _, args := range [][]string{{"addr", "del", "127.0.0.1/8", "dev", "lo"}, {"addr", "show", "dev", "lo"}} {
		out, err := n.Command(context.Background(), "ip", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
		if args[1] == "show" && !strings.Contains(string(out), "::1/128") {
			testenv.Need(t, "ipv6", fmt.Errorf("no ::1: %s", out))
		}
	}
	return n
}

func TestOnlyIPv6Loopback(t *testing.T) {
	n := onlyIPv6(t)
	for _, provider := range []string{"tcp", "tcp;ofi_rxm", "sockets", "shm", "ucx", "socket"} {
		t.Run(provider, func(t *testing.T) {
			spawn(t, n.Command(t.Context(), bin, append([]string{"-p", provider}, brief...)...)).exits(0)
		})
	}
	t.Run("ucx:tcp", func(t *testing.T) {
		p := spawn(t, n.Command(t.Context(), bin, append([]string{"-p", "ucx:tcp"}, brief...)...))
		<-p.Done
		if p.Cmd.ProcessState.ExitCode() != 0 { // UCX before IPv6
			p.exits(3)
			p.says("for ::1", "IPv4 address on the interface")
		}
	})
	t.Run("serve", func(t *testing.T) {
		s := spawn(t, n.Command(t.Context(), bin, "serve", "--once"))
		line := s.line()
		if !strings.HasPrefix(line, "[::1]:18517#") {
			t.Errorf("serve listens on %s", line)
		}
		spawn(t, n.Command(t.Context(), bin, append([]string{"-p", "tcp", line}, brief...)...)).exits(0)
		s.exits(0)
	})
	t.Run("serve on IPv4", func(t *testing.T) {
		s := spawn(t, n.Command(t.Context(), bin, "serve", "--once", "--listen", "127.0.0.1:0"))
		s.exits(3)
		s.says("its loopback is ::1")
	})
	t.Run("ttft", func(t *testing.T) {
		spawn(t, n.Command(t.Context(), bin, "ttft", "--sim", "--iterations", "6", "--blocks", "6", "--prompt-tokens", "64", "--no-record")).exits(0)
	})
}

// IPv6 from end to end: control channel and data plane.
func TestIPv6Peer(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		testenv.Need(t, "ipv6", err)
	} else if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, provider := range []string{"tcp", "tcp;ofi_rxm", "sockets", "ucx:tcp", "socket"} {
		t.Run(provider, func(t *testing.T) {
			s, line := serve(t, "--once", "--listen", "[::1]:0")
			if !strings.HasPrefix(line, "[::1]:") {
				t.Fatalf("serve printed %s", line)
			}
			xferbench(t, append([]string{"-p", provider, line}, brief...)...).exits(0)
			s.exits(0)
		})
	}
	t.Run("bind", func(t *testing.T) {
		s, line := serve(t, "--once", "--bind", "::1")
		xferbench(t, append([]string{"-p", "tcp", "--bind", "::1", line}, brief...)...).exits(0)
		s.exits(0)
	})
}

// A link-local address reaches the control channel; transports need another.
func TestLinkLocalPeer(t *testing.T) {
	a, b, links := testenv.Hosts(t, testenv.Link{})
	// An address can be used once no other host has answered to it.
	usable := func(n *testenv.NetNS, dev string) string {
		for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			out, err := n.Command(t.Context(), "ip", "-o", "-6", "addr", "show", "dev", dev, "scope", "link", "-tentative").Output()
			testenv.Need(t, "ipv6", err)
			if f := strings.Fields(string(out)); len(f) > 3 {
				address, _, _ := strings.Cut(f[3], "/")
				return address
			}
		}
		testenv.Need(t, "ipv6", fmt.Errorf("%s has no link-local address", dev))
		return ""
	}
	at := usable(b, links[0].DevB)
	usable(a, links[0].DevA)
	s := spawn(t, b.Command(t.Context(), bin, "serve", "--max-sessions", "2", "--listen", "[::]:0"))
	line := s.line()
	_, rest, _ := strings.Cut(line, ":")
	peer := fmt.Sprintf("[%s%%%s]:%s", at, links[0].DevA, rest)
	p := spawn(t, a.Command(t.Context(), bin, append([]string{"-p", "tcp", peer}, brief...)...))
	p.exits(2)
	p.says("link-local", "--bind")
	p = spawn(t, a.Command(t.Context(), bin, append([]string{"-p", "tcp", "--bind", links[0].AddrA, peer}, brief...)...))
	p.exits(0)
	s.exits(0)
}
