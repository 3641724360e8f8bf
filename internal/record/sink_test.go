package record

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// All ways out hold the same lines, and memory holds what reading the file gives.
func TestSink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	rec := &Record{Path: path}
	s := &Sink{Record: rec, File: w, Stream: &stream}
	all := lines()
	for _, l := range all[:len(all)-1] {
		if err := s.Write(l); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				if err := s.Write(Sample{Bytes: 3}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(s.Write(all[len(all)-1]), w.Close()); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(file), stream.String()); d != "" {
		t.Errorf("file and stream differ:\n%s", d)
	}
	read, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(read, rec, unpack); d != "" {
		t.Errorf("file and memory differ:\n%s", d)
	}
}

// broken takes no line.
type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }

// One way that fails keeps a line from none of the others.
func TestSinkOneFails(t *testing.T) {
	full, gone := errors.New("full"), errors.New("gone")
	var stream bytes.Buffer
	rec := &Record{}
	s := &Sink{Record: rec, File: NewWriter(broken{full}), Stream: &stream}
	if err := s.Write(Event{Message: "a"}); !errors.Is(err, full) || len(rec.Events) != 1 || stream.Len() == 0 {
		t.Errorf("%v, %d events, stream %q", err, len(rec.Events), stream.String())
	}
	s = &Sink{Record: rec, Stream: broken{gone}}
	if err := s.Write(Event{Message: "b"}); !errors.Is(err, gone) || len(rec.Events) != 2 {
		t.Errorf("%v, %d events", err, len(rec.Events))
	}
	if err := (&Sink{}).Write(Event{}); err != nil {
		t.Errorf("a sink without a way out: %v", err)
	}
}
