package report

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

// runLine names a run and its record.
func runLine(r *record.Record) string {
	run := &r.Run
	s := fmt.Sprintf("%s run %s, %s, on %s", run.Kind, run.ID, startOf(r), run.Host.Hostname)
	if run.Kind != kindTTFT && analysis.LeavesHost(run) {
		s += " to " + run.Peer.Hostname
	}
	return s + ", " + tilde(r.Path)
}

// startOf is when a run began, to the minute.
func startOf(r *record.Record) string {
	return time.Unix(0, r.Run.StartUnixNs).UTC().Format("2006-01-02 15:04 UTC")
}

// caveat stands beside every comparison of two records.
const caveat = "the records were not interleaved: what changed on the hosts or the network between them looks the same as a difference. To tell them apart, run both in one invocation"

// oneLaunch stands beside a comparison of blocks of one launch.
const oneLaunch = "the units are blocks of one launch each: two launches of the same build differ too, which these intervals do not know. For a gate, measure both records with --launches 6 or more"

// answer is the comparison in one sentence.
func (c *compareDoc) answer() string {
	f := c.findings()
	if len(f.failed) > 0 {
		return "A data check failed: " + strings.Join(f.failed, "; ") + "."
	}
	if c.Gate == nil {
		return c.changes()
	}
	g := c.Gate
	within, of := g.Of(analysis.Within), "limit of "+limit(g.Threshold)
	var words []string
	if len(f.slower) > 0 {
		words = append(words, "slower: "+several(f.slower))
	}
	words = append(words, f.open...)
	if len(words) > 0 {
		return fmt.Sprintf("Not within the %s: %s. Within it: %d of %d rows.", of, strings.Join(words, "; "), len(within), c.limited())
	}
	if c.limited() == 0 {
		return "No row could be held against the " + of + "."
	}
	s := fmt.Sprintf("Within the %s: %d of %d rows", of, len(within), c.limited())
	if n := len(g.Of(analysis.Undecided)); n > 0 {
		return s + fmt.Sprintf("; %d undecided, which --allow-undecided passes.", n)
	}
	worst := slices.MaxFunc(within, func(x, y analysis.GateRow) int {
		return int(math.Copysign(1, x.Verdict.Interval.Hi-y.Verdict.Interval.Hi))
	})
	return s + fmt.Sprintf(". The intervals end at %s at most (%s).", rcell(worst.Verdict.Interval.Hi), name(worst.Delta))
}

// limited counts the rows that the limit is for.
func (c *compareDoc) limited() int {
	return len(c.Gate.Rows) - len(c.Gate.Of(analysis.Unjudged))
}

// changes is the answer without a limit.
func (c *compareDoc) changes() string {
	by := map[string][]string{}
	n := 0
	for _, d := range c.Runs.Rows {
		if d.A == nil || d.B == nil || d.Ceiling() {
			continue
		}
		n++
		w := change(d)
		by[w] = append(by[w], d.Label())
	}
	var words []string
	for _, w := range []struct{ word, text string }{{"slower", "slower"}, {"faster", "faster"}, {"no-difference", "no difference on"}, {"too-few", "too few units on"}, {"refused", "no comparison of"}} {
		switch rows := by[w.word]; {
		case len(rows) > maxNamed:
			words = append(words, fmt.Sprintf("%s %d rows", w.text, len(rows)))
		case len(rows) > 0:
			words = append(words, w.text+" "+list(rows))
		}
	}
	return fmt.Sprintf("B against A, %d rows: %s.", n, strings.Join(words, "; "))
}

// deltaNaming are the columns that say which rows are compared.
func deltaNaming(rows []*analysis.Delta) []table.Column {
	if rows[0].Row().Raw == nil {
		return ttftNaming(requestRows(rows), false)
	}
	return naming(rawRows(rows))
}

func rawRows(rows []*analysis.Delta) []*analysis.Row {
	var out []*analysis.Row
	for _, d := range rows {
		out = append(out, d.Row().Raw)
	}
	return out
}

