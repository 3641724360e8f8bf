package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
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
	// AllowUndecided passes rows that the threshold could not be decided on.
	AllowUndecided bool
	// Transports states over which provider of the raw record the engines of a TTFT
	// record moved the KV cache, by arm; "" is for all of which the record does not say it.
	Transports map[string]string
}

// CompareFormats are the names that [Compare] knows.
func CompareFormats() []string { return []string{"text", "markdown", "csv", "json", "junit", "html"} }

// compareDoc is what [Compare] renders of records of one kind.
type compareDoc struct {
	// Runs holds B against A: of two records the second against the first, of more the
	// newest against the oldest.
	Runs *analysis.Runs
	// Gate is what the threshold makes of Runs; nil without one.
	Gate *analysis.Gate
	// History is set for more than two records.
	History *analysis.History
	// Options are those of the command.
	Options CompareOptions
}

// Compare compares the records at two or more paths and writes the result. Records
// of one kind are matched row by row, the newest against the oldest where there are
// more than two; a raw record and one of TTFT, in either order, give where the TTFT
// went. The text is written also when the error says that a threshold was missed or
// that there is too little data.
func Compare(w io.Writer, paths []string, o CompareOptions) error {
	if !slices.Contains(CompareFormats(), o.Format) {
		return fmt.Errorf("%w: unknown format %q; use %s", ErrRefused, o.Format, strings.Join(CompareFormats(), ", "))
	}
	if len(paths) < 2 {
		return fmt.Errorf("%w: %d record; give two or more", ErrRefused, len(paths))
	}
	var recs []*record.Record
	requests := 0
	for _, p := range paths {
		r, err := record.Open(p)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		if r.Run.Kind == kindTTFT {
			requests++
		}
		recs = append(recs, r)
	}
	switch {
	case requests == 0 || requests == len(recs):
		if len(o.Transports) > 0 {
			return fmt.Errorf("%w: --transport is for a raw record and one of a TTFT run, and all records are of one kind", ErrRefused)
		}
		return compareRuns(w, recs, o)
	case len(recs) > 2:
		return fmt.Errorf("%w: %d of %d records are of TTFT runs: compare those of one kind, or one raw record with one of TTFT", ErrRefused, requests, len(recs))
	case o.Format == "csv" || o.Format == "junit":
		return fmt.Errorf("%w: --format %s is for records of one kind; a raw record beside one of a TTFT run has text, markdown, json and html", ErrRefused, o.Format)
	case recs[0].Run.Kind == kindTTFT:
		recs[0], recs[1] = recs[1], recs[0]
	}
	return compareTTFT(w, recs[0], recs[1], o)
}

const kindTTFT = "ttft"

func compareRuns(w io.Writer, recs []*record.Record, o CompareOptions) error {
	var sources []*analysis.Source
	for _, r := range recs {
		s, err := analysis.NewSource(r)
		if err != nil {
			return fmt.Errorf("record %s: %w", r.Path, err)
		}
		sources = append(sources, s)
	}
	if err := standIns(sources); err != nil {
		return err
	}
	c, err := newCompareDoc(sources, o)
	if err != nil {
		return err
	}
	if len(c.Runs.Rows) == 0 {
		return fmt.Errorf("%w: neither %s nor %s has a row", ErrRefused, c.Runs.A.Record.Path, c.Runs.B.Record.Path)
	}
	if c.Runs.Common() == 0 && c.Gate == nil {
		return fmt.Errorf("%w: no condition stands in both records: %s has %s; %s has %s", ErrRefused,
			c.Runs.A.Record.Path, list(rowNames(c.Runs.A.Rows)), c.Runs.B.Record.Path, list(rowNames(c.Runs.B.Rows)))
	}
	var buf bytes.Buffer
	if err := c.render(&buf); err != nil {
		return err
	}
	if _, err := w.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("writing the comparison: %w", err)
	}
	return c.outcome()
}

// render writes the comparison in its format.
func (c *compareDoc) render(b *bytes.Buffer) error {
	switch c.Options.Format {
	case "json":
		return compareJSON(b, c)
	case "markdown":
		compareMarkdown(b, c)
	case "csv":
		return compareCSV(b, c)
	case "junit":
		return compareJUnit(b, c)
	case "html":
		return compareHTML(b, c)
	default:
		compareText(b, c)
	}
	return nil
}

func analyseNamed(r *record.Record) (*analysis.Analysis, error) {
	a, err := analysis.Of(r)
	if err != nil {
		return nil, fmt.Errorf("record %s: %w", r.Path, err)
	}
	return a, nil
}

// standIns refuses what is no measurement: rows of an emulated device, and
// simulated engines beside real ones. Simulated engines alone may be compared; they
// are marked.
func standIns(sources []*analysis.Source) error {
	simulated := 0
	for _, s := range sources {
		switch {
		case !s.Simulated():
		case s.Raw != nil:
			return fmt.Errorf("%w: %s is of an %s", ErrRefused, s.Record.Path, analysis.Emulated)
		default:
			simulated++
		}
	}
	if simulated > 0 && simulated < len(sources) {
		return fmt.Errorf("%w: %d of %d records are of simulated engines: their TTFT is not a measurement", ErrRefused, simulated, len(sources))
	}
	return nil
}

