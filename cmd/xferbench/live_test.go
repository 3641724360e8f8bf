package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// report --live shows a run while it measures and when it has ended, and Ctrl-C is
// the end of it.
func TestLive(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	path := filepath.Join(t.TempDir(), "run.jsonl")
	page := exec.CommandContext(ctx, bin, "report", "--live", path, "--wait", "30s")
	var said bytes.Buffer
	page.Stderr = &said
	out, err := page.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := page.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	first, err := lines.ReadString('\n')
	url, is := strings.CutPrefix(strings.TrimSpace(first), "report: ")
	if err != nil || !is {
		t.Fatalf("%q, %v", first, err)
	}
	run := exec.CommandContext(ctx, bin, "--provider", "socket,memcpy", "--size", "16MiB", "--no-ceiling", "--blocks", "100000", "--budget", "50s", "--iterations", "1", "--record", path)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"events", nil)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	reports := map[string]string{} // by state
	running := 0
	for sc := bufio.NewScanner(stream.Body); sc.Scan(); {
		data, is := strings.CutPrefix(sc.Text(), "data: ")
		if !is {
			continue
		}
		var s struct {
			Text  string
			Ended bool
		}
		if err := json.Unmarshal([]byte(data), &s); err != nil {
			t.Fatal(err)
		}
		reports[s.Text] = fetch(t, ctx, url+"report")
		if s.Text == "running" {
			if running++; running == 3 {
				if err := run.Process.Signal(syscall.SIGINT); err != nil {
					t.Fatal(err)
				}
			}
		}
		if s.Ended {
			break
		}
	}
	var ee *exec.ExitError
	if err := run.Wait(); !errors.As(err, &ee) || ee.ExitCode() != 130 {
		t.Errorf("the run: %v, want exit code 130", err)
	}
	if err := page.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("more on standard output: %q, %v", rest, err)
	}
	if err := page.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v\n%s", err, said.String())
	}
	if r := reports["running"]; !strings.Contains(r, "socket") || strings.Contains(r, "cut off") || running < 3 {
		t.Errorf("%d reports of a run under way, the last of %d bytes", running, len(r))
	}
	if r := reports["finished: interrupted"]; !strings.Contains(r, "Results") {
		t.Errorf("the last report has %d bytes; states %q", len(r), said.String())
	}
}

func fetch(t *testing.T, ctx context.Context, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, r.Status, err)
	}
	return string(b)
}

// Ctrl-C before the end of the run is an interruption, and a run whose processes
// are all killed is said to be cut off.
func TestLiveCutOff(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	path := filepath.Join(t.TempDir(), "run.jsonl")
	record, err := os.ReadFile(filepath.Join("..", "..", "testdata", "records", "short.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, record, 0o600); err != nil {
		t.Fatal(err)
	}
	page := exec.CommandContext(ctx, bin, "report", "--live", path)
	states, err := page.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := page.Start(); err != nil {
		t.Fatal(err)
	}
	lost := false
	for sc := bufio.NewScanner(states); !lost && sc.Scan(); {
		lost = strings.Contains(sc.Text(), " cut off: no process of this host writes the record")
	}
	if !lost {
		t.Error("nothing about a run that was cut off")
	}
	if err := page.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	var ee *exec.ExitError
	if err := page.Wait(); !errors.As(err, &ee) || ee.ExitCode() != 130 {
		t.Errorf("%v, want exit code 130", err)
	}
}
