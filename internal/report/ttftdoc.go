package report

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/ttft"
	"github.com/xferbench/xferbench/internal/units"
)

// TTFTDocument is a TTFT record with its result.
type TTFTDocument struct {
	record *record.Record
	lines  []record.Request
	result *ttft.Result
	rows   []ttftRow
}

// ttftRow is a condition of a TTFT run with its units and requests.
type ttftRow struct {
	ttft.Row
	units []stats.Unit     // block medians of the TTFT, ns
	lines []record.Request // measured and valid, in run order
}

func newTTFT(rec *record.Record) (*TTFTDocument, error) {
	lines := rec.Requests
	res, err := ttft.Analyze(lines, rec.Conditions, rec.Run.Seed)
	if err != nil {
		return nil, err
	}
	d := &TTFTDocument{record: rec, lines: lines, result: res}
	for _, r := range res.Rows {
		row := ttftRow{Row: r}
		var ss []stats.Sample
		for _, l := range lines {
			if l.Condition == r.Condition.ID && l.Phase == record.PhaseMeasure && l.Valid {
				row.lines = append(row.lines, l)
				ss = append(ss, stats.Sample{Block: l.Block, Value: float64(l.TTFTNs)})
			}
		}
		if len(ss) > 0 {
			if row.units, err = stats.BlockMedians(ss); err != nil {
				return nil, err
			}
		}
		slices.SortStableFunc(row.lines, func(a, b record.Request) int { return a.Sequence - b.Sequence })
		d.rows = append(d.rows, row)
	}
	return d, nil
}

// text is the header of the record and what the run itself printed.
func (d *TTFTDocument) text(b *bytes.Buffer, o Options) error {
	p := &page{Options: o, painter: newPainter(b, o.Color)}
	for _, f := range d.facts() {
		if f.title == "" {
			p.comment(f.text)
			continue
		}
		p.comment(f.title + ": " + f.text)
	}
	b.WriteString(p.b.String())
	return d.result.Text(b)
}

func (d *TTFTDocument) facts() []fact {
	run := &d.record.Run
	out := []fact{{"", title(run)}}
	if note := run.Env["XFERBENCH_NOTE"]; note != "" {
		out = append(out, fact{"note", note})
	}
	if d.result.Simulated {
		out = append(out, fact{"SIMULATED", "the engines are stand-ins; their TTFT is no measurement"})
	}
	out = append(out, hosts(run)...)
	if run.Design != nil {
		out = append(out, fact{"design", fmt.Sprintf("%s order in blocks, seed %d", run.Design.Order, run.Seed)})
	}
	if d.record.Path != "" {
		out = append(out, fact{"record", tilde(d.record.Path)})
	}
	return out
}

// columns are the main table of a TTFT run, times in ms.
func (d *TTFTDocument) columns() ([]column, string) {
	ms := scale{"ms", 1e6}
	rows := d.rows
	cell := func(f func(r ttftRow) string) func(int) string {
		return func(i int) string {
			if rows[i].TTFT == nil {
				return "-"
			}
			return f(rows[i])
		}
	}
	ci := func(hi bool) func(int) string {
		return cell(func(r ttftRow) string { return ciEnd(ms, r.TTFT.CI, hi) })
	}
	quantile := func(q func(r ttftRow) *stats.QuantileResult) func(int) string {
		return cell(func(r ttftRow) string {
			if v := q(r); v != nil && !v.Guarded {
				return ms.time(v.Value)
			}
			return "-"
		})
	}
	cols := []column{
		{head: "arm", left: true, cell: func(i int) string { return rows[i].Arm }},
		{head: "path", left: true, cell: func(i int) string { return word(rows[i].Path) }},
		{head: "load", left: true, cell: func(i int) string { return word(rows[i].Level) }},
		{head: "tokens", cell: func(i int) string { return fmt.Sprint(rows[i].Tokens) }},
		{head: "requests", cell: func(i int) string { return fmt.Sprint(rows[i].N) }},
		{head: "invalid", cell: func(i int) string { return fmt.Sprint(rows[i].Invalid) }},
		{head: "ttft", cell: cell(func(r ttftRow) string { return ms.time(r.TTFT.Median) })},
		{head: "ci_lo", cell: ci(false)},
		{head: "ci_hi", cell: ci(true)},
		{head: "p95", cell: quantile(func(r ttftRow) *stats.QuantileResult { return r.P95 })},
		{head: "p99", cell: quantile(func(r ttftRow) *stats.QuantileResult { return r.P99 })},
		{head: "itl", cell: cell(func(r ttftRow) string { return ms.time(r.ITL) })},
		{head: "e2e", cell: cell(func(r ttftRow) string { return ms.time(r.E2E) })},
	}
	return cols, "times in ms; ttft: median of block medians, ci: its 95% interval; p95 and p99 over requests, where there are enough; itl, e2e: medians"
}

