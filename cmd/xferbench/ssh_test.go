package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv"
	testproc "github.com/xferbench/xferbench/internal/testenv/proc"
)

// small is a run that is over at once.
var small = []string{"--provider", "tcp,socket", "--size", "1MB", "--shape", "merged", "--no-ceiling", "--blocks", "1"}

// viaSSH are the arguments that reach s with the test's keys.
func viaSSH(s *testenv.SSHServer, args ...string) []string {
	return append([]string{"--ssh-command", s.Command()}, append(args, s.URL())...)
}

// remotes lists the processes of s's sessions: those that sshd told its address.
func remotes(t *testing.T, s *testenv.SSHServer) []int {
	t.Helper()
	envs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, f := range envs {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it just ended
		}
		for v := range bytes.SplitSeq(b, []byte{0}) {
			if c, ok := bytes.CutPrefix(v, []byte("SSH_CONNECTION=")); ok && bytes.HasSuffix(c, []byte(" "+s.Address+" "+s.Port)) {
				pid, err := strconv.Atoi(strings.Split(f, "/")[2])
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, pid)
			}
		}
	}
	return out
}

// emptied waits until no process of s's sessions is left.
func emptied(t *testing.T, s *testenv.SSHServer) {
	t.Helper()
	left := []int{0}
	for end := time.Now().Add(limit); len(left) > 0; time.Sleep(10 * time.Millisecond) {
		if left = remotes(t, s); time.Now().After(end) {
			t.Fatalf("processes %v are left on the other side\n%s", left, s.Log())
		}
	}
}

