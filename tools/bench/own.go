package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

func ownRows(bin string) []row {
	out := []row{
		alone{work: "tcp read, post of 14,000 descriptors", unit: "ns each", f: postTime(bin, "tcp")},
		alone{work: "ucx:tcp read, post of 14,000", unit: "ns each", f: postTime(bin, "ucx:tcp")},
		posting{"tcp"}, posting{"shm"},
	}
	for _, p := range []string{"tcp", "ucx:tcp", "socket"} {
		out = append(out, alone{work: p + ", memory beyond the buffers", unit: "MiB", goal: atMost(64), once: true, f: memory(bin, p)})
	}
	return append(out, alone{work: "xferbench --help", unit: "ms", goal: atMost(50), f: help(bin)})
}

// postTime is the median time to post one descriptor of a prompt of 8,000
// tokens in blocks of 16: 28 layers x 500 blocks.
func postTime(bin, provider string) func(context.Context) (float64, string, error) {
	return func(ctx context.Context) (float64, string, error) {
		r, err := measure(ctx, bin, "-p", provider, "--tokens", "8000", "--shape", "fragmented", "--iterations", "3")
		if err != nil {
			return 0, "", err
		}
		var xs []float64
		for _, s := range measured(r) {
			if s.Ops != 14000 {
				return 0, "", fmt.Errorf("%d operations posted, not 14000", s.Ops)
			}
			xs = append(xs, float64(s.PostNs)/float64(s.Ops))
		}
		x, err := stats.Median(xs)
		return x, "with the waits for room in the queue", err
	}
}

// posting is the row of posting through the measuring loop against the same
// loop written in C alone: go test's BenchmarkPost.
type posting struct{ provider string }

func (p posting) names() (string, string) {
	return p.provider + ", post one descriptor", "the loop in C alone"
}

func (p posting) run(ctx context.Context, pairs int) (result, error) {
	work, peer := p.names()
	r := result{work: work, peer: peer, unit: "ns", goal: atMost(1.02)}
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkPost$/^"+p.provider+"$",
		"-benchtime", "1s", "-count", strconv.Itoa(pairs), "./fabric").CombinedOutput()
	if err != nil {
		return r, fmt.Errorf("go test -bench BenchmarkPost: %w: %s", err, out)
	}
	alone, err := metrics(out, "C-ns/op")
	if err != nil {
		return r, err
	}
	ratios, err := metrics(out, "ratio")
	if err != nil {
		return r, err
	}
	// The benchmark's own ratios are of adjacent rounds, closer than its medians.
	ours := make([]float64, len(ratios))
	for i := range ratios {
		ours[i] = ratios[i] * alone[i]
	}
	return r, r.compare(ours, alone)
}

// metrics are the values of a unit in go test's benchmark lines.
func metrics(out []byte, unit string) (xs []float64, err error) {
	s := bufio.NewScanner(bytes.NewReader(out))
	for s.Scan() {
		f := strings.Fields(s.Text())
		i := slices.Index(f, unit)
		if i < 1 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		x, err := strconv.ParseFloat(f[i-1], 64)
		if err != nil {
			return nil, fmt.Errorf("go test said %q: %w", s.Text(), err)
		}
		xs = append(xs, x)
	}
	if len(xs) == 0 {
		return nil, fmt.Errorf("go test printed no %s: %s", unit, out)
	}
	return xs, s.Err()
}

// memoryBytes is the buffer of each side in the memory rows.
const memoryBytes = 256 * mib

// memory is the peak resident memory of a whole run with its data checks, the
// larger of its two processes, beyond the buffer, in MiB.
func memory(bin, provider string) func(context.Context) (float64, string, error) {
	return func(ctx context.Context) (float64, string, error) {
		ctx, cancel := context.WithTimeout(ctx, deadline)
		defer cancel()
		cmd := exec.CommandContext(ctx, bin, "-p", provider, "--op", "read,write", "--size", strconv.Itoa(memoryBytes), "--no-ceiling",
			"--no-record", "--blocks", "6", "--budget", "0", "--json", "-")
		var words, out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &words
		if err := cmd.Start(); err != nil {
			return 0, "", err
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		peak := map[int]uint64{}
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case err := <-ended:
				if err != nil {
					return 0, "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, words.String())
				}
				return beyond(peak, &out)
			case <-tick.C:
				if err := watch(cmd.Process.Pid, peak); err != nil {
					return 0, "", err
				}
			}
		}
	}
}

// beyond is the larger peak less the buffer, which is the record's largest
// transfer, since sizes round up to whole blocks.
func beyond(peak map[int]uint64, out *bytes.Buffer) (float64, string, error) {
	if len(peak) < 2 {
		return 0, "", fmt.Errorf("%d processes seen, want an initiator and a target", len(peak))
	}
	r, err := record.Read(out)
	if err != nil {
		return 0, "", err
	}
	var buffer, most uint64
	for _, c := range r.Conditions {
		buffer = max(buffer, c.Bytes)
	}
	for _, b := range peak {
		if b < buffer {
			return 0, "", fmt.Errorf("a process peaked at %d bytes, less than its buffer of %d", b, buffer)
		}
		most = max(most, b)
	}
	return float64(most-buffer) / mib, "", nil
}

var peakLine = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)

// watch notes the peak resident memory of the processes below pid, a run's: its
// initiator, and that one's target.
func watch(pid int, peak map[int]uint64) error {
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		if err != nil {
			return err
		}
		for _, l := range lists {
			b, err := os.ReadFile(l)
			if gone(err) {
				continue // the thread ended
			}
			if err != nil {
				return err
			}
			for _, f := range strings.Fields(string(b)) {
				p, err := strconv.Atoi(f)
				if err != nil {
					return fmt.Errorf("%s: %w", l, err)
				}
				pids = append(pids, p)
			}
		}
	}
	pids = pids[1:] // the keeper holds no buffer
	for _, p := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		m := peakLine.FindSubmatch(b)
		if m == nil {
			continue // a zombie has no memory
		}
		kb, err := strconv.ParseUint(string(m[1]), 10, 64)
		if err != nil {
			return err
		}
		peak[p] = max(peak[p], kb<<10)
	}
	return nil
}

// gone says that a process or thread ended between two looks.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

var libraryInit = regexp.MustCompile(`calling init: (\S+)`)

// system are the libraries that a binary with cgo is linked to.
var system = regexp.MustCompile(`/(libc|libm|libdl|libpthread|librt|libresolv|ld-linux[^/]*)\.so[.0-9]*$`)

// help is the wall time of xferbench --help, once with the loader's own
// account of what it loaded, and then without.
func help(bin string) func(context.Context) (float64, string, error) {
	return func(ctx context.Context) (float64, string, error) {
		cmd := exec.CommandContext(ctx, bin, "--help")
		cmd.Env = append(os.Environ(), "LD_DEBUG=files")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return 0, "", err
		}
		found := libraryInit.FindAllSubmatch(out, -1)
		if len(found) == 0 {
			return 0, "", errors.New("the loader's account (LD_DEBUG=files) names no library, not even the C library")
		}
		for _, m := range found {
			if !system.Match(m[1]) {
				return 0, "", fmt.Errorf("--help loaded %s", m[1])
			}
		}
		t := time.Now()
		if err := exec.CommandContext(ctx, bin, "--help").Run(); err != nil {
			return 0, "", err
		}
		return float64(time.Since(t)) / float64(time.Millisecond), "nothing is loaded but the C library", nil
	}
}
