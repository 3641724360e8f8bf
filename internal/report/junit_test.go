package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
)

// junitRules are Windy Road's schema of Apache Ant's JUnit format: each element's
// attributes with the form of their values, and its children in order.
var junitRules = map[string]struct {
	attributes map[string]string // "" in front: it may be missing
	children   string            // of " name name …"
}{
	"testsuites": {nil, `( testsuite)*`},
	"testsuite": {map[string]string{"package": `\S.*`, "id": `\d+`, "name": `\S.*`, "timestamp": `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d`, "hostname": `\S.*`,
		"tests": `\d+`, "failures": `\d+`, "errors": `\d+`, "skipped": `\d+`, "time": `\d+(\.\d+)?`}, ` properties( testcase)* system-out system-err`},
	"properties": {nil, `( property)*`},
	"property":   {map[string]string{"name": `\S.*`, "value": `.*`}, ``},
	"testcase":   {map[string]string{"name": `\S(.*\S)?`, "classname": `\S(.*\S)?`, "time": `\d+(\.\d+)?`}, `( skipped| error| failure)?`},
	"skipped":    {map[string]string{"message": `.*`}, ``},
	"error":      {map[string]string{"message": `.*`, "type": `.+`}, ``},
	"failure":    {map[string]string{"message": `.*`, "type": `.+`}, ``},
	"system-out": {nil, ``},
	"system-err": {nil, ``},
}

// validJUnit holds a document to junitRules and its counts to its cases, and returns
// the outcome of each case: "", or its element and type.
func validJUnit(t *testing.T, doc string) map[string]string {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(doc))
	type open struct{ name, children string }
	stack := []open{{}}
	outcomes, counts := map[string]string{}, map[string]int{}
	var suite map[string]string
	current := ""
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		switch e := tok.(type) {
		case xml.StartElement:
			name, rule := e.Name.Local, junitRules[e.Name.Local]
			got := map[string]string{}
			for _, a := range e.Attr {
				got[a.Name.Local] = a.Value
				if form, ok := rule.attributes[a.Name.Local]; !ok || !regexp.MustCompile(`^(?:`+form+`)$`).MatchString(a.Value) {
					t.Errorf("<%s %s=%q>", name, a.Name.Local, a.Value)
				}
			}
			if len(got) != len(rule.attributes) {
				t.Errorf("<%s> has %v, want %v", name, got, rule.attributes)
			}
			stack[len(stack)-1].children += " " + name
			stack = append(stack, open{name: name})
			switch name {
			case "testsuite":
				suite = got
			case "testcase":
				current = got["name"]
				if _, twice := outcomes[current]; twice {
					t.Errorf("two cases are called %q", current)
				}
				outcomes[current] = ""
				counts["tests"]++
			case "skipped", "error", "failure":
				outcomes[current] = strings.TrimSpace(name + " " + got["type"])
				counts[map[string]string{"skipped": "skipped", "error": "errors", "failure": "failures"}[name]]++
			}
		case xml.EndElement:
			top := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if !regexp.MustCompile(`^(?:` + junitRules[top.name].children + `)$`).MatchString(top.children) {
				t.Errorf("<%s> holds%s", top.name, top.children)
			}
		}
	}
	if stack[0].children != " testsuites" {
		t.Errorf("the document is%s", stack[0].children)
	}
	for _, n := range []string{"tests", "failures", "errors", "skipped"} {
		if suite[n] != strconv.Itoa(counts[n]) {
			t.Errorf("%s=%q, and there are %d", n, suite[n], counts[n])
		}
	}
	return outcomes
}

