package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv"
)

func render(t *testing.T, format string, paths ...string) []byte {
	t.Helper()
	var docs []Document
	for _, p := range paths {
		docs = append(docs, load(t, filepath.Join(recordsDir, p)))
	}
	var b bytes.Buffer
	if err := Write(&b, docs, format, Options{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGoldenFormats(t *testing.T) {
	for name, paths := range map[string][]string{
		"two-providers": {"two-providers.jsonl"},
		"sweep":         {"sweep.jsonl"},
		"failed-check":  {"failed-check.jsonl"},
		"short":         {"short.jsonl"},
		"two-days":      {"two-providers.jsonl", "another-day.jsonl"},
	} {
		for format, ext := range map[string]string{"markdown": ".md", "csv": ".csv", "json": ".json", "benchfmt": ".bench"} {
			golden(t, name+ext, render(t, format, paths...))
		}
	}
	for format, ext := range map[string]string{"markdown": ".md", "json": ".json"} {
		golden(t, "switch"+ext, render(t, format, "switch.jsonl"))
	}
	for format, ext := range map[string]string{"markdown": ".md", "csv": ".csv", "json": ".json", "benchfmt": ".bench"} {
		golden(t, "emulated"+ext, render(t, format, "emulated.jsonl"))
		golden(t, "ttft"+ext, render(t, format, "ttft.jsonl"))
	}
}

// The first words of each reason, and what the bytes were held to, stand in each
// format: a reader needs no record to see what an engine said.
func TestFirstDetails(t *testing.T) {
	rec := load(t, filepath.Join(recordsDir, "ttft.jsonl")).Record
	n := 0
	for i := range rec.Requests {
		q := &rec.Requests[i]
		if q.Path != record.PathTwoLeg || q.Phase != record.PhaseMeasure {
			continue
		}
		q.Rule = record.RuleTokens
		if n++; n < 3 {
			q.Valid, q.Reason, q.Detail = false, record.ReasonHTTPError, fmt.Sprintf("500: engine %d said: out\nof memory", n)
		}
	}
	d, err := NewDocument(rec)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"text", "markdown", "csv", "json", "html"} {
		var b bytes.Buffer
		if err := Write(&b, []Document{d}, format, Options{Wide: true}); err != nil {
			t.Fatal(err)
		}
		// Lines are wrapped, and Markdown escapes.
		out := strings.Join(strings.Fields(strings.ReplaceAll(b.String(), "\\", "")), " ")
		for _, want := range []string{"http-error: 500: engine 1 said: out", "of memory", "tokens alone"} {
			if format == "csv" && want == "tokens alone" {
				want = ",tokens,http-error 2,"
			}
			if !strings.Contains(out, want) {
				t.Errorf("%s lacks %q:\n%s", format, want, out)
			}
		}
		if strings.Contains(out, "engine 2 said") {
			t.Errorf("%s has the words of the second", format)
		}
	}
}

// TestCSV reads the table back and works the rate out anew.
func TestCSV(t *testing.T) {
	recs, err := csv.NewReader(bytes.NewReader(render(t, "csv", "two-providers.jsonl"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(recs) != 7 {
		t.Fatalf("%d lines, want a head and 6 rows", len(recs))
	}
	for _, rec := range recs[1:] {
		cell := map[string]string{}
		for i, name := range recs[0] {
			cell[name] = rec[i]
		}
		num := func(k string) float64 {
			f, err := strconv.ParseFloat(cell[k], 64)
			if err != nil {
				t.Errorf("%s: %v", k, err)
			}
			return f
		}
		if got, want := num("rate_bytes_per_s"), num("sum_bytes")/num("sum_ns")*1e9; got-want > 1 || want-got > 1 {
			t.Errorf("%s: rate %v, want Σbytes/Σtime = %v", cell["provider"], got, want)
		}
		if num("sum_bytes") != 40*num("bytes") || cell["samples"] != "40" {
			t.Errorf("%s: %s bytes in %s samples", cell["provider"], cell["sum_bytes"], cell["samples"])
		}
		if !(num("min_ns") <= num("median_lo_ns") && num("median_lo_ns") <= num("median_ns") && num("median_ns") <= num("median_hi_ns") && num("median_hi_ns") <= num("max_ns")) {
			t.Errorf("%s: min, interval, median and max are out of order: %v", cell["provider"], rec)
		}
	}
}

// A sweep's lines of counters name the emulated device as such, and no other.
func TestPathRangesOfEmulatedDevice(t *testing.T) {
	for _, l := range pathRanges(counted(analyse(t, filepath.Join(recordsDir, "emulated.jsonl")).Rows)) {
		if strings.Contains(l, "(simulated)") != strings.HasPrefix(l, "path of efa:") {
			t.Error(l)
		}
	}
}

// TestNoSpeed holds that a failed check and an emulated device leave no speed in
// any format.
func TestNoSpeed(t *testing.T) {
	var j struct{ Reports []jsonRun }
	if err := json.Unmarshal(render(t, "json", "failed-check.jsonl"), &j); err != nil {
		t.Fatal(err)
	}
	rows := j.Reports[0].Rows
	if rows[1].Speed != nil || rows[1].Check != "FAILED" || rows[1].Failed != 3 || rows[0].Speed == nil {
		t.Errorf("rows %+v", rows[:2])
	}
	if got := j.Reports[0].Pairs[1]; got.Verdict != "refused" || got.Ratio != nil {
		t.Errorf("a pair with a failed check: %+v", got)
	}
	if s := string(render(t, "benchfmt", "failed-check.jsonl")); strings.Contains(s, "provider=tcp/op=read/memory=host/shape=fragmented") || !strings.Contains(s, "provider=tcp/op=read/memory=host/shape=merged") {
		t.Errorf("benchfmt holds the failed row or not the good one:\n%s", s)
	}
	if s := string(render(t, "benchfmt", "emulated.jsonl")); strings.Contains(s, "=efa") {
		t.Errorf("benchfmt holds an emulated row:\n%s", s)
	}
	for _, wide := range []bool{false, true} {
		var b bytes.Buffer
		if err := Text(&b, analyse(t, filepath.Join(recordsDir, "emulated.jsonl")), Options{Wide: wide}); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if strings.HasPrefix(line, "efa ") && strings.Contains(line, "6x2") && !strings.HasSuffix(line, analysis.Emulated+"\n") {
				t.Errorf("a row of an emulated device: %s", line)
			}
		}
	}
}

// benchstat runs the stock tool over benchfmt exports, a file each, and returns the
// change and the counts by row: "+12.34% n=10", "~ n=8".
func benchstat(t *testing.T, flags []string, files ...[]byte) map[string]string {
	t.Helper()
	dir := t.TempDir()
	args := append([]string{"tool", "benchstat", "-format", "csv"}, flags...)
	for i, f := range files {
		path := filepath.Join(dir, string(rune('a'+i)))
		if err := os.WriteFile(path, f, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	cmd := exec.Command("go", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("benchstat: %v\n%s%s", err, out, stderr.String())
	}
	changes := map[string]string{}
	for l := range strings.Lines(string(out)) {
		cells := strings.Split(strings.TrimSpace(l), ",")
		if m := regexp.MustCompile(`n=\d+(\+\d+)?`).FindString(l); m != "" && len(cells) > 5 && changes[cells[0]] == "" { // the first table is sec/op
			changes[cells[0]] = cells[5] + " " + m
		}
	}
	return changes
}

// TestBenchstat has the stock tool, without a flag, compare two days and two arms.
// The time per byte of one row was raised by 12 % in the second day's formula, the
// pair's transfer by 60 ms of 774, and the pair takes 774 ms where unified takes 437.
func TestBenchstat(t *testing.T) {
	only := func(path, name string) []byte {
		var b bytes.Buffer
		if err := Write(&b, []Document{load(t, filepath.Join(recordsDir, path))}, "benchfmt", Options{Only: name}); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	const transfer = "/op=read/memory=host/shape=merged/layout=packed/descriptors=28/bytes=438566912"
	for name, tt := range map[string]struct {
		flags  []string
		files  [][]byte
		row    string
		lo, hi float64 // per cent
		n      string
		rows   int
	}{
		"two days": {nil, [][]byte{render(t, "benchfmt", "two-providers.jsonl"), render(t, "benchfmt", "another-day.jsonl")},
			"Transfer/provider=tcp" + transfer, 9, 15, "n=10", 6},
		"TTFT of two days": {nil, [][]byte{render(t, "benchfmt", "ttft.jsonl"), render(t, "benchfmt", "compare/ttft-friday.jsonl")},
			"TTFT/arm=ucx-pair/load=c1/tokens=7648", 6, 9, "n=8", 2},
		"two transports": {nil, [][]byte{only("two-providers.jsonl", "tcp"), only("two-providers.jsonl", "ucx:tcp")}, "Transfer" + transfer, -28, -20, "n=10", 2},
		"two arms":       {nil, [][]byte{only("ttft.jsonl", "unified"), only("ttft.jsonl", "ucx-pair")}, "TTFT/load=c1/tokens=7648", 70, 84, "n=8", 1},
		"transports in one file": {[]string{"-col", "/provider", "-filter", `/provider:(tcp OR "ucx:tcp")`}, [][]byte{render(t, "benchfmt", "two-providers.jsonl")},
			"Transfer" + transfer, -28, -20, "n=10", 2},
		"arms in one file":    {[]string{"-col", "/arm"}, [][]byte{render(t, "benchfmt", "ttft.jsonl")}, "TTFT/load=c1/tokens=7648", 70, 84, "n=8", 1},
		"records in one file": {[]string{"-col", "run"}, [][]byte{render(t, "benchfmt", "two-providers.jsonl", "another-day.jsonl")}, "Transfer/provider=tcp" + transfer, 9, 15, "n=10", 6},
	} {
		t.Run(name, func(t *testing.T) {
			got := benchstat(t, tt.flags, tt.files...)
			change, n, _ := strings.Cut(got[tt.row], " ")
			f, err := strconv.ParseFloat(strings.TrimSuffix(change, "%"), 64)
			if err != nil || f < tt.lo || f > tt.hi || n != tt.n || len(got) != tt.rows {
				t.Errorf("%s: %q, want %v to %v %% with %s, and %d rows in\n%v", tt.row, got[tt.row], tt.lo, tt.hi, tt.n, tt.rows, got)
			}
		})
	}
}

// A provider or arm that no row has is named beside those that there are.
func TestBenchfmtOfNoRow(t *testing.T) {
	for path, want := range map[string]string{"two-providers.jsonl": "tcp, ucx:tcp, socket and memcpy", "ttft.jsonl": "unified and ucx-pair", "emulated.jsonl": "socket"} {
		err := Write(io.Discard, []Document{load(t, filepath.Join(recordsDir, path))}, "benchfmt", Options{Only: "efa"})
		if !errors.Is(err, ErrNoBench) || !strings.HasSuffix(err.Error(), "the records have "+want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// What differs from run to run is in comments alone, and what a provider chose for
// itself in names only where rows differ in nothing else.
func TestBenchfmtNames(t *testing.T) {
	d := load(t, filepath.Join(recordsDir, "two-providers.jsonl"))
	twin := *d.Raw.Rows[0]
	twin.Transport.Depth = 64
	d.Raw.Rows = append(d.Raw.Rows, &twin)
	var b bytes.Buffer
	if err := writeBenchfmt(&b, []Document{d}, ""); err != nil {
		t.Fatal(err)
	}
	for text, n := range map[string]int{"\npkg: xferbench\n": 1, "# run: two-providers\n": 1, "\nrun: ": 0, "\ncommit: ": 0, "\nhost: ": 0,
		"provider=tcp/op=read/memory=host/shape=merged/layout=packed/streams=1/depth=16/": 10, "provider=tcp/op=read/memory=host/shape=merged/layout=packed/streams=1/depth=64/": 10,
		"depth=": 20} {
		if got := strings.Count(b.String(), text); got != n {
			t.Errorf("%q %d times, want %d", text, got, n)
		}
	}
}

// TestKinds: one table cannot hold raw transfers and TTFT, a page can.
func TestKinds(t *testing.T) {
	docs := []Document{load(t, filepath.Join(recordsDir, "sweep.jsonl")), load(t, filepath.Join(recordsDir, "ttft.jsonl"))}
	for _, format := range Formats() {
		var b bytes.Buffer
		err := Write(&b, docs, format, Options{})
		if format == "csv" != errors.Is(err, ErrKinds) || format != "csv" && (err != nil || !strings.Contains(b.String(), "ucx-pair")) {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.txt")
	put := func(s string) func(io.Writer) error {
		return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
	}
	if err := Create(path, false, put("one")); err != nil {
		t.Fatal(err)
	}
	if err := Create(path, false, put("two")); !errors.Is(err, ErrExists) {
		t.Errorf("an existing file: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "one" {
		t.Errorf("the file was changed to %q", b)
	}
	failure := errors.New("no")
	if err := Create(path, true, func(io.Writer) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("a failing writer: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "one" {
		t.Errorf("a failure changed the file to %q", b)
	}
	if err := Create(path, true, put("two")); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "two" {
		t.Errorf("--force left %q", b)
	}
	// A disk that fills up half-way through leaves the old file.
	half := func(w io.Writer) error { _, err := io.WriteString(w, "thr"); return errors.Join(err, failure) }
	if err := Create(path, true, half); !errors.Is(err, failure) {
		t.Errorf("a writer that fails half-way: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "two" {
		t.Errorf("a failure half-way left %q", b)
	}
	if es, err := os.ReadDir(filepath.Dir(path)); err != nil || len(es) != 1 {
		t.Errorf("files beside it: %v, %v", es, err)
	}
	other := filepath.Join(t.TempDir(), "r.txt")
	if err := Create(other, false, func(io.Writer) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("a failing writer: %v", err)
	}
	if _, err := os.Stat(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failure left a file: %v", err)
	}
}

// A disk that is full leaves the report that was there.
func TestCreateOnFullDisk(t *testing.T) {
	testenv.NeedRoot(t)
	dir := t.TempDir()
	testenv.Need(t, "mount", unix.Mount("xferbench-test", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "r.html")
	if err := os.WriteFile(path, bytes.Repeat([]byte("old "), 1<<12), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Create(path, true, func(w io.Writer) error {
		_, err := w.Write(make([]byte, 1<<20))
		return err
	})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Create = %v, want no space", err)
	}
	if b, err := os.ReadFile(path); err != nil || len(b) != 4<<12 {
		t.Errorf("the old report has %d bytes, %v", len(b), err)
	}
}
