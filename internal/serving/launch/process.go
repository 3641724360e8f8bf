package launch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/xferbench/xferbench/internal/remote"
)

// tailBytes is how much of an engine's last output is kept for errors.
const tailBytes = 16 << 10

// process is a running engine.
type process struct {
	engine Engine
	log    *logFile
	*remote.Process
}

// logFile keeps an engine's output: all of it in a file, the end of it in memory.
type logFile struct {
	mu   sync.Mutex
	file *os.File
	tail []byte
	err  error
	// seen are the texts that have been asked for and were found.
	want []string
	seen map[string]bool
	part []byte // an unfinished line
}

func newLog(path string, want []string) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return &logFile{file: f, want: want, seen: map[string]bool{}}, nil
}

// Write implements io.Writer. It never fails, so that an engine is not stopped
// by a full disk; close reports the error.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.file.Write(p); err != nil && l.err == nil {
		l.err = err
	}
	l.tail = append(l.tail, p...)
	if n := len(l.tail) - tailBytes; n > 0 {
		l.tail = append(l.tail[:0], l.tail[n:]...)
	}
	l.part = append(l.part, p...)
	text := string(l.part)
	for _, w := range l.want {
		if !l.seen[w] && strings.Contains(text, w) {
			l.seen[w] = true
		}
	}
	// Texts stand within a line.
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		l.part = append(l.part[:0], l.part[i+1:]...)
	} else if len(l.part) > tailBytes {
		l.part = l.part[:0]
	}
	return len(p), nil
}

// missing are the texts of want that have not been seen.
func (l *logFile) missing(want []string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range want {
		if !l.seen[w] {
			out = append(out, w)
		}
	}
	return out
}

// last returns the last n lines.
func (l *logFile) last(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimRight(string(l.tail), "\n"), "\n")
	return lines[max(len(lines)-n, 0):]
}

func (l *logFile) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := errors.Join(l.err, l.file.Close()); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return nil
}

// startProcess starts an engine, whose output goes to log. It and all that it
// starts end when this process does, and when the connection to its host is
// lost.
func startProcess(e Engine, h remote.Host, grace time.Duration, log *logFile) (*process, error) {
	var env []string
	for _, k := range slices.Sorted(maps.Keys(e.Env)) {
		env = append(env, k+"="+e.Env[k])
	}
	// One stream, for the lines to stay in order.
	argv := append([]string{"sh", "-c", `exec "$@" 2>&1`, "sh"}, e.Argv...)
	// Stop ends it: a run that is interrupted still asks its engines.
	p, err := remote.Start(context.Background(), h, remote.Command{Argv: argv, Env: env, Stdout: log, Stderr: log, Guard: true, Grace: grace})
	if err != nil {
		return nil, err
	}
	return &process{e, log, p}, nil
}

// status is how the engine ended.
func (p *process) status() string {
	if code, _ := p.Ended(); code >= 0 {
		return strconv.Itoa(code)
	}
	return p.Wait().Error()
}

// stop ends the engine and waits until its whole process group is gone.
func (p *process) stop() error {
	if err := p.Stop(); err != nil {
		return fmt.Errorf("engine %s: %w", p.engine.name, err)
	}
	return nil
}

func where(host string) string {
	if host == "" {
		return "this host"
	}
	return host
}
