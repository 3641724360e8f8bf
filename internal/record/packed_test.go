package record

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func gzipped(t testing.TB, parts ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range parts {
		z := gzip.NewWriter(&b)
		if _, err := io.WriteString(z, p); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// A file of three lines, compressed whole, in two parts (cat a.gz b.gz) and cut off.
func TestReadTakesGzip(t *testing.T) {
	run, sample, end := `{"type":"run","schema":1,"id":"x"}`+"\n", `{"type":"sample","bytes":1}`+"\n", `{"type":"end","status":"ok"}`+"\n"
	whole := gzipped(t, run+sample+end)
	for name, tt := range map[string]struct {
		file   []byte
		cut    bool
		refuse string
	}{
		"whole":             {file: whole},
		"two parts":         {file: gzipped(t, run+sample, end)},
		"without its end":   {file: whole[:len(whole)-8], cut: true},
		"of a line":         {file: stored(t, run+sample+end)[:10+5+len(run)+len(sample)-3], cut: true},
		"of its header":     {file: whole[:6], refuse: "ends early"},
		"of its run line":   {file: stored(t, run+sample)[:25], refuse: "ends early"},
		"a wrong checksum":  {file: append(bytes.Clone(whole[:len(whole)-8]), 1, 2, 3, 4, 5, 6, 7, 8), refuse: "gzip: "},
		"damaged":           {file: append(bytes.Clone(whole[:12]), bytes.Repeat([]byte{0xff}, 40)...), refuse: "gzip: "},
		"zstd":              {file: []byte("\x28\xb5\x2f\xfd\x04\x00"), refuse: "compressed by zstd"},
		"nothing but gzip":  {file: gzipped(t, ""), refuse: "not a record"},
		"gzip of gzip":      {file: gzipped(t, string(whole)), refuse: "not a record"},
		"bzip2 by its name": {file: []byte("BZh91AY&SY"), refuse: "compressed by bzip2"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Read(bytes.NewReader(tt.file))
			if tt.refuse != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refuse) {
					t.Errorf("%+v, %v; want %q", r, err, tt.refuse)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.Cut != tt.cut || r.Run.ID != "x" || r.Samples.Len() > 1 || !tt.cut && (r.End == nil || r.Samples.Len() != 1) {
				t.Errorf("cut %v, %d samples, end %v", r.Cut, r.Samples.Len(), r.End)
			}
		})
	}
}

// stored is s in gzip without compression: where it is cut is known.
func stored(t testing.TB, s string) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(z, s); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What unpacks to more than a record can be ends at the limit.
func TestBombsEnd(t *testing.T) {
	u := &unzipper{from: bytes.NewReader(gzipped(t, strings.Repeat("\n", 1<<20))), left: 1000}
	if b, err := io.ReadAll(u); err == nil || !strings.Contains(err.Error(), "bytes unpacked") || len(b) > 1000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// A compressed record cannot grow.
func TestCompressedRecordsDoNotGrow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl.gz")
	was := gzipped(t, `{"type":"run","schema":1}`+"\n")
	if err := os.WriteFile(path, was, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Append(path); err == nil || !strings.Contains(err.Error(), "unpack it first") {
		t.Errorf("Append: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("waited"))
	if _, err := followed(ctx, path); err == nil || !strings.Contains(err.Error(), "unpack it first") {
		t.Errorf("Follow: %v", err)
	}
	if is, err := os.ReadFile(path); err != nil || !bytes.Equal(is, was) {
		t.Errorf("the file was changed: %v", err)
	}
}

// A file larger than what is read at once, with a line that is longer yet.
func TestFollowALargeFile(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	long := strings.Repeat("x", 3*followAtOnce)
	const n = 4 * followAtOnce / 200
	write(t, w, Run{Schema: Schema, ID: "x"}, Event{Message: long})
	for i := range n {
		write(t, w, Sample{Iteration: i, Phase: PhaseMeasure})
	}
	write(t, w, End{Status: StatusOK})
	path := filepath.Join(t.TempDir(), "r.jsonl")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	ls, err := followed(t.Context(), path)
	if err != nil || len(ls) != n+3 || ls[1].(Event).Message != long || ls[n+1].(Sample).Iteration != n-1 {
		t.Errorf("%d lines of %d, %v", len(ls), n+3, err)
	}
}
