package report

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/perf/benchfmt"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
	"github.com/xferbench/xferbench/internal/units"
)

// ErrNoBench says that nothing in the records may be compared by other tools.
var ErrNoBench = errors.New("no row to export: rows of emulated devices and rows with a failed data check carry no speed")

// writeBenchfmt writes the Go benchmark format, which benchstat reads: one
// line a unit (block, or launch), since that is what was repeated
// independently. benchstat pairs lines of two files whose names and keys agree, so
// that neither holds what differs from run to run: that stands in comments. With
// only, the rows of one provider or arm are written and their names leave it out.
func writeBenchfmt(b *bytes.Buffer, docs []Document, only string) error {
	w := benchfmt.NewWriter(b)
	n := 0
	var known []string
	for _, d := range docs {
		benchComments(b, d)
		config := benchConfig(&d.Record.Run, len(docs) > 1)
		for _, l := range benchLines(d) {
			known = append(known, l.who)
			name := l.name
			if only != "" && l.who != only {
				continue
			}
			if only == "" {
				name = pairs("", l.key, l.who) + name
			}
			for _, u := range l.units {
				n++
				values := []benchfmt.Value{seconds(u.Value)}
				if l.bytes > 0 {
					rate := float64(l.bytes) / u.Value * 1e9
					values = append(values, benchfmt.Value{Value: rate, Unit: "B/s", OrigValue: rate / 1e6, OrigUnit: "MB/s"})
				}
				res := &benchfmt.Result{Config: config, Name: benchfmt.Name(l.what + name), Iters: max(1, l.n/len(l.units)), Values: values}
				if err := w.Write(res); err != nil {
					return err
				}
			}
		}
	}
	switch {
	case n > 0:
		return nil
	case only != "" && len(known) > 0:
		return fmt.Errorf("%w; none is of %q: the records have %s", ErrNoBench, only, list(unique(known)))
	}
	return ErrNoBench
}

// benchLine is a row: what was done ("Transfer"), by whom (key and who), and the
// rest of its name.
type benchLine struct {
	what, key, who, name string
	n                    int // samples or requests behind all units
	units                []stats.Unit
	bytes                uint64 // of one transfer; 0: no rate
}

func benchLines(d Document) []benchLine {
	var out []benchLine
	if d.TTFT != nil {
		for _, r := range d.TTFT.Rows {
			if r.N() > 0 {
				out = append(out, benchLine{what: "TTFT", key: "arm", who: r.Arm, name: pairs("", "load", r.Load, "tokens", fmt.Sprint(r.Tokens)), n: r.N(), units: r.Units})
			}
		}
		return out
	}
	// What a provider chooses for itself is in the name only where rows differ in
	// nothing else: another build, or another provider, may choose otherwise.
	same := map[string]int{}
	for _, r := range d.Raw.Rows {
		same[r.Provider+benchName(r, false)]++
	}
	for _, r := range d.Raw.Rows {
		if r.HasSpeed() {
			out = append(out, benchLine{what: "Transfer", key: "provider", who: r.Provider, name: benchName(r, same[r.Provider+benchName(r, false)] > 1),
				n: r.N, units: r.Units, bytes: r.Bytes})
		}
	}
	return out
}

// benchComments say which run the lines below are of.
func benchComments(b *bytes.Buffer, d Document) {
	run := &d.Record.Run
	comment := func(key, value string) {
		if value = oneLine(value); value != "" {
			fmt.Fprintf(b, "# %s: %s\n", key, value)
		}
	}
	comment("run", run.ID)
	comment("start", startOf(d.Record))
	comment("xferbench", run.ToolVersion+" ("+run.ToolCommit+")")
	comment("host", run.Host.Hostname)
	if run.Peer != nil {
		comment("peer", run.Peer.Hostname)
	}
	comment("cpu", run.Host.CPUModel)
	comment("note", run.Env["XFERBENCH_NOTE"])
	if d.TTFT != nil && d.TTFT.Simulated {
		comment("SIMULATED", simulatedTTFT)
	}
}

func seconds(ns float64) benchfmt.Value {
	return benchfmt.Value{Value: ns / 1e9, Unit: "sec/op", OrigValue: ns, OrigUnit: "ns/op"}
}

// benchConfig are the keys of a file. Records that share one are told apart.
func benchConfig(run *record.Run, several bool) []benchfmt.Config {
	out := []benchfmt.Config{{Key: "pkg", Value: []byte("xferbench"), File: true}}
	if several {
		out = append(out, benchfmt.Config{Key: "run", Value: []byte(oneLine(run.ID)), File: true})
	}
	return out
}

// benchName is a row's name as key=value pairs, which benchstat can project on,
// without its provider.
func benchName(r *analysis.Row, settings bool) string {
	repeat, streams, depth := "", "", ""
	if _, again, ok := strings.Cut(r.Label, " ("); ok {
		repeat = strings.TrimSuffix(again, ")")
	}
	if settings {
		streams, depth = fmt.Sprint(r.Transport.Streams), fmt.Sprint(r.Transport.Depth)
	}
	return pairs("", "op", r.Op, "memory", analysis.Memory(r.Condition), "shape", r.Shape, "layout", r.Layout,
		"streams", streams, "depth", depth, "descriptors", fmt.Sprint(r.Descs), "repeat", repeat, "bytes", fmt.Sprint(r.Bytes))
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
