package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/xferbench/xferbench/internal/units"
)

// result is a row's figures.
type result struct {
	work, peer, unit string
	ours, theirs     float64 // theirs: 0 for none
	ratio, lo, hi    float64 // ours over theirs; 0: none
	goal             bound
	note             string // one line under the table
}

// bound is a goal: of the ratio, or of ours where there is no peer.
type bound struct {
	limit float64 // 0: only reported
	least bool    // the limit is the least, not the most
}

func (b bound) String() string {
	switch {
	case b.limit == 0:
		return "-"
	case b.least:
		return fmt.Sprintf(">= %.2f", b.limit)
	}
	return fmt.Sprintf("<= %.4g", b.limit)
}

// met is "yes", "no", or "-" without a goal.
func (r result) met() string {
	x := r.ratio
	if r.theirs == 0 {
		x = r.ours
	}
	switch {
	case r.goal.limit == 0:
		return "-"
	case r.goal.least && x >= r.goal.limit, !r.goal.least && x <= r.goal.limit:
		return "yes"
	}
	return "no"
}

func (r result) cells() []string {
	out := []string{r.work, r.peer, units.FormatSignificant(r.ours), "-", r.unit, "-", "-", r.goal.String(), r.met()}
	if r.theirs != 0 {
		out[3] = units.FormatSignificant(r.theirs)
	}
	if r.ratio != 0 {
		out[5] = fmt.Sprintf("%.3f", r.ratio)
	}
	if r.hi != 0 {
		out[6] = fmt.Sprintf("%.3f to %.3f", r.lo, r.hi)
	}
	return out
}

// table prints rows as they come, so that a long bench shows where it is.
type table struct {
	w        io.Writer
	markdown bool
	met, of  int
	notes    []string
}

// columns are titles and, for plain text, widths.
var columns = []struct {
	title string
	width int
}{{"work", 37}, {"peer", 20}, {"ours", 7}, {"peer's", 7}, {"unit", 7}, {"ratio", 6}, {"95% interval", 14}, {"goal", 8}, {"met", 3}}

func (t *table) heading(machine, version string, pairs int) error {
	const how = "ours: xferbench. Runs in turn, the order changing; ratio: ours over peer's, Hodges-Lehmann estimate of the pairs."
	text := fmt.Sprintf("%s\n%s\n%d pairs. %s\n\n", machine, version, pairs, how)
	if t.markdown {
		text = fmt.Sprintf("%s; %s; %d pairs.\n%s\n\n", machine, version, pairs, how)
	}
	var titles, rule []string
	for _, c := range columns {
		titles, rule = append(titles, c.title), append(rule, "---")
	}
	if _, err := io.WriteString(t.w, text); err != nil {
		return err
	}
	if err := t.line(titles); err != nil || !t.markdown {
		return err
	}
	return t.line(rule)
}

func (t *table) line(cells []string) error {
	if t.markdown {
		_, err := fmt.Fprintf(t.w, "| %s |\n", strings.Join(cells, " | "))
		return err
	}
	var b strings.Builder
	for i, c := range cells {
		b.WriteString(c)
		b.WriteString(strings.Repeat(" ", max(0, columns[i].width-utf8.RuneCountInString(c))+2))
	}
	_, err := fmt.Fprintln(t.w, strings.TrimRight(b.String(), " "))
	return err
}

func (t *table) add(r result) error {
	if m := r.met(); m != "-" {
		t.of++
		if m == "yes" {
			t.met++
		}
	}
	if r.note != "" {
		t.notes = append(t.notes, r.work+": "+r.note)
	}
	return t.line(r.cells())
}

func (t *table) end() error {
	text := fmt.Sprintf("\n%d of %d goals met.\n", t.met, t.of)
	for _, n := range t.notes {
		if t.markdown {
			n = "- " + n
		}
		text += n + "\n"
	}
	_, err := io.WriteString(t.w, text)
	return err
}
