// Package report turns an analysis into what people and programs read: text for
// terminals, Markdown, CSV, JSON, the Go benchmark format and HTML, and compares
// records. It reads records only and measures nothing.
package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

// Options of text.
type Options struct {
	// Wide shows every column and breaks no line.
	Wide bool
	// Color styles the text; the caller decides by NO_COLOR and whether the
	// output is a terminal.
	Color bool
	// Only names the provider or arm whose rows benchfmt holds, "" for all.
	Only string
}

// width is the number of columns, 0 for no limit.
func (o Options) width() int {
	if o.Wide {
		return 0
	}
	return 80
}

// painter styles whole lines.
type painter struct{ faint, bold, good, bad, warn sgr }

// sgr is a sequence of SGR parameters (ECMA-48); "" paints nothing.
type sgr string

func newPainter(color bool) painter {
	if !color {
		return painter{}
	}
	return painter{faint: "2", bold: "1", good: "32", bad: "1;31", warn: "33"}
}

func (s sgr) render(line string) string {
	if s == "" {
		return line
	}
	return "\x1b[" + string(s) + "m" + line + "\x1b[0m"
}

// page collects lines.
type page struct {
	Options
	painter
	b strings.Builder
}

func (p *page) line(s string, st ...sgr) {
	if len(st) > 0 && s != "" {
		s = st[0].render(s)
	}
	p.b.WriteString(s + "\n")
}

// comment writes a "#" line, broken over several where it is too long.
func (p *page) comment(s string) {
	for _, l := range table.Wrap(s, "# ", "#   ", p.width()) {
		p.line(l, p.faint)
	}
}

// item writes a paragraph that hangs by two columns.
func (p *page) item(s string, st ...sgr) {
	indent := s[:len(s)-len(strings.TrimLeft(s, " "))]
	for _, l := range table.Wrap(strings.TrimLeft(s, " "), indent, indent+"  ", p.width()) {
		p.line(l, st...)
	}
}

// Text writes an analysis for a terminal: a header of "#" lines, a row for each
// condition, costs, verdicts, and warnings. Without Wide no line is longer than
// 80 columns.
func Text(w io.Writer, a *analysis.Analysis, o Options) error {
	p := &page{Options: o, painter: newPainter(o.Color)}
	for _, f := range facts(a) {
		if f.title == "" {
			p.comment(f.text)
			continue
		}
		p.comment(f.title + ": " + f.text)
	}
	rows := ordered(a)
	if len(rows) > 0 {
		cols, notes := speedColumns(rows, p.Wide)
		p.line("")
		p.table(cols, rows)
		p.comment(notes)
		p.costs(rows)
	}
	p.verdicts(a)
	p.guides(a)
	p.paths(rows)
	p.warnings(a.Warnings)
	_, err := io.WriteString(w, p.b.String())
	return err
}

// table writes rows, and the words of an emulated row in place of its figures.
func (p *page) table(cols []table.Column, rows []*analysis.Row) {
	ls := table.Layout(cols, len(rows), p.width())
	names := table.Layout(cols[:len(naming(rows))+1], len(rows), 0)
	for i, l := range ls {
		switch {
		case i == 0:
			p.line(l, p.bold)
		case rows[i-1].Failed > 0:
			p.line(l, p.bad)
		case rows[i-1].Emulated:
			p.line(names[i]+"  "+analysis.Emulated, p.warn)
		case rows[i-1].Ceiling:
			p.line(l, p.faint)
		default:
			p.line(l)
		}
	}
}

// costs is the table of what does not fit beside the speeds.
func (p *page) costs(rows []*analysis.Row) {
	switch {
	case p.Wide:
	case sizes(rows) >= manySizes:
		p.comment("--wide adds min, descriptors, post time, CPU and counters to each row")
	default:
		p.line("")
		cols, notes := costTable(rows)
		p.table(cols, rows)
		p.comment(notes)
	}
}

// manyPairs is from how many pairs on a table replaces a sentence each.
const manyPairs = 4

// verdicts are a line a pair, then the range of each provider's shapes.
func (p *page) verdicts(a *analysis.Analysis) {
	switch {
	case len(a.Pairs) > manyPairs:
		cols, notes := pairColumns(a.Pairs)
		p.plain(cols, len(a.Pairs))
		p.comment(notes)
	case len(a.Pairs) > 0:
		p.line("")
		for _, v := range a.Pairs {
			p.item(verdict(v), p.verdictStyle(v)...)
		}
	}
	if len(a.Brackets) > 0 {
		p.line("")
		for _, v := range a.Brackets {
			p.item(bracket(v))
		}
	}
	if len(a.Pairs)+len(a.Brackets) > 0 {
		p.comment(method(a))
	}
}

