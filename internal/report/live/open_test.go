package live

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Who reads a record does not keep its run alive; who writes it does.
func TestWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.jsonl")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if open, known := written(path); open || !known {
		t.Fatalf("nobody has it open: %v, %v", open, known)
	}
	for mode, want := range map[int]bool{os.O_RDONLY: false, os.O_WRONLY | os.O_APPEND: true, os.O_RDWR: true} {
		f, err := os.OpenFile(path, mode, 0)
		if err != nil {
			t.Fatal(err)
		}
		holder := exec.CommandContext(t.Context(), "sleep", "60")
		holder.ExtraFiles = []*os.File{f}
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		if open, known := written(path); open != want || !known {
			t.Errorf("mode %#o: %v, %v, want %v", mode, open, known, want)
		}
		if err := holder.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = holder.Wait() // killed
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, known := written(filepath.Join(t.TempDir(), "none")); known {
		t.Error("a file that is not there")
	}
}
