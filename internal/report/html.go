package report

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/report/table"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

//go:embed page.html page.css page.js
var assets embed.FS

// pageTemplate is parsed once; a broken template is a broken build.
var pageTemplate = template.Must(template.New("page.html").ParseFS(assets, "page.html"))

type (
	htmlPage struct {
		Title  string
		Policy string // the Content-Security-Policy
		CSS    template.CSS
		Script template.JS
		Runs   []htmlRun
	}
	htmlRun struct {
		ID, Title, When string
		Emulated        string // the words, or ""
		Status          string // "" for ok
		Answer          string // one sentence
		Summary         []string
		Lead            *htmlFigure // what shows the answer
		MoreLead        *htmlFigure // folded
		Verdicts        []htmlVerdict
		FoldVerdicts    bool // the forest shows them
		Method          string
		Guides          []htmlFact // advice and what it rests on
		Models          []string
		ModelNotes      string
		Warnings        []htmlWarning
		Results         htmlTable
		Tables          []htmlTable // more of them, each a section
		Figures         []htmlFigure
		SequenceNote    string
		Sequences       []htmlFigure
		Folded          []htmlFigure // more sequences, behind a click
		Cold            *htmlFigure
		Path            *htmlTable
		Facts           []htmlFact
		Argv            string
		Details         []htmlDetail
	}
	htmlVerdict struct{ Class, Text string }
	htmlWarning struct{ Class, Text string }
	htmlFact    struct{ Title, Text string }
	htmlTable   struct {
		Caption string
		Head    []htmlCell
		Rows    []htmlRow
		Notes   string
	}
	htmlRow struct {
		Class string
		Cells []htmlCell
	}
	htmlCell struct {
		Text string
		Left bool
		Span int
	}
	htmlFigure struct {
		Title  string
		Text   string
		SVG    template.HTML
		Legend []htmlLegend
		Data   *htmlTable
	}
	// htmlLegend is one series of a figure, in the order of its groups.
	htmlLegend struct {
		Swatch template.HTML
		Name   string
	}
	htmlDetail struct {
		Title string
		Facts []htmlFact
	}
)

