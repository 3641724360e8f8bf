package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"unicode"
	"unicode/utf16"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// jsonSchema is the version of the JSON report; keys may be added within it.
const jsonSchema = 1

// The JSON report. Keys end in their unit; a figure that does not exist is
// null or left out, never 0. See docs/report.md.
type (
	jsonReport struct {
		Schema  int   `json:"schema"`
		Reports []any `json:"reports"` // jsonRun or jsonTTFT, by run.kind
	}
	jsonRun struct {
		Record     string          `json:"record"`
		Run        record.Run      `json:"run"`
		Status     string          `json:"status"`
		Emulated   bool            `json:"emulated_device"`
		Rows       []jsonRow       `json:"rows"`
		Colds      []record.Cold   `json:"cold"`
		Pairs      []jsonPair      `json:"comparisons"`
		Brackets   []jsonPair      `json:"brackets"`
		Chance     jsonChance      `json:"chance"`
		Models     []jsonModel     `json:"cost_models"`
		Pieces     []jsonPieces    `json:"descriptor_costs"`
		Guidelines []jsonGuideline `json:"guidelines"`
		Warnings   []jsonWarning   `json:"warnings"`
	}
	// jsonChance is of comparisons and brackets together.
	jsonChance struct {
		Questions int     `json:"questions"`      // one pair of transports over its sizes
		Verdicts  int     `json:"verdicts"`       // comparisons and brackets with one
		Expected  float64 `json:"expected_false"` // questions with a false difference, were nothing different
		Any       float64 `json:"any_false"`      // share of such runs
		Different int     `json:"different"`
		Held      int     `json:"different_over_run"` // of these, those that hold with Holm's correction over all verdicts
	}
	jsonInterval struct {
		Lo    *float64 `json:"lo"` // null: unbounded
		Hi    *float64 `json:"hi"`
		Level float64  `json:"level"`
	}
	jsonWarning struct {
		Code string `json:"code"`
		Text string `json:"text"`
	}
	jsonRow struct {
		Label     string           `json:"label"`
		Condition record.Condition `json:"condition"`
		Samples   int              `json:"samples"`
		Blocks    int              `json:"blocks"`
		Launches  int              `json:"launches"`
		Emulated  bool             `json:"emulated_device"`
		Check     string           `json:"check"`
		Checked   int              `json:"checked"`
		Failed    int              `json:"failed_checks"`
		Speed     *jsonSpeed       `json:"speed"` // null: a failed check, or no measurement
		Path      *jsonPath        `json:"path"`
	}
	jsonSpeed struct {
		MedianNs     float64       `json:"median_ns"`
		MedianCI     *jsonInterval `json:"median_ci_ns"`
		UnitMedians  []float64     `json:"unit_medians_ns"`
		MinNs        float64       `json:"min_ns"`
		MaxNs        float64       `json:"max_ns"`
		P95Ns        *float64      `json:"p95_ns"`
		Rate         float64       `json:"rate_bytes_per_s"`
		SumBytes     uint64        `json:"sum_bytes"`
		SumNs        int64         `json:"sum_ns"`
		PostNs       float64       `json:"post_median_ns"`
		PostPerDesc  float64       `json:"post_per_descriptor_ns"`
		CPUNs        int64         `json:"cpu_ns"`
		PeerCPUNs    int64         `json:"peer_cpu_ns"`
		EAgain       uint64        `json:"eagain"`
		Ceiling      *jsonCeiling  `json:"ceiling"`
		Steady       string        `json:"steady_state"`
		SteadyFrom   int           `json:"steady_from_sample"`
		Outliers     int           `json:"outliers"`
		ChangePoints []jsonChange  `json:"change_points"`
		Excursions   []jsonStretch `json:"excursions"`
	}
	jsonStretch struct {
		From   int     `json:"from_sample"`
		To     int     `json:"to_sample"` // the first one after it
		Factor float64 `json:"times_the_rest"`
	}
	jsonChange struct {
		Sample   int     `json:"sample"`
		BeforeNs float64 `json:"before_ns"`
		AfterNs  float64 `json:"after_ns"`
	}
	jsonCeiling struct {
		Kind  string  `json:"kind"`
		Rate  float64 `json:"rate_bytes_per_s"`
		Share float64 `json:"share"`
	}
	jsonPath struct {
		Payload         uint64           `json:"payload_bytes"`
		Counters        []record.Counter `json:"counters"`
		Ratio           float64          `json:"counted_over_payload"`
		Voluntary       int64            `json:"voluntary_switches"`
		Involuntary     int64            `json:"involuntary_switches"`
		PeerVoluntary   int64            `json:"peer_voluntary_switches"`
		PeerInvoluntary int64            `json:"peer_involuntary_switches"`
	}
	jsonPair struct {
		A          int           `json:"a"` // condition IDs
		B          int           `json:"b"`
		Verdict    string        `json:"verdict"`
		Text       string        `json:"text"`
		Reason     string        `json:"reason,omitempty"`
		Ratio      *float64      `json:"time_b_over_time_a"`
		Interval   *jsonInterval `json:"ratio_ci"`
		P          *float64      `json:"p"`
		PAdjusted  *float64      `json:"p_adjusted"`
		PRun       *float64      `json:"p_over_run"`
		Family     int           `json:"family"`
		N          int           `json:"units"`
		Need       int           `json:"units_needed"`
		Detectable *float64      `json:"detectable"`
		Test       string        `json:"test"`
	}
	jsonModel struct {
		Label       string        `json:"label"`
		Conditions  []int         `json:"conditions"`
		AlphaNs     float64       `json:"start_ns"`
		AlphaCI     *jsonInterval `json:"start_ci_ns"`
		MinBytes    int64         `json:"min_bytes"` // the sizes on which the line rests
		MaxBytes    int64         `json:"max_bytes"`
		NsPerByte   float64       `json:"ns_per_byte"`
		NsPerByteCI *jsonInterval `json:"ns_per_byte_ci"`
		NsPerDesc   *float64      `json:"ns_per_descriptor"`
		NsPerDescCI *jsonInterval `json:"ns_per_descriptor_ci"`
		Blocks      int           `json:"blocks"`
		Worst       float64       `json:"worst_relative_residual"`
		WorstBytes  int64         `json:"worst_bytes"`
	}
	jsonPieces struct {
		Label       string        `json:"label"`
		Bytes       uint64        `json:"bytes"`
		Conditions  []int         `json:"conditions"`
		BaseNs      float64       `json:"base_ns"`
		NsPerDesc   float64       `json:"ns_per_descriptor"`
		NsPerDescCI *jsonInterval `json:"ns_per_descriptor_ci"`
	}
	jsonGuideline struct {
		A         string         `json:"a"`
		B         string         `json:"b"`
		Kind      string         `json:"crossover"`          // "crosses" or "none in range"
		Bytes     *float64       `json:"crossover_bytes"`    // of a single crossing of lines
		Interval  *jsonInterval  `json:"crossover_ci_bytes"` // the same
		Crossings []jsonCrossing `json:"crossings"`
		Threshold float64        `json:"relative_difference_that_matters"`
		Zones     []jsonZone     `json:"zones"`
		Text      string         `json:"text"`
	}
	jsonCrossing struct {
		From     int64         `json:"from_bytes"` // the last size of the one
		To       int64         `json:"to_bytes"`   // the first of the other
		Before   string        `json:"faster_before"`
		After    string        `json:"faster_after"`
		Bytes    *float64      `json:"bytes"` // where the lines cross; null without lines
		Interval *jsonInterval `json:"ci_bytes"`
	}
	jsonZone struct {
		From  int64  `json:"from_bytes"`
		To    int64  `json:"to_bytes"`
		Sizes int    `json:"sizes"`
		Use   string `json:"use"`     // "" where neither is faster by what matters
		Found string `json:"verdict"` // faster, equal, undecided
	}
)