func requestRows(rows []*analysis.Delta) []*analysis.RequestRow {
	var out []*analysis.RequestRow
	for _, d := range rows {
		out = append(out, d.Row().TTFT)
	}
	return out
}

// deltaScale is the unit of all times of a comparison.
func deltaScale(rows []*analysis.Figures) scale {
	least := math.Inf(1)
	for _, f := range rows {
		if f.HasSpeed() {
			least = math.Min(least, f.MedianNs)
		}
	}
	return scaleFrom(least)
}

func speedOr(f *analysis.Figures, t scale) string {
	if f == nil || !f.HasSpeed() {
		return "-"
	}
	return t.time(f.MedianNs)
}

// verdictColumns are ratio, interval and p of rows that have a verdict, and of how
// many units it is.
func verdictColumns(of func(int) *analysis.Delta, counts bool) []table.Column {
	cell := func(f func(d *analysis.Delta) string) func(int) string {
		return func(i int) string {
			if d := of(i); d != nil && d.A != nil && d.B != nil && d.Refused == "" {
				return f(d)
			}
			return "-"
		}
	}
	end := func(f func(iv *stats.Interval) float64) func(int) string {
		return cell(func(d *analysis.Delta) string {
			if d.Verdict.Interval == nil {
				return "-"
			}
			return rcell(f(d.Verdict.Interval))
		})
	}
	cols := []table.Column{
		{Head: "B/A", Cell: cell(func(d *analysis.Delta) string { return rcell(d.Verdict.Ratio) })},
		{Head: "ci_lo", Cell: end(func(iv *stats.Interval) float64 { return iv.Lo })},
		{Head: "ci_hi", Cell: end(func(iv *stats.Interval) float64 { return iv.Hi })},
		{Head: "p", Cell: cell(func(d *analysis.Delta) string { return pcell(d.Verdict.PAdjusted) })},
	}
	if !counts {
		return cols
	}
	return append(cols, table.Column{Head: "n", Cell: cell(func(d *analysis.Delta) string { return fmt.Sprintf("%d+%d", d.Verdict.NA, d.Verdict.NB) })},
		table.Column{Head: "seen", Rank: 5, Cell: cell(func(d *analysis.Delta) string { return effect(d.Verdict.MDE) })})
}

// compareColumns are a row a pair: medians of both, and B over A.
func compareColumns(c *compareDoc) ([]table.Column, string) {
	rows := c.Runs.Rows
	var figures []*analysis.Figures
	launches := 1
	for _, d := range rows {
		launches = max(launches, d.Launches())
		for _, f := range []*analysis.Figures{d.A, d.B} {
			if f != nil {
				figures = append(figures, f)
			}
		}
	}
	t := deltaScale(figures)
	cols := append(deltaNaming(rows),
		table.Column{Head: "A", Cell: func(i int) string { return speedOr(rows[i].A, t) }},
		table.Column{Head: "B", Cell: func(i int) string { return speedOr(rows[i].B, t) }})
	cols = append(cols, verdictColumns(func(i int) *analysis.Delta { return rows[i] }, c.History == nil)...)
	notes := fmt.Sprintf("A, B: medians in %s; B/A: ratio of times, above 1 B is slower", t.name)
	if h := c.History; h != nil {
		cols = append(cols, table.Column{Head: "trend", Left: true, Rank: 1, Cell: func(i int) string { return sparkline(*h.Row(rows[i])) },
			Short: func(i int) string { return newest(sparkline(*h.Row(rows[i]))) }})
		notes += "; trend: medians from record to record, the newest right, each row on a scale of its own of 10% at least"
	} else {
		notes += "; n: " + unitWords(launches) + " of A and B; seen: the smallest difference that would have been found 8 times in 10"
	}
	if c.Runs.A.TTFT != nil {
		cols = append(cols, table.Column{Head: "valid", Rank: 4, Cell: func(i int) string { return validOf(rows[i].A) + "+" + validOf(rows[i].B) }})
		notes += "; valid: requests that count"
	}
	cols = append(cols, table.Column{Head: "verdict", Left: true, Cell: func(i int) string { return brief(change(rows[i])) }})
	if g := c.Gate; g != nil {
		cols = append(cols, table.Column{Head: "limit", Left: true, Cell: func(i int) string { return word(string(g.Rows[i].Standing)) }})
		notes += fmt.Sprintf("; limit of %s: within when the whole interval is, slower when all of it is beyond", limit(g.Threshold))
	}
	if c.Runs.A.Raw != nil {
		if words := constants(rawRows(rows)); words != "" {
			notes += "; " + words
		}
	}
	return cols, notes + chance(c.Runs.Chance)
}

