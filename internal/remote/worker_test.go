package remote_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/version"
)

// worker is this test binary as a worker.
func worker() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := remote.Work(ctx, os.Stdin, os.Stdout, tasks); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	return 0
}

type echo struct{ Text string }

var tasks = map[string]remote.Task{
	// Its answer comes after a library's words, one line of which is open.
	"echo": func(_ context.Context, spec json.RawMessage, tell func(any) error) error {
		var e echo
		if err := json.Unmarshal(spec, &e); err != nil {
			return err
		}
		fmt.Print("{\"some\": \"JSON\"}\n[1] a library that talks")
		return tell(e)
	},
	"silent": func(context.Context, json.RawMessage, func(any) error) error { return errors.New("nothing to say") },
	"serve": func(ctx context.Context, _ json.RawMessage, tell func(any) error) error {
		if err := tell(echo{"ready"}); err != nil {
			return err
		}
		<-ctx.Done()
		time.Sleep(200 * time.Millisecond) // in order
		return context.Cause(ctx)
	},
	"hang": func(ctx context.Context, _ json.RawMessage, tell func(any) error) error {
		<-ctx.Done()
		select {}
	},
}

func TestWorkerAnswers(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		want := echo{"a 'quoted' \"text\"\nof $two lines"}
		w, err := remote.StartWorker(t.Context(), p.host, remote.Command{Argv: []string{""}, Guard: p.guard}, "echo", want)
		if err != nil {
			t.Fatal(err)
		}
		var got echo
		if err := w.Answer(t.Context(), &got); err != nil || got != want {
			t.Errorf("%+v, %v: %s", got, err, w.Words())
		}
		if err := w.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// A worker's end is in order, however often it is asked.
func TestWorkerEndsInOrder(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		w, err := remote.StartWorker(t.Context(), p.host, remote.Command{Argv: []string{""}, Guard: p.guard}, "serve", echo{})
		if err != nil {
			t.Fatal(err)
		}
		var got echo
		if err := w.Answer(t.Context(), &got); err != nil || got.Text != "ready" {
			t.Fatalf("%+v, %v: %s", got, err, w.Words())
		}
		if p.name == "here" {
			for range 5 {
				if err := w.Signal(syscall.SIGTERM); err != nil {
					t.Error(err)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
		if w.Words() != "the initiator closed its end (exit status 3)" {
			t.Error(w.Words())
		}
	})
}

func TestWorkerWithoutAnAnswer(t *testing.T) {
	start := func(task string) *remote.Worker {
		w, err := remote.StartWorker(t.Context(), remote.Host{}, remote.Command{Argv: []string{""}, Grace: 300 * time.Millisecond}, task, echo{})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	for task, words := range map[string]string{"silent": "nothing to say (exit status 3)", "nosuch": `no worker knows the task "nosuch" (exit status 3)`} {
		w := start(task)
		if err := w.Answer(t.Context(), &echo{}); !errors.Is(err, remote.ErrNoAnswer) || w.Words() != words {
			t.Errorf("%s: %v: %q", task, err, w.Words())
		}
	}
	w := start("hang")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("long enough"))
	defer cancel()
	if err := w.Answer(ctx, &echo{}); err == nil || err.Error() != "long enough" {
		t.Errorf("%v", err)
	}
	if err := w.Abandon(); !errors.Is(err, remote.ErrKilled) {
		t.Errorf("%v", err)
	}
}

func TestWorkRefuses(t *testing.T) {
	r, err := remote.NewRequest("echo", echo{"x"})
	if err != nil {
		t.Fatal(err)
	}
	line := func(change func(*remote.Request)) string {
		other := r
		change(&other)
		b, err := other.Line()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for in, want := range map[string]string{
		"":          "only xferbench itself writes one",
		"garbage\n": "only xferbench itself writes one",
		line(func(r *remote.Request) { r.Version += "-other" }):       "the initiator is xferbench " + version.Version + "-other",
		line(func(r *remote.Request) { r.Format++ }):                  "run the same build on both sides",
		line(func(r *remote.Request) { r.Task = "nosuch" }):           `"nosuch"`,
		line(func(r *remote.Request) { r.Spec = []byte(`"a text"`) }): "cannot unmarshal",
		strings.TrimSuffix(line(func(*remote.Request) {}), "\n") + "": "reading the request",
	} {
		var out bytes.Buffer
		err := remote.Work(t.Context(), strings.NewReader(in), &out, tasks)
		if err == nil || !strings.Contains(err.Error(), want) || out.Len() > 0 {
			t.Errorf("%q: %v, output %q; want %q", in, err, out.String(), want)
		}
	}
	if err := remote.Work(t.Context(), strings.NewReader(line(func(*remote.Request) {})), io.Discard, tasks); err != nil {
		t.Error(err)
	}
}
