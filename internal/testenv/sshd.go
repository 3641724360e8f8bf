package testenv

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/testenv/proc"
)

// SSHServer is an OpenSSH server that a test runs: Debian 12's, unpacked in the
// cache and not installed, with keys and configuration in the test's folder.
// Its root user's home is an empty folder, its PATH is /usr/bin:/bin, and its
// shell is /bin/sh. It shares the host's processes and files, but for /run and
// the two account files.
type SSHServer struct {
	// Address and Port are where it listens.
	Address, Port string
	// Config is an ssh_config(5) with the key and the known host, for ssh -F.
	Config string
	// Dir holds keys, configurations and the remote user's home.
	Dir string

	proc *proc.Proc
}

// URL is the server as xferbench takes it.
func (s *SSHServer) URL() string { return "ssh://root@" + net.JoinHostPort(s.Address, s.Port) }

// Command is an ssh command line with the test's configuration, and options
// that go before it.
func (s *SSHServer) Command(options ...string) string {
	return strings.Join(append([]string{"ssh", "-F", s.Config}, options...), " ")
}

// Log is what the server has said so far.
func (s *SSHServer) Log() string { return s.proc.Errs.String() }

// SSHD starts an SSH server on a free port of 127.0.0.1 and stops it when the
// test ends. The need's name is "sshd": root, the right to make a mount
// namespace, ssh and ssh-keygen, and on first use a Debian mirror that answers.
func SSHD(t testing.TB) *SSHServer {
	t.Helper()
	return sshd(t, nil, "127.0.0.1")
}

// SSHD is [SSHD] in a network namespace, on port 22 of one of its addresses.
func (n *NetNS) SSHD(t testing.TB, address string) *SSHServer {
	t.Helper()
	return sshd(t, n, address)
}

// fetchSSHD unpacks the packages, once a process.
var fetchSSHD = sync.OnceValues(func() (string, error) {
	if uid := os.Geteuid(); uid != 0 {
		return "", fmt.Errorf("running as user %d, not root", uid)
	}
	for _, tool := range []string{"ssh", "ssh-keygen", "unshare", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", err
		}
	}
	if err := run("unshare", "--mount", "true"); err != nil {
		return "", err
	}
	checkout, err := Checkout()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), fetchLimit)
	defer cancel()
	cache, err := exec.CommandContext(ctx, filepath.Join(checkout, "scripts", "cache.sh")).Output()
	if err != nil {
		return "", fmt.Errorf("scripts/cache.sh: %w", err)
	}
	root := filepath.Join(strings.TrimSpace(string(cache)), "sshd-"+runtime.GOARCH)
	out, err := exec.CommandContext(ctx, filepath.Join(checkout, "scripts", "debroot.sh"), root, "bookworm", runtime.GOARCH, "openssh-server").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("scripts/debroot.sh: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return root, nil
})

// sshdConfig is sshd_config(5): keys only, nothing of the host's. SetEnv keeps
// an xferbench that is installed on the host out of sight.
const sshdConfig = `HostKey %[1]s/host
AuthorizedKeysFile %[1]s/authorized_keys
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
UseDNS no
MaxStartups 100
SetEnv PATH=/usr/bin:/bin
`

const sshConfig = `Host *
IdentityFile %[1]s/user
IdentitiesOnly yes
IdentityAgent none
HostKeyAlias xferbench-test
UserKnownHostsFile %[1]s/known_hosts
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking yes
BatchMode yes
`

// sshdStart gives sshd what it insists on, in a mount namespace of its own: the
// account "sshd", an account of root that is not locked, and /run/sshd. $1 is
// the test's folder; the rest is the command.
const sshdStart = `set -e
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/shadow" /etc/shadow
mount -t tmpfs -o mode=755 xferbench-test /run
mkdir -m 755 /run/sshd
shift
exec "$@"`

// sshd starts the server; ns nil is the host's network.
func sshd(t testing.TB, ns *NetNS, address string) *SSHServer {
	t.Helper()
	root, err := fetchSSHD()
	Need(t, "sshd", err)
	s := &SSHServer{Address: address, Port: "22", Dir: t.TempDir()}
	s.Config = filepath.Join(s.Dir, "ssh_config")
	home := filepath.Join(s.Dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"host", "user"} {
		must(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "xferbench-test", "-f", filepath.Join(s.Dir, key))
	}
	public := func(key string) string {
		b, err := os.ReadFile(filepath.Join(s.Dir, key+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, text := range map[string]string{
		"passwd":          "root:x:0:0:root:" + home + ":/bin/sh\nsshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n",
		"shadow":          "root:*:19000:0:99999:7:::\nsshd:!:19000::::::\n",
		"authorized_keys": public("user"),
		"known_hosts":     "xferbench-test " + public("host"),
		"sshd_config":     fmt.Sprintf(sshdConfig, s.Dir),
		"ssh_config":      fmt.Sprintf(sshConfig, s.Dir),
	} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	loaders, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu/ld-linux-*"))
	if err != nil || len(loaders) != 1 {
		t.Fatalf("loaders in %s: %v, %v", root, loaders, err)
	}
	// -r: without executing itself anew, which would lose the loader.
	args := []string{"--mount", "--propagation", "private", "sh", "-c", sshdStart, "sh", s.Dir,
		loaders[0], "--library-path", filepath.Dir(loaders[0]), filepath.Join(root, "usr/sbin/sshd"),
		"-D", "-e", "-r", "-f", filepath.Join(s.Dir, "sshd_config")}
	// Another process may take a port between its choice and its use.
	for range 5 {
		if ns == nil {
			s.Port = freePort(t, address)
		}
		if s.start(t, ns, append(args, "-o", "ListenAddress="+net.JoinHostPort(address, s.Port))) {
			return s
		}
	}
	t.Fatalf("sshd did not start: %s", s.Log())
	return nil
}

// start runs sshd and reports whether it listens.
func (s *SSHServer) start(t testing.TB, ns *NetNS, args []string) bool {
	t.Helper()
	cmd := exec.Command("unshare", args...)
	if ns != nil {
		cmd = ns.Command(context.Background(), "unshare", args...)
	}
	// What a session leaves behind must not keep the test waiting.
	cmd.WaitDelay = time.Second
	s.proc = proc.Start(t, cmd, 20*time.Second)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && !s.proc.Ended(); time.Sleep(5 * time.Millisecond) {
		if strings.Contains(s.Log(), "Server listening on") {
			t.Cleanup(func() {
				s.proc.Signal(syscall.SIGTERM)
				s.proc.Code()
			})
			return true
		}
	}
	if !s.proc.Ended() {
		t.Fatalf("sshd does not listen after 20 s: %s", s.Log())
	}
	return false
}

// freePort is a port on which nothing listened a moment ago.
func freePort(t testing.TB, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return port
}
