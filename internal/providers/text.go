package providers

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/units"
)

// columns is how wide the text is by default.
const columns = 80

// WriteText prints the report: in 80 columns, or with all columns of the table
// if wide.
func (r Report) WriteText(w io.Writer, wide bool) error {
	t := &text{wide: wide}
	r.header(t)
	r.libraries(t)
	r.table(t)
	r.reasons(t)
	if len(r.GPUs) > 0 {
		r.gpus(t)
	}
	t.heading("host")
	t.checks(r.Checks)
	if r.AWS != nil {
		t.heading("AWS")
		t.checks(r.AWS.Checks)
	}
	_, err := io.WriteString(w, units.PrintableText(t.b.String()))
	return err
}

type text struct {
	b    bytes.Buffer
	wide bool
}

func (t *text) heading(s string) { fmt.Fprintf(&t.b, "\n%s\n", s) }

// paragraph writes words after lead, wrapped and indented by as much as lead is
// wide, or by indent where that is not negative.
func (t *text) paragraph(lead, words string, indent int) {
	if indent < 0 {
		indent = utf8.RuneCountInString(lead)
	}
	width := columns
	if t.wide {
		width = 0
	}
	for _, l := range table.Wrap(strings.Join(strings.Fields(words), " "), lead, strings.Repeat(" ", indent), width) {
		t.b.WriteString(l + "\n")
	}
}

func (r Report) header(t *text) {
	h := r.Host
	what := []string{h.Hostname}
	if h.Instance != "" {
		what = append(what, h.Instance)
	}
	what = append(what, h.OS, "kernel "+h.Kernel, fmt.Sprintf("%d CPUs", h.CPUs))
	if h.NUMANodes > 1 {
		what = append(what, fmt.Sprintf("%d NUMA nodes", h.NUMANodes))
	}
	t.paragraph("# ", strings.Join(what, ", "), 2)
}

func (r Report) libraries(t *text) {
	t.heading("libraries")
	width := 8
	for _, l := range r.Libraries {
		width = max(width, len(l.Version))
	}
	for _, l := range r.Libraries {
		lead := fmt.Sprintf("  %-10s ", l.Name)
		if l.Outcome == Runs {
			t.paragraph(lead+fmt.Sprintf("%-*s ", width, l.Version), l.Path, 13)
			continue
		}
		t.paragraph(lead, "no: "+l.Why, -1)
		if l.Next != "" {
			t.paragraph(strings.Repeat(" ", len(lead)), "next: "+l.Next, -1)
		}
	}
}

// cell is a column of the table; wide ones are shown with --wide only.
type cell struct {
	name string
	wide bool
	of   func(Row) string
}

var cells = []cell{
	{"provider", false, func(r Row) string { return r.Provider }},
	{"runs", false, func(r Row) string { return runs(r) }},
	{"device", false, func(r Row) string { return deviceText(r) }},
	{"link", false, func(r Row) string { return linkText(r) }},
	{"NUMA", false, func(r Row) string { return numaText(r) }},
	{"ops", false, func(r Row) string { return opsText(r) }},
	{"RMA", false, func(r Row) string { return rmaText(r.RMA) }},
	{"carrier", true, func(r Row) string { return dash(r.Carrier) }},
	{"version", true, func(r Row) string { return dash(r.Version) }},
	{"fabric", true, func(r Row) string { return dash(r.Fabric) }},
	{"GPU memory", true, func(r Row) string { return dash(r.GPUMemory) }},
	{"probe", true, func(r Row) string { return units.FormatNanos(float64(r.TookNs)) }},
	{"landing", true, func(r Row) string { return dash(landing(r.Landing)) }},
}

