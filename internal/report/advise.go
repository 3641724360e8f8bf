package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

// AdviseOptions of [Advise].
type AdviseOptions struct {
	Options
	Format string // one of AdviseFormats
	analysis.Deployment
	// Source says where the prompt lengths are from: "--tokens", a file.
	Source string
}

// AdviseFormats are the names that [Advise] knows.
func AdviseFormats() []string { return []string{"text", "markdown", "json"} }

// Advise holds the records at paths against a deployment and writes what follows
// for it. All are of raw transfers but for at most one of a TTFT run. The text is
// written also when the error says that too little was measured.
func Advise(w io.Writer, paths []string, o AdviseOptions) error {
	if !slices.Contains(AdviseFormats(), o.Format) {
		return fmt.Errorf("%w: unknown format %q; use %s", ErrRefused, o.Format, strings.Join(AdviseFormats(), ", "))
	}
	docs, err := Load("", paths...)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	var raws []*analysis.Analysis
	var tt *analysis.Requests
	for _, d := range docs {
		switch {
		case d.Raw != nil:
			raws = append(raws, d.Raw)
		case tt != nil:
			return fmt.Errorf("%w: %s and %s are both of TTFT runs; advise takes one", ErrRefused, tt.Record.Path, d.Record.Path)
		default:
			tt = d.TTFT
		}
	}
	switch n := len(raws); {
	case n == 0:
		return fmt.Errorf("%w: no record of raw transfers: add one of xferbench sweep", ErrRefused)
	case n > 26:
		return fmt.Errorf("%w: %d records of raw transfers; advise names them A to Z", ErrRefused, n)
	}
	a, err := analysis.Advise(o.Deployment, raws, tt)
	if errors.Is(err, analysis.ErrAdvice) {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	switch o.Format {
	case "json":
		err = adviceJSON(&buf, a, o)
	case "markdown":
		adviceMarkdown(&buf, a, o)
	default:
		adviceText(&buf, a, o)
	}
	if err != nil {
		return err
	}
	if _, err := w.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("writing the advice: %w", err)
	}
	if !a.Measured() {
		return fmt.Errorf("%w: no record has a transfer within a factor of two of these prompts' KV caches; %s", ErrTooFew, measureSizes(a))
	}
	return nil
}

// letter names a record among those of the advice.
func letter(i int) string { return string(rune('A' + i)) }

// refs are the rows behind an estimate, by record and condition: "A3+4".
func refs(c *analysis.Candidate, e analysis.Estimate) string {
	if len(e.Rows) == 0 {
		return "-"
	}
	var ns []string
	for _, r := range e.Rows {
		ns = append(ns, fmt.Sprint(r.ID))
	}
	return letter(c.Record) + strings.Join(ns, "+")
}

// manner is what a candidate is beside its provider: "READ merged".
func manner(c *analysis.Candidate) string {
	return strings.TrimPrefix(c.Label, c.Rows[0].Provider+" ")
}

func pointWords(p analysis.Point) string {
	return fmt.Sprintf("%s %s tokens (%s)", p.Name, units.FormatCount(p.Tokens), units.FormatMB(p.Bytes))
}

// deploymentFacts are the lines above all: what was asked, and the records.
func deploymentFacts(a *analysis.Advice, o AdviseOptions) []fact {
	var ps []string
	for _, p := range a.Points {
		ps = append(ps, pointWords(p))
	}
	s := fmt.Sprintf("%s, %s of %s: %s; %s in flight", a.Model, many(a.Requests, "prompt"), o.Source, strings.Join(ps, ", "), many(int64(a.Concurrency), "request"))
	if a.PricePerHour > 0 {
		s += fmt.Sprintf("; %s per hour for the prefill and the decode node together", units.FormatSignificant(a.PricePerHour))
	}
	fs := []fact{{"deployment", s}, {"worth", worthWords(a.Worth)}}
	for i, r := range a.Records {
		fs = append(fs, fact{letter(i), runLine(r.Record)})
	}
	if a.TTFT != nil {
		run := a.TTFT.Record.Run
		fs = append(fs, fact{"ttft", fmt.Sprintf("run %s on %s, %s", run.ID, run.Host.Hostname, tilde(a.TTFT.Record.Path))})
	}
	fs = append(fs, firstTokenFacts(a)...)
	for _, r := range a.Records {
		if note := r.Record.Run.Env["XFERBENCH_NOTE"]; note != "" {
			fs = append(fs, fact{"note", note})
		}
	}
	return unique(fs)
}

