// Command gotest runs the repository's tests as `make test` does, in three
// passes of `go test`:
//
//  1. every package
//  2. packages without C in them or below them, and those of the others that
//     are the most concurrent, under the race detector, but not
//     internal/buildtest and internal/conformance, which test programs and
//     files and no Go code of their own
//  3. packages with C in them, under the address sanitizer
//
// It prints the result line of each package and the whole output of each test
// that failed; the last thing it prints is the list of the tests that were
// skipped, with their reasons, so that no skip goes unseen.
//
// Usage: gotest [-p N] [-timeout D] [-pass all,race,asan] [-slow D] [-but SUFFIX] [PACKAGE...]
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	parallel := flag.Int("p", 2, "packages tested at a time")
	timeout := flag.Duration("timeout", 10*time.Minute, "limit for one package in one pass")
	passes := flag.String("pass", "all,race,asan", "comma-separated passes to run")
	but := flag.String("but", "", "leave out the package whose path ends so")
	slow := flag.Duration("slow", 30*time.Second, "name packages that take longer than this")
	flag.Parse()
	patterns := flag.Args()
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := runPasses(ctx, strings.Split(*passes, ","), patterns, *but, *parallel, *timeout, *slow)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// runPasses runs the named passes over the packages that patterns match, less but, and
// prints the summary. ok tells that no test failed.
func runPasses(ctx context.Context, passes, patterns []string, but string, parallel int, timeout, slow time.Duration) (ok bool, err error) {
	pkgs, err := list(ctx, patterns)
	if err != nil {
		return false, err
	}
	if but != "" {
		pkgs = slices.DeleteFunc(pkgs, func(p pkg) bool { return strings.HasSuffix(p.ImportPath, but) })
	}
	var skips, slowest, failures []string
	for _, pass := range passes {
		paths, flags, err := selectPass(pass, pkgs)
		if err != nil {
			return false, err
		}
		if len(paths) == 0 {
			continue
		}
		fmt.Printf("=== pass %s: %d packages\n", pass, len(paths))
		args := slices.Concat([]string{"test", "-json", "-count=1", fmt.Sprintf("-p=%d", parallel), "-timeout=" + timeout.String()}, flags, paths)
		s := newSummary(os.Stdout, slow)
		passed, err := goTest(ctx, pass, args, s)
		if err != nil {
			return false, fmt.Errorf("pass %s: %w", pass, err)
		}
		for _, skip := range s.skips {
			if line := skip.String(); !slices.Contains(skips, line) {
				skips = append(skips, line)
			}
		}
		for _, p := range s.slowest {
			slowest = append(slowest, pass+" "+p)
		}
		for _, f := range s.failed {
			failures = append(failures, pass+" "+f)
		}
		if !passed && len(s.failed) == 0 {
			failures = append(failures, pass+": go test itself failed; its message stands above")
		}
	}
	printList(os.Stdout, "slow packages", slowest)
	printList(os.Stdout, "skipped tests", skips)
	printList(os.Stdout, "failed", failures)
	return len(failures) == 0, nil
}

// printList prints a titled list, or that it is empty.
func printList(w io.Writer, title string, lines []string) {
	if len(lines) == 0 {
		fmt.Fprintf(w, "=== %s: none\n", title)
		return
	}
	fmt.Fprintf(w, "=== %s: %d\n", title, len(lines))
	for _, line := range lines {
		fmt.Fprintln(w, "   ", line)
	}
}

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath   string
	CgoFiles     []string
	Deps         []string // import paths of all dependencies
	TestGoFiles  []string
	XTestGoFiles []string
	TestImports  []string
	XTestImports []string
}

// list asks the go command for the packages that patterns match, in order.
func list(ctx context.Context, patterns []string) ([]pkg, error) {
	fields := "-json=ImportPath,CgoFiles,Deps,TestGoFiles,XTestGoFiles,TestImports,XTestImports"
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", fields}, patterns...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.Bytes())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		switch err := dec.Decode(&p); err {
		case nil:
			pkgs = append(pkgs, p)
		case io.EOF:
			return pkgs, nil
		default:
			return nil, fmt.Errorf("go list: %w", err)
		}
	}
}

// programs are packages whose tests run programs.
var programs = []string{"/internal/buildtest", "/internal/conformance"}

// concurrent are packages with C in them or below them whose Go code is
// concurrent enough for the race detector all the same.
var concurrent = []string{"/cgo/loop", "/internal/peer", "/internal/serving/sim", "/internal/serving/proxy"}

// selectPass returns the packages of a pass, those with tests only, and the
// flags that `go test` gets for it.
func selectPass(pass string, pkgs []pkg) (paths, flags []string, err error) {
	byPath := make(map[string]pkg, len(pkgs))
	for _, p := range pkgs {
		byPath[p.ImportPath] = p
	}
	// native: C is compiled into the package's test binary from this module.
	native := func(p pkg) bool {
		if len(p.CgoFiles) > 0 {
			return true
		}
		direct := slices.Concat(p.Deps, p.TestImports, p.XTestImports)
		return slices.ContainsFunc(direct, func(dep string) bool {
			d := byPath[dep]
			return len(d.CgoFiles) > 0 || dep != p.ImportPath && slices.ContainsFunc(d.Deps, func(dd string) bool { return len(byPath[dd].CgoFiles) > 0 })
		})
	}
	var want func(pkg) bool
	switch pass {
	case "all":
		want = func(pkg) bool { return true }
	case "race":
		want = func(p pkg) bool {
			in := func(list []string) bool {
				return slices.ContainsFunc(list, func(s string) bool { return strings.HasSuffix(p.ImportPath, s) })
			}
			return in(concurrent) || !native(p) && !in(programs)
		}
		flags = []string{"-race"}
	case "asan":
		want, flags = func(p pkg) bool { return len(p.CgoFiles) > 0 }, []string{"-asan"}
	default:
		return nil, nil, fmt.Errorf("unknown pass %q: have all, race, asan", pass)
	}
	for _, p := range pkgs {
		if len(p.TestGoFiles)+len(p.XTestGoFiles) > 0 && want(p) {
			paths = append(paths, p.ImportPath)
		}
	}
	return paths, flags, nil
}

// goTest runs `go test -json` and feeds its events to s. passed is its verdict.
func goTest(ctx context.Context, pass string, args []string, s *summary) (passed bool, err error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "XFERBENCH_TEST_PASS="+pass)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	readErr := s.read(stdout)
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && ctx.Err() == nil {
		return false, errorUnless(exit.Exited(), fmt.Errorf("go test: %w", exit))
	}
	if err != nil {
		return false, err
	}
	return true, readErr
}

// errorUnless returns nil when ok.
func errorUnless(ok bool, err error) error {
	if ok {
		return nil
	}
	return err
}
