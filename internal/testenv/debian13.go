package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Sysroot is Debian 13 beside the host's own system: its C library, libfabric
// 2.1, UCX 1.18 and rdma-core 56, unpacked in a folder by scripts/debian13.sh.
type Sysroot struct {
	script string
	root   string
}

// fetchLimit bounds the download and unpacking of the packages, about 80 MB.
const fetchLimit = 10 * time.Minute

// fetchDebian13 unpacks the packages, once a process, and tries a command in
// them. The error says what failed in apt's or the kernel's words.
var fetchDebian13 = sync.OnceValues(func() (*Sysroot, error) {
	checkout, err := Checkout()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), fetchLimit)
	defer cancel()
	s := &Sysroot{script: filepath.Join(checkout, "scripts", "debian13.sh")}
	for _, args := range [][]string{{"path"}, {"exec", "true"}} {
		var stderr strings.Builder
		cmd := exec.CommandContext(ctx, s.script, args...)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("scripts/debian13.sh %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
		}
		if args[0] == "path" {
			s.root = strings.TrimSpace(string(out))
		}
	}
	return s, nil
})

// Debian13 returns the folder with Debian 13's libraries. The need's name is
// "debian13": it takes a Debian or Ubuntu host whose package mirror answers,
// and leave to make a mount namespace.
func Debian13(t testing.TB) *Sysroot {
	t.Helper()
	s, err := fetchDebian13()
	Need(t, "debian13", err)
	return s
}

// Command is [exec.CommandContext] for a program that runs with Debian 13's
// libraries and nothing of the host's. bin is one of Debian 13's own commands,
// such as "fi_info", or the absolute path of a file in the checkout or under
// /tmp, /home or /root; processes that it starts run there too. LD_PRELOAD in
// the command's environment reaches bin alone. The process id is bin's own.
func (s *Sysroot) Command(ctx context.Context, bin string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, s.script, append([]string{"exec", bin}, args...)...)
}

// Include is the folder with Debian 13's headers of libfabric, UCX and
// libibverbs and no others, for CGO_CFLAGS=-I.
func (s *Sysroot) Include() string { return filepath.Join(s.root, "include") }

// Root is the folder that [Sysroot.Command] shows to its program as "/". Its
// libraries lie in usr/lib below it.
func (s *Sysroot) Root() string { return s.root }

// Checkout is the folder of this module's go.mod, found upwards from the
// working folder of the test.
func Checkout() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		} else if !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod in %s or above it", start)
		}
	}
}