func firstTokenFacts(a *analysis.Advice) (fs []fact) {
	for _, p := range a.Points {
		f := p.FirstToken
		switch {
		case f == nil && a.TTFT == nil:
			continue // one sentence below says so
		case f == nil:
			fs = append(fs, fact{"first token at " + p.Name, "not known: " + p.Unknown})
		case f.Basis == analysis.NotMeasured:
			fs = append(fs, fact{"first token at " + p.Name, nanos(f.Ns) + ", as given"})
		default:
			var ids []string
			for _, r := range f.Rows {
				ids = append(ids, fmt.Sprintf("%d (%s, %s tokens, %s)", r.Condition.ID, r.Arm, units.FormatCount(int64(r.Tokens)), r.Load))
			}
			fs = append(fs, fact{"first token at " + p.Name, nanos(f.Ns) + span(f.CI, nanos) + ", " + f.Basis.String() + ", ttft row " + list(ids)})
		}
	}
	return fs
}

func many(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return units.FormatCount(n) + " " + what + "s"
}

func worthWords(w analysis.Worth) string {
	if w.Ns > 0 {
		return "a difference of " + nanos(w.Ns) + " or more matters"
	}
	return "a difference of " + limit(w.Fraction) + " of the faster time or more matters"
}

// span is an interval behind its estimate, or words where there is none.
func span(iv *stats.Interval, form func(float64) string) string {
	if iv == nil {
		return " (interval not known)"
	}
	return fmt.Sprintf(" [%s, %s]", form(iv.Lo), form(iv.Hi))
}

// answers are the sentences that answer the question: one for each difference, or
// for each time where nothing is to be compared.
func answers(a *analysis.Advice) []string {
	var out []string
	for i := len(a.Points) - 1; i >= 0; i-- { // the long prompts first: they decide
		p := a.Points[i]
		for _, c := range a.Contests {
			out = append(out, differenceSentence(a, c, i, p))
		}
		if len(a.Contests) > 0 {
			continue
		}
		for _, c := range a.Transports {
			if e := c.At[i]; e.Basis != analysis.NotMeasured {
				out = append(out, fmt.Sprintf("%s, %s: the KV cache takes %s%s (%s)", p.Name, c.Label, nanos(e.MedianNs), span(e.CI, nanos), refs(c, e)))
			}
		}
	}
	return out
}

