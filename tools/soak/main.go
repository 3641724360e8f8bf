// Command soak ends, floods and abuses a built xferbench at many moments and
// counts what goes wrong: a process that hangs, a wrong exit code, a record
// without its end, a process or a file that is left behind, memory that grows,
// a server that no longer serves.
//
// It is bounded: every wait has a deadline, and -limit ends it all. Traffic goes
// to loopback, and only processes that it started are ended.
//
// Usage: soak [-bin FILE] [-short] [-seed N] [-limit D] [-only PHASE,…]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/xferbench/xferbench/internal/record"
)

// counts is how often each phase does its thing.
type counts struct {
	points   int // moments of a kill, per provider and side
	stops    int
	sessions int
	hellos   time.Duration // of hellos with a wrong secret
	flood    time.Duration // of bodies without a token
}

var (
	whole = counts{points: 20, stops: 60, sessions: 300, hellos: time.Minute, flood: 10 * time.Second}
	short = counts{points: 1, stops: 9, sessions: 16, hellos: 10 * time.Second, flood: 3 * time.Second}
)

// timeout is the runs' --timeout: how long a survivor may need to notice.
const timeout = 3 * time.Second

// late is how much longer than its timeout a survivor may take on a machine
// that does other things too before it counts as hung.
const late = 30 * time.Second

// soak is one run of all phases.
type soak struct {
	ctx       context.Context
	bin       string
	dir       string // records, by itself
	mark      string // in the environment of all that it starts
	rand      *rand.Rand
	n         counts
	providers []string
	table     table
}

func main() {
	bin := flag.String("bin", "bin/xferbench", "the binary to test")
	brief := flag.Bool("short", false, "the form for continuous integration: some three minutes")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the moments at which processes are ended")
	limit := flag.Duration("limit", 90*time.Minute, "end of it all")
	only := flag.String("only", "", "comma-separated phases: kills, stops, sessions, strangers, clients (default: all)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeoutCause(ctx, *limit, fmt.Errorf("not over within %v", *limit))
	ok, err := run(ctx, *bin, *brief, *seed, *only)
	cancel()
	stop()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(2)
	case !ok:
		os.Exit(1)
	}
}

func run(ctx context.Context, bin string, brief bool, seed uint64, only string) (ok bool, err error) {
	s := &soak{ctx: ctx, n: whole, rand: rand.New(rand.NewPCG(seed, 0)), mark: fmt.Sprintf("XFERBENCH_SOAK=%d-%d", os.Getpid(), seed)}
	if brief {
		s.n = short
	}
	if s.bin, err = filepath.Abs(bin); err != nil {
		return false, err
	}
	if s.dir, err = os.MkdirTemp("", "xferbench-soak"); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	// Whatever ends this, what it started ends too.
	defer func() { err = errors.Join(err, s.killAll()) }()
	if err := s.head(seed); err != nil {
		return false, err
	}
	phases := []struct {
		name string
		do   func() error
	}{
		{"kills", s.kills}, {"stops", s.stops}, {"sessions", s.sessions}, {"strangers", s.strangers}, {"clients", s.clients},
	}
	wanted := strings.Split(only, ",")
	for _, p := range phases {
		if only != "" && !slices.Contains(wanted, p.name) {
			continue
		}
		start := time.Now()
		if err := p.do(); err != nil {
			return false, fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(os.Stderr, "soak: %s: %v\n", p.name, time.Since(start).Round(time.Second))
	}
	return s.table.print(os.Stdout), nil
}

// all are the providers that need no device; those that do not open here are
// named and left out.
var all = []string{"tcp", "tcp;ofi_rxm", "sockets", "shm", "ucx", "ucx:tcp", "ucx:shm", "socket"}

// head prints what is tested, and finds the providers.
func (s *soak) head(seed uint64) error {
	out, err := exec.CommandContext(s.ctx, s.bin, "version").Output()
	if err != nil {
		return fmt.Errorf("%s version: %w (make build)", s.bin, err)
	}
	v, _, _ := strings.Cut(string(out), "\n")
	fmt.Printf("%s, %d cores, %s, seed %d\n", v, runtime.NumCPU(), time.Now().Format(time.DateOnly), seed)
	for _, p := range all {
		c := s.start("--provider", p, "--size", "1MB", "--shape", "contiguous", "--no-ceiling", "--blocks", "1", "--no-record")
		switch code := c.wait(late); code {
		case 0:
			s.providers = append(s.providers, p)
		case 3:
			fmt.Printf("%s does not run here: %s\n", p, oneLine(c.stderr.String()))
		default:
			return fmt.Errorf("%s: exit code %d before anything was done to it: %s", p, code, oneLine(c.stderr.String()))
		}
	}
	if len(s.providers) == 0 {
		return errors.New("no provider runs here")
	}
	return nil
}

// recordOf opens the record of a run.
func recordOf(file string) (*record.Record, error) {
	r, err := record.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // ended before it began
	}
	return r, err
}

func oneLine(text string) string {
	return strings.Join(strings.Fields(text), " ")
}