// verdicts are the comparisons of arms as sentences, with their outcome.
func (d *TTFTDocument) verdicts() []htmlVerdict {
	var out []htmlVerdict
	for _, c := range d.result.Comparisons {
		v := c.Verdict
		head := fmt.Sprintf("%s against %s, %s tokens, %s: ", c.Name, c.Base, units.FormatCount(int64(c.Tokens)), c.Level)
		switch v.Kind {
		case stats.TooFew:
			out = append(out, htmlVerdict{"too-few", head + fmt.Sprintf("too few blocks for a verdict: %d, need %d", v.NA, v.Need)})
		case stats.NoDifference:
			r, iv := ratioInterval(v.Ratio, v.Interval)
			out = append(out, htmlVerdict{"no-difference", head + fmt.Sprintf("no difference, would have seen %s or more (ratio %s %s, %s, n = %d)", effect(v.MDE), r, iv, pvalue(v.PAdjusted), v.NA)})
		default:
			r, iv := ratioInterval(v.Ratio, v.Interval)
			out = append(out, htmlVerdict{"different", head + fmt.Sprintf("%s times as long to the first token %s, %s, n = %d", r, iv, pvalue(v.PAdjusted), v.NA)})
		}
	}
	return out
}

// laps say where the block pool wraps around, beside what was found.
func (d *TTFTDocument) laps() []string {
	var out []string
	for _, s := range d.result.Series {
		var found []string
		for _, c := range s.Changes {
			found = append(found, fmt.Sprintf("%s at request %d", c.Component, c.Sequence+1))
		}
		text := fmt.Sprintf("%s, %s tokens: ", s.Arm, units.FormatCount(int64(s.Tokens)))
		if len(found) == 0 {
			text += "no change of level"
		} else {
			text += "changes of " + list(found)
		}
		if l := s.Lap; l != nil {
			text += fmt.Sprintf("; the free list of a fresh engine (%s blocks, %d a request) wraps around at request %d", units.FormatCount(int64(l.PoolBlocks)), l.PerRequest, l.Sequence+1)
		}
		out = append(out, text)
	}
	return out
}

func (d *TTFTDocument) warnings() []string {
	var out []string
	if d.result.Invalid > 0 {
		var why []string
		for r, n := range d.result.Reasons {
			why = append(why, fmt.Sprintf("%s %d", r, n))
		}
		slices.Sort(why)
		out = append(out, fmt.Sprintf("%d of %d requests do not count: %s", d.result.Invalid, d.result.Requests, list(why)))
		for _, r := range slices.Sorted(maps.Keys(d.result.Details)) {
			if detail := d.result.Details[r]; detail != "" {
				out = append(out, fmt.Sprintf("the first %s: %.*s", r, ttft.MaxDetail, oneLine(detail)))
			}
		}
	}
	switch end := d.record.End; {
	case end == nil:
		out = append(out, "the record has no end line: the run was cut off; what it had measured is here")
	case end.Status != record.StatusOK:
		out = append(out, strings.TrimSuffix("the run is not complete: "+end.Status+": "+end.Error, ": "))
	}
	for _, r := range d.rows {
		if r.Path == record.PathDirect {
			out = append(out, r.Condition.Name+": ends at the prefill engine and holds no transfer of KV cache")
		}
		if r.TTFT != nil && r.TTFT.N < minBlocks {
			out = append(out, fmt.Sprintf("%s: %d blocks give no interval and no verdict: use --blocks 10", r.Condition.Name, r.TTFT.N))
		}
	}
	for _, c := range d.result.Comparisons {
		for _, w := range c.Verdict.Warnings {
			if w.Code != "too-few-units" {
				out = append(out, fmt.Sprintf("%s against %s: %s", c.Name, c.Base, w.Text))
			}
		}
	}
	return out
}

func (d *TTFTDocument) markdown(b *bytes.Buffer) error {
	fmt.Fprintf(b, "# xferbench ttft run %s\n", escape(d.record.Run.ID))
	if d.result.Simulated {
		b.WriteString("\n**SIMULATED: the engines are stand-ins; their TTFT is no measurement**\n")
	}
	for _, w := range d.warnings() {
		fmt.Fprintf(b, "\n> **Warning:** %s\n", escape(w))
	}
	if vs := d.verdicts(); len(vs) > 0 {
		b.WriteString("\n## Verdicts\n\n")
		for _, v := range vs {
			fmt.Fprintf(b, "- %s\n", escape(v.Text))
		}
	}
	cols, notes := d.columns()
	b.WriteString("\n## Results\n\n")
	markdownTable(b, cols, len(d.rows), nil, 0)
	fmt.Fprintf(b, "\n%s.\n", escape(notes))
	if cols, n := d.splitColumns(); n > 0 {
		b.WriteString("\n## Where the TTFT went\n\n")
		markdownTable(b, cols, n, nil, 0)
		b.WriteString("\nMedians in ms.\n")
	}
	if ls := d.laps(); len(ls) > 0 {
		b.WriteString("\n## Run order\n\n")
		for _, l := range ls {
			fmt.Fprintf(b, "- %s\n", escape(l))
		}
	}
	b.WriteString("\n## Provenance\n\n")
	for _, f := range d.facts() {
		fmt.Fprintf(b, "- %s\n", escape(strings.TrimPrefix(f.title+": "+f.text, ": ")))
	}
	return nil
}