func differenceSentence(a *analysis.Advice, c analysis.Contest, i int, p analysis.Point) string {
	d := c.Points[i]
	fast, slow := c.A, c.B
	r, ci, ns, nsCI := d.Ratio, d.RatioCI, d.Ns, d.NsCI
	if r < 1 {
		fast, slow, r, ns = c.B, c.A, 1/r, -ns
		if ci != nil {
			ci = &stats.Interval{Lo: 1 / ci.Hi, Hi: 1 / ci.Lo, Level: ci.Level}
		}
		if nsCI != nil {
			nsCI = &stats.Interval{Lo: -nsCI.Hi, Hi: -nsCI.Lo, Level: nsCI.Level}
		}
	}
	f, s := fast.Rows[0].Provider, slow.Rows[0].Provider
	about := p.Name + ", " + manner(c.A) + ": "
	if d.Answer == analysis.AnswerUnknown {
		return about + f + " and " + s + ": not measured"
	}
	least := limit(a.Worth.Fraction)
	if a.Worth.Ns > 0 {
		least = nanos(a.Worth.Ns)
	}
	x, iv := ratioInterval(r, ci)
	how := strings.TrimSpace(x+" "+iv) + " times as fast as " + s + ", " + nanos(ns) + span(nsCI, nanos) + " less"
	rows := fmt.Sprintf(" (n = %d, %s, %s)", d.N, refs(fast, fast.At[i]), refs(slow, slow.At[i]))
	switch d.Answer {
	case analysis.AnswerYes:
		return fmt.Sprintf("%suse %s: %s: worth it, at least %s%s", about, f, how, least, rows)
	case analysis.AnswerNo:
		return fmt.Sprintf("%s%s or %s is no difference that matters: %s is %s: less than %s%s", about, f, s, f, how, least, rows)
	}
	next := "take " + moreUnits(c.A.Rows[0].Launches, c.B.Rows[0].Launches)
	if c.A.At[i].Basis == analysis.Scaled || c.B.At[i].Basis == analysis.Scaled {
		next = "measure that size itself"
	}
	return fmt.Sprintf("%sundecided between %s and %s: %s is %s: may be %s or more, or not%s; %s", about, f, s, f, how, least, rows, next)
}

// crossovers are what the records say over sizes about each contest.
func crossovers(a *analysis.Advice) []string {
	var out []string
	for _, c := range a.Contests {
		if c.Guide == nil {
			out = append(out, fmt.Sprintf("%s, %s or %s: where one overtakes the other is not known: measure more sizes with xferbench sweep",
				manner(c.A), c.A.Rows[0].Provider, c.B.Rows[0].Provider))
			continue
		}
		out = append(out, letter(c.A.Record)+": "+guide(*c.Guide), crossing(*c.Guide))
	}
	return out
}

// adviceLine is a line of the table: a candidate at a point.
type adviceLine struct {
	c *analysis.Candidate
	e analysis.Estimate
	p analysis.Point
}

func adviceLines(a *analysis.Advice) []adviceLine {
	var out []adviceLine
	for i, p := range a.Points {
		for _, c := range a.Transports {
			out = append(out, adviceLine{c, c.At[i], p})
		}
	}
	return out
}

// mannerColumn names what candidates are beside their provider; it gives way where
// all agree.
func mannerColumn(n int, of func(int) *analysis.Candidate) table.Column {
	words := func(i int) string { return strings.ReplaceAll(manner(of(i)), " ", "_") }
	c := table.Column{Head: "transfer", Left: true, Rank: 1, Cell: words}
	for i := range n {
		if words(i) != words(0) {
			c.Rank, c.Short = 3, func(i int) string { return strings.ReplaceAll(words(i), "fragmented", "frag") }
		}
	}
	return c
}

