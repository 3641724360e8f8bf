// Package hosttest makes host trees for tests: the recorded ones of testdata/hosts,
// and small ones.
package hosttest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/testenv"
)

// Unpack writes the tree testdata/hosts/NAME.txtar to a temporary folder and
// returns it as a root.
func Unpack(t testing.TB, name string) host.Root {
	t.Helper()
	top, err := testenv.Checkout()
	if err != nil {
		t.Fatal(err)
	}
	a, err := txtar.ParseFile(filepath.Join(top, "testdata/hosts", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, f := range a.Files {
		if err := write(root, f.Name, string(f.Data)); err != nil {
			t.Fatal(err)
		}
	}
	return host.Root(root)
}

// Tree writes files, by name, to a temporary folder and returns it as a root.
func Tree(t testing.TB, files map[string]string) host.Root {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		if err := write(root, name, text); err != nil {
			t.Fatal(err)
		}
	}
	return host.Root(root)
}

// write makes a file, or a symbolic link where the text is "-> target".
func write(root, name, text string) error {
	if !filepath.IsLocal(name) {
		return fmt.Errorf("%q leaves the tree", name)
	}
	p := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	if target, ok := strings.CutPrefix(text, "-> "); ok {
		return os.Symlink(strings.TrimSpace(target), p)
	}
	return os.WriteFile(p, []byte(text), 0o644)
}
