package report

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math"
	"strconv"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/stats"
)

type (
	jsonComparison struct {
		Schema      int              `json:"schema"`
		Kind        string           `json:"kind"` // "raw", "sweep", "ttft" …, of the newest record
		Text        string           `json:"text"`
		A           jsonRecordName   `json:"a"`
		B           jsonRecordName   `json:"b"`
		Interleaved bool             `json:"interleaved"`
		Simulated   bool             `json:"simulated"`
		Threshold   *float64         `json:"threshold"`
		Passed      *bool            `json:"passed"` // null without a threshold
		Rows        []jsonCompareRow `json:"rows"`
		OnlyA       []string         `json:"only_a"`
		OnlyB       []string         `json:"only_b"`
		Incomplete  []string         `json:"incomplete"`
		Differences []string         `json:"differences"`
		Warnings    []string         `json:"warnings"`
		History     *jsonHistory     `json:"history,omitempty"`
	}
	jsonRecordName struct {
		Record string `json:"record"`
		Run    string `json:"run_id"`
		Start  int64  `json:"start_unix_ns"`
		Host   string `json:"host"`
	}
	jsonCompareRow struct {
		Label      string        `json:"label"`
		ConditionA *int          `json:"condition_a"`
		ConditionB *int          `json:"condition_b"`
		Verdict    string        `json:"verdict"`
		Limit      string        `json:"limit,omitempty"`
		ToDecide   *int          `json:"units_to_decide,omitempty"`
		Reason     string        `json:"reason,omitempty"`
		MedianA    *float64      `json:"median_a_ns"`
		MedianB    *float64      `json:"median_b_ns"`
		Ratio      *float64      `json:"time_b_over_time_a"`
		Interval   *jsonInterval `json:"ratio_ci"`
		P          *float64      `json:"p"`
		PAdjusted  *float64      `json:"p_adjusted"`
		NA         int           `json:"units_a"`
		NB         int           `json:"units_b"`
		Need       int           `json:"units_needed"`
		Detectable *float64      `json:"detectable"`
		ValidA     *int          `json:"valid_requests_a,omitempty"`
		ValidB     *int          `json:"valid_requests_b,omitempty"`
		InvalidA   *int          `json:"invalid_requests_a,omitempty"`
		InvalidB   *int          `json:"invalid_requests_b,omitempty"`
	}
	jsonHistory struct {
		Records []jsonRecordName `json:"records"`
		Rows    []jsonHistoryRow `json:"rows"`
	}
	jsonHistoryRow struct {
		Label string             `json:"label"`
		Cells []*jsonHistoryCell `json:"cells"` // a record each; null: the record does not have the row
	}
	jsonHistoryCell struct {
		Median    *float64      `json:"median_ns"`
		CI        *jsonInterval `json:"median_ci_ns"`
		Units     int           `json:"units"`
		Failed    int           `json:"failed_checks"`
		Ratio     *float64      `json:"time_over_time_of_oldest"`
		Interval  *jsonInterval `json:"ratio_ci"`
		PAdjusted *float64      `json:"p_adjusted"`
		Verdict   string        `json:"verdict,omitempty"`
	}
)

func recordNameOf(s *analysis.Source) jsonRecordName {
	return jsonRecordName{s.Record.Path, s.Record.Run.ID, s.Record.Run.StartUnixNs, s.Record.Run.Host.Hostname}
}

func compareJSON(b *bytes.Buffer, c *compareDoc) error {
	r := c.Runs
	j := jsonComparison{Schema: jsonSchema, Kind: r.B.Record.Run.Kind, Text: c.answer(), A: recordNameOf(r.A), B: recordNameOf(r.B), Simulated: r.A.Simulated(),
		Rows: []jsonCompareRow{}, OnlyA: []string{}, OnlyB: []string{}, Incomplete: []string{}, Differences: append([]string{}, r.Differences...), Warnings: compareWarnings(c)}
	if c.Gate != nil {
		passed := c.outcome() == nil
		j.Threshold, j.Passed = &c.Gate.Threshold, &passed
	}
	for i, s := range []*analysis.Source{r.A, r.B} {
		if why := s.Unfinished(); why != "" {
			j.Incomplete = append(j.Incomplete, string("AB"[i])+" "+why)
		}
	}
	for i, d := range r.Rows {
		switch d.Outcome() {
		case "only-a":
			j.OnlyA = append(j.OnlyA, name(d))
		case "only-b":
			j.OnlyB = append(j.OnlyB, name(d))
		}
		j.Rows = append(j.Rows, c.jsonRow(i))
	}
	if c.History != nil {
		j.History = historyJSON(c.History)
	}
	return encodeJSON(b, j)
}

func (c *compareDoc) jsonRow(i int) jsonCompareRow {
	d := c.Runs.Rows[i]
	row := jsonCompareRow{Label: name(d), Verdict: change(d), Reason: d.Refused}
	if c.Gate != nil {
		g := c.Gate.Rows[i]
		if row.Limit = string(g.Standing); g.Need > 0 {
			row.ToDecide = &g.Need
		}
	}
	for f, to := range map[*analysis.Figures]struct {
		condition, valid, invalid **int
		median                    **float64
	}{
		d.A: {&row.ConditionA, &row.ValidA, &row.InvalidA, &row.MedianA},
		d.B: {&row.ConditionB, &row.ValidB, &row.InvalidB, &row.MedianB},
	} {
		if f == nil {
			continue
		}
		*to.condition = &f.Condition.ID
		if f.TTFT != nil {
			*to.valid, *to.invalid = &f.N, &f.Invalid
		}
		if f.HasSpeed() {
			*to.median = number(f.MedianNs)
		}
	}
	if d.A != nil && d.B != nil && d.Refused == "" {
		v := d.Verdict
		row.Ratio, row.Interval, row.P, row.PAdjusted = number(v.Ratio), interval(v.Interval), number(v.P), number(v.PAdjusted)
		row.NA, row.NB, row.Need, row.Detectable = v.NA, v.NB, v.Need, number(v.MDE)
	}
	return row
}

