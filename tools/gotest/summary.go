package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// event is one line of `go test -json`, as `go doc test2json` describes it.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64 // seconds
}

// skip is a test that ended in t.Skip, with its reason.
type skip struct{ pkg, test, reason string }

func (s skip) String() string { return fmt.Sprintf("%s %s: %s", s.pkg, s.test, s.reason) }

// summary reads events, prints what a reader needs at once, and keeps the rest.
type summary struct {
	w       io.Writer
	slow    time.Duration
	output  map[string]map[string]*strings.Builder // package → test → its output so far
	skips   []skip
	failed  []string // "package test", or the package alone where no test failed
	slowest []string
}

func newSummary(w io.Writer, slow time.Duration) *summary {
	return &summary{w: w, slow: slow, output: map[string]map[string]*strings.Builder{}}
}

// read consumes events until r ends. A line that is no event, such as a
// linker's warning, is printed as it is.
func (s *summary) read(r io.Reader) error {
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil && e.Action != "" {
				s.add(e)
			} else {
				fmt.Fprint(s.w, line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading go test's output: %w", err)
		}
	}
}

func (s *summary) add(e event) {
	switch e.Action {
	case "build-output":
		fmt.Fprint(s.w, e.Output)
	case "output":
		s.addOutput(e)
	case "skip":
		if e.Test != "" {
			s.skips = append(s.skips, skip{e.Package, e.Test, reason(s.take(e.Package, e.Test))})
		}
	case "pass":
		if e.Test != "" {
			s.take(e.Package, e.Test)
			return
		}
		s.endPackage(e)
	case "fail":
		if e.Test != "" {
			s.failed = append(s.failed, e.Package+" "+e.Test)
			fmt.Fprint(s.w, s.take(e.Package, e.Test))
			return
		}
		s.endPackage(e)
	}
}

func (s *summary) addOutput(e event) {
	if e.Test == "" {
		// "PASS" and "[no test files]" lines say nothing that the "ok" line does not.
		if e.Output != "PASS\n" && !strings.HasSuffix(e.Output, "[no test files]\n") {
			fmt.Fprint(s.w, e.Output)
		}
		return
	}
	tests := s.output[e.Package]
	if tests == nil {
		tests = map[string]*strings.Builder{}
		s.output[e.Package] = tests
	}
	if tests[e.Test] == nil {
		tests[e.Test] = &strings.Builder{}
	}
	tests[e.Test].WriteString(e.Output)
}

// take returns a test's output and forgets it.
func (s *summary) take(pkg, test string) string {
	b := s.output[pkg][test]
	if b == nil {
		return ""
	}
	delete(s.output[pkg], test)
	return b.String()
}

// endPackage prints what tests that never ended had written (the process died
// under them) and notes a package that failed or was slow.
func (s *summary) endPackage(e event) {
	if e.Action == "fail" {
		for _, test := range slices.Sorted(maps.Keys(s.output[e.Package])) {
			fmt.Fprint(s.w, s.take(e.Package, test))
			s.failed = append(s.failed, e.Package+" "+test)
		}
		if !slices.ContainsFunc(s.failed, func(f string) bool { return strings.HasPrefix(f, e.Package+" ") }) {
			s.failed = append(s.failed, e.Package)
		}
	}
	delete(s.output, e.Package)
	if took := time.Duration(e.Elapsed * float64(time.Second)); took > s.slow {
		s.slowest = append(s.slowest, fmt.Sprintf("%s %.0f s", e.Package, took.Seconds()))
	}
}

// logLine is how package testing prints t.Skip's message: "    file_test.go:12: why".
var logLine = regexp.MustCompile(`^\s*\S+\.go:\d+: (.*)`)

// reason finds the message of t.Skip in a test's output: the last log line.
func reason(output string) string {
	found := "no reason given"
	for line := range strings.Lines(output) {
		if m := logLine.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			found = m[1]
		}
	}
	return found
}