func (p *page) verdictStyle(v analysis.Pair) []sgr {
	if v.Outcome() == "different" {
		return []sgr{p.bold}
	}
	return nil
}

// method says how the verdicts came about, and what chance does to so many.
func method(a *analysis.Analysis) string {
	s := verdictMethod("times", a.Record.Run.Launches)
	for _, v := range slices.Concat(a.Pairs, a.Brackets) {
		if v.Verdict.Family > 1 {
			s += ", p after Holm's correction over the sizes"
			break
		}
	}
	return s + chance(a.Chance)
}

// verdictMethod says what the unit of verdicts on what is, and the test.
func verdictMethod(what string, launches int) string {
	unit := "launches"
	if launches <= 1 {
		unit = "blocks of one launch (--launches makes them general)"
	}
	return fmt.Sprintf("verdicts: paired %s, Hodges-Lehmann ratio of %s with its 95%% interval, sign-flip test", unit, what)
}

// chance says what is to be expected of several questions together.
func chance(c analysis.Chance) string {
	if c.Questions < 2 {
		return ""
	}
	s := fmt.Sprintf("; %d questions at 5%% each: were nothing different, up to %s of them would come out different by chance, one or more in up to %s of runs",
		c.Questions, units.Digits(c.Expected(), 2), units.FormatPercent(c.Any()))
	if c.Different > 0 {
		s += fmt.Sprintf("; Holm's correction over all %d verdicts would leave %d of the %d found", c.Verdicts, c.Held, c.Different)
	}
	return s
}

// about is what the two rows of a pair share, as words.
func about(v analysis.Pair) string {
	rest := func(r *analysis.Row) string { return strings.TrimPrefix(r.Label, r.Provider+" ") }
	s, _, _ := strings.Cut(rest(v.A), " (")
	return s
}

// verdict is one comparison as a sentence.
func verdict(v analysis.Pair) string {
	a, b := names(v)
	switch v.Outcome() {
	case "refused":
		return fmt.Sprintf("%s: %s against %s: no verdict: %s", about(v), a, b, v.Refused)
	case "too-few":
		return fmt.Sprintf("%s: %s against %s: too few %s for a verdict: %d, need %d", about(v), a, b, unitWords(v.A.Launches, v.B.Launches), v.Verdict.NA, v.Verdict.Need)
	case "no-difference":
		r, iv := ratioInterval(v.Verdict.Ratio, v.Verdict.Interval)
		return fmt.Sprintf("%s: %s and %s: no difference, would have seen %s or more (ratio %s %s, %s, n = %d)",
			about(v), a, b, effect(v.Verdict.MDE), r, iv, pvalue(v.Verdict.PAdjusted), v.Verdict.NA)
	}
	fast, slow, f, ci := v.Faster()
	r, iv := ratioInterval(f, ci)
	fn, sn := a, b
	if fast == v.B {
		fn, sn = b, a
	}
	return fmt.Sprintf("%s: %s is %s times as fast as %s %s, %s against %s, %s, n = %d",
		about(v), fn, r, sn, iv, nanos(fast.MedianNs), nanos(slow.MedianNs), pvalue(v.Verdict.PAdjusted), v.Verdict.NA)
}

// names tells the rows of a pair apart, also when one provider stands twice.
func names(v analysis.Pair) (string, string) {
	a, b := v.A.Provider, v.B.Provider
	if a == b {
		return a + " (first)", b + " (second)"
	}
	return a, b
}

// unitWord is what a unit is of rows of so many launches each, unitWords several.
func unitWord(launches ...int) string {
	if slices.Max(launches) > 1 {
		return "launch"
	}
	return "block"
}

func unitWords(launches ...int) string {
	if slices.Max(launches) > 1 {
		return "launches"
	}
	return "blocks"
}

// moreUnits are the flags that give rows of so many launches enough units.
func moreUnits(launches ...int) string {
	if slices.Max(launches) > 1 {
		return fmt.Sprintf("--launches %d or more", stats.MinRankCI)
	}
	return "--blocks 10"
}

func effect(mde float64) string {
	if math.IsInf(mde, 0) || math.IsNaN(mde) {
		return "nothing"
	}
	return units.Digits(mde*100, 2) + "%"
}

