package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/stats"
)

// What a comparison came to, beside its text; test with errors.Is.
var (
	// ErrRefused: the records may not be compared at all.
	ErrRefused = errors.New("not comparable")
	// ErrThreshold: a row became slower by more than the threshold.
	ErrThreshold = errors.New("threshold missed")
	// ErrTooFew: too little data for a verdict.
	ErrTooFew = errors.New("too little data for a verdict")
	// ErrCheck: a data check of one of the records failed.
	ErrCheck = errors.New("data check failed")
)

// CompareOptions of [Compare].
type CompareOptions struct {
	Options
	Format string // one of CompareFormats
	// Threshold is the relative slowdown that is accepted, as a fraction; 0
	// asks for none.
	Threshold float64
}

// CompareFormats are the names that [Compare] knows.
func CompareFormats() []string { return []string{"text", "markdown", "json"} }

// Compare compares the records at two paths and writes the result. Two raw
// records are matched row by row; a raw record and one of TTFT, in either
// order, give where the TTFT went. The text is written also when the error
// says that a threshold was missed or that there is too little data.
func Compare(w io.Writer, pathA, pathB string, o CompareOptions) error {
	a, err := record.Open(pathA)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	b, err := record.Open(pathB)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if !slices.Contains(CompareFormats(), o.Format) {
		return fmt.Errorf("%w: unknown format %q; use %s", ErrRefused, o.Format, strings.Join(CompareFormats(), ", "))
	}
	switch {
	case a.Run.Kind == kindTTFT && b.Run.Kind == kindTTFT:
		return fmt.Errorf("%w: both records are of TTFT runs; measure both deployments in one run (ttft --arm … --arm …), which compares them in randomised blocks", ErrRefused)
	case b.Run.Kind == kindTTFT:
		return compareTTFT(w, a, b, o)
	case a.Run.Kind == kindTTFT:
		return compareTTFT(w, b, a, o)
	}
	return compareRaw(w, a, b, o)
}

const kindTTFT = "ttft"

func compareRaw(w io.Writer, ra, rb *record.Record, o CompareOptions) error {
	a, err := analyseNamed(ra)
	if err != nil {
		return err
	}
	b, err := analyseNamed(rb)
	if err != nil {
		return err
	}
	for _, x := range []*analysis.Analysis{a, b} {
		if x.Emulated() {
			return fmt.Errorf("%w: %s is of an %s", ErrRefused, x.Record.Path, analysis.Emulated)
		}
	}
	r, err := analysis.Compare(a, b)
	if err != nil {
		return err
	}
	if len(r.Pairs) == 0 {
		return fmt.Errorf("%w: no condition stands in both records: %s has %s; %s has %s", ErrRefused,
			a.Record.Path, list(labels(a.Rows)), b.Record.Path, list(labels(b.Rows)))
	}
	var buf bytes.Buffer
	switch o.Format {
	case "json":
		err = compareJSON(&buf, r, o)
	case "markdown":
		compareMarkdown(&buf, r, o)
	default:
		compareText(&buf, w, r, o)
	}
	if err != nil {
		return err
	}
	if _, err := w.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("writing the comparison: %w", err)
	}
	return outcome(r, o)
}

func analyseNamed(r *record.Record) (*analysis.Analysis, error) {
	a, err := analysis.Of(r)
	if err != nil {
		return nil, fmt.Errorf("record %s: %w", r.Path, err)
	}
	return a, nil
}

// against says how a pair stands to a threshold: "missed" when the whole
// interval of the ratio lies beyond it, "held" when none of it does,
// "undecided" between, and "" without an interval or a threshold, and for
// ceilings, which tell of the hosts.
func against(p analysis.Pair, threshold float64) string {
	v := p.Verdict
	if threshold == 0 || p.Refused != "" || p.A.Ceiling || v.Interval == nil || v.Kind == stats.TooFew {
		return ""
	}
	switch {
	case v.Kind == stats.Different && v.Interval.Lo > 1+threshold:
		return "missed"
	case v.Interval.Hi <= 1+threshold:
		return "held"
	}
	return "undecided"
}

