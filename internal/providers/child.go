package providers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/remote"
)

// Prober runs one probe and returns its answer. An error is that of a process
// that did not end well; errors.Is(err, context.DeadlineExceeded) says that it
// was killed for its time.
type Prober func(ctx context.Context, name string) (answer, error)

// Task is the name of a worker's task: to run one probe.
const Task = "probe"

// request is what such a worker is told.
type request struct {
	Name string `json:"name"`
	Libraries
	LimitNs time.Duration `json:"limit_ns"`
}

// grace is how long a probe that is out of time may take to end: a library that
// hangs takes no notice.
const grace = time.Second

// Child is the Prober that runs each probe in a worker of this program.
func Child(libs Libraries, limit time.Duration) Prober {
	return func(ctx context.Context, name string) (a answer, err error) {
		var words bytes.Buffer
		w, err := remote.StartWorker(ctx, remote.Host{}, remote.Command{Argv: []string{""}, Stderr: &words, Grace: grace}, Task, request{name, libs, limit})
		if err != nil {
			return a, err
		}
		said := w.Answer(ctx, &a)
		select {
		case <-w.Done():
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			// That it had to be killed is no news of a probe that hangs.
			if err = w.Stop(); errors.Is(err, remote.ErrKilled) {
				err = nil
			}
			return a, errors.Join(context.Cause(ctx), err)
		}
		ended := w.Wait()
		switch {
		case ended != nil:
			return a, &crash{ended, lastLines(words.String(), 3)}
		case said != nil:
			return a, fmt.Errorf("it %w", said)
		case a.Row == nil && a.Library == nil:
			return a, errors.New("its answer is empty")
		}
		return a, nil
	}
}

// crash is a probe's process that died, with the end of what it wrote.
type crash struct {
	err    error
	stderr string
}

func (c *crash) Error() string {
	if c.stderr == "" {
		return c.err.Error()
	}
	return c.err.Error() + ": " + c.stderr
}

func (c *crash) Unwrap() error { return c.err }

// lastLines is the first lines of a Go crash, or the last n lines of any other
// text.
func lastLines(text string, n int) string {
	var lines []string
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	for i, l := range lines {
		if strings.HasPrefix(l, "SIG") || strings.HasPrefix(l, "fatal error:") || strings.HasPrefix(l, "panic:") {
			lines = lines[i:min(i+2, len(lines))]
			break
		}
	}
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "; ")
}

// Work is a worker's [Task]. The process ends itself some time after its limit
// even inside a library that hangs, for the parent may be gone.
func Work(ctx context.Context, spec json.RawMessage, tell func(any) error) error {
	var r request
	if err := json.Unmarshal(spec, &r); err != nil {
		return fmt.Errorf("the request: %w", err)
	}
	watchdog := time.AfterFunc(r.LimitNs+5*time.Second, func() { os.Exit(3) })
	defer watchdog.Stop()
	a, err := probe(ctx, r.Name, r.Libraries)
	if err != nil {
		return err
	}
	return tell(a)
}

// run runs a probe within limit and makes a row of whatever came of it.
func run(ctx context.Context, p Prober, name string, limit time.Duration) answer {
	begin := time.Now()
	own, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	a, err := p(own, name)
	if err == nil {
		return a
	}
	outcome, why, next := Crashed, "the probe's process died: "+err.Error(), "another build of the library may do (--libfabric, --libucp)"
	if errors.Is(err, context.DeadlineExceeded) {
		outcome = Hung
		why = fmt.Sprintf("the probe hung and was killed after %v", limit)
		next = "raise --timeout if the host has many devices; FI_LOG_LEVEL=info or UCX_LOG_LEVEL=info shows where it stands"
	}
	took := time.Since(begin).Nanoseconds()
	if lib, ok := strings.CutPrefix(name, libraryPrefix); ok {
		return answer{Library: &Library{Name: lib, Outcome: outcome, Why: why, Next: next}}
	}
	if outcome == Crashed {
		next = "run `xferbench --provider '" + name + "' --size 1MB` to see more; " + next
	}
	return answer{Row: &Row{Provider: name, API: apiOf(name), Outcome: outcome, Why: why, Next: next, TookNs: took}}
}
