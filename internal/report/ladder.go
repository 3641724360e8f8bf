package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

// compareTTFT writes where the TTFT went and which share of it the wire
// explains.
func compareTTFT(w io.Writer, raw, tt *record.Record, o CompareOptions) error {
	if o.Threshold > 0 {
		return fmt.Errorf("%w: --threshold is for two raw records, and %s is of a TTFT run", ErrRefused, tt.Path)
	}
	a, err := analyseNamed(raw)
	if err != nil {
		return err
	}
	if a.Emulated() {
		return fmt.Errorf("%w: %s is of an %s", ErrRefused, raw.Path, analysis.Emulated)
	}
	reqs, err := analysis.OfRequests(tt)
	if err != nil {
		return fmt.Errorf("record %s: %w", tt.Path, err)
	}
	res, err := analysis.NewLadder(a, reqs, o.Transports)
	switch {
	case errors.Is(err, analysis.ErrNoRequest):
		return fmt.Errorf("%w: %w", ErrTooFew, err)
	case errors.Is(err, analysis.ErrTransport):
		return fmt.Errorf("%w: --transport: %w", ErrRefused, err)
	case err != nil:
		return err
	}
	var buf bytes.Buffer
	switch o.Format {
	case "json":
		err = ladderJSON(&buf, res)
	case "html":
		err = ladderHTML(&buf, res)
	case "markdown":
		ladderMarkdown(&buf, res)
	default:
		ladderText(&buf, w, res, o)
	}
	if err != nil {
		return err
	}
	if _, err := w.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("writing the comparison: %w", err)
	}
	return ladderOutcome(res)
}

// ladderOutcome says when a check failed, or no row could be held against the wire.
func ladderOutcome(res *analysis.Ladder) error {
	if res.Raw.Failed() || analysis.EndedOverCheck(res.Raw.Record) {
		return fmt.Errorf("%w in the raw record", ErrCheck)
	}
	if analysis.EndedOverCheck(res.Requests.Record) {
		return fmt.Errorf("%w in the TTFT record", ErrCheck)
	}
	moved := false
	for _, r := range res.Rows {
		moved = moved || r.Bytes > 0
		if len(r.Wire()) > 0 {
			return nil
		}
	}
	if !moved {
		return fmt.Errorf("%w: no request of the TTFT record moved a KV cache", ErrTooFew)
	}
	return fmt.Errorf("%w: no row of the raw record is a transfer that the engines made; measure it with %s", ErrTooFew, measureIt(res))
}

// measureIt is the command that measures the first transfer that is missing.
func measureIt(res *analysis.Ladder) string {
	for _, r := range res.Rows {
		if r.Bytes > 0 && len(r.Wire()) == 0 {
			return missing(r)
		}
	}
	return ""
}

// missing is the command that measures a row's transfer, as far as it is known.
func missing(r analysis.LadderRow) string {
	s := "xferbench"
	e := r.Condition.Serving
	if e == nil {
		e = &record.Serving{}
	}
	if r.Transport != "" {
		s += " --provider " + r.Transport
	}
	if e.Op == "write" {
		s += " --op write"
	}
	if e.KVModel != "" {
		return s + fmt.Sprintf(" --model %s --tokens %d", e.KVModel, r.Tokens)
	}
	return s + fmt.Sprintf(" --size %d", r.Bytes)
}

func rowTitle(r analysis.LadderRow) string {
	s := fmt.Sprintf("%s, %s tokens, %s", r.Arm, units.FormatCount(int64(r.Tokens)), r.Load)
	if r.Path != "" && r.Path != r.Arm {
		s += ", " + r.Path
	}
	return s
}