func historyJSON(h *analysis.History) *jsonHistory {
	out := &jsonHistory{Rows: []jsonHistoryRow{}}
	for _, s := range h.Sources {
		out.Records = append(out.Records, recordNameOf(s))
	}
	for _, r := range h.Rows {
		row := jsonHistoryRow{Label: r.Label}
		for _, x := range r.Cells {
			if x.Figures == nil {
				row.Cells = append(row.Cells, nil)
				continue
			}
			cell := &jsonHistoryCell{Units: len(x.Figures.Units), Failed: x.Figures.Failed}
			if x.Figures.HasSpeed() {
				cell.Median, cell.CI = number(x.Figures.MedianNs), interval(x.Figures.CI)
			}
			if d := x.Delta; d != nil {
				if cell.Verdict = change(d); d.Refused == "" {
					cell.Ratio, cell.Interval, cell.PAdjusted = number(d.Verdict.Ratio), interval(d.Verdict.Interval), number(d.Verdict.PAdjusted)
				}
			}
			row.Cells = append(row.Cells, cell)
		}
		out.Rows = append(out.Rows, row)
	}
	return out
}

// compareCSV is a line for each row and record that is held against the oldest one,
// times in ns. Cells of what does not exist are empty.
func compareCSV(b *bytes.Buffer, c *compareDoc) error {
	w := csv.NewWriter(b)
	w.UseCRLF = true
	if err := w.Write([]string{"row", "provider_or_arm", "op", "shape", "bytes", "prompt_tokens", "run_id_a", "run_id_b", "start_unix_ns_b", "median_a_ns", "median_b_ns",
		"time_b_over_time_a", "ratio_lo", "ratio_hi", "p", "p_adjusted", "units_a", "units_b", "n_a", "n_b", "invalid_a", "invalid_b", "failed_a", "failed_b",
		"verdict", "limit", "units_to_decide"}); err != nil {
		return err
	}
	for _, l := range c.csvLines() {
		if err := w.Write(tame(csvCells(l.d, l.a, l.b, l.gate))); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

// csvLine is one row of b held against a; gate is nil without a limit for it.
type csvLine struct {
	d    *analysis.Delta
	a, b *analysis.Source
	gate *analysis.GateRow
}

// csvLines are those of each record against the oldest, record by record.
func (c *compareDoc) csvLines() []csvLine {
	var out []csvLine
	if h := c.History; h != nil {
		for k := 1; k < len(h.Sources)-1; k++ {
			for _, r := range h.Rows {
				d := r.Cells[k].Delta
				if d == nil {
					if d = (&analysis.Delta{A: r.Cells[0].Figures, B: r.Cells[k].Figures}); d.A == nil && d.B == nil {
						continue
					}
				}
				out = append(out, csvLine{d, h.Sources[0], h.Sources[k], nil})
			}
		}
	}
	for i, d := range c.Runs.Rows {
		l := csvLine{d, c.Runs.A, c.Runs.B, nil}
		if c.Gate != nil {
			l.gate = &c.Gate.Rows[i]
		}
		out = append(out, l)
	}
	return out
}

func csvCells(d *analysis.Delta, a, b *analysis.Source, gate *analysis.GateRow) []string {
	num := func(f float64) string {
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return ""
		}
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	k := d.Row().Condition
	out := []string{name(d), k.Provider, k.Op, k.Shape, fmt.Sprint(k.Bytes), "", a.Record.Run.ID, b.Record.Run.ID, fmt.Sprint(b.Record.Run.StartUnixNs)}
	if d.Row().TTFT != nil {
		out[5] = fmt.Sprint(k.Tokens)
	}
	for _, f := range []*analysis.Figures{d.A, d.B} {
		cell := ""
		if f != nil && f.HasSpeed() {
			cell = intNs(f.MedianNs)
		}
		out = append(out, cell)
	}
	if v := d.Verdict; d.A == nil || d.B == nil || d.Refused != "" {
		out = append(out, "", "", "", "", "", "", "")
	} else {
		iv := v.Interval
		if iv == nil {
			iv = &stats.Interval{Lo: math.NaN(), Hi: math.NaN()}
		}
		out = append(out, num(v.Ratio), num(iv.Lo), num(iv.Hi), num(v.P), num(v.PAdjusted), fmt.Sprint(v.NA), fmt.Sprint(v.NB))
	}
	for _, of := range []func(f *analysis.Figures) int{
		func(f *analysis.Figures) int { return f.N }, func(f *analysis.Figures) int { return f.Invalid }, func(f *analysis.Figures) int { return f.Failed },
	} {
		for _, f := range []*analysis.Figures{d.A, d.B} {
			cell := ""
			if f != nil {
				cell = fmt.Sprint(of(f))
			}
			out = append(out, cell)
		}
	}
	out = append(out, change(d), "", "")
	if gate != nil {
		if out[len(out)-2] = string(gate.Standing); gate.Need > 0 {
			out[len(out)-1] = fmt.Sprint(gate.Need)
		}
	}
	return out
}
