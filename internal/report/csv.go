package report

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math"
	"strconv"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/units"
)

// field is a column of the CSV form; its name carries the unit.
type field struct {
	name string
	of   func(a *analysis.Analysis, r *analysis.Row) string
}

// intNs is a time in whole nanoseconds.
func intNs(f float64) string { return strconv.FormatInt(int64(math.Round(f)), 10) }

// fields are a row each condition, in base units. Cells of what does not exist
// are empty.
func fields() []field {
	row := func(name string, of func(r *analysis.Row) string) field {
		return field{name, func(_ *analysis.Analysis, r *analysis.Row) string { return of(r) }}
	}
	speed := func(name string, of func(r *analysis.Row) string) field {
		return row(name, func(r *analysis.Row) string {
			if !r.HasSpeed() {
				return ""
			}
			return of(r)
		})
	}
	return []field{
		{"run_id", func(a *analysis.Analysis, _ *analysis.Row) string { return a.Record.Run.ID }},
		{"start_unix_ns", func(a *analysis.Analysis, _ *analysis.Row) string { return fmt.Sprint(a.Record.Run.StartUnixNs) }},
		row("condition", func(r *analysis.Row) string { return fmt.Sprint(r.ID) }),
		row("provider", func(r *analysis.Row) string { return r.Provider }),
		row("api", func(r *analysis.Row) string { return r.API }),
		row("op", func(r *analysis.Row) string { return r.Op }),
		row("shape", func(r *analysis.Row) string { return r.Shape }),
		row("memory", func(r *analysis.Row) string { return r.Memory }),
		row("peer_memory", func(r *analysis.Row) string { return r.PeerMem }),
		row("kv_layout", func(r *analysis.Row) string { return r.Layout }),
		row("model", func(r *analysis.Row) string { return r.Model }),
		row("tensor_parallel", func(r *analysis.Row) string { return fmt.Sprint(r.TP) }),
		row("tokens", func(r *analysis.Row) string { return fmt.Sprint(r.Tokens) }),
		row("block_tokens", func(r *analysis.Row) string { return fmt.Sprint(r.Block) }),
		row("asked_bytes", func(r *analysis.Row) string { return fmt.Sprint(r.Asked) }),
		row("bytes", func(r *analysis.Row) string { return fmt.Sprint(r.Bytes) }),
		row("descriptors", func(r *analysis.Row) string { return fmt.Sprint(r.Descs) }),
		row("operations", func(r *analysis.Row) string { return fmt.Sprint(r.Ops) }),
		row("streams", func(r *analysis.Row) string { return fmt.Sprint(r.Transport.Streams) }),
		row("rails", func(r *analysis.Row) string { return fmt.Sprint(r.Transport.Rails) }),
		row("depth", func(r *analysis.Row) string { return fmt.Sprint(r.Transport.Depth) }),
		row("chunk_bytes", func(r *analysis.Row) string { return fmt.Sprint(r.Transport.Chunk) }),
		row("ceiling", func(r *analysis.Row) string { return strconv.FormatBool(r.Ceiling) }),
		row("emulated_device", func(r *analysis.Row) string { return strconv.FormatBool(r.Emulated) }),
		row("emulated_rma", func(r *analysis.Row) string { return strconv.FormatBool(emulatedRMA(r)) }),
		row("samples", func(r *analysis.Row) string { return fmt.Sprint(r.N) }),
		row("blocks", func(r *analysis.Row) string { return fmt.Sprint(r.Blocks) }),
		row("launches", func(r *analysis.Row) string { return fmt.Sprint(r.Launches) }),
		row("check", func(r *analysis.Row) string { return r.Check() }),
		row("failed_checks", func(r *analysis.Row) string { return fmt.Sprint(r.Failed) }),
		speed("median_ns", func(r *analysis.Row) string { return intNs(r.MedianNs) }),
		speed("median_lo_ns", func(r *analysis.Row) string {
			if r.CI == nil {
				return ""
			}
			return intNs(r.CI.Lo)
		}),
		speed("median_hi_ns", func(r *analysis.Row) string {
			if r.CI == nil {
				return ""
			}
			return intNs(r.CI.Hi)
		}),
		speed("min_ns", func(r *analysis.Row) string { return intNs(r.MinNs) }),
		speed("max_ns", func(r *analysis.Row) string { return intNs(r.MaxNs) }),
		speed("p95_ns", func(r *analysis.Row) string {
			if r.P95.Guarded {
				return ""
			}
			return intNs(r.P95.Value)
		}),
		speed("sum_bytes", func(r *analysis.Row) string { return fmt.Sprint(r.SumBytes) }),
		speed("sum_ns", func(r *analysis.Row) string { return fmt.Sprint(r.SumNs) }),
		speed("rate_bytes_per_s", func(r *analysis.Row) string { return intNs(r.Rate) }),
		speed("ceiling_kind", func(r *analysis.Row) string {
			if r.Bound == nil {
				return ""
			}
			return r.Bound.Kind
		}),
		speed("ceiling_bytes_per_s", func(r *analysis.Row) string {
			if r.Bound == nil {
				return ""
			}
			return intNs(r.Bound.Rate)
		}),
		speed("ceiling_share", func(r *analysis.Row) string {
			if r.Bound == nil {
				return ""
			}
			return strconv.FormatFloat(r.Bound.Share, 'g', -1, 64)
		}),
		speed("post_median_ns", func(r *analysis.Row) string { return intNs(r.PostNs) }),
		speed("cpu_ns", func(r *analysis.Row) string { return fmt.Sprint(r.CPUNs) }),
		speed("peer_cpu_ns", func(r *analysis.Row) string { return fmt.Sprint(r.PeerCPUNs) }),
		row("eagain", func(r *analysis.Row) string { return fmt.Sprint(r.EAgain) }),
		speed("steady_state", func(r *analysis.Row) string { return r.Steady.Class.String() }),
		row("path_payload_bytes", func(r *analysis.Row) string {
			if r.Path == nil {
				return ""
			}
			return fmt.Sprint(r.Path.PayloadBytes)
		}),
		row("path_counted_bytes", func(r *analysis.Row) string {
			if r.Path == nil || len(r.Path.Counters) == 0 {
				return ""
			}
			return fmt.Sprint(r.Path.Counters[0].Delta)
		}),
		row("path_counter", func(r *analysis.Row) string {
			if r.Path == nil || len(r.Path.Counters) == 0 {
				return ""
			}
			c := r.Path.Counters[0]
			return c.Side + ":" + c.Device + ":" + c.Name
		}),
	}
}