func TestJUnit(t *testing.T) {
	rest := func(m map[string]string) map[string]string {
		for _, n := range []string{"record A is complete", "record B is complete"} {
			if _, ok := m[n]; !ok {
				m[n] = ""
			}
		}
		return m
	}
	for name, tt := range map[string]struct {
		a, b  string
		o     CompareOptions
		wants map[string]string
	}{
		"slower and undecided": {"two-providers", "another-day", CompareOptions{Threshold: 0.05}, map[string]string{
			"tcp READ merged": "failure slower", "tcp READ fragmented": "error undecided", "ucx:tcp READ merged": "", "ucx:tcp READ fragmented": "",
			"socket READ merged": "skipped", "memcpy READ merged": "skipped"}},
		"undecided allowed": {"two-providers", "another-day", CompareOptions{Threshold: 0.12, AllowUndecided: true}, map[string]string{
			"tcp READ merged": "skipped", "tcp READ fragmented": "", "ucx:tcp READ merged": "", "ucx:tcp READ fragmented": "",
			"socket READ merged": "skipped", "memcpy READ merged": "skipped"}},
		"gone": {"two-providers", "compare/failed-run", CompareOptions{Threshold: 0.5}, map[string]string{
			"tcp READ merged": "", "tcp READ fragmented": "", "ucx:tcp READ merged": "", "ucx:tcp READ fragmented": "error missing",
			"socket READ merged": "skipped", "memcpy READ merged": "skipped", "record B is complete": "error incomplete"}},
		"new": {"compare/failed-run", "two-providers", CompareOptions{Threshold: 0.5}, map[string]string{
			"tcp READ merged": "", "tcp READ fragmented": "", "ucx:tcp READ merged": "", "ucx:tcp READ fragmented": "skipped",
			"socket READ merged": "skipped", "memcpy READ merged": "skipped", "record A is complete": "error incomplete"}},
		"failed check": {"two-providers", "failed-check", CompareOptions{}, map[string]string{
			"tcp READ merged": "", "tcp READ fragmented": "error data-check", "ucx:tcp READ merged": "", "ucx:tcp READ fragmented": "",
			"socket READ merged": "", "memcpy READ merged": "", "record B is complete": "error data-check"}},
		"too few": {"short", "short", CompareOptions{}, map[string]string{"tcp READ merged": "skipped", "tcp READ fragmented": "skipped", "ucx:tcp READ merged": "skipped",
			"record A is complete": "error incomplete", "record B is complete": "error incomplete"}},
		"requests": {"ttft", "compare/ttft-friday", CompareOptions{Threshold: 0.05}, map[string]string{
			"unified 7648 tokens c1": "", "ucx-pair 7648 tokens c1": "failure slower"}},
	} {
		t.Run(name, func(t *testing.T) {
			tt.o.Format = "junit"
			out, _ := compare(t, tt.a, tt.b, tt.o)
			if d := cmp.Diff(rest(tt.wants), validJUnit(t, out)); d != "" {
				t.Error(d)
			}
		})
	}
}

// What a record says reaches the document as text, whatever it is.
func TestJUnitOfHostileNames(t *testing.T) {
	const evil = "t\x1b[31mc\x00p]]></testcase>&\"'\u202e \r\n\tx\xff"
	var sources []*analysis.Source
	for range 2 {
		rec := load(t, filepath.Join(recordsDir, "two-providers.jsonl")).Record
		rec.Conditions = slices.Clone(rec.Conditions)
		for i := range rec.Conditions {
			rec.Conditions[i].Provider = evil
		}
		rec.Run.ID, rec.Run.Host.Hostname, rec.Path = evil, evil, evil
		rec.End = &record.End{Status: record.StatusFailed, Error: evil}
		s, err := analysis.NewSource(rec)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, s)
	}
	c, err := newCompareDoc(sources, CompareOptions{Threshold: 0.05})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := compareJUnit(&b, c); err != nil {
		t.Fatal(err)
	}
	outcomes := validJUnit(t, b.String())
	if len(outcomes) != 8 || outcomes["record A is complete"] != "error incomplete" {
		t.Errorf("%q", outcomes)
	}
	for _, bad := range []string{"\x1b", "\x00", "\u202e", "\r", "&#x1B;", "\uFFFD", "&#xD;"} {
		if strings.Contains(b.String(), bad) {
			t.Errorf("%q is in the document", bad)
		}
	}
}

// The words and columns of two kinds of record, and of more than two.
func TestCompareKindsGolden(t *testing.T) {
	for name, paths := range map[string][]string{
		"compare-ttft": {"ttft", "compare/ttft-friday"},
		"history":      {"compare/day3", "compare/day1", "compare/day5", "compare/day2", "compare/day4"},
	} {
		for i, p := range paths {
			paths[i] = filepath.Join(recordsDir, p+".jsonl")
		}
		for _, format := range []string{"text", "markdown", "csv", "json", "html"} {
			var b bytes.Buffer
			if err := Compare(&b, paths, CompareOptions{Format: format, Threshold: 0.05}); !errors.Is(err, ErrThreshold) {
				t.Errorf("%s: %v", name, err)
			}
			golden(t, name+extensions[format], b.Bytes())
			if format == "text" {
				columns(t, b.String())
			}
		}
	}
}

// Many records stay within 80 columns: the newest are drawn.
func TestLongHistory(t *testing.T) {
	var paths []string
	for i := range 30 {
		paths = append(paths, filepath.Join(recordsDir, "compare", "day"+strconv.Itoa(1+i%5)+".jsonl"))
	}
	for wide, want := range map[bool]string{false: " …▅██████ slower  slower\n", true: " ▁▁▁▁▁▁▁▁▁▁▁▁▃▃▃▃▃▃▅▅▅▅▅▅██████ slower  slower\n"} {
		var b bytes.Buffer
		if err := Compare(&b, paths, CompareOptions{Format: "text", Threshold: 0.05, Options: Options{Wide: wide}}); !errors.Is(err, ErrThreshold) {
			t.Error(err)
		}
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%.1200s", want, b.String())
		}
		if !wide {
			columns(t, b.String())
		}
	}
}