// partNames are the parts of a split in the order of time.
var partNames = []struct {
	name string
	of   func(s *ttft.SplitMedians) float64
}{
	{"wait", func(s *ttft.SplitMedians) float64 { return s.Wait }},
	{"prefill", func(s *ttft.SplitMedians) float64 { return s.Prefill }},
	{"hand-over", func(s *ttft.SplitMedians) float64 { return s.HandOver }},
	{"decode queue", func(s *ttft.SplitMedians) float64 { return s.DecodeQueue }},
	{"one token", func(s *ttft.SplitMedians) float64 { return s.OneToken }},
	{"network", func(s *ttft.SplitMedians) float64 { return s.Network }},
}

func (d *TTFTDocument) split() []ttftRow {
	return slices.DeleteFunc(slices.Clone(d.rows), func(r ttftRow) bool { return r.Split == nil })
}

func (d *TTFTDocument) splitColumns() ([]column, int) {
	ms := scale{"ms", 1e6}
	rows := d.split()
	cols := []column{
		{head: "arm", left: true, cell: func(i int) string { return rows[i].Arm }},
		{head: "load", left: true, cell: func(i int) string { return word(rows[i].Level) }},
		{head: "tokens", cell: func(i int) string { return fmt.Sprint(rows[i].Tokens) }},
	}
	for _, p := range partNames {
		cols = append(cols, column{head: p.name, cell: func(i int) string { return ms.time(p.of(rows[i].Split)) }})
	}
	cols = append(cols, column{head: "NIXL bytes", cell: func(i int) string {
		if m := rows[i].Moved; m != nil {
			return fmt.Sprint(int64(math.Round(m.Bytes)))
		}
		return "-"
	}}, column{head: "NIXL transfer", cell: func(i int) string {
		if m := rows[i].Moved; m != nil {
			return ms.time(m.Xfer)
		}
		return "-"
	}})
	return cols, len(rows)
}

func (d *TTFTDocument) label(r ttftRow) string {
	return fmt.Sprintf("%s, %s tokens, %s", r.Arm, units.FormatCount(int64(r.Tokens)), word(r.Level))
}

func ttftBenchName(r ttftRow) string {
	return pairs("TTFT", "arm", r.Arm, "path", r.Path, "load", r.Level, "tokens", fmt.Sprint(r.Tokens))
}

// ttftCSV is a row each condition, times in ns.
func ttftCSV(b *bytes.Buffer, ds []*TTFTDocument) error {
	w := csv.NewWriter(b)
	w.UseCRLF = true
	if err := w.Write([]string{"run_id", "start_unix_ns", "condition", "arm", "path", "load", "prompt_tokens", "simulated", "requests", "invalid", "blocks",
		"ttft_median_ns", "ttft_lo_ns", "ttft_hi_ns", "ttft_p95_ns", "ttft_p99_ns", "itl_median_ns", "e2e_median_ns", "wait_ns", "prefill_ns", "handover_ns",
		"decode_queue_ns", "one_token_ns", "network_ns", "nixl_bytes", "nixl_xfer_ns", "nixl_post_ns"}); err != nil {
		return err
	}
	for _, d := range ds {
		for _, r := range d.rows {
			rec := []string{d.record.Run.ID, fmt.Sprint(d.record.Run.StartUnixNs), fmt.Sprint(r.Condition.ID), r.Arm, r.Path, r.Level, fmt.Sprint(r.Tokens),
				fmt.Sprint(d.result.Simulated), fmt.Sprint(r.N), fmt.Sprint(r.Invalid), fmt.Sprint(len(r.units))}
			cells := make([]string, 16)
			if t := r.TTFT; t != nil {
				cells[0] = intNs(t.Median)
				if t.CI != nil {
					cells[1], cells[2] = intNs(t.CI.Lo), intNs(t.CI.Hi)
				}
				for i, q := range []*stats.QuantileResult{r.P95, r.P99} {
					if q != nil && !q.Guarded {
						cells[3+i] = intNs(q.Value)
					}
				}
				cells[5], cells[6] = intNs(r.ITL), intNs(r.E2E)
			}
			if r.Split != nil {
				for i, p := range partNames {
					cells[7+i] = intNs(p.of(r.Split))
				}
			}
			if m := r.Moved; m != nil {
				cells[13], cells[14], cells[15] = intNs(m.Bytes), intNs(m.Xfer), intNs(m.Post)
			}
			if err := w.Write(tame(append(rec, cells...))); err != nil {
				return err
			}
		}
	}
	w.Flush()
	return w.Error()
}