// newPage is a page without runs: it needs nothing else, neither other files nor the
// network, and runs no script but its own.
func newPage(title string) (htmlPage, error) {
	css, err := assets.ReadFile("page.css")
	if err != nil {
		return htmlPage{}, err
	}
	js, err := assets.ReadFile("page.js")
	if err != nil {
		return htmlPage{}, err
	}
	allow := func(b []byte) string {
		sum := sha256.Sum256(b)
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return htmlPage{Title: title, CSS: template.CSS(css), Script: template.JS(js),
		Policy: "default-src 'none'; style-src " + allow(css) + "; script-src " + allow(js)}, nil
}

func writeHTML(b *bytes.Buffer, docs []Document) error {
	p, err := newPage("xferbench: " + docs[0].Record.Run.ID)
	if err != nil {
		return err
	}
	if len(docs) > 1 {
		p.Title = fmt.Sprintf("xferbench: %d runs", len(docs))
	}
	for i, d := range docs {
		id := fmt.Sprintf("r%d", i)
		if d.Raw != nil {
			p.Runs = append(p.Runs, htmlRunOf(d.Raw, id))
			continue
		}
		run, err := ttftHTML(d.TTFT, id)
		if err != nil {
			return err
		}
		p.Runs = append(p.Runs, run)
	}
	return p.write(b)
}

// write writes the page. What records say has ended up in attributes, texts and
// figures: all of it is made harmless here, for who reads the file on a terminal.
func (p *htmlPage) write(b *bytes.Buffer) error {
	var text strings.Builder
	if err := pageTemplate.Execute(&text, p); err != nil {
		return err
	}
	b.WriteString(units.PrintableText(strings.ReplaceAll(text.String(), "\t", " ")))
	return nil
}

func htmlRunOf(a *analysis.Analysis, id string) htmlRun {
	run := a.Record.Run
	fs := facts(a)
	h := htmlRun{
		ID: id, Title: fmt.Sprintf("%s run %s", run.Kind, run.ID), When: fs[0].text,
		Argv: strings.Join(run.Argv, " "),
	}
	h.Lead, h.MoreLead = rawForest(a, id)
	h.Answer, h.Summary = answer(a)
	if a.Emulated() {
		h.Emulated = analysis.Emulated
	}
	if h.Status = incomplete(a.Record, a.Live); a.Failed() {
		h.Status = "A data check failed: the rows in red have no speed."
	}
	for _, v := range a.Pairs {
		h.Verdicts = append(h.Verdicts, htmlVerdict{v.Outcome(), verdict(v)})
	}
	for _, v := range a.Brackets {
		h.Verdicts = append(h.Verdicts, htmlVerdict{"bracket", bracket(v)})
	}
	if len(h.Verdicts) > 0 {
		h.Method = method(a)
		h.FoldVerdicts = len(h.Verdicts) > 6
	}
	for _, g := range a.Guides {
		f := htmlFact{guide(g), strings.TrimSpace(crossing(g))}
		if h.Answer == f.Title+"." {
			f.Title = ""
		}
		h.Guides = append(h.Guides, f)
	}
	h.ModelNotes = modelNotes(a)
	for _, m := range a.Models {
		h.Models = append(h.Models, model(m))
	}
	for _, m := range a.Pieces {
		h.Models = append(h.Models, pieces(m))
	}
	for _, w := range a.Warnings {
		class := "warning"
		if w.Code == "data-check-failed" || w.Code == "not-complete" {
			class = "bad"
		}
		h.Warnings = append(h.Warnings, htmlWarning{class, w.Text})
	}
	rows := ordered(a)
	if len(rows) > 0 {
		h.Results = resultsTable(rows)
	}
	h.Figures = figures(a, id)
	h.Sequences, h.Folded = inRunOrder(sequences(a, id))
	h.SequenceNote = "Each dot is one transfer in the order in which they ran; every other block is shaded; the line is the median. All axes span the same ratio to their row's median. A drift, a step or a saw tooth here says more than any average."
	h.Cold = coldFigure(a, id)
	if rs := counted(rows); len(rs) > 0 {
		cols, notes := pathColumns(rs)
		t := htmlTableOf("Payload against what the NICs counted", cols, len(rs), notes)
		h.Path = &t
	}
	for _, f := range fs[1:] {
		h.Facts = append(h.Facts, htmlFact{f.title, f.text})
	}
	h.Details = provenance(a.Record, a.Rows)
	return h
}

// incomplete says how a record ended that is not whole, "" for one that is. One of a
// live run may yet end.
func incomplete(rec *record.Record, live bool) string {
	switch end := rec.End; {
	case end == nil && live:
	case end == nil:
		return "This run was cut off."
	case end.Status != record.StatusOK:
		return "This run is not complete: " + end.Status + "."
	}
	return ""
}

// resultsTable has all columns but those of which the notes say what all rows have.
func resultsTable(rows []*analysis.Row) htmlTable {
	cols, notes := speedColumns(rows, true)
	same := constants(rows)
	cols = slices.DeleteFunc(cols, func(c table.Column) bool {
		return c.Head == "op" && strings.Contains(same, rows[0].Op) || c.Head == "shape" && strings.Contains(same, rows[0].Shape)
	})
	t := htmlTableOf("Results", cols, len(rows), notes)
	markRows(&t, rows, slices.IndexFunc(cols, func(c table.Column) bool { return c.Head == "n" }))
	return t
}

// answer is what the run says in one sentence, and what else its summary holds.
func answer(a *analysis.Analysis) (string, []string) {
	all := summary(a)
	switch {
	case len(all) == 0:
		return "No transport of this record carries a figure.", nil
	case len(a.Guides) == 1:
		return guide(a.Guides[0]) + ".", all
	}
	return all[0] + ".", all[1:]
}

// summary is the fastest transport for each operation at the largest size.
func summary(a *analysis.Analysis) []string {
	var out []string
	for _, op := range unique(opsOf(a.Rows)) {
		var best *analysis.Row
		for _, r := range a.Rows {
			if r.Op != op || r.Ceiling || !r.HasSpeed() {
				continue
			}
			if best == nil || r.Bytes > best.Bytes || r.Bytes == best.Bytes && r.MedianNs < best.MedianNs {
				best = r
			}
		}
		if best == nil {
			continue
		}
		s := fmt.Sprintf("%s of %s over %s (%s) takes %s", strings.ToUpper(op), units.FormatMB(int64(best.Bytes)), best.Provider, best.Shape, nanos(best.MedianNs))
		if others := transports(speedy(a.Rows)); len(unique(providersOf(others))) > 1 {
			s = fmt.Sprintf("%s of %s is fastest over %s (%s), %s", strings.ToUpper(op), units.FormatMB(int64(best.Bytes)), best.Provider, best.Shape, nanos(best.MedianNs))
		}
		if best.CI != nil {
			s += fmt.Sprintf(" [%s, %s]", nanos(best.CI.Lo), nanos(best.CI.Hi))
		}
		s += fmt.Sprintf(", %s, %s", units.FormatGBps(best.Rate), units.FormatGbps(best.Rate*8))
		if best.Bound != nil {
			s += fmt.Sprintf(", %s%% of %s", percent(best.Bound.Share), map[string]string{"socket": "plain TCP", "line": "the line rate"}[best.Bound.Kind])
		}
		out = append(out, s)
	}
	return out
}

func htmlTableOf(caption string, cols []table.Column, n int, notes string) htmlTable {
	t := htmlTable{Caption: caption, Notes: notes}
	for _, c := range cols {
		t.Head = append(t.Head, htmlCell{Text: c.Head, Left: c.Left})
	}
	for i := range n {
		var r htmlRow
		for _, c := range cols {
			r.Cells = append(r.Cells, htmlCell{Text: c.Cell(i), Left: c.Left})
		}
		t.Rows = append(t.Rows, r)
	}
	return t
}

// markRows gives rows their classes, and emulated ones words for figures.
func markRows(t *htmlTable, rows []*analysis.Row, names int) {
	for i, r := range rows {
		switch {
		case r.Failed > 0:
			t.Rows[i].Class = "failed"
		case r.Emulated:
			t.Rows[i].Class = "emulated"
			t.Rows[i].Cells = append(t.Rows[i].Cells[:names+1:names+1], htmlCell{Text: analysis.Emulated, Left: true, Span: len(t.Head) - names - 1})
		case r.Ceiling:
			t.Rows[i].Class = "ceiling"
		}
	}
}

// provenance is everything else that the record knows of how it came about.
func provenance(rec *record.Record, rows []*analysis.Row) []htmlDetail {
	run := rec.Run
	var out []htmlDetail
	add := func(title string, fs []htmlFact) {
		if len(fs) > 0 {
			out = append(out, htmlDetail{title, fs})
		}
	}
	hosts := []record.Host{run.Host}
	names := []string{"Initiator"}
	if run.Peer != nil {
		hosts, names = append(hosts, *run.Peer), append(names, "Target")
	}
	for i, h := range hosts {
		add(names[i]+": "+h.Hostname, hostFacts(h))
	}
	for _, p := range unique(providersOf(rows)) {
		for _, r := range rows {
			if r.Provider == p {
				add("Transport: "+p, transportFacts(r.Transport))
				break
			}
		}
	}
	var env []htmlFact
	for _, k := range slices.Sorted(maps.Keys(run.Env)) {
		env = append(env, htmlFact{k, run.Env[k]})
	}
	add("Environment", env)
	var events []htmlFact
	for _, e := range rec.Events {
		events = append(events, htmlFact{fmt.Sprintf("%s at %s", e.Level, nanos(float64(e.TimeNs))), e.Message})
	}
	add("Events", events)
	return out
}

func hostFacts(h record.Host) []htmlFact {
	fs := []htmlFact{
		{"system", h.OS + ", Linux " + h.Kernel + ", " + h.Arch},
		{"processor", fmt.Sprintf("%s, %d CPUs, %d NUMA nodes", h.CPUModel, h.CPUs, h.NUMANodes)},
		{"memory", units.FormatBytes(int64(h.MemoryBytes))},
	}
	if h.Instance != "" {
		fs = append(fs, htmlFact{"instance", h.Instance})
	}
	memlock := cmp.Or(h.Memlock, "unknown")
	if soft := h.MemlockSoft; soft != nil {
		memlock = units.FormatBytes(int64(min(*soft, math.MaxInt64)))
	}
	fs = append(fs, htmlFact{"locked memory", memlock}, htmlFact{"huge pages of 2 MiB", fmt.Sprint(h.HugePages)})
	for _, g := range h.GPUs {
		fs = append(fs, htmlFact{fmt.Sprintf("GPU %d", g.Index), fmt.Sprintf("%s, PCI %s, NUMA %d, driver %s", g.Name, g.PCI, g.NUMA, g.Driver)})
	}
	for _, n := range h.NICs {
		s := n.Kind
		if n.LinkBits > 0 {
			s += ", " + units.FormatGbps(float64(n.LinkBits))
		}
		if n.MTU > 0 {
			s += fmt.Sprintf(", MTU %d", n.MTU)
		}
		if n.PCI != "" {
			s += ", PCI " + n.PCI
		}
		fs = append(fs, htmlFact{"NIC " + n.Name, s})
	}
	for _, n := range h.Notes {
		fs = append(fs, htmlFact{"note", n})
	}
	return fs
}

func transportFacts(t record.Transport) []htmlFact {
	fs := []htmlFact{{"API", t.API}, {"provider", t.Provider}}
	for _, f := range []htmlFact{{"library", t.Library}, {"version", t.Version}, {"fabric", t.Fabric}, {"poll", t.Poll}} {
		if f.Text != "" {
			fs = append(fs, f)
		}
	}
	fs = append(fs, htmlFact{"streams, rails, depth", fmt.Sprintf("%d, %d, %d", t.Streams, t.Rails, t.Depth)})
	for _, d := range t.Devices {
		s := d.Name
		if d.Firmware != "" {
			s += ", firmware " + d.Firmware
		}
		if d.LinkBits > 0 {
			s += ", " + units.FormatGbps(float64(d.LinkBits))
		}
		fs = append(fs, htmlFact{"device", s})
	}
	for _, k := range slices.Sorted(maps.Keys(t.Protocol)) {
		fs = append(fs, htmlFact{"protocol of " + strings.ToUpper(k), t.Protocol[k]})
	}
	for _, k := range slices.Sorted(maps.Keys(t.Settings)) {
		fs = append(fs, htmlFact{k, t.Settings[k]})
	}
	for _, n := range t.Notes {
		fs = append(fs, htmlFact{"note", n})
	}
	return fs
}

// dataTable is the text alternative of a figure: the estimates that it draws.
func dataTable(rows []*analysis.Row) *htmlTable {
	s := timeScale(rows)
	cols := append(naming(rows),
		table.Column{Head: "median", Cell: figure(rows, func(r *analysis.Row) string { return s.time(r.MedianNs) })},
		table.Column{Head: "ci_lo", Cell: figure(rows, func(r *analysis.Row) string { return ciEnd(s, r.CI, false) })},
		table.Column{Head: "ci_hi", Cell: figure(rows, func(r *analysis.Row) string { return ciEnd(s, r.CI, true) })},
		table.Column{Head: "GB/s", Cell: figure(rows, func(r *analysis.Row) string { return units.Digits(r.Rate/1e9, 3) })},
	)
	t := htmlTableOf("times in "+s.name, cols, len(rows), "")
	return &t
}

func ciEnd(s scale, iv *stats.Interval, hi bool) string {
	switch {
	case iv == nil:
		return "-"
	case hi:
		return s.time(iv.Hi)
	}
	return s.time(iv.Lo)
}
