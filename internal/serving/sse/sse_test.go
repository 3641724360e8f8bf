package sse

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// readAll returns the data of all events and the error that ended them.
func readAll(r io.Reader) (out []string, err error) {
	s := NewReader(r)
	for {
		data, err := s.Next()
		if err != nil {
			return out, err
		}
		out = append(out, string(data))
	}
}

func TestNext(t *testing.T) {
	tests := map[string]struct {
		in   string
		want []string
		err  error
	}{
		"empty":                {"", nil, io.EOF},
		"one":                  {"data: a\n\n", []string{"a"}, io.EOF},
		"no space":             {"data:a\n\n", []string{"a"}, io.EOF},
		"only one space goes":  {"data:  a\n\n", []string{" a"}, io.EOF},
		"crlf":                 {"data: a\r\n\r\ndata: b\r\n\r\n", []string{"a", "b"}, io.EOF},
		"cr":                   {"data: a\r\rdata: b\r\r", []string{"a", "b"}, io.EOF},
		"two lines":            {"data: a\ndata: b\n\n", []string{"a\nb"}, io.EOF},
		"ping":                 {": ping\n\ndata: a\n\n: ping\n\n", []string{"a"}, io.EOF},
		"ping inside an event": {"data: a\n: ping\ndata: b\n\n", []string{"a\nb"}, io.EOF},
		"other fields":         {"event: x\nid: 1\nretry: 5\ndata: a\n\n", []string{"a"}, io.EOF},
		"event without data":   {"event: x\n\ndata: a\n\n", []string{"a"}, io.EOF},
		"empty data":           {"data\n\ndata:\n\n", []string{"", ""}, io.EOF},
		"byte order mark":      {"\ufeffdata: a\n\n", []string{"a"}, io.EOF},
		"a later mark is data": {"data: a\n\n\ufeffdata: b\n\ndata: c\n\n", []string{"a", "c"}, io.EOF},
		"done":                 {"data: {}\n\ndata: [DONE]\n\n", []string{"{}", "[DONE]"}, io.EOF},
		"cut in a line":        {"data: a\n\ndata: b", []string{"a"}, io.ErrUnexpectedEOF},
		"cut before the end":   {"data: a\n\ndata: b\n", []string{"a"}, io.ErrUnexpectedEOF},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for how, r := range map[string]io.Reader{
				"at once":      strings.NewReader(tt.in),
				"byte by byte": iotest.OneByteReader(strings.NewReader(tt.in)),
				"half reads":   iotest.HalfReader(strings.NewReader(tt.in)),
			} {
				got, err := readAll(r)
				if !errors.Is(err, tt.err) {
					t.Errorf("%s: error %v, want %v", how, err, tt.err)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("%s: events (-want +got):\n%s", how, diff)
				}
			}
		})
	}
}

// An event is handed out when its blank line is there, though the stream stays
// open and silent: anything else would put the next token's delay into TTFT.
func TestNextDoesNotWaitForMore(t *testing.T) {
	for _, end := range []string{"\n\n", "\r\n\r\n", "\r\r"} {
		pr, pw := io.Pipe()
		got := make(chan string, 1)
		go func() {
			defer close(got)
			if data, err := NewReader(pr).Next(); err == nil {
				got <- string(data)
			}
		}()
		if _, err := io.WriteString(pw, "data: first"+end); err != nil {
			t.Fatal(err)
		}
		// With CR LF line ends the writer may be held by the last LF; the event is out before.
		if data, ok := <-got; !ok || data != "first" {
			t.Errorf("end %q: got %q, %v", end, data, ok)
		}
		if err := pr.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTooLong(t *testing.T) {
	line := "data: " + strings.Repeat("x", 1<<20) + "\n"
	if _, err := readAll(strings.NewReader(strings.Repeat(line, 17) + "\n")); !errors.Is(err, ErrTooLong) {
		t.Errorf("17 MiB in many lines: %v, want ErrTooLong", err)
	}
	if _, err := readAll(io.LimitReader(endless{}, 20<<20)); !errors.Is(err, ErrTooLong) {
		t.Errorf("20 MiB in one line: %v, want ErrTooLong", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestComments(t *testing.T) {
	s := NewReader(strings.NewReader(": a\n\n:b\n\ndata: x\n\n"))
	if _, err := s.Next(); err != nil {
		t.Fatal(err)
	}
	if s.Comments() != 2 {
		t.Errorf("comments %d, want 2", s.Comments())
	}
}

// FuzzReader holds the reader against a reference that has the whole stream and
// splits it by the standard's words.
func FuzzReader(f *testing.F) {
	for _, s := range []string{"data: a\n\n", "data: a\r\rdata:b\r\n\r\n", ":p\n\ndata\n\n", "\ufeffdata: x\n\n", "data: cut"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := readAll(bufio.NewReaderSize(iotest.OneByteReader(bytes.NewReader(in)), 16))
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("error %v", err)
		}
		if diff := cmp.Diff(reference(string(in)), got); diff != "" {
			t.Fatalf("%q (-want +got):\n%s", in, diff)
		}
	})
}

func reference(in string) (out []string) {
	lines := strings.Split(strings.ReplaceAll(strings.ReplaceAll(in, "\r\n", "\n"), "\r", "\n"), "\n")
	lines = lines[:len(lines)-1] // unfinished
	if len(lines) > 0 {
		lines[0] = strings.TrimPrefix(lines[0], "\ufeff")
	}
	var data []string
	for _, l := range lines {
		switch name, value, _ := strings.Cut(l, ":"); {
		case l == "":
			if data != nil {
				out = append(out, strings.Join(data, "\n"))
			}
			data = nil
		case name == "data":
			data = append(data, strings.TrimPrefix(value, " "))
		}
	}
	return out
}
