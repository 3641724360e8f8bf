// Package cudafake builds a stand-in for the CUDA driver, for tests on hosts without
// a GPU: see src/fake.c for what it checks and keeps back.
package cudafake

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/xferbench/xferbench/internal/testenv"
)

//go:embed src/fake.c
var source []byte

// Build compiles the stand-in and returns its path. A host without a C compiler
// skips the test by declaration.
func Build(t testing.TB) string {
	t.Helper()
	cc := testenv.NeedTool(t, "cc")
	dir := t.TempDir()
	c, so := filepath.Join(dir, "fake.c"), filepath.Join(dir, "libcuda.so.1")
	if err := os.WriteFile(c, source, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), cc, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", so, c).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return so
}