func adviceColumns(a *analysis.Advice) ([]table.Column, int, string) {
	lines := adviceLines(a)
	least := math.Inf(1)
	for _, l := range lines {
		if l.e.Basis != analysis.NotMeasured {
			least = math.Min(least, l.e.MedianNs)
		}
	}
	t := scaleFrom(least)
	cell := func(of func(adviceLine) (float64, bool), form func(float64) string) func(int) string {
		return func(i int) string {
			if v, ok := of(lines[i]); ok {
				return form(v)
			}
			return "-"
		}
	}
	end := func(of func(adviceLine) *stats.Interval, hi bool) func(adviceLine) (float64, bool) {
		return func(l adviceLine) (float64, bool) {
			iv := of(l)
			if iv == nil {
				return 0, false
			}
			if hi {
				return iv.Hi, true
			}
			return iv.Lo, true
		}
	}
	ci := func(l adviceLine) *stats.Interval { return l.e.CI }
	cols := []table.Column{
		{Head: "at", Left: true, Cell: func(i int) string { return lines[i].p.Name }},
		{Head: "tokens", Rank: 2, Cell: func(i int) string { return units.FormatCount(lines[i].p.Tokens) }},
		{Head: "MB", Rank: 2, Cell: func(i int) string { return strings.TrimSuffix(units.FormatMB(lines[i].p.Bytes), " MB") }},
		{Head: "provider", Left: true, Cell: func(i int) string { return lines[i].c.Rows[0].Provider }},
		mannerColumn(len(lines), func(i int) *analysis.Candidate { return lines[i].c }),
		{Head: t.name, Cell: cell(func(l adviceLine) (float64, bool) { return l.e.MedianNs, l.e.Basis != analysis.NotMeasured }, t.time)},
		{Head: "ci_lo", Cell: cell(end(ci, false), t.time)},
		{Head: "ci_hi", Cell: cell(end(ci, true), t.time)},
	}
	notes := fmt.Sprintf("%s: transfer time of one prompt's KV cache, the median of %s with its 95%% interval", t.name, adviceUnits(a))
	if slices.ContainsFunc(a.Points, func(p analysis.Point) bool { return p.FirstToken != nil }) {
		sh := func(l adviceLine) *stats.Interval {
			if l.e.Share == nil {
				return nil
			}
			return l.e.Share.CI
		}
		cols = append(cols,
			table.Column{Head: "%ttft", Cell: cell(func(l adviceLine) (float64, bool) {
				if l.e.Share == nil {
					return 0, false
				}
				return l.e.Share.Value, true
			}, percentDigits)},
			table.Column{Head: "%_lo", Cell: cell(end(sh, false), percentDigits)},
			table.Column{Head: "%_hi", Cell: cell(end(sh, true), percentDigits)})
		notes += "; %ttft: that median over the one of the first token"
	}
	cols = append(cols,
		table.Column{Head: "basis", Left: true, Cell: func(i int) string { return lines[i].e.Basis.String() }},
		table.Column{Head: "rows", Left: true, Cell: func(i int) string { return refs(lines[i].c, lines[i].e) }})
	return cols, len(lines), notes + "; basis: measured at that size, between the two sizes around it, or from those nearest (beyond, scaled); rows: record and condition"
}

func percentDigits(f float64) string { return units.Digits(f*100, 3) }

// adviceUnits names the units of all candidates.
func adviceUnits(a *analysis.Advice) string {
	var ws []string
	for _, c := range a.Transports {
		ws = append(ws, unitWords(c.Rows[0].Launches))
	}
	return list(unique(ws))
}

func costColumnsOf(a *analysis.Advice) ([]table.Column, int, string) {
	var cs []*analysis.Candidate
	for _, c := range a.Transports {
		if c.Cost != nil {
			cs = append(cs, c)
		}
	}
	end := func(hi bool) func(int) string {
		return func(i int) string {
			iv := cs[i].Cost.CI
			switch {
			case iv == nil:
				return "-"
			case hi:
				return units.Digits(iv.Hi, 3)
			}
			return units.Digits(iv.Lo, 3)
		}
	}
	return []table.Column{
		{Head: "provider", Left: true, Cell: func(i int) string { return cs[i].Rows[0].Provider }},
		mannerColumn(len(cs), func(i int) *analysis.Candidate { return cs[i] }),
		{Head: "per_Mtok", Cell: func(i int) string { return units.Digits(cs[i].Cost.PerMillion, 3) }},
		{Head: "ci_lo", Cell: end(false)},
		{Head: "ci_hi", Cell: end(true)},
		{Head: "%tokens", Cell: func(i int) string { return percentDigits(cs[i].Cost.Covered) }},
		{Head: "record", Left: true, Cell: func(i int) string { return letter(cs[i].Record) }},
	}, len(cs), costNotes
}