// bracket is the range of one provider from merged to fragmented.
func bracket(v analysis.Pair) string {
	what := fmt.Sprintf("KV cache of %s over %s %s", units.FormatMB(int64(v.A.Bytes)), v.A.Provider, strings.ToUpper(v.A.Op))
	if v.Refused != "" {
		return what + ": no range: " + v.Refused
	}
	s := fmt.Sprintf("%s: %s merged to %s fragmented", what, nanos(v.A.MedianNs), nanos(v.B.MedianNs))
	r, iv := ratioInterval(v.Verdict.Ratio, v.Verdict.Interval)
	switch v.Outcome() {
	case "too-few":
		return s + fmt.Sprintf(" (too few %s for a verdict: %d, need %d)", unitWords(v.A.Launches, v.B.Launches), v.Verdict.NA, v.Verdict.Need)
	case "no-difference":
		return s + fmt.Sprintf(" (no difference, would have seen %s or more, %s, n = %d)", effect(v.Verdict.MDE), pvalue(v.Verdict.PAdjusted), v.Verdict.NA)
	}
	return s + fmt.Sprintf(" (%s times %s, %s, n = %d)", r, iv, pvalue(v.Verdict.PAdjusted), v.Verdict.NA)
}

// guides are the advice and the cost models of a sweep.
func (p *page) guides(a *analysis.Analysis) {
	if len(a.Guides) > 0 {
		p.line("")
		for _, g := range a.Guides {
			p.item(guide(g), p.bold)
			p.item(crossing(g))
		}
	}
	if len(a.Models)+len(a.Pieces) > 0 {
		p.line("")
		for _, m := range a.Models {
			p.item(model(m))
		}
		for _, m := range a.Pieces {
			p.item(pieces(m))
		}
		p.comment(modelNotes(a))
	}
}

// guide is the advice over sizes as a sentence: each size in it was measured.
func guide(g analysis.Guide) string {
	a, b := g.A.Provider, g.B.Provider
	s := fmt.Sprintf("%s %s, %s or %s: ", strings.ToUpper(g.A.Op), g.A.Shape, a, b)
	for i, z := range g.Zones {
		switch {
		case i > 0 && z.Sizes > 1 && i == len(g.Zones)-1:
			s += fmt.Sprintf(", from %s ", shortBytes(z.FromBytes))
		case i > 0 && z.Sizes > 1:
			s += fmt.Sprintf(", from %s to %s ", shortBytes(z.FromBytes), shortBytes(z.ToBytes))
		case i > 0:
			s += fmt.Sprintf(", at %s ", shortBytes(z.FromBytes))
		case len(g.Zones) == 1:
			s += fmt.Sprintf("from %s to %s ", shortBytes(z.FromBytes), shortBytes(z.ToBytes))
		case z.Sizes > 1:
			s += fmt.Sprintf("up to %s ", shortBytes(z.ToBytes))
		default:
			s += fmt.Sprintf("at %s ", shortBytes(z.FromBytes))
		}
		s += standing(z.Standing, a, b)
	}
	return s
}

// standing is what a zone says to do.
func standing(s stats.Standing, a, b string) string {
	switch s {
	case stats.AFaster:
		return "use " + a
	case stats.BFaster:
		return "use " + b
	case stats.Equal:
		return "no difference that matters"
	}
	return "undecided"
}

// crossing is where the faster one changes, and what the advice rests on.
func crossing(g analysis.Guide) string {
	var parts []string
	for _, c := range g.Crossings {
		if l := c.Lines; l != nil {
			parts = append(parts, fmt.Sprintf("the lines cross at %s [%s, %s]", shortBytes(int64(l.Bytes)), bytesEnd(l.Interval.Lo), bytesEnd(l.Interval.Hi)))
			continue
		}
		parts = append(parts, fmt.Sprintf("the faster one changes between %s and %s", shortBytes(c.FromBytes), shortBytes(c.ToBytes)))
	}
	if len(parts) == 0 && slices.ContainsFunc(g.Zones, func(z stats.Zone) bool { return z.Standing == stats.AFaster || z.Standing == stats.BFaster }) {
		parts = append(parts, "the faster one does not change between these sizes")
	}
	units := unitWords(g.A.Launches, g.B.Launches)
	if g.Need > 0 {
		parts = append(parts, fmt.Sprintf("too few %s for a verdict at each size: %d, need %d", units, g.Units, g.Need))
	}
	parts = append(parts, fmt.Sprintf("by the verdict at each of %d sizes of %s to %s, %d %s, on this hardware; %s or more matters",
		g.Sizes(), shortBytes(g.MinBytes()), shortBytes(g.MaxBytes()), g.Units, units, limit(analysis.Relevant)))
	return "  " + strings.Join(parts, "; ")
}

func bytesEnd(f float64) string {
	switch {
	case math.IsInf(f, 0) || math.IsNaN(f):
		return "unbounded"
	case f < 0:
		return "0 B"
	}
	return shortBytes(int64(f))
}

