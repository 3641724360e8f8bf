package efaemu

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/xferbench/xferbench/internal/testenv"
)

//go:embed Makefile src/*.c src/*.h
var sources embed.FS

// Build compiles the emulator and returns the path of the shared library to
// preload. It is compiled once for each state of its sources and compiler, and
// kept in the user's cache folder. A host without make, a C compiler or the
// headers of rdma-core lacks the requirement "efaemu" of [testenv.Need].
func Build(t testing.TB) string {
	t.Helper()
	path, err := compile()
	testenv.Need(t, "efaemu", err)
	return path
}

var compile = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("efaemu: build: %w", err)
	}
	return compileInto(filepath.Join(cache, "xferbench", "efaemu"))
})

// compileInto compiles the emulator into a folder of its own below cache,
// unless an earlier call did. vars are variables for make (NAME=value).
func compileInto(cache string, vars ...string) (library string, err error) {
	key, err := buildKey(vars)
	if err != nil {
		return "", err
	}
	final := filepath.Join(cache, key)
	library = filepath.Join(final, "efaemu.so")
	if _, err := os.Stat(library); err == nil {
		return library, nil
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", fmt.Errorf("efaemu: build: %w", err)
	}
	work, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return "", fmt.Errorf("efaemu: build: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if err := os.CopyFS(filepath.Join(work, "efaemu"), sources); err != nil {
		return "", fmt.Errorf("efaemu: build: %w", err)
	}
	out := filepath.Join(work, "out")
	cmd := exec.Command("make", append([]string{"-C", filepath.Join(work, "efaemu"), "BUILD=" + out}, vars...)...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("efaemu: build with make, cc and the headers of rdma-core (libibverbs-dev): %w\n%s",
			err, strings.TrimSpace(string(msg)))
	}
	// Two test processes may build at once. The first to rename wins; the
	// other's result is the same.
	if err := os.Rename(out, final); err != nil {
		if _, statErr := os.Stat(library); statErr != nil {
			return "", fmt.Errorf("efaemu: build: %w", err)
		}
	}
	return library, nil
}

// buildKey names the sources and the settings that they are compiled with.
func buildKey(vars []string) (string, error) {
	hash := sha256.New()
	fmt.Fprintf(hash, "%q\n", vars)
	err := fs.WalkDir(sources, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := sources.ReadFile(path)
		fmt.Fprintf(hash, "%s %d\n%s", path, len(data), data)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("efaemu: build: %w", err)
	}
	for _, name := range []string{"CC", "CFLAGS", "CPPFLAGS", "LDFLAGS"} {
		fmt.Fprintf(hash, "%s=%s\n", name, os.Getenv(name))
	}
	return hex.EncodeToString(hash.Sum(nil))[:16], nil
}
