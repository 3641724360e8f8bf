package buildtest

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/testenv"
)

// glibcMinor is the newest glibc 2.N that a release may need: Amazon Linux 2023's.
const glibcMinor = 34

// distArchives are the archives to test, by GOARCH, and the folder they lie in:
// those that `make dist` has just made and names in XFERBENCH_DIST.
func distArchives(t *testing.T) (dir string, byArch map[string]string) {
	t.Helper()
	dir = os.Getenv("XFERBENCH_DIST")
	var missing error
	if dir == "" {
		missing = errors.New("XFERBENCH_DIST is not set: make dist builds the archives and then runs these tests")
	}
	testenv.Need(t, "dist", missing)
	byArch = map[string]string{}
	for _, arch := range []string{"amd64", "arm64"} {
		found, err := filepath.Glob(filepath.Join(dir, "xferbench-*-linux-"+arch+".tar.gz"))
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != 1 {
			t.Fatalf("%s holds %d archives for %s, want one: %v", dir, len(found), arch, found)
		}
		byArch[arch] = found[0]
	}
	return dir, byArch
}

// unpack extracts an archive and returns its program, having checked that the
// archive says nothing of the machine that made it.
func unpack(t *testing.T, archive string) (program string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if !gz.ModTime.IsZero() || gz.Name != "" {
		t.Errorf("gzip header carries time %v and name %q", gz.ModTime, gz.Name)
	}
	dir := t.TempDir()
	top := strings.TrimSuffix(filepath.Base(archive), ".tar.gz")
	for tr := tar.NewReader(gz); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" {
			t.Errorf("%s belongs to %d/%d (%q/%q), want 0/0 without names", h.Name, h.Uid, h.Gid, h.Uname, h.Gname)
		}
		name, ok := strings.CutPrefix(h.Name, top+"/")
		if !ok {
			t.Fatalf("%s lies outside of %s/", h.Name, top)
		}
		if name == "" {
			continue
		}
		mode := os.FileMode(0o644)
		if name == "xferbench" {
			mode = 0o755
		}
		if got := h.FileInfo().Mode(); got != mode {
			t.Errorf("%s has mode %v, want %v", h.Name, got, mode)
		}
		if name != filepath.Base(name) {
			t.Fatalf("%s: archives hold no folders", h.Name)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, mode); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "xferbench")
}

func TestDistProgram(t *testing.T) {
	_, archives := distArchives(t)
	// What glibc itself consists of; all else is opened at run time.
	libraries := []string{
		"libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "libresolv.so.2", "librt.so.1",
		"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1",
	}
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	for arch, archive := range archives {
		t.Run(arch, func(t *testing.T) {
			program := unpack(t, archive)
			if _, err := os.Stat(filepath.Join(filepath.Dir(program), "README.md")); err != nil {
				t.Errorf("the archive has no README: %v", err)
			}
			f, err := elf.Open(program)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if f.Machine != machine[arch] {
				t.Errorf("program is for %v", f.Machine)
			}
			if f.Type != elf.ET_DYN {
				t.Errorf("program is a %v: its code lies where everyone knows", f.Type)
			}
			needed, err := f.ImportedLibraries()
			if err != nil {
				t.Fatal(err)
			}
			for _, lib := range needed {
				if !slices.Contains(libraries, lib) {
					t.Errorf("program is linked to %s", lib)
				}
			}
			symbols, err := f.ImportedSymbols()
			if err != nil {
				t.Fatal(err)
			}
			versions := 0
			for _, s := range symbols {
				minor, ok := strings.CutPrefix(s.Version, "GLIBC_2.")
				if !ok {
					continue
				}
				versions++
				minor, _, _ = strings.Cut(minor, ".")
				if n, err := strconv.Atoi(minor); err != nil || n > glibcMinor {
					t.Errorf("program needs %s of %s, newer than 2.%d", s.Name, s.Version, glibcMinor)
				}
			}
			if versions == 0 {
				t.Error("program imports no versioned symbol of glibc: this test sees nothing")
			}
			run(t, exec.CommandContext(within(t, time.Minute), filepath.Join(checkout(t), "scripts/glibc.sh"), fmt.Sprintf("2.%d", glibcMinor), program))
		})
	}
}

func TestDistSums(t *testing.T) {
	dir, archives := distArchives(t)
	var want []string
	for _, archive := range archives {
		content, err := os.ReadFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(content)
		want = append(want, hex.EncodeToString(sum[:])+"  "+filepath.Base(archive))
	}
	content, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(string(content)), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("SHA256SUMS (-want +got):\n%s", diff)
	}
}

// starter makes a command of a program for an architecture: as it is, or under
// qemu's user emulation.
func starter(t *testing.T, arch, program string) func(ctx context.Context, args ...string) *exec.Cmd {
	if arch == runtime.GOARCH {
		return func(ctx context.Context, args ...string) *exec.Cmd { return exec.CommandContext(ctx, program, args...) }
	}
	if arch != "arm64" {
		testenv.Declare(t, "only arm64 programs are run under emulation")
	}
	testenv.NeedTool(t, "qemu-aarch64-static", "qemu-user")
	script := filepath.Join(checkout(t), "scripts/arm64.sh")
	return func(ctx context.Context, args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, script, append([]string{program}, args...)...)
	}
}