// outcome turns what the comparison found into the error for the exit code, the
// gravest first.
func outcome(r *analysis.Runs, o CompareOptions) error {
	var failed, missed, few []string
	judged, launches := 0, 1
	for _, p := range r.Pairs {
		switch {
		case p.A.Failed > 0 || p.B.Failed > 0:
			failed = append(failed, p.A.Label)
		case p.Refused != "" || p.Verdict.Kind == stats.TooFew:
			few, launches = append(few, p.A.Label), max(launches, p.A.Launches, p.B.Launches)
		default:
			judged++
			if against(p, o.Threshold) == "missed" {
				missed = append(missed, p.A.Label)
			}
		}
	}
	switch {
	case len(failed) > 0:
		return fmt.Errorf("%w: %s", ErrCheck, list(failed))
	case len(missed) > 0:
		return fmt.Errorf("%w: %s became slower by more than %s", ErrThreshold, list(missed), limit(o.Threshold))
	case len(few) > 0 && (o.Threshold > 0 || judged == 0):
		return fmt.Errorf("%w on %s: repeat the runs with %s", ErrTooFew, list(few), moreUnits(launches))
	}
	return nil
}

func runLine(a *analysis.Analysis) string {
	run := a.Record.Run
	s := fmt.Sprintf("%s run %s, %s, on %s", run.Kind, run.ID, time.Unix(0, run.StartUnixNs).UTC().Format("2006-01-02 15:04 UTC"), run.Host.Hostname)
	if analysis.LeavesHost(&run) {
		s += " to " + run.Peer.Hostname
	}
	return s + ", " + tilde(a.Record.Path)
}

// caveat stands beside every comparison of two records.
const caveat = "the records were not interleaved: what changed on the hosts or the network between them looks the same as a difference. To tell them apart, run both in one invocation"

// compareColumns are a row a pair: medians of both, and B over A.
func compareColumns(r *analysis.Runs, o CompareOptions) ([]table.Column, []*analysis.Row, string) {
	var rows []*analysis.Row
	for _, p := range r.Pairs {
		rows = append(rows, p.A)
	}
	all := slices.Clone(rows)
	for _, p := range r.Pairs {
		all = append(all, p.B)
	}
	t := timeScale(all)
	cell := func(f func(p analysis.Pair) string) func(int) string {
		return func(i int) string {
			if r.Pairs[i].Refused != "" {
				return "-"
			}
			return f(r.Pairs[i])
		}
	}
	end := func(f func(iv *stats.Interval) float64) func(int) string {
		return cell(func(p analysis.Pair) string {
			if p.Verdict.Interval == nil {
				return "-"
			}
			return rcell(f(p.Verdict.Interval))
		})
	}
	cols := append(naming(rows),
		table.Column{Head: "A", Cell: func(i int) string { return speedOr(r.Pairs[i].A, t) }},
		table.Column{Head: "B", Cell: func(i int) string { return speedOr(r.Pairs[i].B, t) }},
		table.Column{Head: "B/A", Cell: cell(func(p analysis.Pair) string { return rcell(p.Verdict.Ratio) })},
		table.Column{Head: "ci_lo", Cell: end(func(iv *stats.Interval) float64 { return iv.Lo })},
		table.Column{Head: "ci_hi", Cell: end(func(iv *stats.Interval) float64 { return iv.Hi })},
		table.Column{Head: "p", Cell: cell(func(p analysis.Pair) string { return pcell(p.Verdict.PAdjusted) })},
		table.Column{Head: "n", Cell: cell(func(p analysis.Pair) string { return fmt.Sprintf("%d+%d", p.Verdict.NA, p.Verdict.NB) })},
		table.Column{Head: "seen", Rank: 5, Cell: cell(func(p analysis.Pair) string { return effect(p.Verdict.MDE) })},
		table.Column{Head: "verdict", Left: true, Cell: func(i int) string { return brief(change(r.Pairs[i])) }},
	)
	notes := fmt.Sprintf("A, B: medians in %s; B/A: ratio of times, above 1 B is slower; n: %s of A and B; seen: the smallest difference that would have been found 8 times in 10", t.name, unitWords(r.Pairs[0].A.Launches, r.Pairs[0].B.Launches))
	if o.Threshold > 0 {
		cols = append(cols, table.Column{Head: "limit", Left: true, Cell: func(i int) string { return word(against(r.Pairs[i], o.Threshold)) }})
		notes += fmt.Sprintf("; limit of %s: missed when the whole interval lies beyond it, held when none of it does", limit(o.Threshold))
	}
	if c := constants(rows); c != "" {
		notes += "; " + c
	}
	return cols, rows, notes
}

