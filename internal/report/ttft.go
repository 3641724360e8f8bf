package report

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

// simulatedTTFT are the words that stand beside figures of simulated engines.
const simulatedTTFT = "the engines are stand-ins; their TTFT is not a measurement"

// TTFTText writes the analysis of a TTFT run for a terminal: a header of "#"
// lines, a row for each condition, where the TTFT went, what NIXL counted,
// verdicts, the requests in run order, and warnings.
func TTFTText(w io.Writer, d *analysis.Requests, o Options) error {
	p := &page{Options: o, painter: newPainter(o.Color)}
	for _, f := range ttftFacts(d) {
		if f.title == "" {
			p.comment(f.text)
			continue
		}
		p.comment(f.title + ": " + f.text)
	}
	for _, t := range ttftTables(d) {
		p.plain(t.cols, t.rows)
		notes := t.notes
		if table.Layout(t.cols, t.rows, p.width())[0] != table.Layout(t.cols, t.rows, 0)[0] {
			notes += "; report --wide shows all columns"
		}
		p.comment(notes)
	}
	var verdicts remarks
	for _, v := range ttftVerdicts(d) {
		verdicts.add(v.about, v.text)
	}
	if ss := verdicts.sentences("comparisons"); len(ss) > 0 {
		p.line("")
		for _, s := range ss {
			p.item(s)
		}
		p.comment(ttftMethod(d))
	}
	for _, r := range runOrder(d) {
		p.line("")
		p.item(r.head)
		for _, l := range r.lines {
			p.item("  " + l)
		}
	}
	if ws := ttftWarnings(d); len(ws) > 0 {
		p.line("")
		for _, w := range ws {
			p.item("warning: "+w, p.warn)
		}
	}
	_, err := io.WriteString(w, p.b.String())
	return err
}

func ttftFacts(d *analysis.Requests) []fact {
	run := &d.Record.Run
	out := []fact{{"", title(run)}}
	if note := run.Env["XFERBENCH_NOTE"]; note != "" {
		out = append(out, fact{"note", note})
	}
	if d.Simulated {
		out = append(out, fact{"SIMULATED", simulatedTTFT})
	}
	out = append(out, hosts(run)...)
	if run.Design != nil {
		text := run.Design.Order + " order in blocks"
		if run.Launches > 1 {
			text += fmt.Sprintf(", %d launches with fresh processes", run.Launches)
		}
		out = append(out, fact{"design", fmt.Sprintf("%s, seed %d", text, run.Seed)})
	}
	if d.Record.Path != "" {
		out = append(out, fact{"record", tilde(d.Record.Path)})
	}
	return append(out, fact{"", fmt.Sprintf("%s requests, %d invalid (%s %%)", units.FormatCount(int64(d.N)), d.Invalid, units.Digits(100*d.InvalidShare(), 3))})
}

// armVerdict is a comparison of arms in words.
type armVerdict struct {
	outcome     string // as [analysis.ArmComparison.Outcome] has it
	about, text string
}

func (v armVerdict) sentence() string { return v.about + ": " + v.text }

func ttftVerdicts(d *analysis.Requests) []armVerdict {
	var out []armVerdict
	for _, c := range d.Comparisons {
		v := c.Verdict
		a := armVerdict{outcome: c.Outcome(), about: fmt.Sprintf("%s against %s, %s tokens, %s", c.B.Arm, c.A.Arm, units.FormatCount(int64(c.B.Tokens)), c.B.Load)}
		switch v.Kind {
		case stats.TooFew:
			a.text = fmt.Sprintf("too few %s for a verdict: %d, need %d", unitWords(c.A.Launches, c.B.Launches), v.NA, v.Need)
		case stats.NoDifference:
			r, iv := ratioInterval(v.Ratio, v.Interval)
			a.text = fmt.Sprintf("no difference, would have seen %s or more (ratio %s %s, %s, n = %d)", effect(v.MDE), r, iv, pvalue(v.PAdjusted), v.NA)
		default:
			slow, f, ci := c.Slower()
			r, iv := ratioInterval(f, ci)
			a.text = fmt.Sprintf("%s times as long to the first token %s, %s, n = %d", r, iv, pvalue(v.PAdjusted), v.NA)
			if slow == c.A {
				a.text = slow.Arm + " takes " + a.text
			}
		}
		out = append(out, a)
	}
	return out
}

