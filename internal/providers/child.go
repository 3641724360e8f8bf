package providers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Prober runs one probe and returns what it printed on stdout. An error is that
// of a process that did not end well; errors.Is(err, context.DeadlineExceeded)
// says that it was killed for its time.
type Prober func(ctx context.Context, name string) ([]byte, error)

// Child is the Prober that runs this program's hidden `providers --probe`.
func Child(exe string, libs Libraries) Prober {
	return func(ctx context.Context, name string) ([]byte, error) {
		args := []string{"providers", "--probe", name, "--json"}
		if libs.Fabric != "" {
			args = append(args, "--libfabric", libs.Fabric)
		}
		if libs.UCP != "" {
			args = append(args, "--libucp", libs.UCP)
		}
		cmd := exec.CommandContext(ctx, exe, args...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		// A process group of its own: Ctrl-C ends the probe through ctx, and what
		// a library started dies with it.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = 2 * time.Second
		err := cmd.Run()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, &crash{err, lastLines(stderr.String(), 3)}
		}
		return stdout.Bytes(), nil
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

// Main is the child's side: it runs the probe name and prints the answer to w.
// The process ends itself some time after limit even inside a library that
// hangs, for the parent may be gone.
func Main(ctx context.Context, w io.Writer, name string, libs Libraries, limit time.Duration) error {
	watchdog := time.AfterFunc(limit+5*time.Second, func() { os.Exit(3) })
	defer watchdog.Stop()
	a, err := probe(ctx, name, libs)
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(a)
}

// readAnswer finds the answer on stdout: the last line, whatever a library
// printed before it.
func readAnswer(stdout []byte) (answer, error) {
	var a answer
	lines := bytes.Split(bytes.TrimSpace(stdout), []byte("\n"))
	last := lines[len(lines)-1]
	if err := json.Unmarshal(last, &a); err != nil {
		return a, fmt.Errorf("the probe printed no answer but %.80q", last)
	}
	if a.Row == nil && a.Library == nil {
		return a, errors.New("the probe's answer is empty")
	}
	return a, nil
}

// run runs a probe within limit and makes a row of whatever came of it.
func run(ctx context.Context, p Prober, name string, limit time.Duration) answer {
	begin := time.Now()
	own, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := p(own, name)
	if err == nil {
		var a answer
		if a, err = readAnswer(out); err == nil {
			return a
		}
	}
	outcome, why, next := Crashed, "the probe's process died: "+err.Error(),
		"run `xferbench providers --probe '"+name+"'` alone to see more; another build of the library may do (--libfabric, --libucp)"
	if errors.Is(err, context.DeadlineExceeded) {
		outcome = Hung
		why = fmt.Sprintf("the probe hung and was killed after %v", limit)
		next = "raise --timeout if the host has many devices; FI_LOG_LEVEL=info or UCX_LOG_LEVEL=info shows where it stands"
	}
	took := time.Since(begin).Nanoseconds()
	if lib, ok := strings.CutPrefix(name, libraryPrefix); ok {
		return answer{Library: &Library{Name: lib, Outcome: outcome, Why: why, Next: next}}
	}
	return answer{Row: &Row{Provider: name, API: apiOf(name), Outcome: outcome, Why: why, Next: next, TookNs: took}}
}