const costNotes = "per_Mtok: hours that requests wait for the wire for a million prompt tokens, times the price of an hour, over the requests in flight; " +
	"%tokens: the share of all prompt tokens whose transfer time is known, the others are not in it. It leaves out computing, and takes a node to do nothing else while a request waits"

// gaps say what is not known, and how to measure it.
func gaps(a *analysis.Advice) []string {
	var out []string
	var about remarks
	missing := false
	for _, c := range a.Transports {
		for i, p := range a.Points {
			e := c.At[i]
			switch {
			case e.Basis == analysis.NotMeasured:
				missing = true
				lo, hi := c.Rows[0].Bytes, c.Rows[len(c.Rows)-1].Bytes
				sizes := "size is " + analysis.Size(lo)
				if lo != hi {
					sizes = "sizes are " + analysis.Size(lo) + " to " + analysis.Size(hi)
				}
				out = append(out, fmt.Sprintf("%s at %s: %s is beyond a factor of two of record %s, whose %s", c.Label, p.Name, units.FormatMB(p.Bytes), letter(c.Record), sizes))
			case e.NoShare != "" && p.FirstToken != nil:
				about.add(c.Label+" at "+p.Name, e.NoShare)
			}
			if e.Basis != analysis.NotMeasured && e.CI == nil {
				about.add(c.Label+" at "+p.Name, "too few "+unitWords(c.Rows[0].Launches)+" for an interval: take "+moreUnits(c.Rows[0].Launches))
			}
		}
	}
	out = append(out, about.sentences("times")...)
	if missing {
		out = append(out, "to measure these times, "+measureSizes(a))
	}
	if a.TTFT == nil && len(a.TTFTNs) == 0 {
		out = append(out, "the share of the time to first token: give --ttft, or a record of xferbench ttft")
	}
	if a.PricePerHour == 0 {
		out = append(out, "the cost: give --price-per-hour")
	}
	return out
}

// measureSizes is the command that measures what is missing.
func measureSizes(a *analysis.Advice) string {
	var ps, sizes []string
	for _, c := range a.Transports {
		ps = append(ps, c.Rows[0].Provider)
	}
	for _, p := range a.Points {
		sizes = append(sizes, fmt.Sprint(p.Bytes))
	}
	s := "run xferbench sweep"
	if len(ps) > 0 {
		s += " --provider " + strings.Join(unique(ps), ",")
	}
	for _, b := range sizes {
		s += " --size " + b
	}
	return s
}

func adviceText(b *bytes.Buffer, a *analysis.Advice, o AdviseOptions) {
	p := &page{Options: o.Options, painter: newPainter(o.Color)}
	for _, s := range answers(a) {
		p.item(s, p.bold)
	}
	if cols, n, notes := adviceColumns(a); n > 0 {
		p.plain(cols, n)
		p.comment(notes)
	}
	if cs := crossovers(a); len(cs) > 0 {
		p.line("")
		for _, s := range cs {
			p.item(s)
		}
	}
	if cols, n, notes := costColumnsOf(a); n > 0 {
		p.plain(cols, n)
		p.comment(notes)
	}
	p.line("")
	for _, s := range gaps(a) {
		p.item("not known: " + s)
	}
	for _, w := range a.Warnings {
		p.item("warning: "+w.Text, p.warn)
	}
	p.line("")
	for _, f := range deploymentFacts(a, o) {
		p.comment(f.title + ": " + f.text)
	}
	b.WriteString(strings.TrimLeft(p.b.String(), "\n"))
}

