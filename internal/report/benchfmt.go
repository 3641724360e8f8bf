package report

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/perf/benchfmt"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/units"
)

// errNoBench: nothing in the records may be compared by other tools.
var errNoBench = errors.New("no row to export: rows of emulated devices and rows with a failed data check carry no speed")

// writeBenchfmt writes the Go benchmark format, which benchstat reads: one
// line a unit (block, or launch), since that is what was repeated
// independently.
func writeBenchfmt(b *bytes.Buffer, docs []Document) error {
	w := benchfmt.NewWriter(b)
	n := 0
	write := func(run *record.Run, name string, iters int, vs ...benchfmt.Value) error {
		n++
		return w.Write(&benchfmt.Result{Config: benchConfig(run), Name: benchfmt.Name(name), Iters: iters, Values: vs})
	}
	for _, d := range docs {
		run := &d.Record.Run
		if d.TTFT != nil {
			for _, r := range d.TTFT.Rows {
				for _, u := range r.Units {
					if err := write(run, ttftBenchName(r), u.N, seconds(u.Value)); err != nil {
						return err
					}
				}
			}
			continue
		}
		for _, r := range d.Raw.Rows {
			if !r.HasSpeed() {
				continue
			}
			for _, u := range r.Units {
				rate := float64(r.Bytes) / u.Value * 1e9
				if err := write(run, benchName(r), r.N/len(r.Units), seconds(u.Value), benchfmt.Value{Value: rate, Unit: "B/s", OrigValue: rate / 1e6, OrigUnit: "MB/s"}); err != nil {
					return err
				}
			}
		}
	}
	if n == 0 {
		return errNoBench
	}
	return nil
}

func seconds(ns float64) benchfmt.Value {
	return benchfmt.Value{Value: ns / 1e9, Unit: "sec/op", OrigValue: ns, OrigUnit: "ns/op"}
}

// benchConfig is the same set of keys for every record, so that one without a
// peer does not inherit that of the last.
func benchConfig(run *record.Run) []benchfmt.Config {
	peer := "none"
	if run.Peer != nil {
		peer = run.Peer.Hostname
	}
	var out []benchfmt.Config
	for _, kv := range [][2]string{
		{"pkg", "xferbench"}, {"xferbench", run.ToolVersion}, {"commit", run.ToolCommit}, {"run", run.ID},
		{"host", run.Host.Hostname}, {"peer", peer}, {"cpu", run.Host.CPUModel},
	} {
		v := oneLine(kv[1])
		if v == "" {
			v = "unknown"
		}
		out = append(out, benchfmt.Config{Key: kv[0], Value: []byte(v), File: true})
	}
	return out
}

// benchName is a row's name as key=value pairs, which benchstat can project on.
func benchName(r *analysis.Row) string {
	repeat := ""
	if _, again, ok := strings.Cut(r.Label, " ("); ok {
		repeat = strings.TrimSuffix(again, ")")
	}
	return pairs("Transfer", "provider", r.Provider, "op", r.Op, "memory", analysis.Memory(r.Condition), "shape", r.Shape, "layout", r.Layout,
		"streams", fmt.Sprint(r.Transport.Streams), "depth", fmt.Sprint(r.Transport.Depth), "descriptors", fmt.Sprint(r.Descs),
		"repeat", repeat, "bytes", fmt.Sprint(r.Bytes))
}

// pairs appends /key=value for each value that is not empty.
func pairs(name string, kvs ...string) string {
	for i := 0; i+1 < len(kvs); i += 2 {
		if kvs[i+1] == "" {
			continue
		}
		name += "/" + kvs[i] + "=" + strings.Map(func(c rune) rune {
			if c <= ' ' || c == '/' {
				return '_'
			}
			return c
		}, units.PrintableText(kvs[i+1]))
	}
	return name
}

func oneLine(s string) string { return units.Printable(strings.Join(strings.Fields(s), " ")) }
