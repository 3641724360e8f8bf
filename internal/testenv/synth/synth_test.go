package synth

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/records")

// TestFiles holds that the records in testdata are what this package makes.
func TestFiles(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "testdata", "records")
	files, err := Files()
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range files {
		path := filepath.Join(dir, name)
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what its spec makes; go test ./internal/testenv/synth -update", name)
		}
	}
}
