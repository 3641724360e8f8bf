package fabric

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/internal/testenv"
)

func need(t testing.TB) *Library {
	t.Helper()
	lib, err := Load("")
	testenv.Need(t, "libfabric", err)
	return lib
}

func TestParseProvider(t *testing.T) {
	for name, want := range map[string][]string{
		"efa": {"efa"}, "efa-direct": {"efa"}, "tcp": {"tcp", "net"}, "net": {"net"}, "tcp;ofi_rxm": {"tcp;ofi_rxm"},
		"tcp-rxm": {"tcp;ofi_rxm"}, "shm": {"shm"}, "sockets": {"sockets"}, "verbs": {"verbs;ofi_rxm"},
		"fabric:udp;ofi_rxd": {"udp;ofi_rxd"}, "fabric:cxi": {"cxi"},
	} {
		p, err := ParseProvider(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []string
		for _, c := range p.candidates {
			got = append(got, c.provider)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	for _, name := range []string{"", "fabric:", "EFA", "tcp ", "ucx"} {
		if _, err := ParseProvider(name); err == nil || !strings.Contains(err.Error(), "efa-direct") {
			t.Errorf("%q: %v, want an error that lists the names", name, err)
		}
	}
}

func FuzzParseProvider(f *testing.F) {
	f.Add("tcp")
	f.Add("fabric:udp;ofi_rxd")
	f.Fuzz(func(t *testing.T, name string) {
		p, err := ParseProvider(name)
		if err == nil && (p.Name != name || len(p.candidates) == 0 || p.candidates[0].provider == "") {
			t.Errorf("%q was read as %+v", name, p)
		}
	})
}

// The hints of NIXL's plugin for efa; research: nixl libfabric_common.cpp.
func TestQuery(t *testing.T) {
	efa, direct, tcp := providers["efa"][0], providers["efa-direct"][0], providers["tcp"][0]
	want := Want{Ops: []loop.Op{loop.Read}, Bind: "127.0.0.1"}
	q := efa.query(want)
	if q.mode != modeContext || q.mrMode != mrLocal|mrVirtAddr|mrAllocated|mrProvKey|mrHMEM || q.node != "" || q.manual {
		t.Errorf("efa: %+v", q)
	}
	if q.caps&(capLocalComm|capRemoteComm) != capLocalComm|capRemoteComm || q.caps&capTagged != 0 || q.caps&capRMA == 0 {
		t.Errorf("efa: capabilities %#x", q.caps)
	}
	want.NoShared = true
	if q := direct.query(want); q.mode != modeContext|modeContext2 || q.caps&capLocalComm != 0 || q.caps&capRemoteComm == 0 {
		t.Errorf("efa-direct without shared memory: %+v", q)
	}
	want.Ops = []loop.Op{loop.Send}
	if q := tcp.query(want); q.node != "127.0.0.1" || q.caps&capRMA != 0 || q.caps&capHMEM != 0 || !q.manual {
		t.Errorf("tcp for send: %+v", q)
	}
	want.CUDA = true
	if q := tcp.query(want); q.caps&capHMEM == 0 || q.mrMode&mrHMEM == 0 {
		t.Errorf("tcp for GPU memory: %+v", q)
	}
}

func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		list, provider string
		want           bool
	}{
		{"efa", "efa", true}, {"efa", "tcp", false}, {"^efa", "efa", false}, {"^efa", "tcp", true}, {"tcp,efa", "efa", true},
		{"tcp", "tcp;ofi_rxm", true}, {"tcp;ofi_rxm", "tcp;ofi_rxm", true}, {"verbs", "tcp;ofi_rxm", false}, {"EFA", "efa", true},
		{"^ofi_rxm", "tcp;ofi_rxm", false},
	} {
		if got := allowed(c.list, c.provider); got != c.want {
			t.Errorf("FI_PROVIDER=%s lets %s through: %v, want %v", c.list, c.provider, got, c.want)
		}
	}
}

// Of the files in /dev/shm only those are removed that the shm provider made in a
// process of this user that is gone.
func TestRemoveShared(t *testing.T) {
	const dead, mapped, alive = 101, 102, 103
	uid := os.Geteuid()
	mine := func(pid int) string { return fmt.Sprintf("%d:%d:0", pid, uid) }
	fill := func(t *testing.T) string {
		dir := t.TempDir()
		for _, n := range []string{mine(dead), mine(dead) + "_77", mine(mapped), mine(alive), fmt.Sprintf("%d:%d:0", dead, uid+1),
			"101", "101:x:0", mine(dead) + ".bak", "sem.101:0:0"} {
			if err := os.WriteFile(filepath.Join(dir, n), make([]byte, 4096), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("/dev/null", filepath.Join(dir, fmt.Sprintf("%d:%d:9", dead, uid))); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	gone := func(pid int) bool { return pid != alive }
	removed := func(t *testing.T, dir string, want ...string) {
		t.Helper()
		es, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(es) != 10-len(want) {
			t.Errorf("%d files are left of 10, want %v removed", len(es), want)
		}
		for _, n := range want {
			if _, err := os.Lstat(filepath.Join(dir, n)); !os.IsNotExist(err) {
				t.Errorf("%s: %v, want it removed", n, err)
			}
		}
	}
	t.Run("a peer that is gone", func(t *testing.T) {
		dir := fill(t)
		if left, err := removeShared(dir, dead, gone); left != 0 || err != nil {
			t.Errorf("%d left, %v", left, err)
		}
		removed(t, dir, mine(dead), mine(dead)+"_77")
	})
	t.Run("a peer that lives", func(t *testing.T) {
		dir := fill(t)
		if left, err := removeShared(dir, alive, gone); left != 1 || err != nil {
			t.Errorf("%d left, %v", left, err)
		}
		removed(t, dir)
	})
	t.Run("both gone", func(t *testing.T) {
		dir := fill(t)
		f, err := os.OpenFile(filepath.Join(dir, mine(mapped)), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		m, err := syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ, syscall.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		if err := removeStale(dir, gone); err != nil {
			t.Error(err)
		}
		removed(t, dir, mine(dead), mine(dead)+"_77")
		if err := syscall.Munmap(m); err != nil {
			t.Fatal(err)
		}
		if err := removeStale(dir, gone); err != nil {
			t.Error(err)
		}
		removed(t, dir, mine(dead), mine(dead)+"_77", mine(mapped))
	})
	t.Run("an endpoint of this process", func(t *testing.T) {
		dir := t.TempDir()
		for _, n := range []string{"0", "1"} {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d:%d:%s", os.Getpid(), uid, n)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := removeOwn(dir, fmt.Appendf(nil, "fi_shm://%d:%d:1\x00", os.Getpid(), uid)); err != nil {
			t.Error(err)
		}
		if es, err := os.ReadDir(dir); err != nil || len(es) != 1 || !strings.HasSuffix(es[0].Name(), ":0") {
			t.Errorf("%v, %v are left, want endpoint 0 alone", es, err)
		}
	})
}

// The names are those that libfabric 1.17 and 2.1 gave to files of endpoints
// with these addresses.
func TestSweepEFA(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	dead, alive := cmd.Process.Pid, os.Getpid()
	name := []byte{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0xef, 0xa0, 0, 0, 0x31, 0x2f, 0x80, 0, 1, 0, 0, 0, 0xa6, 0x35, 0x27, 0x6f, 0, 0, 0, 0, 0, 0, 0, 0}
	file := fmt.Sprintf("fe80::efa0:0:312f:8000_0001_6f2735a6_%04x", os.Getuid())
	for word, c := range map[string]struct {
		peer    Address
		removed bool
	}{
		"dead":      {Address{Name: name, PID: dead}, true},
		"alive":     {Address{Name: name, PID: alive}, false},
		"no number": {Address{Name: name}, false},
		"short":     {Address{Name: name[:23], PID: dead}, false},
		"another":   {Address{Name: append([]byte{0xfd}, name[1:]...), PID: dead}, false},
	} {
		t.Run(word, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, file)
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := sweepEFA(dir, c.peer); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(path); os.IsNotExist(err) != c.removed {
				t.Errorf("removed: %v, want %v", os.IsNotExist(err), c.removed)
			}
		})
	}
}

func TestErrorWords(t *testing.T) {
	e := &Error{Op: "fi_mr_regattr", Provider: "efa", Errno: errNoMemory, Detail: "438566912 bytes of host memory: Cannot allocate memory"}
	got := hinted(e).Error()
	for _, w := range []string{"efa: fi_mr_regattr: 438566912 bytes of host memory: Cannot allocate memory (12); raise the limit of locked memory", "ulimit -l"} {
		if !strings.Contains(got, w) {
			t.Errorf("%q does not say %q", got, w)
		}
	}
	if !errors.Is(e, ErrMemlock) || errors.Is(e, ErrNoDevice) {
		t.Errorf("%v is of kind %v", e, e.Kind)
	}
}

// What FI_PROVIDER hides of a provider's candidates, and how to let it through.
func TestHiding(t *testing.T) {
	for _, c := range []struct{ list, provider, what, next string }{
		{"tcp", "tcp", "net", "add net to it"},
		{"net", "tcp", "tcp", "add tcp to it"},
		{"shm", "tcp", "tcp and net", "add tcp and net to it"},
		{"tcp,net", "tcp", "", ""},
		{"^net", "tcp", "net", "take net out of it"},
		{"^tcp", "tcp;ofi_rxm", "tcp;ofi_rxm", "take tcp out of it"},
		{"^ofi_rxm", "tcp;ofi_rxm", "tcp;ofi_rxm", "take ofi_rxm out of it"},
		{"shm", "verbs", "verbs;ofi_rxm", "add verbs to it"},
		{"", "shm", "shm", "unset FI_PROVIDER"},
	} {
		p, err := ParseProvider(c.provider)
		if err != nil {
			t.Fatal(err)
		}
		what, next := hiding(c.list, p.candidates)
		if what != c.what || !strings.Contains(next, c.next) {
			t.Errorf("FI_PROVIDER=%s and %s: hides %q, %q; want %q, %q", c.list, c.provider, what, next, c.what, c.next)
		}
	}
}

// Whatever a library refuses while an endpoint is opened has a kind, and so no
// code of it is an internal error, and a next step.
func TestHinted(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		syscall.EMFILE: "ulimit -n", syscall.ENFILE: "fs.file-max", syscall.EROFS: "read-only", syscall.ENOMEM: "memory.max",
		syscall.ENOSPC: "df", syscall.ENOENT: "FI_LOG_LEVEL", syscall.EIO: "FI_LOG_LEVEL", syscall.EINVAL: "FI_LOG_LEVEL",
		syscall.EACCES: "who may open", syscall.EADDRNOTAVAIL: "local IP address", syscall.EAGAIN: "ulimit -u",
	} {
		e := hinted(&Error{Op: "fi_domain", Provider: "tcp", Errno: int(errno), Detail: errno.Error()})
		if e.Kind == nil || !strings.Contains(e.Error(), want) || !strings.Contains(e.Error(), errno.Error()) {
			t.Errorf("%v: %v of kind %v, want the next step %q", errno, e, e.Kind, want)
		}
	}
}

// A variable hides the provider: said so, with the way out.
func TestFindHidden(t *testing.T) {
	need(t)
	if os.Getenv("FI_PROVIDER") == "" {
		// libfabric reads the variable once, so a process of its own is needed.
		cmd := exec.Command(os.Args[0], "-test.run=^TestFindHidden$")
		cmd.Env = append(os.Environ(), "FI_PROVIDER=shm")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	_, err := need(t).Find(Want{Provider: "sockets", Ops: []loop.Op{loop.Read}, Bind: "127.0.0.1"})
	if !errors.Is(err, ErrHidden) || !strings.Contains(err.Error(), "FI_PROVIDER=shm") || !strings.Contains(err.Error(), "unset it") {
		t.Errorf("%v, want one that names FI_PROVIDER", err)
	}
}

func TestLoad(t *testing.T) {
	lib := need(t)
	again, err := Load("")
	if err != nil || again != lib {
		t.Errorf("a second Load: %v %v", again, err)
	}
	if !strings.Contains(lib.Path(), "libfabric.so") || lib.Version().Less(Version{1, 10}) || APIVersion.Less(lib.API()) {
		t.Errorf("%s is %v, asked for %v", lib.Path(), lib.Version(), lib.API())
	}
	for path, want := range map[string]string{"/nonexistent/libfabric.so.1": "/nonexistent", "libm.so.6": "fi_getinfo"} {
		_, err := Load(path)
		if !errors.Is(err, ErrNoLibrary) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--libfabric") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestProbe(t *testing.T) {
	lib := need(t)
	inv, err := Probe("")
	if err != nil {
		t.Fatal(err)
	}
	if inv.Library != lib.Path() || inv.Version != lib.Version() || len(inv.Interfaces) == 0 {
		t.Errorf("%+v", inv)
	}
	byName := map[string]ProviderStatus{}
	var names []string
	for _, p := range inv.Providers {
		byName[p.Name] = p
		names = append(names, p.Name)
	}
	if d := cmp.Diff(ProviderNames(), names); d != "" {
		t.Error(d)
	}
	if p := byName["tcp"]; p.Reason != "" || !slices.Equal(p.Ops, []string{"read", "write", "send"}) || len(p.Interfaces) == 0 {
		t.Errorf("tcp: %+v", p)
	}
	if p := byName["efa"]; (len(inv.EFADevices) == 0) != strings.Contains(p.Reason, "this host has no EFA device") {
		t.Errorf("efa with devices %v: %q", inv.EFADevices, p.Reason)
	}
}

func TestVersion(t *testing.T) {
	for text, want := range map[string]Version{"1.17": {1, 17}, "2.1": {2, 1}, "0.0": {}} {
		var v Version
		if err := v.UnmarshalText([]byte(text)); err != nil || v != want || v.String() != text {
			t.Errorf("%q: %v %v", text, v, err)
		}
	}
	for _, text := range []string{"", "1", "1.", ".1", "1.x", "-1.2", "1.2.3", "1.70000"} {
		var v Version
		if err := v.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %v", text, v)
		}
	}
	if !(Version{1, 17}).Less(Version{1, 18}) || !(Version{1, 22}).Less(Version{2, 0}) || (Version{2, 1}).Less(Version{2, 1}) {
		t.Error("the order of versions")
	}
}

// Each libfabric function that the C files call is named by a doc comment.
func TestWrapsAreNamed(t *testing.T) {
	var code, docs strings.Builder
	for pattern, into := range map[string]*strings.Builder{"*.c": &code, "*.go": &docs} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v %v", pattern, files, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			into.Write(b)
		}
	}
	seen := 0
	for _, f := range calledFunctions(code.String()) {
		seen++
		if !strings.Contains(docs.String(), f) {
			t.Errorf("%s is called and not named in any Go file", f)
		}
	}
	if seen < 20 {
		t.Errorf("only %d functions found", seen)
	}
}

// calledFunctions are the distinct fi_ names before a parenthesis.
func calledFunctions(code string) []string {
	seen := map[string]bool{}
	var out []string
	for i := 0; i < len(code); {
		at := strings.Index(code[i:], "fi_")
		if at < 0 {
			break
		}
		at += i
		end := at
		for end < len(code) && (code[end] == '_' || code[end] >= 'a' && code[end] <= 'z' || code[end] >= '0' && code[end] <= '9') {
			end++
		}
		if name := code[at:end]; end < len(code) && code[end] == '(' && (at == 0 || !strings.ContainsAny(code[at-1:at], "_abcdefghijklmnopqrstuvwxyz")) && !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
		i = end
	}
	return out
}