func speedOr(r *analysis.Row, t scale) string {
	if !r.HasSpeed() {
		return "-"
	}
	return t.time(r.MedianNs)
}

// change is a pair's verdict in a word.
func change(p analysis.Pair) string {
	if p.Outcome() != "different" {
		if p.A.Failed > 0 || p.B.Failed > 0 {
			return "FAILED"
		}
		return p.Outcome()
	}
	if p.Verdict.Ratio > 1 {
		return "slower"
	}
	return "faster"
}

// brief shortens a verdict for a cell.
func brief(verdict string) string { return strings.Replace(verdict, "no-difference", "no-diff", 1) }

func compareText(b *bytes.Buffer, w io.Writer, r *analysis.Runs, o CompareOptions) {
	p := &page{Options: o.Options, painter: newPainter(o.Color)}
	p.comment("A: " + runLine(r.A))
	p.comment("B: " + runLine(r.B))
	for _, d := range r.Differences {
		p.comment("differs: " + d)
	}
	if note := r.A.Record.Run.Env["XFERBENCH_NOTE"]; note != "" {
		p.comment("note: " + note)
	}
	cols, rows, notes := compareColumns(r, o)
	p.line("")
	for i, l := range table.Layout(cols, len(rows), p.width()) {
		switch {
		case i == 0:
			p.line(l, p.bold)
		case change(r.Pairs[i-1]) == "FAILED" || against(r.Pairs[i-1], o.Threshold) == "missed":
			p.line(l, p.bad)
		case change(r.Pairs[i-1]) == "faster":
			p.line(l, p.good)
		default:
			p.line(l)
		}
	}
	p.comment(notes)
	p.line("")
	for _, l := range compareWarnings(r) {
		p.item("warning: "+l, p.warn)
	}
	b.WriteString(p.b.String())
}

// compareWarnings are the caveat and what else limits the comparison.
func compareWarnings(r *analysis.Runs) []string {
	out := []string{caveat}
	for _, w := range r.Warnings {
		out = append(out, w.Text)
	}
	if len(r.OnlyA) > 0 {
		out = append(out, "only in A: "+list(labels(r.OnlyA)))
	}
	if len(r.OnlyB) > 0 {
		out = append(out, "only in B: "+list(labels(r.OnlyB)))
	}
	for _, p := range r.Pairs {
		if p.Refused != "" {
			out = append(out, p.A.Label+": "+p.Refused)
			continue
		}
		if p.A.Ceiling && p.Verdict.Kind == stats.Different {
			out = append(out, fmt.Sprintf("the ceiling %s itself changed by a factor of %s: look at the hosts before the transports", p.A.Label, rcell(p.Verdict.Ratio)))
		}
		for _, w := range p.Verdict.Warnings {
			if w.Code != "not-interleaved" {
				out = append(out, p.A.Label+": "+w.Text)
			}
		}
	}
	for i, a := range []*analysis.Analysis{r.A, r.B} {
		for _, w := range a.Warnings {
			if slices.Contains([]string{"warm-up", "slowdown", "no-steady-state", "excursion", "path", "not-complete", "cut-off"}, w.Code) {
				out = append(out, string("AB"[i])+": "+w.Text)
			}
		}
	}
	return out
}