// validOf is how many requests of a row count.
func validOf(f *analysis.Figures) string {
	if f == nil {
		return "-"
	}
	return strconv.Itoa(f.N)
}

// change is a row's verdict in a word.
func change(d *analysis.Delta) string {
	switch o := d.Outcome(); {
	case d.Failed():
		return "FAILED"
	case o == "only-a":
		return "gone"
	case o == "only-b":
		return "new"
	case o != "different":
		return o
	case d.Verdict.Ratio > 1:
		return "slower"
	}
	return "faster"
}

// brief shortens a verdict for a cell.
func brief(verdict string) string { return strings.Replace(verdict, "no-difference", "no-diff", 1) }

// compareHead is what stands above the tables, in every format for people.
func compareHead(c *compareDoc) []string {
	var out []string
	for i, s := range c.sources() {
		line := c.recordName(i) + ": " + runLine(s.Record)
		if s.TTFT != nil {
			line += fmt.Sprintf(", %s requests, %d invalid", units.FormatCount(int64(s.TTFT.N)), s.TTFT.Invalid)
		}
		out = append(out, line)
	}
	for _, d := range c.Runs.Differences {
		out = append(out, "differs: "+d)
	}
	for _, s := range c.sources() {
		if note := s.Record.Run.Env["XFERBENCH_NOTE"]; note != "" {
			out = append(out, "note: "+note)
		}
	}
	if c.Runs.A.Simulated() {
		out = append(out, "SIMULATED: "+simulatedTTFT)
	}
	return unique(out)
}

// sources are all records: A and B, or those of a history in the order of time.
func (c *compareDoc) sources() []*analysis.Source {
	if c.History != nil {
		return c.History.Sources
	}
	return []*analysis.Source{c.Runs.A, c.Runs.B}
}

// recordName is what record i of sources is called: its number in a history, with
// the letter that the verdict uses.
func (c *compareDoc) recordName(i int) string {
	if c.History == nil {
		return string("AB"[i])
	}
	n := strconv.Itoa(i + 1)
	switch i {
	case 0:
		return n + " (A)"
	case len(c.History.Sources) - 1:
		return n + " (B)"
	}
	return n
}

func compareText(b *bytes.Buffer, c *compareDoc) {
	p := &page{Options: c.Options.Options, painter: newPainter(c.Options.Color)}
	p.item(c.answer(), p.bold)
	for _, l := range compareHead(c) {
		p.comment(l)
	}
	cols, notes := compareColumns(c)
	p.line("")
	for i, l := range table.Layout(cols, len(c.Runs.Rows), p.width()) {
		if i == 0 {
			p.line(l, p.bold)
			continue
		}
		p.line(l, c.style(p.painter, i-1)...)
	}
	p.comment(notes)
	if c.History != nil {
		historyText(p, c)
	}
	if lines := undecidedLines(c); len(lines) > 0 {
		p.line("")
		for _, l := range lines {
			p.item(l)
		}
	}
	p.line("")
	for _, l := range compareWarnings(c) {
		p.item("warning: "+l, p.warn)
	}
	b.WriteString(p.b.String())
}

// style paints a row by what was found.
func (c *compareDoc) style(p painter, i int) []sgr {
	d := c.Runs.Rows[i]
	standing := analysis.Unjudged
	if c.Gate != nil {
		standing = c.Gate.Rows[i].Standing
	}
	switch {
	case d.Failed() || standing == analysis.Slower || standing == analysis.Missing:
		return []sgr{p.bad}
	case change(d) == "faster":
		return []sgr{p.good}
	case standing == analysis.Undecided:
		return []sgr{p.warn}
	}
	return nil
}

