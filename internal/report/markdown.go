package report

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/units"
)

// markdown writes the same facts as the wide text, as GitHub's Markdown: the
// verdicts first.
func markdown(b *bytes.Buffer, a *analysis.Analysis) {
	run := a.Record.Run
	fmt.Fprintf(b, "# xferbench %s run %s\n", escape(run.Kind), escape(run.ID))
	if a.Emulated() {
		fmt.Fprintf(b, "\n**%s**\n", analysis.Emulated)
	}
	for _, w := range a.Warnings {
		fmt.Fprintf(b, "\n> **Warning:** %s\n", escape(w.Text))
	}
	if s := sentences(a); len(s) > 0 {
		b.WriteString("\n## Verdicts\n\n")
		for _, v := range s {
			fmt.Fprintf(b, "- %s\n", escape(v))
		}
		fmt.Fprintf(b, "\n%s.\n", escape(method(a)))
	}
	if rows := ordered(a); len(rows) > 0 {
		cols, notes := speedColumns(rows, true)
		b.WriteString("\n## Results\n\n")
		markdownTable(b, cols, len(rows), func(i int) string {
			if rows[i].Emulated {
				return analysis.Emulated
			}
			return ""
		}, len(naming(rows)))
		fmt.Fprintf(b, "\n%s.\n", escape(notes))
	}
	if lines := advice(a); len(lines) > 0 {
		b.WriteString("\n## Which one when\n\n")
		for _, l := range lines {
			fmt.Fprintf(b, "- %s\n", escape(strings.TrimSpace(l)))
		}
	}
	if rows := counted(ordered(a)); len(rows) > 0 {
		cols, notes := pathColumns(rows)
		b.WriteString("\n## Path\n\n")
		markdownTable(b, cols, len(rows), nil, 0)
		fmt.Fprintf(b, "\n%s.\n", escape(notes))
	}
	b.WriteString("\n## Provenance\n\n")
	for _, f := range facts(a) {
		if f.title == "" {
			fmt.Fprintf(b, "- %s\n", escape(f.text))
			continue
		}
		fmt.Fprintf(b, "- %s: %s\n", escape(f.title), escape(f.text))
	}
}

// sentences are all verdicts in words, pairs before brackets.
func sentences(a *analysis.Analysis) []string {
	var out []string
	for _, v := range a.Pairs {
		out = append(out, verdict(v))
	}
	for _, v := range a.Brackets {
		out = append(out, bracket(v))
	}
	return out
}

// advice is the guidelines with what they rest on, then the models.
func advice(a *analysis.Analysis) []string {
	var out []string
	for _, g := range a.Guides {
		out = append(out, guide(g), crossing(g))
	}
	for _, m := range a.Models {
		out = append(out, model(m))
	}
	for _, m := range a.Pieces {
		out = append(out, pieces(m))
	}
	return out
}

// markdownTable writes columns; instead gives words that stand in place of all
// cells from column from on, "" for none.
func markdownTable(b *bytes.Buffer, cols []table.Column, n int, instead func(int) string, from int) {
	for _, c := range cols {
		fmt.Fprintf(b, "| %s ", escape(c.Head))
	}
	b.WriteString("|\n")
	for _, c := range cols {
		if c.Left {
			b.WriteString("|:--")
		} else {
			b.WriteString("|--:")
		}
	}
	b.WriteString("|\n")
	for i := range n {
		words := ""
		if instead != nil {
			words = instead(i)
		}
		for j, c := range cols {
			s := c.Cell(i)
			switch {
			case words != "" && j == from:
				s = words
			case words != "" && j > from:
				s = ""
			}
			fmt.Fprintf(b, "| %s ", escape(s))
		}
		b.WriteString("|\n")
	}
}

var markdownEscapes = strings.NewReplacer("|", `\|`, "*", `\*`, "_", `\_`, "<", "&lt;", "`", "\\`", "[", `\[`)

// escape keeps text from the record from being markup.
func escape(s string) string { return markdownEscapes.Replace(units.Printable(s)) }
