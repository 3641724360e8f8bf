package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/internal/testenv/synth"
)

// synthetic writes a synthetic record of n transfers, line by line: what this process
// takes before it starts another counts as that one's at most, too.
func synthetic(b *testing.B, dir string, seed uint64, n int) string {
	b.Helper()
	s := synth.Large(seed, n)
	path := filepath.Join(dir, s.Name+".jsonl")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriter(f)
	if err := errors.Join(s.Write(w), w.Flush(), f.Close()); err != nil {
		b.Fatal(err)
	}
	return path
}

// BenchmarkReport has the CPU time and the most memory of a report and a comparison
// as a user runs them, on one core: of 10^6 transfers and of 60.
//
//	go test ./cmd/xferbench -run '^$' -bench Report
func BenchmarkReport(b *testing.B) {
	dir := b.TempDir()
	small := filepath.Join("..", "..", "testdata", "records", "emulated.jsonl")
	one, two := synthetic(b, dir, 1, 1e6), synthetic(b, dir, 2, 1e6)
	cases := []struct {
		name string
		args []string
	}{{"60-transfers/text", []string{"report", small}}}
	for _, format := range []string{"text", "markdown", "csv", "json", "benchfmt", "html"} {
		cases = append(cases, struct {
			name string
			args []string
		}{"1e6-transfers/" + format, []string{"report", one, "--format", format}})
	}
	for _, format := range []string{"text", "markdown", "csv", "json", "junit", "html"} {
		cases = append(cases, struct {
			name string
			args []string
		}{"2e6-transfers-compared/" + format, []string{"compare", one, two, "--format", format}})
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			var cpu time.Duration
			var most int64
			for b.Loop() {
				cmd := exec.CommandContext(b.Context(), bin, c.args...)
				cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
				cmd.Stdout, cmd.Stderr = io.Discard, os.Stderr
				if err := cmd.Run(); err != nil {
					b.Fatal(err)
				}
				cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
				most = max(most, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
			}
			b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s/op")
			b.ReportMetric(float64(most)/1000, "MB")
		})
	}
}
