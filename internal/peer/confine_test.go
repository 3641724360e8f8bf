package peer

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xferbench/xferbench/internal/testenv"
)

// helperConfined makes this test binary the process of a session, which says
// what it can still do.
const helperConfined = "XFERBENCH_TEST_CONFINE"

// attempts are what the helper tried; "" is a success.
type attempts map[string]string

func confinedHelper() int {
	how := Confinement(os.Getenv(helperConfined))
	stdin, err := io.ReadAll(os.Stdin)
	if string(stdin) != "confined" {
		os.Stderr.WriteString(errors.Join(err, becomeConfined(how, []string{"test"}, []byte("confined"))).Error())
		return 1
	}
	if err := confineSession(how); err != nil {
		os.Stderr.WriteString(err.Error())
		return 1
	}
	out := attempts{}
	note := func(what string, err error) {
		out[what] = ""
		if err != nil {
			out[what] = err.Error()
		}
	}
	note("exec in place", unix.Exec("/bin/true", []string{"true"}, nil))
	note("exec", exec.Command("/bin/true").Run())
	home := os.Getenv("HOME")
	note("write home", os.WriteFile(filepath.Join(home, "written"), nil, 0o600))
	note("append home", appendTo(filepath.Join(home, "secret")))
	_, err = os.ReadFile(filepath.Join(home, "secret"))
	note("read home", err)
	_, err = os.ReadFile(filepath.Join(home, "lib", "library.so"))
	note("read library", err)
	_, err = os.ReadFile("/etc/passwd")
	note("read system", err)
	shm := "/dev/shm/xferbench-test-" + filepath.Base(home)
	note("shared memory", errors.Join(os.WriteFile(shm, []byte("x"), 0o600), os.Remove(shm)))
	note("/dev/null", appendTo("/dev/null"))
	note("ptrace", unix.PtraceAttach(os.Getppid()))
	note("mount", unix.Mount("none", "/mnt", "tmpfs", 0, ""))
	_, err = os.Stat("/proc/self/fd/9")
	note("descriptor", err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		err = l.Close()
	}
	note("listen", err)
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		return 1
	}
	return 0
}

func appendTo(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func TestConfinedProcess(t *testing.T) {
	for how, want := range map[Confinement][]string{
		ConfineLocal:  {"exec in place", "exec", "ptrace", "mount", "descriptor"},
		ConfineRemote: {"exec in place", "exec", "ptrace", "mount", "descriptor", "write home", "append home", "read home"},
	} {
		t.Run(string(how), func(t *testing.T) {
			testenv.Need(t, "seccomp", seccompAvailable())
			if how == ConfineRemote {
				_, err := landlockABI()
				testenv.Need(t, "landlock", err)
			}
			// Below none of the folders that everybody may read.
			home, err := os.MkdirTemp("/home", "xferbench-test-")
			testenv.Need(t, "a folder in /home", err)
			t.Cleanup(func() { os.RemoveAll(home) })
			lib := filepath.Join(home, "lib")
			if err := errors.Join(os.WriteFile(filepath.Join(home, "secret"), []byte("key"), 0o600), os.Mkdir(lib, 0o700),
				os.WriteFile(filepath.Join(lib, "library.so"), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
			open, err := os.Open(filepath.Join(home, "secret"))
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
			cmd.Env = append(os.Environ(), helperConfined+"="+string(how), "HOME="+home, "LD_LIBRARY_PATH="+lib)
			cmd.ExtraFiles = slices.Repeat([]*os.File{open}, 10) // 3 to 12
			var words strings.Builder
			cmd.Stderr = &words
			b, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, words.String())
			}
			var got attempts
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			for what, words := range got {
				if (words != "") != slices.Contains(want, what) {
					t.Errorf("%s: %q", what, words)
				}
			}
			if len(got) < 13 {
				t.Errorf("%d attempts", len(got))
			}
		})
	}
}

func TestSessionEnvironment(t *testing.T) {
	keep := []string{"PATH=/bin", "HOME=/root", "LD_LIBRARY_PATH=/x", "FI_LOG_LEVEL=warn", "UCX_DC_MLX5_PKEY=1", "NCCL_DEBUG=1", "CUDA_VISIBLE_DEVICES=0", "XFERBENCH_LIBUCP=x", "LC_ALL=C"}
	drop := []string{"AWS_SECRET_ACCESS_KEY=x", "AWS_PROFILE=x", "XFERBENCH_SECRET=x", "UCX_TOKEN=x", "NCCL_KEY=", "SSH_AUTH_SOCK=x", "MLFLOW_TRACKING_URI=x",
		"CUDA_PASSWORD=x", "FI_CREDENTIALS=x", "MAIL=x", "novalue"}
	if got := sessionEnvironment(slices.Concat(drop, keep)); !slices.Equal(got, keep) {
		t.Errorf("%q", got)
	}
}

func TestConfinementFor(t *testing.T) {
	at := func(s string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(s), Port: 1} }
	for _, c := range []struct {
		local, remote net.Addr
		want          Confinement
	}{
		{at("127.0.0.1"), at("127.0.0.1"), ConfineLocal},
		{at("::1"), at("::1"), ConfineLocal},
		{at("10.0.0.7"), at("10.0.0.7"), ConfineLocal},
		{at("10.0.0.7"), at("10.0.0.8"), ConfineRemote},
		{at("fd00::1"), at("fd00::2"), ConfineRemote},
		{nil, nil, ConfineRemote},
		{nil, at("10.0.0.8"), ConfineRemote},
	} {
		if got := confinementFor(c.local, c.remote); got != c.want {
			t.Errorf("%v from %v: %s", c.local, c.remote, got)
		}
	}
}