func adviceMarkdown(b *bytes.Buffer, a *analysis.Advice, o AdviseOptions) {
	b.WriteString("# xferbench: advice for a deployment\n\n")
	for _, s := range answers(a) {
		fmt.Fprintf(b, "- %s\n", escape(s))
	}
	write := func(title string, cols []table.Column, n int, notes string) {
		if n == 0 {
			return
		}
		fmt.Fprintf(b, "\n## %s\n\n", title)
		markdownTable(b, cols, n, nil, 0)
		fmt.Fprintf(b, "\n%s.\n", escape(notes))
	}
	cols, n, notes := adviceColumns(a)
	write("Times", cols, n, notes)
	if cs := crossovers(a); len(cs) > 0 {
		b.WriteString("\n## Which one when\n\n")
		for _, s := range cs {
			fmt.Fprintf(b, "- %s\n", escape(strings.TrimSpace(s)))
		}
	}
	cols, n, notes = costColumnsOf(a)
	write("Cost", cols, n, notes)
	if gs := gaps(a); len(gs) > 0 {
		b.WriteString("\n## Not known\n\n")
		for _, s := range gs {
			fmt.Fprintf(b, "- %s\n", escape(s))
		}
	}
	for _, w := range a.Warnings {
		fmt.Fprintf(b, "\n> **Warning:** %s\n", escape(w.Text))
	}
	b.WriteString("\n## Provenance\n\n")
	for _, f := range deploymentFacts(a, o) {
		fmt.Fprintf(b, "- %s: %s\n", escape(f.title), escape(f.text))
	}
}

type (
	jsonAdvice struct {
		Schema      int              `json:"schema"`
		Deployment  jsonDeployment   `json:"deployment"`
		Points      []jsonPoint      `json:"points"`
		Records     []jsonRecordName `json:"records"`
		TTFT        *jsonRecordName  `json:"ttft_record"`
		Transports  []jsonCandidate  `json:"transports"`
		Differences []jsonContest    `json:"differences"`
		Missing     []string         `json:"missing"`
		Warnings    []jsonWarning    `json:"warnings"`
	}
	jsonDeployment struct {
		Model         string   `json:"model"`
		Source        string   `json:"source"`
		Requests      int64    `json:"requests"`
		Concurrency   int      `json:"concurrency"`
		PricePerHour  *float64 `json:"price_per_hour"`
		WorthFraction *float64 `json:"worth_fraction"`
		WorthNs       *float64 `json:"worth_ns"`
	}
	jsonPoint struct {
		Name      string        `json:"name"`
		Tokens    int64         `json:"tokens"`
		Bytes     int64         `json:"bytes"`
		TTFT      *float64      `json:"ttft_ns"`
		CI        *jsonInterval `json:"ttft_ci_ns"`
		Basis     string        `json:"ttft_basis,omitempty"` // "given", or that of a time
		Condition []int         `json:"ttft_conditions,omitempty"`
		Unknown   string        `json:"ttft_unknown,omitempty"`
	}
	jsonCandidate struct {
		Label    string         `json:"label"`
		Provider string         `json:"provider"`
		Record   int            `json:"record"` // place in records, from 0
		Times    []jsonEstimate `json:"times"`
		Cost     *float64       `json:"cost_per_million_tokens"`
		CostCI   *jsonInterval  `json:"cost_ci"`
		Covered  *float64       `json:"cost_covered_tokens"`
	}
	jsonEstimate struct {
		At         string        `json:"at"`
		Basis      string        `json:"basis"`
		Conditions []int         `json:"conditions"`
		Median     *float64      `json:"median_ns"`
		CI         *jsonInterval `json:"median_ci_ns"`
		Share      *float64      `json:"share_of_ttft"`
		ShareCI    *jsonInterval `json:"share_ci"`
		NoShare    string        `json:"no_share,omitempty"`
	}
	jsonContest struct {
		A         string        `json:"a"`
		B         string        `json:"b"`
		Record    int           `json:"record"`
		At        string        `json:"at"`
		Worth     string        `json:"worth_it"`
		Ratio     *float64      `json:"time_b_over_time_a"`
		RatioCI   *jsonInterval `json:"ratio_ci"`
		Ns        *float64      `json:"b_less_a_ns"`
		NsCI      *jsonInterval `json:"b_less_a_ci_ns"`
		N         int           `json:"units"`
		Text      string        `json:"text"`
		Crossover string        `json:"crossover,omitempty"`
	}
)