// wireSentences are the answer: what the wire explains of a row's TTFT, or why
// that cannot be said. With several raw rows that may be it, each has its own.
func wireSentences(r analysis.LadderRow) []string {
	wire := r.Wire()
	switch {
	case r.Bytes == 0:
		return []string{"No KV cache moves on this path."}
	case len(wire) == 0 && len(r.Others) == 0:
		return []string{fmt.Sprintf("The raw record holds no transfer of %s, so the wire's share is not known.", units.FormatExact(r.Bytes))}
	case len(wire) == 0:
		return []string{fmt.Sprintf("No raw row is the transfer of %s that the engines made, so the wire's share is not known.", units.FormatExact(r.Bytes))}
	case r.Used == nil:
		out := []string{fmt.Sprintf("%d raw rows may be the transfer that the engines made, and none is singled out.", len(wire))}
		if r.Transport == "" {
			out[0] += " --transport NAME states which transport it was."
		}
		for _, g := range wire {
			out = append(out, fmt.Sprintf("If it was %s, the wire explains %s of the TTFT.", g.Name, shareWords(g.Share)))
		}
		return out
	}
	found := "as the record has it"
	switch {
	case r.Stated:
		found = "as stated"
	case r.Transport == "":
		found = "the only raw row that may be it"
	}
	s := fmt.Sprintf("The wire explains %s of the TTFT (%s, %s).", shareWords(r.Used.Share), r.Used.Name, found)
	if c := r.Connector(); c != nil {
		s += fmt.Sprintf(" NIXL's own transfer took %s, %s times that.", nanos(c.MedianNs), ratio(c.MedianNs/r.Used.MedianNs))
	}
	return []string{s + fmt.Sprintf(" With a wire that takes no time the first token would still take %s.", estimateWords(r.Without))}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// estimateWords is a time with its interval: "498 ms [485 ms, 512 ms]".
func estimateWords(e *stats.Estimate) string {
	if e.Interval == nil {
		return nanos(e.Value)
	}
	return fmt.Sprintf("%s [%s, %s]", nanos(e.Value), nanos(e.Interval.Lo), nanos(e.Interval.Hi))
}

// matchLines say which raw rows were not held against a row, and why.
func matchLines(r analysis.LadderRow) []string {
	var out []string
	for _, g := range r.Others {
		var why []string
		for _, d := range g.Differs {
			why = append(why, d.String())
		}
		out = append(out, fmt.Sprintf("not the engines' transfer: %s: %s", g.Name, strings.Join(why, "; ")))
	}
	if r.OtherBytes > 0 {
		out = append(out, fmt.Sprintf("other bytes: %s of the raw record", plural(r.OtherBytes, "row")))
	}
	if len(r.Unknown) > 0 {
		out = append(out, fmt.Sprintf("not known on one side, and so not compared: %s", strings.Join(r.Unknown, ", ")))
	}
	return out
}

// stepName is a step as a row of the table: what it adds, and by what.
func stepName(s analysis.Step) string {
	switch s.Kind {
	case analysis.StepMemory, analysis.StepResidual:
		return s.Kind
	case analysis.StepBase, analysis.StepEngines:
		return "+" + s.Name
	case analysis.StepTotal:
		return "first token"
	case analysis.StepNIXL:
		return "+NIXL"
	case analysis.StepRaw:
		return "+" + s.Name
	}
	return "+" + s.Kind
}

// shareWords is a share with its interval: "15.2% [14.8, 15.9]".
func shareWords(s *stats.Share) string {
	v, lo, hi := shareCells(s)
	if s.Interval == nil {
		return v + "%"
	}
	return fmt.Sprintf("%s%% [%s, %s]", v, lo, hi)
}

// shareCells are a share and its interval in per cent; none for a rung without one.
func shareCells(s *stats.Share) (v, lo, hi string) {
	if s == nil {
		return "-", "-", "-"
	}
	if v, lo, hi = units.Digits(s.Value*100, 3), "-", "-"; s.Interval != nil {
		lo, hi = units.Digits(s.Interval.Lo*100, 3), units.Digits(s.Interval.Hi*100, 3)
	}
	return v, lo, hi
}

func partColumns(r analysis.LadderRow) ([]table.Column, int) {
	t := scale{"ms", 1e6}
	cell := func(k int) func(int) string {
		return func(i int) string {
			v, lo, hi := shareCells(r.Parts[i].Share)
			return [...]string{v, lo, hi}[k]
		}
	}
	return []table.Column{
		{Head: "part", Left: true, Cell: func(i int) string { return strings.ReplaceAll(r.Parts[i].Name, " ", "_") }},
		{Head: "median", Cell: func(i int) string { return t.time(r.Parts[i].MedianNs) }},
		{Head: "%ttft", Cell: cell(0)},
		{Head: "ci_lo", Cell: cell(1)},
		{Head: "ci_hi", Cell: cell(2)},
	}, len(r.Parts)
}

func rungColumns(r analysis.LadderRow) ([]table.Column, int) {
	t := scale{"ms", 1e6}
	ci := func(f func(*stats.Interval) float64) func(int) string {
		return func(i int) string {
			if r.Rungs[i].CI == nil {
				return "-"
			}
			return t.time(f(r.Rungs[i].CI))
		}
	}
	cell := func(k int) func(int) string {
		return func(i int) string {
			v, lo, hi := shareCells(r.Rungs[i].Share)
			return [...]string{v, lo, hi}[k]
		}
	}
	return []table.Column{
		{Head: "rung", Left: true, Cell: func(i int) string { return strings.ReplaceAll(r.Rungs[i].Name, " ", "_") }},
		{Head: "median", Cell: func(i int) string { return t.time(r.Rungs[i].MedianNs) }},
		{Head: "ci_lo", Cell: ci(func(iv *stats.Interval) float64 { return iv.Lo })},
		{Head: "ci_hi", Cell: ci(func(iv *stats.Interval) float64 { return iv.Hi })},
		{Head: "GB/s", Cell: func(i int) string {
			if r.Rungs[i].Kind == analysis.RungTTFT {
				return "-"
			}
			return units.Digits(float64(r.Rungs[i].Bytes)/r.Rungs[i].MedianNs, 3)
		}},
		{Head: "%ttft", Cell: cell(0)},
		{Head: "%_lo", Cell: cell(1)},
		{Head: "%_hi", Cell: cell(2)},
	}, len(r.Rungs)
}

func stepColumns(r analysis.LadderRow) ([]table.Column, int) {
	t := scale{"ms", 1e6}
	ci := func(f func(*stats.Interval) float64) func(int) string {
		return func(i int) string {
			if r.Steps[i].CI == nil {
				return "-"
			}
			return t.time(f(r.Steps[i].CI))
		}
	}
	return []table.Column{
		{Head: "step", Left: true, Cell: func(i int) string { return strings.ReplaceAll(stepName(r.Steps[i]), " ", "_") }},
		{Head: "adds", Cell: func(i int) string {
			if r.Steps[i].Kind == analysis.StepTotal {
				return "-"
			}
			return t.time(r.Steps[i].Ns)
		}},
		{Head: "ci_lo", Cell: ci(func(iv *stats.Interval) float64 { return iv.Lo })},
		{Head: "ci_hi", Cell: ci(func(iv *stats.Interval) float64 { return iv.Hi })},
		{Head: "sum", Cell: func(i int) string { return t.time(r.Steps[i].SumNs) }},
	}, len(r.Steps)
}

// causeLines are what the record has to explain steps.
func causeLines(r analysis.LadderRow) []string {
	var out []string
	for _, c := range r.Causes {
		out = append(out, fmt.Sprintf("likely in %s: %s: %s", c.Step, c.Name, c.Evidence))
	}
	if s := r.Step(analysis.StepResidual); s != nil && len(out) == 0 {
		out = append(out, "the record has no sign of what the residual is")
	}
	return out
}

// partNotes explain the columns of parts.
func partNotes(d *analysis.Requests) string {
	n := launches(d)
	return "medians of " + unitWords(n) + " in ms; %ttft: that median over the median TTFT, with its 95% interval, paired by " + unitWord(n)
}

const rungNotes = "the ladder: the same bytes on each rung, medians in ms; %ttft: that median over the median TTFT, with its 95% interval (Fieller)"

// stepNotes explain the waterfall.
func stepNotes(r analysis.LadderRow) string {
	s := "what each level of the path adds, differences of medians in ms; their 95% intervals hold together"
	if r.Step(analysis.StepWait) != nil {
		s += "; wait: the decode engine's queue beside the transfer"
	}
	if r.Increment != nil {
		s += fmt.Sprintf("; residual: what is left of the %s more than on %s", estimateWords(r.Increment), r.Base)
	}
	return s
}

// ladderHead is what stands above, in every format for people.
func ladderHead(res *analysis.Ladder) []string {
	tt := res.Requests.Record
	out := []string{"raw: " + runLine(res.Raw.Record), fmt.Sprintf("ttft: run %s on %s, %s, %s requests, %d invalid", tt.Run.ID, tt.Run.Host.Hostname, tilde(tt.Path),
		units.FormatCount(int64(res.Requests.N)), res.Requests.Invalid)}
	for _, r := range []*record.Run{&res.Raw.Record.Run, &tt.Run} {
		if note := r.Env["XFERBENCH_NOTE"]; note != "" {
			out = append(out, "note: "+note)
		}
	}
	if res.Requests.Simulated {
		out = append(out, "SIMULATED: "+simulatedTTFT)
	}
	return unique(out)
}

func ladderWarnings(res *analysis.Ladder) []string {
	out := []string{"the raw transfers and the requests were not interleaved: a change of the host or the network between the two records is in every share"}
	var about remarks
	for _, r := range res.Rows {
		if r.Bytes > 0 && len(r.Wire()) == 0 {
			out = append(out, fmt.Sprintf("%s: the raw record has no transfer of %s that the engines made; measure it with %s", rowTitle(r), units.FormatExact(r.Bytes), missing(r)))
		}
		if !r.FromEngines && len(r.Parts) > 0 {
			about.add(rowTitle(r), "several requests were in flight, so that prefill and decode queue are whole legs by this side's clock")
		}
		if r.TTFT.N < stats.MinRankCI {
			about.add(rowTitle(r), fewUnits(r.RequestRow))
		}
	}
	out = append(out, about.sentences("rows")...)
	for _, w := range res.Raw.Warnings {
		if w.Code == "path" || w.Code == "no-steady-state" {
			out = append(out, w.Text)
		}
	}
	return out
}

func ladderText(b *bytes.Buffer, w io.Writer, res *analysis.Ladder, o CompareOptions) {
	p := &page{Options: o.Options, painter: newPainter(o.Color)}
	for _, l := range ladderHead(res) {
		p.comment(l)
	}
	for _, r := range res.Rows {
		p.line("")
		title := rowTitle(r) + ": first token after " + nanos(r.TTFT.Median)
		if r.TTFT.CI != nil {
			title += fmt.Sprintf(" [%s, %s]", nanos(r.TTFT.CI.Lo), nanos(r.TTFT.CI.Hi))
		}
		title += fmt.Sprintf(", n = %d in %d %s", r.N(), r.TTFT.N, unitWords(r.Launches))
		p.item(title, p.bold)
		for _, l := range wireSentences(r) {
			p.item(l)
		}
		if cols, n := partColumns(r); n > 0 {
			p.plain(cols, n)
		}
		if cols, n := rungColumns(r); n > 1 {
			p.plain(cols, n)
		}
		p.items(matchLines(r))
		if cols, n := stepColumns(r); n > 0 {
			p.plain(cols, n)
			p.comment("steps: " + stepNotes(r))
		}
		p.items(causeLines(r))
	}
	p.line("")
	p.comment("parts: " + partNotes(res.Requests))
	p.comment("rungs: " + rungNotes)
	p.line("")
	for _, l := range ladderWarnings(res) {
		p.item("warning: "+l, p.warn)
	}
	b.WriteString(p.b.String())
}

// items writes lines under a table.
func (p *page) items(lines []string) {
	for i, l := range lines {
		if i == 0 {
			p.line("")
		}
		p.item(l)
	}
}

func ladderMarkdown(b *bytes.Buffer, res *analysis.Ladder) {
	b.WriteString("# xferbench: where the TTFT went\n\n")
	for _, l := range ladderHead(res) {
		fmt.Fprintf(b, "- %s\n", escape(l))
	}
	for _, r := range res.Rows {
		fmt.Fprintf(b, "\n## %s: first token after %s\n\n%s\n", escape(rowTitle(r)), nanos(r.TTFT.Median), escape(strings.Join(wireSentences(r), " ")))
		if cols, n := partColumns(r); n > 0 {
			b.WriteString("\n")
			markdownTable(b, cols, n, nil, 0)
		}
		if cols, n := rungColumns(r); n > 1 {
			b.WriteString("\n")
			markdownTable(b, cols, n, nil, 0)
		}
		markdownList(b, matchLines(r))
		if cols, n := stepColumns(r); n > 0 {
			b.WriteString("\n")
			markdownTable(b, cols, n, nil, 0)
			fmt.Fprintf(b, "\nSteps: %s.\n", escape(stepNotes(r)))
		}
		markdownList(b, causeLines(r))
	}
	fmt.Fprintf(b, "\nParts: %s. Rungs: %s.\n", escape(partNotes(res.Requests)), escape(rungNotes))
	for _, l := range ladderWarnings(res) {
		fmt.Fprintf(b, "\n> **Warning:** %s\n", escape(l))
	}
}

func markdownList(b *bytes.Buffer, lines []string) {
	for i, l := range lines {
		if i == 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(b, "- %s\n", escape(l))
	}
}

type (
	jsonEndToEnd struct {
		Schema    int            `json:"schema"`
		Raw       jsonRecordName `json:"raw"`
		TTFT      jsonRecordName `json:"ttft"`
		Simulated bool           `json:"simulated"`
		Requests  int            `json:"requests"`
		Invalid   int            `json:"invalid"`
		Rows      []jsonEndRow   `json:"rows"`
		Warnings  []string       `json:"warnings"`
	}
	jsonEndRow struct {
		Arm         string        `json:"arm"`
		Path        string        `json:"path"`
		Load        string        `json:"load"`
		Tokens      int           `json:"prompt_tokens"`
		Requests    int           `json:"requests"`
		Blocks      int           `json:"blocks"`
		TTFT        float64       `json:"ttft_median_ns"`
		CI          *jsonInterval `json:"ttft_ci_ns"`
		FromEngines bool          `json:"parts_from_engines"`
		Parts       []jsonPart    `json:"parts"`
		Bytes       int64         `json:"moved_bytes"`
		Rungs       []jsonRung    `json:"rungs"`
		Others      []jsonOther   `json:"others"`
		OtherBytes  int           `json:"rows_of_other_bytes"`
		Unknown     []string      `json:"not_known"`
		Transport   string        `json:"transport,omitempty"`
		Stated      bool          `json:"transport_stated"`
		Used        string        `json:"used,omitempty"`
		Without     *float64      `json:"without_wire_ns"`
		WithoutCI   *jsonInterval `json:"without_wire_ci_ns"`
		Base        string        `json:"base,omitempty"`
		Increment   *float64      `json:"increment_ns"`
		IncrementCI *jsonInterval `json:"increment_ci_ns"`
		Steps       []jsonStep    `json:"waterfall"`
		Causes      []jsonCause   `json:"causes"`
		Text        string        `json:"text"`
	}
	jsonOther struct {
		Name   string           `json:"name"`
		Bytes  int64            `json:"bytes"`
		Median float64          `json:"median_ns"`
		Why    []jsonDifference `json:"differs"`
	}
	jsonDifference struct {
		Field   string `json:"field"`
		Raw     string `json:"raw"`
		Engines string `json:"engines"`
	}
	jsonStep struct {
		Kind string        `json:"kind"`
		Name string        `json:"name,omitempty"`
		Ns   float64       `json:"adds_ns"`
		CI   *jsonInterval `json:"adds_ci_ns"`
		Sum  float64       `json:"sum_ns"`
	}
	jsonCause struct {
		Step     string `json:"step"`
		Name     string `json:"name"`
		Evidence string `json:"evidence"`
	}
	jsonPart struct {
		Name   string        `json:"name"`
		Median float64       `json:"median_ns"`
		Share  *float64      `json:"share_of_ttft"`
		CI     *jsonInterval `json:"share_ci"`
	}
	jsonRung struct {
		Name    string        `json:"name"`
		Kind    string        `json:"kind"`
		Bytes   int64         `json:"bytes"`
		Median  float64       `json:"median_ns"`
		CI      *jsonInterval `json:"median_ci_ns"`
		Share   *float64      `json:"share_of_ttft"`
		ShareCI *jsonInterval `json:"share_ci"`
	}
)

func ladderJSON(b *bytes.Buffer, res *analysis.Ladder) error {
	tt := res.Requests.Record
	name := func(r *record.Record) jsonRecordName {
		return jsonRecordName{r.Path, r.Run.ID, r.Run.StartUnixNs, r.Run.Host.Hostname}
	}
	j := jsonEndToEnd{Schema: jsonSchema, Raw: name(res.Raw.Record), TTFT: name(tt), Simulated: res.Requests.Simulated, Requests: res.Requests.N, Invalid: res.Requests.Invalid,
		Rows: []jsonEndRow{}, Warnings: ladderWarnings(res)}
	for _, r := range res.Rows {
		j.Rows = append(j.Rows, jsonEnd(r))
	}
	return encodeJSON(b, j)
}

func jsonEnd(r analysis.LadderRow) jsonEndRow {
	row := jsonEndRow{Arm: r.Arm, Path: r.Path, Load: r.Load, Tokens: r.Tokens, Requests: r.N(), Blocks: r.Blocks, TTFT: r.TTFT.Median, CI: interval(r.TTFT.CI),
		FromEngines: r.FromEngines, Bytes: r.Bytes, OtherBytes: r.OtherBytes, Unknown: append([]string{}, r.Unknown...), Transport: r.Transport, Stated: r.Stated, Base: r.Base,
		Text: strings.Join(wireSentences(r), " "), Parts: []jsonPart{}, Rungs: []jsonRung{}, Others: []jsonOther{}, Steps: []jsonStep{}, Causes: []jsonCause{}}
	if e := r.Increment; e != nil {
		row.Increment, row.IncrementCI = number(e.Value), interval(e.Interval)
	}
	if e := r.Without; e != nil {
		row.Used, row.Without, row.WithoutCI = r.Used.Name, number(e.Value), interval(e.Interval)
	}
	for _, p := range r.Parts {
		row.Parts = append(row.Parts, jsonPart{p.Name, p.MedianNs, number(p.Share.Value), interval(p.Share.Interval)})
	}
	for _, g := range r.Rungs {
		x := jsonRung{Name: g.Name, Kind: g.Kind, Bytes: g.Bytes, Median: g.MedianNs, CI: interval(g.CI)}
		if g.Share != nil {
			x.Share, x.ShareCI = number(g.Share.Value), interval(g.Share.Interval)
		}
		row.Rungs = append(row.Rungs, x)
	}
	for _, g := range r.Others {
		x := jsonOther{Name: g.Name, Bytes: g.Bytes, Median: g.MedianNs}
		for _, d := range g.Differs {
			x.Why = append(x.Why, jsonDifference(d))
		}
		row.Others = append(row.Others, x)
	}
	for _, s := range r.Steps {
		row.Steps = append(row.Steps, jsonStep{s.Kind, s.Name, s.Ns, interval(s.CI), s.SumNs})
	}
	for _, c := range r.Causes {
		row.Causes = append(row.Causes, jsonCause(c))
	}
	return row
}
