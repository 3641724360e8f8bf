package report

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

// The JUnit document, as CI systems read it: Ant's report format in the form that the
// schemas of Windy Road (Apache Ant) and of Jenkins' xUnit plugin both take, where a
// test case has one outcome at most, and properties and output stand in the suite.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Package    string          `xml:"package,attr"`
		ID         int             `xml:"id,attr"`
		Name       string          `xml:"name,attr"`
		Timestamp  string          `xml:"timestamp,attr"`
		Hostname   string          `xml:"hostname,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"` // s
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
		Out        junitText       `xml:"system-out"`
		Err        junitText       `xml:"system-err"`
	}
	junitText struct {
		Text string `xml:",cdata"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Time    string        `xml:"time,attr"` // s: B's median, 0 where it has none
		Skipped *junitOutcome `xml:"skipped"`
		Error   *junitOutcome `xml:"error"`
		Failure *junitOutcome `xml:"failure"`
	}
	junitOutcome struct {
		Message string `xml:"message,attr,omitempty"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

// compareJUnit writes a test case for each row and one for each record of A and B: a
// failure is a slower row; an error is a failed check, a missing row or an incomplete
// record, and an undecided row unless that is allowed; then it is skipped. Without a
// threshold only failed checks, missing rows and incomplete records fail.
func compareJUnit(b *bytes.Buffer, c *compareDoc) error {
	newest := c.Runs.B.Record
	suite := junitSuite{Package: "xferbench", Name: "xferbench compare", Hostname: cmp.Or(clean(newest.Run.Host.Hostname), "localhost"),
		Timestamp: time.Unix(0, newest.Run.StartUnixNs).UTC().Format("2006-01-02T15:04:05"), Time: "0"}
	if end := newest.End; end != nil && end.EndUnixNs > newest.Run.StartUnixNs {
		suite.Time = secondsOf(float64(end.EndUnixNs - newest.Run.StartUnixNs))
	}
	add := func(name, value string) {
		suite.Properties = append(suite.Properties, junitProperty{clean(name), clean(value)})
	}
	for i, s := range []*analysis.Source{c.Runs.A, c.Runs.B} {
		ab := strings.ToLower(string("AB"[i]))
		add(ab+".record", s.Record.Path)
		add(ab+".run_id", s.Record.Run.ID)
		add(ab+".start", time.Unix(0, s.Record.Run.StartUnixNs).UTC().Format(time.RFC3339))
		add(ab+".host", s.Record.Run.Host.Hostname)
		add(ab+".xferbench", s.Record.Run.ToolVersion+" ("+s.Record.Run.ToolCommit+")")
		suite.Cases = append(suite.Cases, recordCase(string("AB"[i]), s))
	}
	if c.Gate != nil {
		add("threshold", limit(c.Gate.Threshold))
	}
	for _, d := range c.Runs.Differences {
		add("differs", d)
	}
	if note := newest.Run.Env["XFERBENCH_NOTE"]; note != "" {
		add("note", note)
	}
	seen := map[string]int{}
	for i := range c.Runs.Rows {
		k := c.junitCase(i)
		if seen[k.Name]++; seen[k.Name] > 1 {
			k.Name += fmt.Sprintf(" (%d)", seen[k.Name])
		}
		suite.Cases = append(suite.Cases, k)
	}
	for _, k := range suite.Cases {
		suite.Tests++
		switch {
		case k.Failure != nil:
			suite.Failures++
		case k.Error != nil:
			suite.Errors++
		case k.Skipped != nil:
			suite.Skipped++
		}
	}
	var text bytes.Buffer
	plain := *c
	plain.Options.Options = Options{Wide: true}
	compareText(&text, &plain)
	suite.Out.Text = units.PrintableText(text.String())
	b.WriteString(xml.Header)
	e := xml.NewEncoder(b)
	e.Indent("", "  ")
	if err := e.Encode(junitSuites{Suites: []junitSuite{suite}}); err != nil {
		return err
	}
	b.WriteString("\n")
	return nil
}

// recordCase tells whether a record is whole.
func recordCase(ab string, s *analysis.Source) junitCase {
	k := junitCase{Name: "record " + ab + " is complete", Class: "xferbench.records", Time: "0"}
	switch why := s.Unfinished(); {
	case analysis.EndedOverCheck(s.Record):
		k.Error = outcomeOf("data-check", "the run ended over a failed data check: "+s.Record.End.Error)
	case why != "":
		k.Error = outcomeOf("incomplete", ab+" "+why)
	}
	return k
}

func (c *compareDoc) junitCase(i int) junitCase {
	d := c.Runs.Rows[i]
	k := junitCase{Name: cmp.Or(clean(d.Label()), fmt.Sprintf("condition %d", d.Row().Condition.ID)), Class: "xferbench." + clean(d.Row().Condition.Provider), Time: "0"}
	if d.B != nil && d.B.HasSpeed() {
		k.Time = secondsOf(d.B.MedianNs)
	}
	var row analysis.GateRow
	if c.Gate != nil {
		row = c.Gate.Rows[i]
	}
	switch text := c.sentence(i); {
	case d.Failed():
		k.Error = outcomeOf("data-check", "a data check failed: "+text)
	case d.B == nil && !d.Ceiling() || row.Standing == analysis.Missing:
		k.Error = outcomeOf("missing", text)
	case row.Standing == analysis.Slower:
		k.Failure = outcomeOf("slower", text)
	case row.Standing == analysis.Undecided && c.Options.AllowUndecided:
		k.Skipped = outcomeOf("", text)
	case row.Standing == analysis.Undecided:
		k.Error = outcomeOf("undecided", text)
	case c.Gate == nil && (d.Outcome() == "refused" || d.Outcome() == "too-few"):
		k.Skipped = outcomeOf("", "no verdict: "+text)
	case c.Gate != nil && row.Standing == analysis.Unjudged:
		k.Skipped = outcomeOf("", "no limit: "+text)
	}
	return k
}

// sentence is one row in words.
func (c *compareDoc) sentence(i int) string {
	d := c.Runs.Rows[i]
	switch {
	case d.B == nil:
		return "gone from B"
	case d.A == nil:
		return "new in B"
	case d.Refused != "":
		return d.Refused
	}
	v := d.Verdict
	if v.Kind == stats.TooFew && c.Gate == nil {
		return fmt.Sprintf("%d and %d units, need %d", v.NA, v.NB, v.Need)
	}
	r, iv := ratioInterval(v.Ratio, v.Interval)
	s := strings.TrimSpace(fmt.Sprintf("B takes %s times as long as A %s", r, iv)) + fmt.Sprintf(", %s, n = %d and %d", pvalue(v.PAdjusted), v.NA, v.NB)
	if c.Gate != nil && c.Gate.Rows[i].Standing == analysis.Undecided {
		s += "; undecided: " + c.Gate.Rows[i].Decide()
	}
	return s
}

func outcomeOf(kind, message string) *junitOutcome {
	return &junitOutcome{Message: clean(message), Type: kind, Text: clean(message)}
}

// clean makes what a record says into text that XML 1.0 can hold.
func clean(s string) string { return oneLine(s) }

// secondsOf writes ns as seconds to the nanosecond, without an exponent.
func secondsOf(ns float64) string { return strconv.FormatFloat(ns/1e9, 'f', 9, 64) }