// number is nil for what JSON cannot hold.
func number(f float64) *float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return &f
}

func interval(iv *stats.Interval) *jsonInterval {
	if iv == nil {
		return nil
	}
	return &jsonInterval{number(iv.Lo), number(iv.Hi), iv.Level}
}

func writeJSON(b *bytes.Buffer, docs []Document) error {
	out := jsonReport{Schema: jsonSchema}
	for _, d := range docs {
		if d.Raw != nil {
			out.Reports = append(out.Reports, toJSON(d.Raw))
		} else {
			out.Reports = append(out.Reports, ttftJSON(d.TTFT))
		}
	}
	return encodeJSON(b, out)
}

// encodeJSON writes v, indented. What a record's text has that drives a terminal or
// hides stands as JSON's own escapes, so that a reader gets the text as it was.
func encodeJSON(b *bytes.Buffer, v any) error {
	var plain bytes.Buffer
	e := json.NewEncoder(&plain)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	for _, r := range plain.String() {
		switch hi, lo := utf16.EncodeRune(r); {
		case unicode.IsGraphic(r) || r == '\n':
			b.WriteRune(r)
		case hi != unicode.ReplacementChar:
			fmt.Fprintf(b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(b, `\u%04x`, r)
		}
	}
	return nil
}

func toJSON(a *analysis.Analysis) jsonRun {
	j := jsonRun{
		Record: a.Record.Path, Run: a.Record.Run, Status: "cut off", Emulated: a.Emulated(), Colds: a.Record.Colds,
		Rows: []jsonRow{}, Pairs: jsonPairs(a.Pairs, verdict), Brackets: jsonPairs(a.Brackets, bracket),
		Chance: jsonChance{a.Chance.Questions, a.Chance.Verdicts, a.Chance.Expected(), a.Chance.Any(), a.Chance.Different, a.Chance.Held},
		Models: []jsonModel{}, Pieces: []jsonPieces{}, Guidelines: []jsonGuideline{}, Warnings: []jsonWarning{},
	}
	if a.Record.End != nil {
		j.Status = a.Record.End.Status
	}
	if j.Colds == nil {
		j.Colds = []record.Cold{}
	}
	for _, r := range a.Rows {
		j.Rows = append(j.Rows, jsonRowOf(r))
	}
	for _, m := range a.Models {
		c := m.Cost
		j.Models = append(j.Models, jsonModel{
			Label: m.Label, Conditions: ids(m.Rows), AlphaNs: c.AlphaNS, AlphaCI: interval(&c.AlphaCI), MinBytes: c.MinBytes, MaxBytes: c.MaxBytes, NsPerByte: c.NSPerByte, NsPerByteCI: interval(&c.NSPerByteCI),
			Blocks: c.Blocks, Worst: c.WorstResidual, WorstBytes: c.WorstBytes,
		})
		if c.GammaCI != nil {
			last := &j.Models[len(j.Models)-1]
			last.NsPerDesc, last.NsPerDescCI = number(c.GammaNS), interval(c.GammaCI)
		}
	}
	for _, m := range a.Pieces {
		j.Pieces = append(j.Pieces, jsonPieces{m.Label, m.Bytes, ids(m.Rows), m.BaseNs, m.NsPerDesc, interval(&m.NsPerDescCI)})
	}
	for _, g := range a.Guides {
		x := jsonGuideline{
			A: g.A.WithoutSize(), B: g.B.WithoutSize(), Kind: stats.NoneInRange.String(), Crossings: []jsonCrossing{},
			Threshold: analysis.Relevant, Text: guide(g), Zones: []jsonZone{},
		}
		name := map[stats.Standing]string{stats.AFaster: g.A.Provider, stats.BFaster: g.B.Provider}
		for _, c := range g.Crossings {
			y := jsonCrossing{From: c.FromBytes, To: c.ToBytes, Before: name[c.Before], After: name[c.Before.Turned()]}
			if l := c.Lines; l != nil {
				y.Bytes, y.Interval = number(l.Bytes), interval(l.Interval)
			}
			x.Kind, x.Crossings = stats.CrossesAt.String(), append(x.Crossings, y)
		}
		if len(x.Crossings) == 1 {
			x.Bytes, x.Interval = x.Crossings[0].Bytes, x.Crossings[0].Interval
		}
		for _, z := range g.Zones {
			y := jsonZone{From: z.FromBytes, To: z.ToBytes, Sizes: z.Sizes, Use: name[z.Standing], Found: z.Standing.String()}
			if y.Use != "" {
				y.Found = "faster"
			}
			x.Zones = append(x.Zones, y)
		}
		j.Guidelines = append(j.Guidelines, x)
	}
	for _, w := range a.Warnings {
		j.Warnings = append(j.Warnings, jsonWarning(w))
	}
	return j
}

func ids(rows []*analysis.Row) []int {
	out := make([]int, len(rows))
	for i, r := range rows {
		out[i] = r.ID
	}
	return out
}

func jsonRowOf(r *analysis.Row) jsonRow {
	j := jsonRow{
		Label: r.Label, Condition: r.Condition, Samples: r.N, Blocks: r.Blocks, Launches: r.Launches, Emulated: r.Emulated,
		Check: r.Check(), Checked: r.Checked, Failed: r.Failed,
	}
	if p := r.Path; p != nil {
		j.Path = &jsonPath{p.PayloadBytes, append([]record.Counter{}, p.Counters...), p.Ratio, p.Voluntary, p.Involuntary, p.PeerVoluntary, p.PeerInvoluntary}
	}
	if !r.HasSpeed() {
		return j
	}
	s := &jsonSpeed{
		MedianNs: r.MedianNs, MedianCI: interval(r.CI), UnitMedians: stats.Values(r.Units), MinNs: r.MinNs, MaxNs: r.MaxNs, Rate: r.Rate,
		SumBytes: r.SumBytes, SumNs: r.SumNs, PostNs: r.PostNs, PostPerDesc: r.PostPerDesc, CPUNs: r.CPUNs, PeerCPUNs: r.PeerCPUNs,
		EAgain: r.EAgain, Steady: r.Steady.Class.String(), SteadyFrom: r.Steady.Start, Outliers: len(r.Steady.Outliers), ChangePoints: []jsonChange{}, Excursions: []jsonStretch{},
	}
	if !r.P95.Guarded {
		s.P95Ns = number(r.P95.Value)
	}
	if r.Bound != nil {
		s.Ceiling = &jsonCeiling{r.Bound.Kind, r.Bound.Rate, r.Bound.Share}
	}
	for _, t := range r.Steady.Transitions {
		s.ChangePoints = append(s.ChangePoints, jsonChange{t.Iteration, t.Before, t.After})
	}
	for _, e := range r.Steady.Excursions {
		s.Excursions = append(s.Excursions, jsonStretch{e.Start, e.End, e.Factor})
	}
	j.Speed = s
	return j
}

func jsonPairs(ps []analysis.Pair, text func(analysis.Pair) string) []jsonPair {
	out := []jsonPair{}
	for _, p := range ps {
		j := jsonPair{A: p.A.ID, B: p.B.ID, Verdict: p.Outcome(), Text: text(p), Reason: p.Refused, PRun: p.PRun}
		if p.Refused == "" {
			v := p.Verdict
			j.Ratio, j.Interval, j.P, j.PAdjusted = number(v.Ratio), interval(v.Interval), number(v.P), number(v.PAdjusted)
			j.Family, j.N, j.Need, j.Detectable, j.Test = v.Family, v.NA, v.Need, number(v.MDE), v.Test
		}
		out = append(out, j)
	}
	return out
}