// noBinaryLeft fails t for a pushed binary that is there when it ends.
func noBinaryLeft(t *testing.T) {
	t.Helper()
	pushed := func() []string {
		names, err := filepath.Glob("/tmp/xferbench.*")
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	before := pushed()
	t.Cleanup(func() {
		left := slices.DeleteFunc(pushed(), func(f string) bool { return slices.Contains(before, f) })
		if len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// recorded runs to the end and returns the record, all of it verified.
func recorded(t *testing.T, start func(...string) *proc, args ...string) *record.Record {
	t.Helper()
	rec := filepath.Join(t.TempDir(), "r.jsonl")
	r := start(append([]string{"--record", rec}, args...)...)
	r.record = rec
	r.exits(0)
	got := r.closed(record.StatusOK, 0)
	if got.Samples.Len() == 0 {
		t.Error("nothing was measured")
	}
	for s := range got.Samples.All() {
		if s.Verified == nil || !*s.Verified {
			t.Errorf("not verified: %+v", s)
		}
	}
	return got
}

func here(t *testing.T) func(...string) *proc {
	return func(args ...string) *proc { t.Helper(); return xferbench(t, args...) }
}

func TestSSHPeerProgram(t *testing.T) {
	s := testenv.SSHD(t)
	// A folder and a name that a shell would take apart.
	odd := filepath.Join(t.TempDir(), "it's $HOME")
	if err := os.Symlink(bin, odd); err != nil {
		t.Fatal(err)
	}
	r := recorded(t, here(t), viaSSH(s, append(small, "--peer-program", odd)...)...)
	if r.Run.Peer == nil || r.Run.Peer.Address != s.Address {
		t.Errorf("the peer is %+v", r.Run.Peer)
	}
	emptied(t, s)
}

func TestSSHPushBinary(t *testing.T) {
	noBinaryLeft(t)
	s := testenv.SSHD(t)
	recorded(t, here(t), viaSSH(s, append(small, "--push-binary")...)...)
	emptied(t, s)
}

// Nothing is left of a pushed binary while it runs, so nothing can be left of
// it afterwards, and its process ends with the initiator's.
func TestSSHPushInitiatorKilled(t *testing.T) {
	s := testenv.SSHD(t)
	r := endless(t, "tcp", viaSSH(s, "--push-binary")...)
	var ran []string
	for _, pid := range remotes(t, s) {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(exe, "xferbench") {
			ran = append(ran, exe)
		}
	}
	// Beside it there is the guard, a shell.
	if len(ran) != 1 || !strings.HasPrefix(ran[0], "/tmp/xferbench.") || !strings.HasSuffix(ran[0], " (deleted)") {
		t.Errorf("the peer runs %q, want one, of a file that is gone", ran)
	}
	r.Signal(syscall.SIGKILL)
	emptied(t, s)
}

// A binary that is cut off on its way is not run, and not left.
func TestSSHPushCutOff(t *testing.T) {
	noBinaryLeft(t)
	s := testenv.SSHD(t)
	r := xferbench(t, "--no-record", "--push-binary", "--ssh-command", "head -c 1000000 | "+s.Command(), s.URL())
	r.exits(3)
	r.says("did not arrive whole", "install xferbench there")
	emptied(t, s)
}

func TestSSHWithoutXferbench(t *testing.T) {
	s := testenv.SSHD(t)
	r := xferbench(t, viaSSH(s, "--no-record")...)
	r.exits(3)
	r.says("not found", "exit status 127", "--push-binary", "--peer-program")
	emptied(t, s)
}

// A build from before there were workers takes the word for a peer.
func TestSSHOlderBuild(t *testing.T) {
	s := testenv.SSHD(t)
	older := filepath.Join(t.TempDir(), "xferbench")
	if err := os.WriteFile(older, []byte("#!/bin/sh\necho \"xferbench: peer \\\"$1\\\" has no token\" >&2\nexit 2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := xferbench(t, viaSSH(s, "--no-record", "--peer-program", older)...)
	r.exits(3)
	r.says(`peer "worker" has no token`, "run the same build on both sides", "xferbench version", "--push-binary")
	emptied(t, s)
}

// What ssh says of itself is passed on.
func TestSSHRefused(t *testing.T) {
	s := testenv.SSHD(t)
	for name, tt := range map[string]struct {
		option, says string
	}{
		"host key": {"-o HostKeyAlias=other", "Host key verification failed"},
		"user key": {"-o PubkeyAuthentication=no", "Permission denied (publickey)"},
		"user":     {"-l sshd", "Permission denied (publickey)"},
	} {
		t.Run(name, func(t *testing.T) {
			target := s.URL()
			if strings.HasPrefix(tt.option, "-l") {
				target = strings.Replace(target, "root@", "", 1)
			}
			r := xferbench(t, "--no-record", "--ssh-command", s.Command(tt.option), target)
			r.exits(3)
			r.says(tt.says, "exit status 255", "ssh's own words")
		})
	}
	t.Run("wrong key", func(t *testing.T) {
		for _, f := range []string{"user", "user.pub"} {
			if err := os.Remove(filepath.Join(s.Dir, f)); err != nil {
				t.Fatal(err)
			}
		}
		keygen(t, filepath.Join(s.Dir, "user"), "")
		r := xferbench(t, viaSSH(s, "--no-record")...)
		r.exits(3)
		r.says("Permission denied (publickey)")
	})
	emptied(t, s)
}

func TestSSHUnreachable(t *testing.T) {
	s := testenv.SSHD(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connects, and never says a word
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for address, says := range map[string]string{
		silent.Addr().String(): "timed out",
		closed.Addr().String(): "Connection refused",
		"no-such-host.invalid": "Could not resolve hostname",
	} {
		r := xferbench(t, "--no-record", "--timeout", timeout.String(), "--ssh-command", s.Command(), "ssh://root@"+address)
		r.exits(3)
		r.says(says, "ssh's own words")
	}
	r := xferbench(t, "--no-record", "--ssh-command", "no-such-ssh -v", s.URL())
	r.exits(3)
	r.says("no-such-ssh", "install an ssh client")
}

func TestSSHInterruptWhileConnecting(t *testing.T) {
	s := testenv.SSHD(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	r := xferbench(t, "--no-record", "--timeout", "50s", "--ssh-command", s.Command(), "ssh://root@"+silent.Addr().String())
	if _, err := silent.Accept(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	r.Signal(syscall.SIGINT)
	r.exits(130)
	if d := time.Since(start); d > 25*time.Second {
		t.Errorf("it took %v to end: ssh's own timeout of 50 s counts", d)
	}
}

func TestSSHRemoteDies(t *testing.T) {
	s := testenv.SSHD(t)
	r := endless(t, "tcp", viaSSH(s, "--peer-program", bin)...)
	for _, pid := range remotes(t, s) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
	r.exits(3)
	r.says("peer unavailable")
	r.closed(record.StatusFailed, 3)
	emptied(t, s)
}

// ssh's own end takes the peer along: its standard input ends.
func TestSSHClientDies(t *testing.T) {
	s := testenv.SSHD(t)
	r := endless(t, "tcp", viaSSH(s, "--push-binary")...)
	kids := r.peers()
	if len(kids) != 1 {
		t.Fatalf("children %v, want ssh alone", kids)
	}
	if err := syscall.Kill(kids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.exits(3)
	r.closed(record.StatusFailed, 3)
	emptied(t, s)
}

func TestSSHInterrupt(t *testing.T) {
	noBinaryLeft(t)
	s := testenv.SSHD(t)
	r := endless(t, "tcp,ucx:tcp", viaSSH(s, "--push-binary")...)
	r.Signal(syscall.SIGINT)
	r.exits(130)
	r.closed(record.StatusInterrupted, 130)
	emptied(t, s)
}

// Two hosts: sshd and the peer that it starts are on b, and the payload goes
// over the wire between.
func TestSSHTwoHosts(t *testing.T) {
	noBinaryLeft(t)
	a, b, links := testenv.Hosts(t, testenv.Link{})
	s := b.SSHD(t, links[0].AddrB)
	start := func(args ...string) *proc { return spawn(t, a.Command(context.Background(), bin, args...)) }
	r := recorded(t, start, viaSSH(s, "--provider", "tcp,ucx:tcp,socket", "--op", "read,write", "--size", "4MB", "--shape", "merged",
		"--no-ceiling", "--blocks", "2", "--push-binary")...)
	if r.Run.Host.Address != links[0].AddrA || r.Run.Peer == nil || r.Run.Peer.Address != links[0].AddrB {
		t.Errorf("hosts %q and %+v", r.Run.Host.Address, r.Run.Peer)
	}
	counted := map[int]bool{}
	for _, p := range r.Paths {
		counted[p.Condition] = true
		var out, in uint64
		for _, c := range p.Counters {
			switch {
			case c.Side == "initiator" && c.Device == links[0].DevA:
				out = max(out, c.Delta)
			case c.Side == "target" && c.Device == links[0].DevB:
				in = max(in, c.Delta)
			}
		}
		if out < p.PayloadBytes || in < p.PayloadBytes {
			t.Errorf("condition %d: payload %d, counted %d and %d", p.Condition, p.PayloadBytes, out, in)
		}
	}
	if len(counted) != 6 {
		t.Errorf("%d of 6 conditions have their bytes counted", len(counted))
	}
	emptied(t, s)
}

// ssh can ask at the terminal, and Ctrl-C there is the initiator's to handle.
func TestSSHAsksAtTheTerminal(t *testing.T) {
	s := testenv.SSHD(t)
	const phrase = "correct horse"
	key := filepath.Join(t.TempDir(), "locked")
	keygen(t, key, phrase)
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "authorized_keys"), public, 0o600); err != nil {
		t.Fatal(err)
	}
	terminal, tty := openTerminal(t)
	rec := filepath.Join(t.TempDir(), "r.jsonl")
	// IdentityFile of the configuration comes second.
	cmd := exec.Command(bin, viaSSH(s, "--provider", "socket", "--size", "16MB", "--no-ceiling", "--blocks", "1000000", "--budget", "0", "--record", rec, "--push-binary",
		"--ssh-command", s.Command("-i", key, "-o", "BatchMode=no"))[2:]...)
	cmd.Env = append(os.Environ(), "SSH_ASKPASS_REQUIRE=never")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	p := &proc{Proc: testproc.Start(t, cmd, limit), t: t, record: rec}
	if err := tty.Close(); err != nil {
		t.Error(err)
	}
	go io.Copy(&p.Out, terminal) // ends when the last process closes the terminal
	p.Until("ssh asks", func() bool { return strings.Contains(p.Out.String(), "passphrase for key") })
	if _, err := terminal.WriteString(phrase + "\n"); err != nil {
		t.Fatal(err)
	}
	p.measuring()
	kids := p.peers()
	if len(kids) != 1 || !ignoresInterrupt(t, kids[0]) {
		t.Errorf("children %v: want ssh alone, deaf to Ctrl-C", kids)
	}
	if _, err := terminal.WriteString("\x03"); err != nil { // Ctrl-C, to the whole foreground group
		t.Fatal(err)
	}
	p.exits(130)
	p.closed(record.StatusInterrupted, 130)
	emptied(t, s)
}

// ignoresInterrupt reads it from the kernel's mask of ignored signals.
func ignoresInterrupt(t *testing.T, pid int) bool {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, mask, _ := strings.Cut(string(b), "SigIgn:")
	var bits uint64
	if _, err := fmt.Sscanf(mask, "%x", &bits); err != nil {
		t.Fatal(err)
	}
	return bits&(1<<(syscall.SIGINT-1)) != 0
}

// openTerminal makes a pseudo terminal: what a person sees and types, and what
// a process has.
func openTerminal(t *testing.T) (person, process *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	testenv.Need(t, "pty", err)
	t.Cleanup(func() {
		if err := person.Close(); err != nil {
			t.Error(err)
		}
	})
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	process, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return person, process
}

// keygen makes a key pair.
func keygen(t *testing.T, file, phrase string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-C", "xferbench-test", "-f", file).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
}
