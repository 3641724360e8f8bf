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
	for name, s := range Specs() {
		got, err := s.Make()
		if err != nil {
			t.Fatal(err)
		}
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
			t.Errorf("%s is not what its spec makes; go test ./internal/report/synth -update", name)
		}
	}
}