// tame makes what a record says into one line of text, as CSV is read on terminals
// and by programs that split at line ends.
func tame(cells []string) []string {
	for i := range cells {
		cells[i] = units.Printable(cells[i])
	}
	return cells
}

// writeCSV writes RFC 4180: a header line, CRLF ends, quotes where needed.
func writeCSV(b *bytes.Buffer, docs []Document) error {
	var raws []*analysis.Analysis
	var ttfts []*analysis.Requests
	for _, d := range docs {
		if d.Raw != nil {
			raws = append(raws, d.Raw)
		} else {
			ttfts = append(ttfts, d.TTFT)
		}
	}
	switch {
	case len(ttfts) == 0:
		return rawCSV(b, raws)
	case len(raws) == 0:
		return ttftCSV(b, ttfts)
	}
	return ErrKinds
}

// rawCSV is a row each condition of raw transfers.
func rawCSV(b *bytes.Buffer, as []*analysis.Analysis) error {
	w := csv.NewWriter(b)
	w.UseCRLF = true
	fs := fields()
	head := make([]string, len(fs))
	for i, f := range fs {
		head[i] = f.name
	}
	if err := w.Write(head); err != nil {
		return err
	}
	for _, a := range as {
		for _, r := range a.Rows {
			rec := make([]string, len(fs))
			for i, f := range fs {
				rec[i] = f.of(a, r)
			}
			if err := w.Write(tame(rec)); err != nil {
				return err
			}
		}
	}
	w.Flush()
	return w.Error()
}