func newCompareDoc(sources []*analysis.Source, o CompareOptions) (*compareDoc, error) {
	c := &compareDoc{Options: o}
	var err error
	if len(sources) > 2 {
		if c.History, err = analysis.NewHistory(sources); err != nil {
			return nil, err
		}
		c.Runs = c.History.Last
	} else if c.Runs, err = analysis.Compare(sources[0], sources[1]); err != nil {
		return nil, err
	}
	if o.Threshold > 0 {
		c.Gate = c.Runs.Judge(o.Threshold)
	}
	return c, nil
}

// rowNames are the labels of rows; "no row" of none.
func rowNames(rows []*analysis.Figures) []string {
	if len(rows) == 0 {
		return []string{"no row"}
	}
	var out []string
	for _, r := range rows {
		out = append(out, r.Label)
	}
	return out
}

// several lists names, of many the first.
func several(names []string) string {
	const most = 6
	if len(names) > most {
		names = append(slices.Clone(names[:most-1]), fmt.Sprintf("%d more", len(names)-most+1))
	}
	return list(names)
}

// name is a row's label, with its size where the label does not have it: rows that
// only one record has may differ from another's in nothing else.
func name(d *analysis.Delta) string {
	if s := analysis.Size(d.Row().Condition.Bytes); d.Row().Raw != nil && (d.A == nil || d.B == nil) && !strings.Contains(d.Label(), s) {
		return d.Label() + " " + s
	}
	return d.Label()
}

// outcome turns what the comparison found into the error for the exit code, the
// gravest first: a failed check, a slower row, then what is missing, incomplete or
// undecided. All that was found of that kind and the kinds below is in the text.
func (c *compareDoc) outcome() error {
	f := c.findings()
	switch g := c.Gate; {
	case len(f.failed) > 0:
		return fmt.Errorf("%w: %s", ErrCheck, strings.Join(f.failed, "; "))
	case g == nil && len(f.judged) == 0:
		return fmt.Errorf("%w on %s: repeat the runs with %s", ErrTooFew, several(f.few), moreUnits(f.launches))
	case g == nil:
		return nil
	case len(f.slower) > 0:
		return fmt.Errorf("%w: %s", ErrThreshold, strings.Join(append([]string{several(f.slower) + " became slower by more than " + limit(g.Threshold)}, f.open...), "; "))
	case len(f.open) > 0:
		return fmt.Errorf("%w: %s", ErrTooFew, strings.Join(f.open, "; "))
	case len(g.Of(analysis.Within))+len(g.Of(analysis.Undecided)) == 0:
		return fmt.Errorf("%w: no row could be held against the limit; ceilings have none", ErrTooFew)
	}
	return nil
}

// findings are the names of rows by what was found.
type findings struct {
	failed, slower []string
	// open is what keeps a gate from passing for want of data.
	open []string
	// judged have a verdict, few have too little data for one; launches is the most that
	// a row has.
	judged, few []string
	launches    int
}

func (c *compareDoc) findings() findings {
	f := findings{launches: 1}
	var failed, missing, undecided []string
	for _, d := range c.Runs.Rows {
		f.launches = max(f.launches, d.Launches())
		switch o := d.Outcome(); {
		case d.Failed():
			failed = append(failed, name(d))
		case o == "refused" || o == "too-few":
			f.few = append(f.few, name(d))
		case d.A != nil && d.B != nil:
			f.judged = append(f.judged, name(d))
		}
	}
	if len(failed) > 0 {
		f.failed = append(f.failed, several(failed))
	}
	for i, s := range []*analysis.Source{c.Runs.A, c.Runs.B} {
		if len(failed) == 0 && analysis.EndedOverCheck(s.Record) {
			f.failed = append(f.failed, string("AB"[i])+" ended over it")
		}
	}
	if c.Gate == nil {
		return f
	}
	for _, r := range c.Gate.Rows {
		switch r.Standing {
		case analysis.Slower:
			f.slower = append(f.slower, name(r.Delta))
		case analysis.Missing:
			missing = append(missing, name(r.Delta))
		case analysis.Undecided:
			undecided = append(undecided, name(r.Delta))
		}
	}
	if len(missing) > 0 {
		f.open = append(f.open, "missing: "+several(missing))
	}
	f.open = append(f.open, c.Gate.Incomplete...)
	if len(undecided) > 0 && !c.Options.AllowUndecided {
		f.open = append(f.open, fmt.Sprintf("undecided at %s: %s; %s", limit(c.Gate.Threshold), several(undecided), c.more()))
	}
	return f
}

// more is the next step for undecided rows.
func (c *compareDoc) more() string {
	need, launches := 0, 1
	for _, r := range c.Gate.Of(analysis.Undecided) {
		need, launches = max(need, r.Need), max(launches, r.Launches())
	}
	if launches > 1 {
		return fmt.Sprintf("repeat both runs with --launches %d or more", max(need, stats.MinRankCI))
	}
	return fmt.Sprintf("repeat both runs with --blocks %d, or better --launches %d or more", max(need, 10), stats.MinRankCI)
}