type (
	jsonTTFT struct {
		Record    string         `json:"record"`
		Run       record.Run     `json:"run"`
		Status    string         `json:"status"`
		Simulated bool           `json:"simulated"`
		Requests  int            `json:"requests"`
		Invalid   int            `json:"invalid"`
		Reasons   map[string]int `json:"invalid_reasons"`
		Rows      []jsonTTFTRow  `json:"rows"`
		Pairs     []jsonTTFTPair `json:"comparisons"`
		RunOrder  []string       `json:"run_order"`
		Warnings  []string       `json:"warnings"`
	}
	jsonTTFTRow struct {
		Condition int                `json:"condition"`
		Arm       string             `json:"arm"`
		Path      string             `json:"path"`
		Load      string             `json:"load"`
		Tokens    int                `json:"prompt_tokens"`
		Requests  int                `json:"requests"`
		Invalid   int                `json:"invalid"`
		Blocks    int                `json:"blocks"`
		TTFT      *float64           `json:"ttft_median_ns"`
		CI        *jsonInterval      `json:"ttft_ci_ns"`
		P95       *float64           `json:"ttft_p95_ns"`
		P99       *float64           `json:"ttft_p99_ns"`
		ITL       float64            `json:"itl_median_ns"`
		E2E       float64            `json:"e2e_median_ns"`
		Parts     map[string]float64 `json:"parts_median_ns,omitempty"`
		Bytes     *float64           `json:"nixl_bytes"`
		Xfer      *float64           `json:"nixl_xfer_median_ns"`
		Post      *float64           `json:"nixl_post_median_ns"`
	}
	jsonTTFTPair struct {
		A         int           `json:"a"`
		B         int           `json:"b"`
		Verdict   string        `json:"verdict"`
		Text      string        `json:"text"`
		Ratio     *float64      `json:"time_b_over_time_a"`
		Interval  *jsonInterval `json:"ratio_ci"`
		PAdjusted *float64      `json:"p_adjusted"`
		N         int           `json:"units"`
	}
)

func (d *TTFTDocument) json() jsonTTFT {
	j := jsonTTFT{Record: d.record.Path, Run: d.record.Run, Status: "cut off", Simulated: d.result.Simulated, Requests: d.result.Requests, Invalid: d.result.Invalid,
		Reasons: map[string]int{}, Rows: []jsonTTFTRow{}, Pairs: []jsonTTFTPair{}, RunOrder: slices.Concat([]string{}, d.laps()), Warnings: slices.Concat([]string{}, d.warnings())}
	if d.record.End != nil {
		j.Status = d.record.End.Status
	}
	for r, n := range d.result.Reasons {
		j.Reasons[string(r)] = n
	}
	for _, r := range d.rows {
		row := jsonTTFTRow{Condition: r.Condition.ID, Arm: r.Arm, Path: r.Path, Load: r.Level, Tokens: r.Tokens, Requests: r.N, Invalid: r.Invalid, Blocks: len(r.units), ITL: r.ITL, E2E: r.E2E}
		if r.TTFT != nil {
			row.TTFT, row.CI = number(r.TTFT.Median), interval(r.TTFT.CI)
		}
		if q := r.P95; q != nil && !q.Guarded {
			row.P95 = number(q.Value)
		}
		if q := r.P99; q != nil && !q.Guarded {
			row.P99 = number(q.Value)
		}
		if r.Split != nil {
			row.Parts = map[string]float64{}
			for _, p := range partNames {
				row.Parts[strings.ReplaceAll(p.name, " ", "_")] = p.of(r.Split)
			}
		}
		if m := r.Moved; m != nil {
			row.Bytes, row.Xfer, row.Post = number(m.Bytes), number(m.Xfer), number(m.Post)
		}
		j.Rows = append(j.Rows, row)
	}
	vs := d.verdicts()
	for i, c := range d.result.Comparisons {
		v := c.Verdict
		j.Pairs = append(j.Pairs, jsonTTFTPair{c.A, c.B, vs[i].Class, vs[i].Text, number(v.Ratio), interval(v.Interval), number(v.PAdjusted), v.NA})
	}
	return j
}