// undecidedLines say what would decide each undecided row.
func undecidedLines(c *compareDoc) []string {
	if c.Gate == nil {
		return nil
	}
	var out []string
	for _, r := range c.Gate.Of(analysis.Undecided) {
		out = append(out, "undecided: "+name(r.Delta)+": "+r.Decide())
	}
	return out
}

// compareWarnings are the caveat and what else limits the comparison.
func compareWarnings(c *compareDoc) []string {
	r := c.Runs
	out := []string{caveat}
	if id := r.A.Record.Run.ID; id != "" && id == r.B.Record.Run.ID {
		out = append(out, "A and B are records of one run, "+id+": a run does not differ from itself")
	}
	var about remarks
	launches := 1
	for _, d := range r.Rows {
		launches = max(launches, d.Launches())
		switch d.Outcome() {
		case "only-a":
			out = append(out, "gone from B: "+name(d))
		case "only-b":
			out = append(out, "new in B, so without a limit: "+name(d))
		case "refused":
			about.add(d.Label(), d.Refused)
		}
		about.pair(d)
	}
	if launches == 1 {
		out = append(out, oneLaunch)
	}
	out = append(out, about.sentences("rows")...)
	for i, s := range c.sources() {
		name := c.recordName(i)
		if why := s.Unfinished(); why != "" {
			out = append(out, name+" "+why)
		}
		if s.Raw != nil {
			for _, w := range s.Raw.Warnings {
				if slices.Contains([]string{"warm-up", "slowdown", "no-steady-state", "excursion", "path"}, w.Code) {
					out = append(out, name+": "+w.Text)
				}
			}
		}
	}
	return out
}

// pair adds what limits the comparison of one row.
func (m *remarks) pair(d *analysis.Delta) {
	if d.A == nil || d.B == nil {
		return
	}
	if d.Ceiling() && d.Verdict.Kind == stats.Different {
		m.add(d.Label(), fmt.Sprintf("the ceiling itself changed by a factor of %s: look at the hosts before the transports", rcell(d.Verdict.Ratio)))
	}
	for _, w := range d.Verdict.Warnings {
		if w.Code != "not-interleaved" && w.Code != "too-few-units" {
			m.add(d.Label(), w.Text)
		}
	}
	if d.A.TTFT == nil {
		return
	}
	for i, f := range []*analysis.Figures{d.A, d.B} {
		if f.Invalid > 0 {
			m.add(d.Label(), fmt.Sprintf("%d of %d requests of %c do not count", f.Invalid, f.N+f.Invalid, "AB"[i]))
		}
	}
	if d.B.N < d.A.N {
		m.add(d.Label(), fmt.Sprintf("B has %d valid requests where A has %d", d.B.N, d.A.N))
	}
}

func compareMarkdown(b *bytes.Buffer, c *compareDoc) {
	if c.History != nil {
		fmt.Fprintf(b, "# xferbench: %d records\n\n", len(c.History.Sources))
	} else {
		fmt.Fprintf(b, "# xferbench: %s against %s\n\n", escape(c.Runs.B.Record.Run.ID), escape(c.Runs.A.Record.Run.ID))
	}
	fmt.Fprintf(b, "**%s**\n\n", escape(c.answer()))
	for _, l := range compareHead(c) {
		fmt.Fprintf(b, "- %s\n", escape(l))
	}
	cols, notes := compareColumns(c)
	b.WriteString("\n")
	markdownTable(b, cols, len(c.Runs.Rows), nil, 0)
	fmt.Fprintf(b, "\n%s.\n", escape(notes))
	if c.History != nil {
		historyMarkdown(b, c)
	}
	for _, l := range undecidedLines(c) {
		fmt.Fprintf(b, "\n- %s\n", escape(l))
	}
	for _, l := range compareWarnings(c) {
		fmt.Fprintf(b, "\n> **Warning:** %s\n", escape(l))
	}
}