func adviceJSON(b *bytes.Buffer, a *analysis.Advice, o AdviseOptions) error {
	name := func(r *record.Record) jsonRecordName {
		return jsonRecordName{r.Path, r.Run.ID, r.Run.StartUnixNs, r.Run.Host.Hostname}
	}
	j := jsonAdvice{
		Schema:     jsonSchema,
		Deployment: jsonDeployment{Model: a.Model, Source: o.Source, Requests: a.Requests, Concurrency: a.Concurrency},
		Transports: []jsonCandidate{}, Differences: []jsonContest{}, Missing: append([]string{}, gaps(a)...), Warnings: []jsonWarning{},
	}
	if a.PricePerHour > 0 {
		j.Deployment.PricePerHour = &a.PricePerHour
	}
	if a.Worth.Ns > 0 {
		j.Deployment.WorthNs = &a.Worth.Ns
	} else {
		j.Deployment.WorthFraction = &a.Worth.Fraction
	}
	for _, r := range a.Records {
		j.Records = append(j.Records, name(r.Record))
	}
	if a.TTFT != nil {
		n := name(a.TTFT.Record)
		j.TTFT = &n
	}
	for _, p := range a.Points {
		j.Points = append(j.Points, jsonPointOf(p))
	}
	for _, c := range a.Transports {
		j.Transports = append(j.Transports, jsonCandidateOf(a, c))
	}
	for _, c := range a.Contests {
		for i, p := range a.Points {
			d := c.Points[i]
			x := jsonContest{A: c.A.Label, B: c.B.Label, Record: c.A.Record, At: p.Name, Worth: string(d.Answer), N: d.N, Text: differenceSentence(a, c, i, p)}
			if d.Answer != analysis.AnswerUnknown {
				x.Ratio, x.RatioCI, x.Ns, x.NsCI = number(d.Ratio), interval(d.RatioCI), number(d.Ns), interval(d.NsCI)
			}
			if c.Guide != nil {
				x.Crossover = guide(*c.Guide)
			}
			j.Differences = append(j.Differences, x)
		}
	}
	for _, w := range a.Warnings {
		j.Warnings = append(j.Warnings, jsonWarning(w))
	}
	return encodeJSON(b, j)
}

func jsonPointOf(p analysis.Point) jsonPoint {
	x := jsonPoint{Name: p.Name, Tokens: p.Tokens, Bytes: p.Bytes, Unknown: p.Unknown}
	if f := p.FirstToken; f != nil {
		x.TTFT, x.CI, x.Basis = number(f.Ns), interval(f.CI), f.Basis.String()
		if f.Basis == analysis.NotMeasured {
			x.Basis = "given"
		}
		for _, r := range f.Rows {
			x.Condition = append(x.Condition, r.Condition.ID)
		}
	}
	return x
}

func jsonCandidateOf(a *analysis.Advice, c *analysis.Candidate) jsonCandidate {
	j := jsonCandidate{Label: c.Label, Provider: c.Rows[0].Provider, Record: c.Record}
	for i, p := range a.Points {
		e := c.At[i]
		x := jsonEstimate{At: p.Name, Basis: e.Basis.String(), Conditions: ids(e.Rows), CI: interval(e.CI), NoShare: e.NoShare}
		if e.Basis != analysis.NotMeasured {
			x.Median = number(e.MedianNs)
		}
		if e.Share != nil {
			x.Share, x.ShareCI = number(e.Share.Value), interval(e.Share.CI)
		}
		j.Times = append(j.Times, x)
	}
	if c.Cost != nil {
		j.Cost, j.CostCI, j.Covered = number(c.Cost.PerMillion), interval(c.Cost.CI), number(c.Cost.Covered)
	}
	return j
}