// ttftMethod says how the verdicts came about. They are one question, which arm is
// the fastest, so that chance gives a false one in 5 % of runs.
func ttftMethod(d *analysis.Requests) string {
	s := verdictMethod("TTFT", launches(d))
	if slices.ContainsFunc(d.Comparisons, func(c analysis.ArmComparison) bool { return c.Verdict.Family > 1 }) {
		s += ", p after Holm's correction over all comparisons of the run"
	}
	return s
}

// orderText is how an arm behaved over its requests.
type orderText struct {
	head  string
	lines []string
}

// runOrder tells of each series what changed, and where the block pool wraps
// around.
func runOrder(d *analysis.Requests) []orderText {
	var out []orderText
	for _, s := range d.Series {
		var classes []string
		known := false // a few requests have no class
		for _, c := range s.Classes {
			classes = append(classes, c.Component+" "+c.Class.String())
			known = known || c.Class != stats.Unclassified
		}
		if s.N < 2 || !known && len(s.Changes) == 0 && s.Lap == nil && s.NoLap == "" {
			continue
		}
		o := orderText{head: fmt.Sprintf("%s, %d requests one at a time", seriesName(s), s.N)}
		if len(classes) > 0 {
			o.head += ": " + strings.Join(classes, ", ")
		}
		for _, e := range s.Stretches {
			o.lines = append(o.lines, fmt.Sprintf("%s of %d requests, #%d to #%d, is %s times that of the rest", e.Component, e.N, e.First+1, e.Last+1, units.Digits(e.Factor, 2)))
		}
		for _, c := range s.Changes {
			if s.Class(c.Component) == stats.Excursions {
				continue // said as a stretch
			}
			before, after := ttftCell(c.Before), ttftCell(c.After)+" ms"
			if c.Component == analysis.ComponentDescriptors {
				before, after = units.Digits(c.Before, 4), units.Digits(c.After, 4)
			}
			o.lines = append(o.lines, fmt.Sprintf("%s changes at request %d: %s to %s", c.Component, c.Sequence+1, before, after))
		}
		if s.NoLap != "" {
			o.lines = append(o.lines, "block pool: not followed: "+s.NoLap)
		}
		if l := s.Lap; l != nil {
			t := fmt.Sprintf("block pool: %s blocks, %d a request: the free list of a fresh engine wraps around at request %d", units.FormatCount(int64(l.PoolBlocks)), l.PerRequest, l.Sequence+1)
			if l.DecodeSequence != l.Sequence {
				t += fmt.Sprintf(" (decode engine, which holds the output too: %d)", l.DecodeSequence+1)
			}
			if !l.Reached {
				t += ", after the last of these"
			}
			o.lines = append(o.lines, t)
			if l.Model != "" {
				o.lines = append(o.lines, fmt.Sprintf("descriptors follow a free list in %s order in %d of %d requests", l.Model, l.Agree, l.Of))
			}
		}
		out = append(out, o)
	}
	return out
}

func seriesName(s analysis.Series) string {
	name := fmt.Sprintf("%s, %s tokens", s.Arm, units.FormatCount(int64(s.Tokens)))
	if s.Launch > 0 {
		name += fmt.Sprintf(", launch %d", s.Launch+1)
	}
	return name
}

// maxDetail is how many characters of an engine's words are shown; the record
// has all.
const maxDetail = 600

// fewUnits says that a row has too few units for an interval.
func fewUnits(r *analysis.RequestRow) string {
	return fmt.Sprintf("%d %s give no interval and no verdict: use %s", r.TTFT.N, unitWords(r.Launches), moreUnits(r.Launches))
}

// launches is the most launches that a row has.
func launches(d *analysis.Requests) int {
	n := 0
	for _, r := range d.Rows {
		n = max(n, r.Launches)
	}
	return n
}

// unfinished says that a run did not come to its end, if so.
func unfinished(d *analysis.Requests) string {
	switch end := d.Record.End; {
	case d.Record.Cut:
		return analysis.CutFile
	case end == nil && d.Live:
		return ""
	case end == nil:
		return "the record has no end line: the run was cut off; what it had measured is here"
	case end.Status != record.StatusOK:
		return strings.TrimSuffix("the run is not complete: "+end.Status+": "+end.Error, ": ")
	}
	return ""
}