// shortBytes writes a size with three significant digits.
func shortBytes(n int64) string {
	switch f := float64(n); {
	case n >= 999_500_000:
		return units.FormatSignificant(f/1e9) + " GB"
	case n >= 999_500:
		return units.FormatSignificant(f/1e6) + " MB"
	case n >= 1000:
		return units.FormatSignificant(f/1e3) + " kB"
	}
	return fmt.Sprintf("%d B", n)
}

func model(m analysis.Model) string {
	c := m.Cost
	beta, ci := c.BytesPerSecond()
	hi := "unbounded"
	if !math.IsInf(ci.Hi, 0) {
		hi = units.FormatSignificant(ci.Hi / 1e9)
	}
	label := m.Label
	if m.Parts > 1 {
		label += fmt.Sprintf(" from %s to %s", shortBytes(c.MinBytes), shortBytes(c.MaxBytes))
	}
	s := fmt.Sprintf("%s: start %s [%s, %s], rate %s GB/s [%s, %s]", label, units.FormatNanos(c.AlphaNS), units.FormatNanos(c.AlphaCI.Lo), units.FormatNanos(c.AlphaCI.Hi),
		units.FormatSignificant(beta/1e9), units.FormatSignificant(ci.Lo/1e9), hi)
	if c.GammaCI != nil {
		s += fmt.Sprintf(", %s a descriptor [%s, %s]", units.FormatNanos(c.GammaNS), units.FormatNanos(c.GammaCI.Lo), units.FormatNanos(c.GammaCI.Hi))
	}
	return s
}

// modelNotes say what the models are.
func modelNotes(a *analysis.Analysis) string {
	s := "cost models: start + bytes / rate, and a time for each descriptor where their number varied; least squares on " + unitWord(a.Record.Run.Launches) + " medians, 95% intervals"
	if slices.ContainsFunc(a.Models, func(m analysis.Model) bool { return m.Parts > 1 }) {
		s += "; a line for each stretch of sizes, as at a change of protocol"
	}
	return s
}

// pieces is the time of a descriptor as a sentence.
func pieces(m analysis.PieceModel) string {
	return fmt.Sprintf("%s: %s for each descriptor [%s, %s], %s without, from %s to %s descriptors", m.Label, units.FormatNanos(m.NsPerDesc),
		units.FormatNanos(m.NsPerDescCI.Lo), units.FormatNanos(m.NsPerDescCI.Hi), units.FormatNanos(m.BaseNs),
		units.FormatCount(int64(m.Rows[0].Descs)), units.FormatCount(int64(m.Rows[len(m.Rows)-1].Descs)))
}

// paths holds the payload against what the NICs counted.
func (p *page) paths(rows []*analysis.Row) {
	rows = counted(rows)
	switch {
	case len(rows) == 0:
	case sizes(rows) >= manySizes && !p.Wide:
		p.line("")
		for _, s := range pathRanges(rows) {
			p.item(s)
		}
	default:
		cols, notes := pathColumns(rows)
		p.plain(cols, len(rows))
		p.comment(notes)
	}
}

// plain writes a table after an empty line.
func (p *page) plain(cols []table.Column, n int) {
	p.line("")
	for i, l := range table.Layout(cols, n, p.width()) {
		if i == 0 {
			p.line(l, p.bold)
			continue
		}
		p.line(l)
	}
}

// pathRanges sums the paths of many rows up, a line a provider.
func pathRanges(rows []*analysis.Row) []string {
	type span struct {
		name   string
		lo, hi float64
	}
	var out []string
	for _, provider := range unique(providersOf(rows)) {
		var spans []span
		for _, r := range rows {
			if r.Provider != provider || len(r.Path.Counters) == 0 {
				continue
			}
			name := r.Path.Counters[0].Device + ":" + r.Path.Counters[0].Name
			if r.Emulated {
				name += " (simulated)"
			}
			i := slices.IndexFunc(spans, func(s span) bool { return s.name == name })
			if i < 0 {
				spans = append(spans, span{name, r.Path.Ratio, r.Path.Ratio})
				continue
			}
			spans[i].lo, spans[i].hi = math.Min(spans[i].lo, r.Path.Ratio), math.Max(spans[i].hi, r.Path.Ratio)
		}
		for _, s := range spans {
			out = append(out, fmt.Sprintf("path of %s: %s counted %s to %s times the payload", provider, s.name, units.Digits(s.lo, 4), units.Digits(s.hi, 4)))
		}
	}
	return out
}

func providersOf(rows []*analysis.Row) []string {
	var out []string
	for _, r := range rows {
		out = append(out, r.Provider)
	}
	return out
}

func (p *page) warnings(ws []analysis.Warning) {
	if len(ws) == 0 {
		return
	}
	p.line("")
	for _, w := range ws {
		st := p.warn
		if w.Code == "data-check-failed" {
			st = p.bad
		}
		p.item("warning: "+w.Text, st)
	}
}