func compareMarkdown(b *bytes.Buffer, r *analysis.Runs, o CompareOptions) {
	fmt.Fprintf(b, "# xferbench: %s against %s\n\n", escape(r.B.Record.Run.ID), escape(r.A.Record.Run.ID))
	fmt.Fprintf(b, "- A: %s\n- B: %s\n", escape(runLine(r.A)), escape(runLine(r.B)))
	for _, d := range r.Differences {
		fmt.Fprintf(b, "- differs: %s\n", escape(d))
	}
	cols, rows, notes := compareColumns(r, o)
	b.WriteString("\n")
	markdownTable(b, cols, len(rows), nil, 0)
	fmt.Fprintf(b, "\n%s.\n", escape(notes))
	for _, l := range compareWarnings(r) {
		fmt.Fprintf(b, "\n> **Warning:** %s\n", escape(l))
	}
}

type (
	jsonComparison struct {
		Schema      int              `json:"schema"`
		A           jsonRecordName   `json:"a"`
		B           jsonRecordName   `json:"b"`
		Interleaved bool             `json:"interleaved"`
		Threshold   *float64         `json:"threshold"`
		Rows        []jsonCompareRow `json:"rows"`
		OnlyA       []string         `json:"only_a"`
		OnlyB       []string         `json:"only_b"`
		Differences []string         `json:"differences"`
		Warnings    []string         `json:"warnings"`
	}
	jsonRecordName struct {
		Record string `json:"record"`
		Run    string `json:"run_id"`
		Start  int64  `json:"start_unix_ns"`
		Host   string `json:"host"`
	}
	jsonCompareRow struct {
		Label      string        `json:"label"`
		ConditionA int           `json:"condition_a"`
		ConditionB int           `json:"condition_b"`
		Verdict    string        `json:"verdict"`
		Limit      string        `json:"limit,omitempty"`
		Reason     string        `json:"reason,omitempty"`
		MedianA    *float64      `json:"median_a_ns"`
		MedianB    *float64      `json:"median_b_ns"`
		Ratio      *float64      `json:"time_b_over_time_a"`
		Interval   *jsonInterval `json:"ratio_ci"`
		P          *float64      `json:"p"`
		PAdjusted  *float64      `json:"p_adjusted"`
		NA         int           `json:"units_a"`
		NB         int           `json:"units_b"`
		Need       int           `json:"units_needed"`
		Detectable *float64      `json:"detectable"`
	}
)

func compareJSON(b *bytes.Buffer, r *analysis.Runs, o CompareOptions) error {
	name := func(a *analysis.Analysis) jsonRecordName {
		return jsonRecordName{a.Record.Path, a.Record.Run.ID, a.Record.Run.StartUnixNs, a.Record.Run.Host.Hostname}
	}
	j := jsonComparison{Schema: jsonSchema, A: name(r.A), B: name(r.B), Rows: []jsonCompareRow{}, OnlyA: slices.Concat([]string{}, labels(r.OnlyA)),
		OnlyB: slices.Concat([]string{}, labels(r.OnlyB)), Differences: slices.Concat([]string{}, r.Differences), Warnings: compareWarnings(r)}
	if o.Threshold > 0 {
		j.Threshold = &o.Threshold
	}
	for _, p := range r.Pairs {
		row := jsonCompareRow{Label: p.A.Label, ConditionA: p.A.ID, ConditionB: p.B.ID, Verdict: change(p), Limit: against(p, o.Threshold), Reason: p.Refused}
		if p.A.HasSpeed() {
			row.MedianA = number(p.A.MedianNs)
		}
		if p.B.HasSpeed() {
			row.MedianB = number(p.B.MedianNs)
		}
		if p.Refused == "" {
			v := p.Verdict
			row.Ratio, row.Interval, row.P, row.PAdjusted = number(v.Ratio), interval(v.Interval), number(v.P), number(v.PAdjusted)
			row.NA, row.NB, row.Need, row.Detectable = v.NA, v.NB, v.Need, number(v.MDE)
		}
		j.Rows = append(j.Rows, row)
	}
	e := json.NewEncoder(b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(j)
}
