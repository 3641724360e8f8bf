package record

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// within bounds a test that waits for a file.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// followed are the lines of a record, and the error that they end with.
func followed(ctx context.Context, path string) (out []Line, err error) {
	for l, e := range Follow(ctx, path) {
		if e != nil {
			err = e
			continue
		}
		out = append(out, l)
	}
	return out, err
}

// Each line arrives while its writer goes on, up to the end.
func TestFollowAWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	all := lines()
	next := make(chan bool)
	done := make(chan error, 1)
	go func() {
		var err error
		for _, l := range all {
			<-next
			err = errors.Join(err, w.Write(l))
		}
		done <- errors.Join(err, w.Close()) // the reserve goes back
	}()
	next <- true
	var got []Line
	for l, err := range Follow(within(t), path) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, l); len(got) < len(all) {
			next <- true // it was seen before the next was written
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(all, got); d != "" {
		t.Error(d)
	}
}

// appendTo adds text to a file as it is.
func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

const (
	runText    = `{"type":"run","schema":2,"id":"x"}` + "\n"
	sampleText = `{"type":"sample","bytes":1}` + "\n"
	endText    = `{"type":"end","status":"ok"}` + "\n"
)

// A line that was cut off is waited for; whether the same writer completes it,
// or one that resumes replaces it.
func TestFollowACutOffLine(t *testing.T) {
	for name, complete := range map[string]func(path string){
		"completed": func(path string) { appendTo(t, path, sampleText[10:]+endText) },
		"replaced": func(path string) {
			w, err := Append(path) // which cuts it off
			if err != nil {
				t.Fatal(err)
			}
			write(t, w, Sample{Bytes: 1}, End{Status: StatusOK})
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "r.jsonl")
			appendTo(t, path, runText+sampleText[:10])
			var got []Line
			for l, err := range Follow(within(t), path) {
				if err != nil {
					t.Fatal(err)
				}
				if got = append(got, l); len(got) == 1 {
					time.Sleep(3 * followPause) // the cut-off line is looked at
					complete(path)
				}
			}
			if d := cmp.Diff([]Line{Run{Schema: 2, ID: "x"}, Sample{Bytes: 1}, End{Status: StatusOK}}, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// An end line that a resumed run follows is not the end.
func TestFollowAResumedRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	appendTo(t, path, runText+endText+"\n"+runText+`{"type":"from the future"}`+"\n"+sampleText)
	n := 0
	for _, err := range Follow(within(t), path) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 4 {
			time.AfterFunc(2*followPause, func() { appendTo(t, path, strings.TrimSpace(endText)) }) // a last line without its newline
		}
	}
	if n != 5 {
		t.Errorf("%d lines, want 5", n)
	}
}

func TestFollowFails(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"damaged":       {runText + sampleText + "{\n" + endText, "line 3"},
		"no run line":   {sampleText, "not a record"},
		"newer":         {`{"type":"run","schema":99}` + "\n", "newer xferbench"},
		"another run":   {runText + strings.Replace(runText, `"x"`, `"y"`, 1), "several records"},
		"not a request": {runText + `{"type":"request","ttft_ns":"long"}` + "\n", "line 2"},
	} {
		path := filepath.Join(t.TempDir(), "r.jsonl")
		appendTo(t, path, tt.text)
		if _, err := followed(within(t), path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, tt.want)
		}
	}
	if _, err := followed(within(t), filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestFollowAFileThatShrinks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	appendTo(t, path, runText+sampleText)
	n := 0
	for _, err := range Follow(within(t), path) {
		if n++; n == 2 {
			if err := os.Truncate(path, int64(len(runText))); err != nil {
				t.Fatal(err)
			}
		}
		if n == 3 && !errors.Is(err, ErrShrank) {
			t.Errorf("got %v, want %v", err, ErrShrank)
		}
	}
	if n != 3 {
		t.Errorf("%d lines and errors", n)
	}
}

func TestFollowIsCancelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	appendTo(t, path, runText)
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	time.AfterFunc(2*followPause, func() { cancel(why) })
	if got, err := followed(ctx, path); len(got) != 1 || !errors.Is(err, why) {
		t.Errorf("%d lines, %v", len(got), err)
	}
	for range Follow(within(t), path) {
		break // a caller that has enough
	}
}

// A newline that comes late is the end of its line, and not a line.
func TestFollowCountsLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	appendTo(t, path, runText+strings.TrimSpace(sampleText))
	n := 0
	for _, err := range Follow(within(t), path) {
		if n++; n == 2 {
			time.AfterFunc(2*followPause, func() { appendTo(t, path, "\n{\n") })
		}
		if n == 3 && (err == nil || !strings.Contains(err.Error(), "line 3")) {
			t.Errorf("got %v, want an error of line 3", err)
		}
	}
}
