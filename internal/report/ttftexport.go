package report

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// ttftCSV is a row each condition, times in ns.
func ttftCSV(b *bytes.Buffer, ds []*analysis.Requests) error {
	w := csv.NewWriter(b)
	w.UseCRLF = true
	if err := w.Write([]string{"run_id", "start_unix_ns", "condition", "arm", "path", "load", "prompt_tokens", "simulated", "requests", "invalid", "blocks",
		"ttft_median_ns", "ttft_lo_ns", "ttft_hi_ns", "ttft_p95_ns", "ttft_p99_ns", "itl_median_ns", "e2e_median_ns", "wait_ns", "prefill_ns", "handover_ns",
		"decode_queue_ns", "one_token_ns", "network_ns", "nixl_bytes", "nixl_xfer_ns", "nixl_post_ns", "held_to", "invalid_reasons", "invalid_first_details"}); err != nil {
		return err
	}
	for _, d := range ds {
		for _, r := range d.Rows {
			rec := []string{d.Record.Run.ID, fmt.Sprint(d.Record.Run.StartUnixNs), fmt.Sprint(r.Condition.ID), r.Arm, r.Path, r.Load, fmt.Sprint(r.Tokens),
				fmt.Sprint(d.Simulated), fmt.Sprint(r.N()), fmt.Sprint(r.Invalid), fmt.Sprint(r.Blocks)}
			cells := make([]string, 19)
			cells[16], cells[17], cells[18] = rules(r), strings.Join(reasons(r.Reasons), "; "), strings.Join(details(r.Details), "; ")
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
		Details   []string       `json:"invalid_first_details"`
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
		Rules     []string           `json:"held_to"`
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

func ttftJSON(d *analysis.Requests) jsonTTFT {
	j := jsonTTFT{Record: d.Record.Path, Run: d.Record.Run, Status: "cut off", Simulated: d.Simulated, Requests: d.N, Invalid: d.Invalid,
		Reasons: map[string]int{}, Details: append([]string{}, details(d.Details)...), Rows: []jsonTTFTRow{}, Pairs: []jsonTTFTPair{}, RunOrder: []string{}, Warnings: append([]string{}, ttftWarnings(d)...)}
	if d.Record.End != nil {
		j.Status = d.Record.End.Status
	}
	for r, n := range d.Reasons {
		j.Reasons[string(r)] = n
	}
	for _, r := range d.Rows {
		row := jsonTTFTRow{Condition: r.Condition.ID, Arm: r.Arm, Path: r.Path, Load: r.Load, Tokens: r.Tokens, Requests: r.N(), Invalid: r.Invalid, Blocks: r.Blocks, ITL: r.ITL, E2E: r.E2E,
			Rules: append([]string{}, slices.Sorted(maps.Keys(r.Rules))...)}
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
	for _, o := range runOrder(d) {
		j.RunOrder = append(j.RunOrder, strings.Join(slices.Concat([]string{o.head}, o.lines), "; "))
	}
	vs := ttftVerdicts(d)
	for i, c := range d.Comparisons {
		v := c.Verdict
		j.Pairs = append(j.Pairs, jsonTTFTPair{c.A.Condition.ID, c.B.Condition.ID, vs[i].outcome, vs[i].sentence(), number(v.Ratio), interval(v.Interval), number(v.PAdjusted), v.NA})
	}
	return j
}
