package report

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/perf/benchfmt"

	"github.com/xferbench/xferbench/internal/report/analysis"
)

// errNoBench: nothing in the records may be compared by other tools.
var errNoBench = errors.New("no row to export: rows of emulated devices and rows with a failed data check carry no speed")

// writeBenchfmt writes the Go benchmark format, which benchstat reads: one
// line a unit (block, or launch), since that is what was repeated
// independently.
func writeBenchfmt(b *bytes.Buffer, as []*analysis.Analysis) error {
	w := benchfmt.NewWriter(b)
	n := 0
	for _, a := range as {
		run := a.Record.Run
		// Every result repeats all keys, so that a record without a peer does not
		// inherit the last one's.
		peer := ""
		if run.Peer != nil {
			peer = run.Peer.Hostname
		}
		config := []benchfmt.Config{}
		for _, kv := range [][2]string{
			{"pkg", "xferbench"}, {"xferbench", run.ToolVersion}, {"commit", run.ToolCommit}, {"run", run.ID},
			{"host", run.Host.Hostname}, {"peer", peer}, {"cpu", run.Host.CPUModel},
		} {
			if kv[1] != "" {
				config = append(config, benchfmt.Config{Key: kv[0], Value: []byte(oneLine(kv[1])), File: true})
			}
		}
		for _, r := range a.Rows {
			if !r.HasSpeed() {
				continue
			}
			for _, u := range r.Units {
				rate := float64(r.Bytes) / u.Value * 1e9
				err := w.Write(&benchfmt.Result{
					Config: slices.Clone(config), Name: benchName(r), Iters: r.N / len(r.Units),
					Values: []benchfmt.Value{
						{Value: u.Value / 1e9, Unit: "sec/op", OrigValue: u.Value, OrigUnit: "ns/op"},
						{Value: rate, Unit: "B/s", OrigValue: rate / 1e6, OrigUnit: "MB/s"},
					},
				})
				if err != nil {
					return err
				}
				n++
			}
		}
	}
	if n == 0 {
		return errNoBench
	}
	return nil
}

// benchName is a row's name as key=value pairs, which benchstat can project on.
func benchName(r *analysis.Row) benchfmt.Name {
	var s strings.Builder
	s.WriteString("Transfer")
	pair := func(k, v string) {
		if v == "" {
			return
		}
		v = strings.Map(func(c rune) rune {
			if c <= ' ' || c == '/' {
				return '_'
			}
			return c
		}, v)
		fmt.Fprintf(&s, "/%s=%s", k, v)
	}
	pair("provider", r.Provider)
	pair("op", r.Op)
	pair("memory", analysis.Memory(r.Condition))
	pair("shape", r.Shape)
	pair("layout", r.Layout)
	pair("streams", fmt.Sprint(r.Transport.Streams))
	pair("depth", fmt.Sprint(r.Transport.Depth))
	pair("descriptors", fmt.Sprint(r.Descs))
	if _, again, ok := strings.Cut(r.Label, " ("); ok {
		pair("repeat", strings.TrimSuffix(again, ")"))
	}
	pair("bytes", fmt.Sprint(r.Bytes))
	return benchfmt.Name(s.String())
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