// ttftWarnings are what a reader must know beside the numbers.
func ttftWarnings(d *analysis.Requests) []string {
	var out []string
	if d.Invalid > 0 {
		out = append(out, fmt.Sprintf("%d of %d requests do not count: %s", d.Invalid, d.N, list(reasons(d.Reasons))))
		for _, detail := range details(d.Details) {
			out = append(out, "the first "+detail)
		}
	}
	if w := unfinished(d); w != "" {
		out = append(out, w)
	}
	var direct, tokens, rows remarks
	for _, r := range d.Rows {
		if r.Cold > 0 {
			out = append(out, fmt.Sprintf("%s: %d of %d requests had to open a connection", r.Condition.Name, r.Cold, r.N()))
		}
		if r.Merged > 0 {
			out = append(out, fmt.Sprintf("%s: %d of %d requests came in fewer chunks than tokens: the API server was late, and TTFT and itl are of several tokens", r.Condition.Name, r.Merged, r.N()))
		}
		if r.Mismatch > 0 {
			out = append(out, fmt.Sprintf("%s: the decode engine's first token differs from the prefill engine's in %d of %d requests", r.Condition.Name, r.Mismatch, r.Matched))
		}
		if n := r.Rules[record.RuleTokens]; n > 0 && (r.Path == record.PathTwoLeg || r.Path == record.PathProxy) {
			tokens.add(r.Condition.Name, fmt.Sprintf("the engines' counts of tokens alone judged %d requests, since how many bytes must move is not known: name the model with --kv-model", n))
		}
		if r.Path == record.PathDirect {
			direct.add(r.Arm, "ends at the prefill engine and contains no transfer of KV cache")
		}
		if r.TTFT != nil && r.TTFT.N < stats.MinRankCI {
			rows.add(r.Condition.Name, fewUnits(r))
		}
	}
	out = append(out, direct.sentences("arms")...)
	out = append(out, tokens.sentences("rows")...)
	out = append(out, rows.sentences("rows")...)
	for _, s := range d.Series {
		if s.Class(analysis.ComponentTTFT) != stats.Excursions && slices.ContainsFunc(s.Changes, func(c analysis.Change) bool { return c.Component == analysis.ComponentTTFT }) {
			out = append(out, seriesName(s)+": the TTFT has more than one level, and its median mixes them; see the changes in run order")
		}
	}
	var compared remarks
	for i, c := range d.Comparisons {
		for _, w := range c.Verdict.Warnings {
			if w.Code != "too-few-units" {
				compared.add(ttftVerdicts(d)[i].about, w.Text)
			}
		}
	}
	return append(out, compared.sentences("comparisons")...)
}

func ttftMarkdown(b *bytes.Buffer, d *analysis.Requests) {
	fmt.Fprintf(b, "# xferbench ttft run %s\n", escape(d.Record.Run.ID))
	if d.Simulated {
		fmt.Fprintf(b, "\n**SIMULATED: %s**\n", simulatedTTFT)
	}
	for _, w := range ttftWarnings(d) {
		fmt.Fprintf(b, "\n> **Warning:** %s\n", escape(w))
	}
	if vs := ttftVerdicts(d); len(vs) > 0 {
		b.WriteString("\n## Verdicts\n\n")
		for _, v := range vs {
			fmt.Fprintf(b, "- %s\n", escape(v.sentence()))
		}
	}
	for _, t := range ttftTables(d) {
		fmt.Fprintf(b, "\n## %s\n\n", t.title)
		markdownTable(b, t.cols, t.rows, nil, 0)
		fmt.Fprintf(b, "\n%s.\n", escape(t.notes))
	}
	if os := runOrder(d); len(os) > 0 {
		b.WriteString("\n## Run order\n\n")
		for _, o := range os {
			fmt.Fprintf(b, "- %s\n", escape(o.head))
			for _, l := range o.lines {
				fmt.Fprintf(b, "  - %s\n", escape(l))
			}
		}
	}
	b.WriteString("\n## Provenance\n\n")
	for _, f := range ttftFacts(d) {
		fmt.Fprintf(b, "- %s\n", escape(strings.TrimPrefix(f.title+": "+f.text, ": ")))
	}
}

// ttftLabel names a row in figures.
func ttftLabel(r *analysis.RequestRow) string {
	return fmt.Sprintf("%s, %s tokens, %s", r.Arm, units.FormatCount(int64(r.Tokens)), word(r.Load))
}

// ttftTable is a table of a TTFT run, with the words that explain it.
type ttftTable struct {
	title, notes string
	cols         []table.Column
	rows         int
}

// ttftTables are those of a run that have a row.
func ttftTables(d *analysis.Requests) []ttftTable {
	return slices.DeleteFunc([]ttftTable{mainTable(d), splitTable(d), movedTable(d)}, func(t ttftTable) bool { return t.rows == 0 })
}
