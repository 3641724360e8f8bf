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
	res, err := analysis.NewLadder(a, reqs)
	if errors.Is(err, analysis.ErrNoRequest) {
		return fmt.Errorf("%w: %w", ErrTooFew, err)
	}
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	switch o.Format {
	case "json":
		err = ladderJSON(&buf, res)
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
	if end := res.Raw.Record.End; res.Raw.Failed() || end != nil && end.ExitCode == 4 {
		return fmt.Errorf("%w in the raw record", ErrCheck)
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
	return fmt.Errorf("%w: the raw record has no transfer of the bytes that the engines moved: %s", ErrTooFew, measureThem(res))
}

// measureThem is the command that measures the bytes that are missing.
func measureThem(res *analysis.Ladder) string {
	for _, r := range res.Rows {
		if r.Bytes > 0 && len(r.Wire()) == 0 {
			return fmt.Sprintf("run xferbench --size %d", r.Bytes)
		}
	}
	return ""
}

func rowTitle(r analysis.LadderRow) string {
	s := fmt.Sprintf("%s, %s tokens, %s", r.Arm, units.FormatCount(int64(r.Tokens)), r.Load)
	if r.Path != "" && r.Path != r.Arm {
		s += ", " + r.Path
	}
	return s
}

// wireSentence is the answer: what the wire explains of a row's TTFT.
func wireSentence(r analysis.LadderRow) string {
	wire := r.Wire()
	switch {
	case r.Bytes == 0:
		return "No KV cache moves on this path."
	case len(wire) == 0:
		return fmt.Sprintf("The raw record holds no transfer of %s, so the wire's share is not known.", units.FormatExact(r.Bytes))
	}
	lo, hi := wire[0], wire[len(wire)-1]
	s := fmt.Sprintf("The wire explains %s of the TTFT", shareWords(*lo.Share))
	if len(wire) > 1 {
		s += fmt.Sprintf(" (%s) to %s (%s)", lo.Name, shareWords(*hi.Share), hi.Name)
	} else {
		s += fmt.Sprintf(" (%s)", lo.Name)
	}
	if r.Increment != nil && lo.OfIncrement != nil {
		s += fmt.Sprintf(", and %s of the %s that the first token takes longer than on %s", shareWords(*lo.OfIncrement), nanos(r.Increment.MedianNs), r.Base)
	}
	s += "."
	if c := r.Connector(); c != nil {
		s += fmt.Sprintf(" NIXL's own transfer took %s, %s times the fastest raw one.", nanos(c.MedianNs), ratio(c.MedianNs/lo.MedianNs))
	}
	if rest := r.TTFT.Median - lo.MedianNs; rest > 0 {
		s += fmt.Sprintf(" With a wire that takes no time the first token would still take about %s.", nanos(rest))
	}
	return s
}

// shareWords is a share with its interval: "15.2% [14.8, 15.9]".
func shareWords(s stats.Share) string {
	v := units.Digits(s.Value*100, 3) + "%"
	if s.Interval == nil {
		return v
	}
	return v + fmt.Sprintf(" [%s, %s]", units.Digits(s.Interval.Lo*100, 3), units.Digits(s.Interval.Hi*100, 3))
}

func shareCells(s *stats.Share) (v, lo, hi string) {
	if s == nil {
		return "-", "-", "-"
	}
	v, lo, hi = units.Digits(s.Value*100, 3), "-", "-"
	if s.Interval != nil {
		lo, hi = units.Digits(s.Interval.Lo*100, 3), units.Digits(s.Interval.Hi*100, 3)
	}
	return v, lo, hi
}

func partColumns(r analysis.LadderRow) ([]table.Column, int) {
	t := scale{"ms", 1e6}
	cell := func(k int) func(int) string {
		return func(i int) string {
			v, lo, hi := shareCells(&r.Parts[i].Share)
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

// partNotes explain the columns of parts.
func partNotes(d *analysis.Requests) string {
	n := launches(d)
	return "medians of " + unitWords(n) + " in ms; %ttft: mean share of the TTFT with its 95% interval, paired by " + unitWord(n)
}

const rungNotes = "the ladder: the same bytes on each rung, medians in ms; %ttft: which share of the TTFT that time is, with its 95% interval (Fieller)"

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
	tt := res.Requests.Record
	out := []string{"the raw transfers and the requests were not interleaved: a change of the host or the network between the two records is in every share"}
	if tt.Run.Host.Hostname != res.Raw.Record.Run.Host.Hostname {
		out = append(out, fmt.Sprintf("the raw run is of %s, the TTFT run of %s: their times need not belong together", res.Raw.Record.Run.Host.Hostname, tt.Run.Host.Hostname))
	}
	var about remarks
	for _, r := range res.Rows {
		if r.Bytes > 0 && len(r.Wire()) == 0 {
			out = append(out, fmt.Sprintf("%s: the raw record has no transfer of %s; %s", rowTitle(r), units.FormatExact(r.Bytes), measureThem(res)))
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
		p.item(wireSentence(r))
		if cols, n := partColumns(r); n > 0 {
			p.plain(cols, n)
		}
		if cols, n := rungColumns(r); n > 1 {
			p.plain(cols, n)
		}
	}
	p.comment("parts: " + partNotes(res.Requests))
	p.comment("rungs: " + rungNotes)
	p.line("")
	for _, l := range ladderWarnings(res) {
		p.item("warning: "+l, p.warn)
	}
	b.WriteString(p.b.String())
}

func ladderMarkdown(b *bytes.Buffer, res *analysis.Ladder) {
	b.WriteString("# xferbench: where the TTFT went\n\n")
	for _, l := range ladderHead(res) {
		fmt.Fprintf(b, "- %s\n", escape(l))
	}
	for _, r := range res.Rows {
		fmt.Fprintf(b, "\n## %s: first token after %s\n\n%s\n", escape(rowTitle(r)), nanos(r.TTFT.Median), escape(wireSentence(r)))
		if cols, n := partColumns(r); n > 0 {
			b.WriteString("\n")
			markdownTable(b, cols, n, nil, 0)
		}
		if cols, n := rungColumns(r); n > 1 {
			b.WriteString("\n")
			markdownTable(b, cols, n, nil, 0)
		}
	}
	fmt.Fprintf(b, "\nParts: %s. Rungs: %s.\n", escape(partNotes(res.Requests)), escape(rungNotes))
	for _, l := range ladderWarnings(res) {
		fmt.Fprintf(b, "\n> **Warning:** %s\n", escape(l))
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
		Base        string        `json:"base,omitempty"`
		Increment   *float64      `json:"increment_median_ns"`
		Text        string        `json:"text"`
	}
	jsonPart struct {
		Name   string        `json:"name"`
		Median float64       `json:"median_ns"`
		Share  *float64      `json:"share_of_ttft"`
		CI     *jsonInterval `json:"share_ci"`
	}
	jsonRung struct {
		Name        string        `json:"name"`
		Kind        string        `json:"kind"`
		Bytes       int64         `json:"bytes"`
		Median      float64       `json:"median_ns"`
		CI          *jsonInterval `json:"median_ci_ns"`
		Share       *float64      `json:"share_of_ttft"`
		ShareCI     *jsonInterval `json:"share_ci"`
		OfIncrement *float64      `json:"share_of_increment"`
		IncrementCI *jsonInterval `json:"share_of_increment_ci"`
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
		row := jsonEndRow{Arm: r.Arm, Path: r.Path, Load: r.Load, Tokens: r.Tokens, Requests: r.N(), Blocks: r.Blocks, TTFT: r.TTFT.Median, CI: interval(r.TTFT.CI),
			FromEngines: r.FromEngines, Bytes: r.Bytes, Base: r.Base, Text: wireSentence(r), Parts: []jsonPart{}, Rungs: []jsonRung{}}
		if r.Increment != nil {
			row.Increment = number(r.Increment.MedianNs)
		}
		for _, p := range r.Parts {
			row.Parts = append(row.Parts, jsonPart{p.Name, p.MedianNs, number(p.Share.Value), interval(p.Share.Interval)})
		}
		for _, g := range r.Rungs {
			x := jsonRung{Name: g.Name, Kind: g.Kind, Bytes: g.Bytes, Median: g.MedianNs, CI: interval(g.CI)}
			if g.Share != nil {
				x.Share, x.ShareCI = number(g.Share.Value), interval(g.Share.Interval)
			}
			if g.OfIncrement != nil {
				x.OfIncrement, x.IncrementCI = number(g.OfIncrement.Value), interval(g.OfIncrement.Interval)
			}
			row.Rungs = append(row.Rungs, x)
		}
		j.Rows = append(j.Rows, row)
	}
	return encodeJSON(b, j)
}
