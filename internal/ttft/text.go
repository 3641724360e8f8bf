package ttft

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

// Text writes the result as the terminal shows it. Lines that begin with # are
// for people, the others are tables whose cells hold no space.
func (r *Result) Text(w io.Writer) error {
	var b strings.Builder
	if r.Simulated {
		b.WriteString("# SIMULATED: rows marked so come from xferbench's own stand-in for engines\n")
	}
	wrapped(&b, "#   ", fmt.Sprintf("# %d requests, %d invalid (%s %%)%s", r.Requests, r.Invalid, units.Digits(100*r.InvalidShare(), 3), reasons(r.Reasons)))
	for _, why := range slices.Sorted(maps.Keys(r.Details)) {
		if d := strings.Join(strings.Fields(r.Details[why]), " "); d != "" {
			wrapped(&b, "#   ", fmt.Sprintf("# the first %s: %.*s", why, MaxDetail, d))
		}
	}
	b.WriteString("\n")
	r.mainTable(&b)
	r.splitTable(&b)
	r.movedTable(&b)
	var verdicts remarks
	for _, c := range r.Comparisons {
		verdicts.add(fmt.Sprintf("%s, %d tokens %s", c.Name, c.Tokens, c.Level), c.sentence())
	}
	verdicts.write(&b, "  ", "", "comparisons")
	if len(r.Comparisons) > 0 {
		b.WriteString("# paired blocks, Hodges-Lehmann ratio of TTFT with its 95% interval, sign-flip\n#   test\n\n")
	}
	for _, s := range r.Series {
		s.text(&b)
	}
	r.notes(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// MaxDetail is how many characters of a detail are shown; the record has all.
const MaxDetail = 600

// table writes lines of cells, the first line the head; the first left columns
// are left-aligned. A column in which no row has anything is left out.
func table(b *strings.Builder, left int, rows [][]string) {
	for i := len(rows[0]) - 1; i >= 0; i-- {
		if !slices.ContainsFunc(rows[1:], func(r []string) bool { return r[i] != "-" && r[i] != "" }) {
			for k := range rows {
				rows[k] = slices.Delete(rows[k], i, i+1)
			}
		}
	}
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			r[i] = units.Printable(c)
			c = r[i]
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for _, r := range rows {
		var line strings.Builder
		for i, c := range r {
			if i > 0 {
				line.WriteByte(' ')
			}
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if i < left {
				line.WriteString(c + pad)
			} else {
				line.WriteString(pad + c)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// ms is a time in ms with four significant digits, but none below 100 ns.
func ms(ns float64) string {
	if v := math.Abs(ns / 1e6); v > 0 && v < 0.1 {
		return strconv.FormatFloat(ns/1e6, 'f', 4, 64)
	}
	return units.Digits(ns/1e6, 4)
}

func reasons(m map[record.Reason]int) string {
	var list []string
	for r, n := range m {
		list = append(list, fmt.Sprintf("%s %d", r, n))
	}
	if len(list) == 0 {
		return ""
	}
	slices.Sort(list)
	return ": " + strings.Join(list, ", ")
}

func quantile(q *stats.QuantileResult) string {
	if q == nil || q.Guarded {
		return "-"
	}
	return ms(q.Value)
}

func (r *Result) mainTable(b *strings.Builder) {
	head := []string{"arm", "path", "load", "tokens", "n", "invalid", "ttft", "ci_lo", "ci_hi", "p95", "p99", "max", "itl", "e2e"}
	offline := false
	for _, row := range r.Rows {
		offline = offline || row.Makespan != nil
	}
	if offline {
		head = append(head, "makespan", "tok/s")
	}
	if r.Simulated {
		head = append(head, "")
	}
	rows := [][]string{head}
	for _, row := range r.Rows {
		cells := []string{row.Arm, dash(row.Path), dash(row.Level), strconv.Itoa(row.Tokens), "0x0", strconv.Itoa(row.Invalid), "-", "-", "-", "-", "-", "-", "-", "-"}
		if t := row.TTFT; t != nil {
			cells[4] = fmt.Sprintf("%dx%s", t.N, units.Digits(float64(row.N)/float64(t.N), 2))
			cells[6] = ms(t.Median)
			if t.CI != nil {
				cells[7], cells[8] = ms(t.CI.Lo), ms(t.CI.Hi)
			}
			cells[9], cells[10], cells[11] = quantile(row.P95), quantile(row.P99), ms(row.maxTTFT)
			cells[12], cells[13] = ms(row.ITL), ms(row.E2E)
		}
		if offline {
			// A batch's makespan says more than its requests' own ends.
			cells[12], cells[13] = "-", "-"
			span, rate := "-", "-"
			if row.Makespan != nil {
				span, rate = ms(row.Makespan.Median), units.Digits(row.Throughput, 3)
			}
			cells = append(cells, span, rate)
		}
		if r.Simulated {
			cells = append(cells, map[bool]string{true: "simulated"}[row.Condition.Simulated])
		}
		rows = append(rows, cells)
	}
	table(b, 3, rows)
	b.WriteString("# times in ms; n: blocks x valid requests of a block; ttft: median of block\n" +
		"#   medians, ci: its 95% interval; p95 and p99 over all requests, from 100 and\n" +
		"#   500 on; itl, e2e: medians\n\n")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (r *Result) splitTable(b *strings.Builder) {
	rows := [][]string{{"arm", "load", "tokens", "wait", "prefill", "handover", "dec_queue", "one_token", "network", "by"}}
	legs := false
	for _, row := range r.Rows {
		s := row.Split
		if s == nil {
			continue
		}
		by := "engines"
		if s.Engine == 0 {
			by, legs = "legs", true
		}
		wait := "-" // a closed loop has none
		if strings.HasSuffix(row.Level, "/s") {
			wait = ms(s.Wait)
		}
		rows = append(rows, []string{row.Arm, row.Level, strconv.Itoa(row.Tokens), wait, ms(s.Prefill), ms(s.HandOver), ms(s.DecodeQueue), ms(s.OneToken), ms(s.Network), by})
	}
	if len(rows) == 1 {
		return
	}
	table(b, 2, rows)
	b.WriteString("# where the TTFT went, medians in ms; dec_queue: the decode engine's queue,\n" +
		"#   which holds handshake and transfer; one_token: its forward pass over the\n" +
		"#   last prompt token; network: HTTP and the API servers\n")
	if legs {
		b.WriteString("# by legs: with several requests in flight, prefill and dec_queue are whole legs\n" +
			"#   with their HTTP, by this side's clock\n")
	}
	b.WriteString("\n")
}

func (r *Result) movedTable(b *strings.Builder) {
	rows := [][]string{{"arm", "load", "tokens", "transfers", "bytes", "descs", "xfer", "post", "%ttft"}}
	for _, row := range r.Rows {
		m := row.Moved
		if m == nil {
			continue
		}
		descs := "-"
		if m.MaxDesc > 0 {
			descs = strconv.FormatInt(m.MinDesc, 10)
			if m.MaxDesc != m.MinDesc {
				descs += "-" + strconv.FormatInt(m.MaxDesc, 10)
			}
		}
		rows = append(rows, []string{row.Arm, row.Level, strconv.Itoa(row.Tokens), strconv.FormatInt(m.Transfers, 10),
			strconv.FormatFloat(m.Bytes, 'f', 0, 64), descs, ms(m.Xfer), ms(m.Post), units.Digits(100*m.Share, 2)})
	}
	if len(rows) == 1 {
		return
	}
	table(b, 2, rows)
	b.WriteString("# what NIXL counted for a transfer: bytes, and descriptors after merging; xfer\n" +
		"#   and post: medians in ms; %ttft: xfer of ttft\n\n")
}

// sentence is a comparison in words.
func (c ArmComparison) sentence() string {
	v := c.Verdict
	switch v.Kind {
	case stats.Different:
		word := "slower"
		f := v.Ratio
		lo, hi := 0.0, 0.0
		if v.Interval != nil {
			lo, hi = v.Interval.Lo, v.Interval.Hi
		}
		if f < 1 {
			word, f, lo, hi = "faster", 1/f, 1/hi, 1/lo
		}
		s := fmt.Sprintf("%s times as long to the first token as %s", units.Digits(f, 3), c.Base)
		if word == "faster" {
			s = fmt.Sprintf("%s takes %s times as long to the first token", c.Base, units.Digits(f, 3))
		}
		if v.Interval != nil {
			s += fmt.Sprintf(" [%s, %s]", units.Digits(lo, 3), units.Digits(hi, 3))
		}
		return s + fmt.Sprintf(", p = %s, n = %d", units.Digits(v.PAdjusted, 2), v.NA)
	case stats.NoDifference:
		return fmt.Sprintf("no difference to %s; one of %s %% or more would have been seen (ratio %s, p = %s, n = %d)",
			c.Base, units.Digits(100*v.MDE, 2), units.Digits(v.Ratio, 3), units.Digits(v.PAdjusted, 2), v.NA)
	}
	return fmt.Sprintf("too few blocks for a verdict against %s: %d, and %d are needed", c.Base, v.NA, v.Need)
}

func (s Series) text(b *strings.Builder) {
	var classes []string
	known := false // a few requests have no class
	for _, c := range components {
		if k, ok := s.Classes[c.name]; ok {
			classes = append(classes, c.name+" "+k.String())
			known = known || k != stats.Unclassified
		}
	}
	if s.N < 2 || !known && len(s.Changes) == 0 && s.Lap == nil {
		return
	}
	head := fmt.Sprintf("%s, %d tokens, %d requests one at a time", s.Arm, s.Tokens, s.N)
	if len(classes) > 0 {
		head += ": " + strings.Join(classes, ", ")
	}
	wrapped(b, "  ", head)
	for _, c := range s.Changes {
		before, after, unit := ms(c.Before), ms(c.After), " ms"
		if c.Component == "descriptors" {
			before, after, unit = units.Digits(c.Before, 4), units.Digits(c.After, 4), ""
		}
		fmt.Fprintf(b, "  %s changes at request %d: %s to %s%s\n", c.Component, c.Sequence+1, before, after, unit)
	}
	if l := s.Lap; l != nil {
		t := fmt.Sprintf("  block pool: %d blocks, %d a request: the free list of a fresh engine wraps around at request %d", l.PoolBlocks, l.PerRequest, l.Sequence+1)
		if l.DecodeSequence != l.Sequence {
			t += fmt.Sprintf(" (decode engine, which holds the output too: %d)", l.DecodeSequence+1)
		}
		if !l.Reached {
			t += ", after the last of these"
		}
		wrapped(b, "    ", t)
		if l.Model != "" {
			wrapped(b, "    ", fmt.Sprintf("  descriptors follow a free list in %s order in %d of %d requests", l.Model, l.Agree, l.Of))
		}
	}
	b.WriteString("\n")
}

// columns is the width of the text.
const columns = 80

// wrapped writes text in lines of at most columns, the later ones indented.
func wrapped(b *strings.Builder, indent, text string) {
	text = units.Printable(text) // engines' words and names
	for utf8.RuneCountInString(text) > columns {
		r := []rune(text)
		at := columns
		for at > len(indent)+1 && r[at] != ' ' {
			at--
		}
		if at <= len(indent)+1 {
			break // a word as long as a line
		}
		b.WriteString(string(r[:at]) + "\n")
		text = indent + strings.TrimLeft(string(r[at:]), " ")
	}
	b.WriteString(text + "\n")
}

// notes are what a reader must know beside the numbers.
func (r *Result) notes(b *strings.Builder) {
	var direct, warnings, compared remarks
	for _, row := range r.Rows {
		if row.Cold > 0 {
			wrapped(b, "#   ", fmt.Sprintf("# %s: %d of %d requests had to open a connection", row.Condition.Name, row.Cold, row.N))
		}
		if row.Merged > 0 {
			wrapped(b, "#   ", fmt.Sprintf("# %s: %d of %d requests came in fewer chunks than tokens: the API server was late, and TTFT and itl are of several tokens", row.Condition.Name, row.Merged, row.N))
		}
		if row.Mismatch > 0 {
			wrapped(b, "#   ", fmt.Sprintf("# %s: the decode engine's first token differs from the prefill engine's in %d of %d requests", row.Condition.Name, row.Mismatch, row.Matched))
		}
		if row.Path == record.PathDirect {
			direct.add(row.Arm, "ends at the prefill engine and contains no transfer of KV cache")
		}
		if row.TTFT != nil {
			for _, w := range row.TTFT.Warnings {
				warnings.add(row.Condition.Name, w.Text)
			}
		}
	}
	direct.write(b, "#   ", "# ", "arms")
	warnings.write(b, "#   ", "# ", "rows")
	for _, s := range r.Series {
		for _, c := range s.Changes {
			if c.Component == "ttft" {
				wrapped(b, "#   ", fmt.Sprintf("# %s, %d tokens: the TTFT has more than one level, and the median above mixes them; see the changes", s.Arm, s.Tokens))
				break
			}
		}
	}
	for _, c := range r.Comparisons {
		if c.Verdict.Kind == stats.TooFew {
			continue // its sentence says so
		}
		for _, w := range c.Verdict.Warnings {
			compared.add(fmt.Sprintf("%s against %s, %d tokens %s", c.Name, c.Base, c.Tokens, c.Level), w.Text)
		}
	}
	compared.write(b, "#   ", "# ", "comparisons")
}

// remarks are sentences about things, in order. The same sentence about many is
// written once.
type remarks struct {
	texts []string
	about map[string][]string
}

func (m *remarks) add(name, text string) {
	if m.about == nil {
		m.about = map[string][]string{}
	}
	if _, known := m.about[text]; !known {
		m.texts = append(m.texts, text)
	}
	if !slices.Contains(m.about[text], name) {
		m.about[text] = append(m.about[text], name)
	}
}

// maxNamed is about how many things a sentence is said one by one.
const maxNamed = 3

func (m *remarks) write(b *strings.Builder, indent, prefix, things string) {
	for _, text := range m.texts {
		names := m.about[text]
		if len(names) > maxNamed {
			names = []string{fmt.Sprintf("%d %s, %s to %s", len(names), things, names[0], names[len(names)-1])}
		}
		for _, n := range names {
			wrapped(b, indent, prefix+n+": "+text)
		}
	}
}