func (r Report) table(t *text) {
	t.heading("providers (as --provider takes them)")
	var shown []table.Column
	for _, c := range cells {
		if t.wide || !c.wide {
			shown = append(shown, table.Column{Head: c.name, Left: true, Gap: 2, Cell: func(i int) string { return c.of(r.Rows[i]) }})
		}
	}
	for _, l := range table.Layout(shown, len(r.Rows), 0) {
		t.b.WriteString("  " + l + "\n")
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// rmaText names only the operation that is emulated, where one is.
func rmaText(rma string) string {
	if _, write, ok := strings.Cut(rma, ", "); ok && write == "write emulated" {
		return write
	}
	return dash(rma)
}

func runs(r Row) string {
	switch r.Outcome {
	case Runs:
		return "yes"
	case Absent:
		return "no"
	}
	return string(r.Outcome)
}

// deviceText is the first device, and how many more there are.
func deviceText(r Row) string {
	if len(r.Devices) == 0 {
		return "-"
	}
	s := r.Devices[0].Name
	if len(s) > 16 {
		s = s[:15] + "…"
	}
	if n := len(r.Devices) - 1; n > 0 {
		s += fmt.Sprintf(" +%d", n)
	}
	return s
}

// linkText is the line rate of one device.
func linkText(r Row) string {
	if len(r.Devices) == 0 || r.Devices[0].LinkBits == 0 {
		return "-"
	}
	return rate(r.Devices[0].LinkBits)
}

// rate is a line rate: "100Gbit".
func rate(bits uint64) string {
	return units.CompactRate(int64(bits))
}

func numaText(r Row) string {
	var nodes []string
	for _, d := range r.Devices {
		if d.NUMA >= 0 {
			if n := fmt.Sprint(d.NUMA); !slices.Contains(nodes, n) {
				nodes = append(nodes, n)
			}
		}
	}
	if len(nodes) == 0 {
		return "-"
	}
	return strings.Join(nodes, ",")
}

// opsText lists operations; all three are the rule.
func opsText(r Row) string {
	if len(r.Ops) == 0 {
		return "-"
	}
	if len(r.Ops) == 3 {
		return "all"
	}
	return strings.Join(r.Ops, ",")
}

// reason is something that a probe had to say, of all providers that it is
// true of.
type reason struct {
	providers   []string
	words, next string
}

// reasons lists why not, what next, and what else a probe had to say.
func (r Report) reasons(t *text) {
	var all []reason
	add := func(row Row, words, next string) {
		i := slices.IndexFunc(all, func(x reason) bool { return x.words == words && x.next == next })
		if i < 0 {
			all = append(all, reason{words: words, next: next})
			i = len(all) - 1
		}
		all[i].providers = append(all[i].providers, row.Provider)
	}
	for _, row := range r.Rows {
		switch {
		case row.Outcome == Absent:
			add(row, row.Why, row.Next)
			continue
		case row.Outcome != Runs:
			add(row, string(row.Outcome)+": "+row.Why, row.Next)
			continue
		case row.Emulated:
			add(row, "emulated device: nothing measured on it is a measurement", "")
		}
		for _, n := range row.Notes {
			if row.Emulated && strings.Contains(n, "is emulated (firmware") {
				continue
			}
			next := ""
			if strings.HasPrefix(n, notEvery) {
				next = row.Next
			}
			add(row, n, next)
		}
		if row.GPUMemory == "no" {
			add(row, "GPU memory no: "+row.GPUMemoryWhy, "")
		}
	}
	if len(all) == 0 {
		return
	}
	t.heading("why not, and what next")
	for _, x := range all {
		t.paragraph("  ", strings.Join(x.providers, ", ")+": "+x.words, 4)
		if x.next != "" {
			t.paragraph("    next: ", x.next, 4)
		}
	}
}

func (r Report) gpus(t *text) {
	t.heading("GPUs")
	for _, g := range r.GPUs {
		parts := []string{g.Name, g.PCI}
		if g.NUMA >= 0 {
			parts = append(parts, fmt.Sprintf("NUMA %d", g.NUMA))
		}
		if g.MemoryBytes > 0 {
			parts = append(parts, units.CompactBytes(int64(g.MemoryBytes)))
		}
		if g.PCIeWidth > 0 {
			parts = append(parts, fmt.Sprintf("PCIe %d x%d", g.PCIeGen, g.PCIeWidth))
		}
		if g.NVLinks > 0 {
			parts = append(parts, plural(g.NVLinks, "NVLink"))
		}
		if len(g.Nearest) > 0 {
			var names []string
			for _, n := range g.Nearest {
				names = append(names, n.Name)
			}
			more := ""
			if len(names) > 4 {
				more = fmt.Sprintf(" and %d more", len(names)-4)
				names = names[:4]
			}
			parts = append(parts, "nearest NIC ("+g.Nearest[0].Path+"): "+strings.Join(names, " ")+more)
		}
		t.paragraph(fmt.Sprintf("  %d ", g.Index), strings.Join(parts, ", "), 4)
	}
}

// checks writes a line each: verdict, name, value; and the next step below.
func (t *text) checks(all []Check) {
	for _, c := range all {
		word := string(c.State)
		if c.State == Info {
			word = "-"
		}
		t.paragraph(fmt.Sprintf("  %-5s", word), c.Name+": "+c.Value, -1)
		if c.Next != "" {
			t.paragraph("       ", "next: "+c.Next, 9)
		}
	}
}