func TestDistRuns(t *testing.T) {
	_, archives := distArchives(t)
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			program := unpack(t, archives[arch])
			start := starter(t, arch, program)
			version := run(t, start(within(t, 5*time.Minute), "version"))
			if !strings.Contains(version, "linux/"+arch) || strings.Contains(version, "unknown") {
				t.Errorf("version prints %q", version)
			}
			if help := run(t, start(within(t, time.Minute), "--help")); !strings.Contains(help, "--provider") {
				t.Errorf("--help prints no --provider:\n%s", help)
			}
			// 8,000 tokens of Qwen2.5-7B are 458,752,000 B: 2 x 28 layers x 4 heads x 128 x 2 B a token.
			if kv := run(t, start(within(t, time.Minute), "kv", "--model", "Qwen2.5-7B", "--tokens", "8000")); !strings.Contains(kv, "458,752,000") {
				t.Errorf("kv prints no 458,752,000:\n%s", kv)
			}
		})
	}
}

// TestDistLoopback moves data between two processes of each program over
// loopback TCP. Under emulation both are started here, and the target as a
// program that starts it does: a program cannot start another there.
func TestDistLoopback(t *testing.T) {
	_, archives := distArchives(t)
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			start := starter(t, arch, unpack(t, archives[arch]))
			ctx := within(t, 3*time.Minute)
			peer, served := servedAt(t, start(ctx, "serve", "--once", "--attached", "--listen", "127.0.0.1:0"))
			out := run(t, start(ctx, "--provider", "socket", "--size", "1MB", "--budget", "2s", "--no-ceiling", "--no-record",
				"--timeout", "60s", peer))
			if !regexp.MustCompile(`(?m)^socket +read +merged .* ok$`).MatchString(out) {
				t.Errorf("no verified row of socket READ:\n%s", out)
			}
			if err := served(); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}
}

// servedAt starts an attached serve command and returns the PEER that it prints,
// and a function that waits for its end.
func servedAt(t *testing.T, serve *exec.Cmd) (peer string, wait func() error) {
	t.Helper()
	stdout, err := serve.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := serve.StdinPipe(); err != nil { // open until its end
		t.Fatal(err)
	}
	var stderr strings.Builder
	serve.Stderr = &stderr
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if serve.ProcessState == nil {
			if err := serve.Process.Kill(); err != nil {
				t.Error(err)
			}
			if err := serve.Wait(); err == nil {
				t.Error("serve ended well although it was killed")
			}
		}
	})
	var text strings.Builder
	line := regexp.MustCompile(`(?m)^xferbench (\S+#\S+)\n`)
	for buf := make([]byte, 4096); ; {
		n, err := stdout.Read(buf)
		text.Write(buf[:n])
		if m := line.FindStringSubmatch(text.String()); m != nil {
			return m[1], func() error {
				if _, err := io.Copy(io.Discard, stdout); err != nil {
					return err
				}
				return serve.Wait()
			}
		}
		if err != nil {
			t.Fatalf("serve ended before it said where it listens: %v\n%s%s", err, text.String(), stderr.String())
		}
	}
}

// TestGlibcCheck holds scripts/glibc.sh against programs whose needs are known.
func TestGlibcCheck(t *testing.T) {
	testenv.NeedTool(t, "readelf")
	cc := testenv.NeedTool(t, "cc")
	dir := t.TempDir()
	build := func(name, text string) string {
		source := filepath.Join(dir, name+".c")
		if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		program := filepath.Join(dir, name)
		run(t, exec.CommandContext(within(t, time.Minute), cc, "-o", program, source))
		return program
	}
	// arc4random came with glibc 2.36; __libc_start_main's newest version with 2.34.
	newer := build("newer", "#include <stdlib.h>\nint main(void) { return (int)(arc4random() & 0); }\n")
	plain := build("plain", "int main(void) { return 0; }\n")
	tests := map[string]struct {
		max, file string
		want      string // part of what is printed
		fails     bool
	}{
		"newer than the limit":   {"2.34", newer, "needs glibc 2.36, newer than 2.34", true},
		"equal to the limit":     {"2.36", newer, "needs glibc 2.36", false},
		"older than the limit":   {"2.100", newer, "needs glibc 2.36", false},
		"a plain program":        {"2.34", plain, "needs glibc 2.34", false},
		"not by digits but size": {"2.4", plain, "needs glibc 2.34, newer than 2.4", true},
		"no program at all":      {"2.34", filepath.Join(dir, "plain.c"), "", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(within(t, time.Minute), filepath.Join(checkout(t), "scripts/glibc.sh"), tt.max, tt.file)
			out, err := cmd.CombinedOutput()
			if (err != nil) != tt.fails || !strings.Contains(string(out), tt.want) {
				t.Errorf("got %v, want failure %v and %q in:\n%s", err, tt.fails, tt.want, out)
			}
		})
	}
}
