package remote

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/xferbench/xferbench/internal/version"
)

// WorkerCommand is the hidden command by which this program does one task for
// another process of it: it reads a [Request] from standard input, and answers
// on standard output. SIGTERM asks it to end.
const WorkerCommand = "worker"

// format is the number of [Request] and [answer]: another number, another
// meaning.
const format = 1

// Request is what a worker is to do: one line of JSON.
type Request struct {
	Format  int             `json:"format"`
	Version string          `json:"version"` // of the program that asks
	Task    string          `json:"task"`
	Spec    json.RawMessage `json:"spec"` // the task's own
}

// NewRequest asks for a task; spec is a plain value.
func NewRequest(task string, spec any) (Request, error) {
	b, err := json.Marshal(spec)
	return Request{Format: format, Version: version.Version, Task: task, Spec: b}, err
}

// Line is r as a worker reads it.
func (r Request) Line() ([]byte, error) {
	b, err := json.Marshal(r)
	return append(b, '\n'), err
}

// answer is a line that a worker writes. Worker tells it from what libraries and
// login shells write.
type answer struct {
	Worker string          `json:"xferbench_worker"` // its version
	Value  json.RawMessage `json:"value"`
}

// Task is work of one kind. It says its one answer by tell, and may go on until
// ctx ends.
type Task func(ctx context.Context, spec json.RawMessage, tell func(any) error) error

// errAsked is why a worker's task is to end.
var errAsked = errors.New("the initiator closed its end")

// Work does what the request on in asks for, by one of tasks. It ends its task
// in order when ctx ends, and the process some time later: nobody may be left
// to wait for it.
func Work(ctx context.Context, in io.Reader, out io.Writer, tasks map[string]Task) error {
	line, err := bufio.NewReader(in).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading the request (only xferbench itself writes one): %w", err)
	}
	var r Request
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("the request (only xferbench itself writes one): %w", err)
	}
	if r.Format != format || r.Version != version.Version {
		return fmt.Errorf("the initiator is xferbench %.40s (request format %d), the peer %s (request format %d): run the same build on both sides",
			r.Version, r.Format, version.Version, format)
	}
	task := tasks[r.Task]
	if task == nil {
		return fmt.Errorf("no worker knows the task %q", r.Task)
	}
	// Each thread of a parent that dies may send one more SIGTERM, and a guard
	// its own: none of them ends a process that is about to end in order.
	more := make(chan os.Signal, 1)
	signal.Notify(more, syscall.SIGTERM)
	defer signal.Stop(more)
	own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() {
		cancel(errAsked)
		time.AfterFunc(orphanLife, func() { os.Exit(3) })
	})()
	return task(own, r.Spec, func(v any) error {
		value, err := json.Marshal(v)
		if err != nil {
			return err
		}
		b, err := json.Marshal(answer{version.Version, value})
		if err != nil {
			return err
		}
		// A library may have left its last line open.
		_, err = fmt.Fprintf(out, "\n%s\n", b)
		return err
	})
}

// Worker is a process of this program that does a task.
type Worker struct {
	*Process
	answers chan json.RawMessage
}

// StartWorker starts a worker of the program that c.Argv[0] names: "" is this
// binary. The rest of c.Argv and c.Stdin are set here. It ends when ctx does, or
// by Stop.
func StartWorker(ctx context.Context, h Host, c Command, task string, spec any) (*Worker, error) {
	r, err := NewRequest(task, spec)
	if err != nil {
		return nil, err
	}
	if c.Stdin, err = r.Line(); err != nil {
		return nil, err
	}
	c.Argv, c.Stream = []string{c.Argv[0], WorkerCommand}, true
	p, err := Start(ctx, h, c)
	if err != nil {
		return nil, err
	}
	w := &Worker{p, make(chan json.RawMessage, 1)}
	go w.read()
	return w, nil
}

// read takes the answer, and all else so that the worker never blocks.
func (w *Worker) read() {
	for r := bufio.NewReader(w.Stdout); ; {
		line, err := r.ReadBytes('\n')
		var a answer
		if bytes.HasPrefix(line, []byte("{")) && json.Unmarshal(line, &a) == nil && a.Worker != "" {
			select {
			case w.answers <- a.Value:
			default: // a second one
			}
		}
		if err != nil {
			close(w.answers)
			return
		}
	}
}

// ErrNoAnswer is matched by the error of a worker that ended without an answer.
var ErrNoAnswer = errors.New("ended before it answered")

// Answer waits for the worker's one answer, at most until ctx ends.
func (w *Worker) Answer(ctx context.Context, v any) error {
	select {
	case a, ok := <-w.answers:
		if ok {
			return json.Unmarshal(a, v)
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// How it ended comes a moment later.
	select {
	case <-w.Done():
		return ErrNoAnswer
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
