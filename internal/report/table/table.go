// Package table lays tables and paragraphs out as text of a fixed width.
package table

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/xferbench/xferbench/internal/units"
)

// Column is one column of a table of text.
type Column struct {
	Head string
	Left bool // left-aligned
	// Cell is the text of a row, counted from 0. Without a space awk can split a line.
	Cell func(row int) string
	// Short replaces Cell where the table would be too wide, and nil leaves the
	// column as it is.
	Short func(row int) string
	// Gap is the number of spaces before the column, 0 for one.
	Gap int
	// Rank says what gives way first when a table is too wide: columns of
	// rank 1 are shortened and then dropped, then those of rank 2 and so on.
	// Rank 0 stays.
	Rank int
}

// Of makes right-aligned columns, gap spaces apart, of rows of cells: the first
// row is the head.
func Of(rows [][]string, gap int) []Column {
	var cols []Column
	for k, head := range rows[0] {
		cols = append(cols, Column{Head: head, Gap: gap, Cell: func(i int) string { return rows[i+1][k] }})
	}
	return cols
}

// Layout returns the lines of a table of n rows, head first, in at most width
// columns if that can be reached by shortening and dropping (0: no limit). What
// a terminal would take for a command is escaped.
func Layout(cols []Column, n, width int) []string {
	cols = append([]Column(nil), cols...)
	for i := range cols {
		cols[i].Cell, cols[i].Short = printable(cols[i].Cell), printable(cols[i].Short)
	}
	highest := 0
	for _, c := range cols {
		highest = max(highest, c.Rank)
	}
	for rank := 1; width > 0 && rank <= highest && tableWidth(cols, n) > width; rank++ {
		for i := range cols {
			if cols[i].Rank == rank && cols[i].Short != nil {
				cols[i].Cell = cols[i].Short
			}
		}
		for i := len(cols) - 1; i >= 0 && tableWidth(cols, n) > width; i-- {
			if cols[i].Rank == rank && cols[i].Short == nil {
				cols = append(cols[:i], cols[i+1:]...)
			}
		}
	}
	lines := make([]string, n+1)
	for ci, c := range cols {
		w := c.width(n)
		for i := range lines {
			s := c.Head
			if i > 0 {
				s = c.Cell(i - 1)
			}
			pad := strings.Repeat(" ", w-utf8.RuneCountInString(s))
			if ci > 0 {
				lines[i] += strings.Repeat(" ", c.gap())
			}
			if c.Left {
				lines[i] += s + pad
			} else {
				lines[i] += pad + s
			}
		}
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}

// printable makes what a record says into text for a terminal.
func printable(cell func(int) string) func(int) string {
	if cell == nil {
		return nil
	}
	return func(i int) string { return units.Printable(cell(i)) }
}

func (c Column) width(n int) int {
	w := utf8.RuneCountInString(c.Head)
	for i := range n {
		w = max(w, utf8.RuneCountInString(c.Cell(i)))
	}
	return w
}

func (c Column) gap() int { return max(c.Gap, 1) }

func tableWidth(cols []Column, n int) int {
	w := 0
	for i, c := range cols {
		if w += c.width(n); i > 0 {
			w += c.gap()
		}
	}
	return w
}

// glue finds spaces at which no line should break: between a number and its
// unit, and within an interval or an equation.
var glue = regexp.MustCompile(`(\d) (ns|µs|ms|s|B|kB|MB|GB|KiB|MiB|GiB|GB/s|Gbit/s)\b|([=<]) |(\d),? (\d|unbounded)|(\w) ([=<])`)

// joint stands for a space that glue found.
const joint = "\x1f"

// Wrap breaks s at spaces into lines of at most width columns; the first starts
// with first, the others with rest. A word that is longer than a line is cut,
// since a terminal would cut it too, and elsewhere.
func Wrap(s, first, rest string, width int) []string {
	s = units.Printable(s) // what a record, a peer or a library said
	s = glue.ReplaceAllStringFunc(s, func(m string) string { return strings.ReplaceAll(m, " ", joint) })
	var out []string
	var line strings.Builder
	size, empty := 0, true // of line
	add := func(text string, runes int) {
		line.WriteString(text)
		size += runes
	}
	flush := func() {
		out = append(out, strings.TrimRight(strings.ReplaceAll(line.String(), joint, " "), " "))
		line.Reset()
		size, empty = 0, true
		add(rest, utf8.RuneCountInString(rest))
	}
	add(first, utf8.RuneCountInString(first))
	for word := range strings.SplitSeq(s, " ") {
		runes := utf8.RuneCountInString(word)
		if !empty && width > 0 && size+1+runes > width {
			flush()
		}
		for width > 0 && size+runes > width {
			cut, n := 0, max(0, width-size)
			for range n {
				_, more := utf8.DecodeRuneInString(word[cut:])
				cut += more
			}
			add(word[:cut], n)
			word, runes = word[cut:], runes-n
			flush()
		}
		if !empty {
			add(" ", 1)
		}
		add(word, runes)
		empty = false
	}
	flush()
	return out
}
