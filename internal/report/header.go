package report

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/units"
)

// fact is one line above the tables: a short title and what there is to say.
type fact struct{ title, text string }

// facts are what stands above the tables in every format for people.
func facts(a *analysis.Analysis) []fact {
	run := &a.Record.Run
	out := []fact{{"", title(run)}}
	if note := run.Env["XFERBENCH_NOTE"]; note != "" {
		out = append(out, fact{"note", note})
	}
	if a.Emulated() {
		out = append(out, fact{"EMULATED", analysis.Emulated})
	}
	out = append(out, hosts(run)...)
	if run.Isolation != "" {
		out = append(out, fact{"isolation", run.Isolation})
	}
	out = append(out, carriers(a)...)
	out = append(out, payloads(a)...)
	out = append(out, colds(a)...)
	out = append(out, fact{"design", design(a)})
	if a.Record.Path != "" {
		out = append(out, fact{"record", tilde(a.Record.Path)})
	}
	return out
}

func title(run *record.Run) string {
	return fmt.Sprintf("xferbench %s (%s), %s run %s, %s", run.ToolVersion, run.ToolCommit, run.Kind, run.ID,
		time.Unix(0, run.StartUnixNs).UTC().Format("2006-01-02 15:04:05 UTC"))
}

func hosts(run *record.Run) []fact {
	if run.Peer == nil {
		return []fact{{"host", describe(run.Host)}}
	}
	if !analysis.LeavesHost(run) {
		return []fact{{"host", describe(run.Host) + "; two processes on this one host"}}
	}
	return []fact{{"from", describe(run.Host)}, {"to", describe(*run.Peer)}}
}

func describe(h record.Host) string {
	s := h.Hostname
	if h.Instance != "" {
		s += " " + h.Instance
	}
	words := []string{fmt.Sprintf("%d CPUs", h.CPUs)}
	if h.CPUModel != "" {
		words[0] += " " + h.CPUModel
	}
	if h.MemoryBytes > 0 {
		words = append(words, fmt.Sprintf("%.0f GiB", float64(h.MemoryBytes)/(1<<30)))
	}
	for _, g := range h.GPUs {
		words = append(words, fmt.Sprintf("GPU %d %s", g.Index, g.Name))
	}
	for _, w := range []string{h.OS, "Linux " + h.Kernel} {
		if w != "" {
			words = append(words, w)
		}
	}
	return s + ": " + strings.Join(words, ", ")
}

// carriers say, for each provider, what carries the bytes and what proves that
// they landed.
func carriers(a *analysis.Analysis) []fact {
	var out []fact
	for _, p := range unique(providersOf(a.Rows)) {
		var rows []*analysis.Row
		for _, r := range a.Rows {
			if r.Provider == p {
				rows = append(rows, r)
			}
		}
		t := rows[0].Transport
		var words []string
		if t.Library != "" {
			lib := t.API
			if t.Version != "" {
				lib += " " + t.Version
			}
			words = append(words, lib+" ("+t.Library+")")
		}
		if via := devices(t); via != "" {
			if t.Provider != p && t.API == "libfabric" {
				via = t.Provider + " " + via
			}
			words = append(words, via)
		}
		for _, op := range unique(opsOf(rows)) {
			w := strings.ToUpper(op)
			if proto := t.Protocol[op]; proto != "" {
				w += " by " + proto
			}
			if slices.Contains(t.Emulated, op) {
				w += " (RMA emulated by messages)"
			}
			if l := landing(op, rows); l != "" {
				w += ", landed: " + l
			}
			words = append(words, w)
		}
		if t.API != "memcpy" {
			words = append(words, settings(rows))
		}
		if t.Simulated {
			words = append(words, analysis.Emulated)
		}
		words = append(words, t.Notes...)
		out = append(out, fact{p, strings.Join(words, "; ")})
	}
	return out
}

func opsOf(rows []*analysis.Row) []string {
	var out []string
	for _, r := range rows {
		out = append(out, r.Op)
	}
	return out
}

// landings are the words for a record's landing proof.
var landings = map[string]string{
	"local-completion":  "local completion",
	"delivery-complete": "delivery complete",
	"remote-cq-count":   "counted at the target's queue",
	"flush":             "remote flush",
	"target-ack":        "acknowledged by the target",
	"copy":              "copied",
}

func landing(op string, rows []*analysis.Row) string {
	for _, r := range rows {
		if r.Op != op {
			continue
		}
		l := r.Landing
		if l == "" {
			l = r.Transport.Landing[op]
		}
		if w := landings[l]; w != "" {
			return w
		}
		return l
	}
	return ""
}

func devices(t record.Transport) string {
	var ds []string
	for _, d := range t.Devices {
		s := d.Name
		if d.LinkBits > 0 {
			s += " " + units.CompactRate(int64(d.LinkBits))
		}
		ds = append(ds, s)
	}
	if len(ds) == 0 {
		return ""
	}
	return "over " + list(ds)
}

func settings(rows []*analysis.Row) string {
	var streams, depths, chunks []string
	for _, r := range rows {
		t := r.Transport
		streams = append(streams, fmt.Sprint(t.Streams))
		depths = append(depths, fmt.Sprint(t.Depth))
		if t.Chunk > 0 {
			chunks = append(chunks, units.CompactBytes(int64(t.Chunk)))
		}
	}
	s := "streams " + strings.Join(unique(streams), "/")
	if t := rows[0].Transport; t.Rails > 1 {
		s += fmt.Sprintf(", rails %d", t.Rails)
	}
	s += ", depth " + strings.Join(unique(depths), "/")
	if len(chunks) > 0 {
		s += ", chunk " + strings.Join(unique(chunks), "/")
	}
	if p := rows[0].Transport.Poll; p != "" {
		s += ", poll " + p
	}
	return s
}

// manySizes is from how many sizes on a list of them replaces a line each.
const manySizes = 3

// payloads say what was moved, exactly.
func payloads(a *analysis.Analysis) []fact {
	var all []uint64
	for _, r := range a.Rows {
		all = append(all, r.Bytes)
	}
	all = unique(all)
	if len(all) >= manySizes {
		return []fact{{"payload", fmt.Sprintf("%d sizes from %s to %s; %s", len(all), units.FormatBytes(int64(slices.Min(all))),
			units.FormatBytes(int64(slices.Max(all))), shapes(a.Rows, false))}}
	}
	var out []fact
	for _, n := range all {
		var rows []*analysis.Row
		for _, r := range a.Rows {
			if r.Bytes == n {
				rows = append(rows, r)
			}
		}
		out = append(out, fact{"payload", payload(rows)})
	}
	return out
}

func payload(rows []*analysis.Row) string {
	c := rows[0].Condition
	for _, r := range rows { // a ceiling or contiguous row knows less
		if r.Tokens > 0 && r.Shape != "contiguous" {
			c = r.Condition
			break
		}
	}
	s := units.FormatBytes(int64(c.Bytes))
	if c.Tokens > 0 && c.Block > 0 && c.Shape != "contiguous" {
		s += fmt.Sprintf("; %s, %s tokens of %s", c.Model, units.FormatCount(c.Tokens), units.FormatExact(int64(c.Bytes)/c.Tokens))
		blocks := (c.Tokens + int64(c.Block) - 1) / int64(c.Block)
		s += fmt.Sprintf(", %s blocks of %d", units.FormatCount(blocks), c.Block)
		if c.TP > 1 {
			s += fmt.Sprintf(", one of %d tensor-parallel ranks", c.TP)
		}
	} else if c.Tokens > 0 {
		s += fmt.Sprintf("; %s tokens of %s", units.FormatCount(c.Tokens), c.Model)
	}
	s += "; " + shapes(rows, true)
	if c.Asked != c.Bytes && c.Asked > 0 {
		s += fmt.Sprintf("; %s were asked for, rounded up to whole blocks", units.FormatExact(int64(c.Asked)))
	}
	return s
}

// shapes lists the shapes and, where they do not depend on the size, their
// descriptors.
func shapes(rows []*analysis.Row, counts bool) string {
	if slices.ContainsFunc(rows, func(r *analysis.Row) bool { return !r.Ceiling }) {
		rows = slices.DeleteFunc(slices.Clone(rows), func(r *analysis.Row) bool { return r.Ceiling })
	}
	var names []string
	descs := map[string][]string{}
	for _, r := range rows {
		names = append(names, r.Shape)
		descs[r.Shape] = append(descs[r.Shape], units.FormatCount(int64(r.Descs)))
	}
	names = unique(names)
	if !counts {
		return list(names)
	}
	for i, n := range names {
		names[i] = list(unique(descs[n])) + " " + n
	}
	return "descriptors: " + strings.Join(names, "; ")
}

// colds are the one-time costs, a line each provider.
func colds(a *analysis.Analysis) []fact {
	var out []fact
	for _, c := range a.Record.Colds {
		if c.Provider == "memcpy" {
			continue
		}
		words := []string{}
		add := func(what string, ns int64) {
			if ns > 0 {
				words = append(words, what+" "+nanos(float64(ns)))
			}
		}
		add("open", c.OpenNs)
		add("register", c.RegisterNs)
		add("connect", c.ConnectNs)
		add("first transfer", c.FirstNs)
		if c.Simulated {
			words = []string{analysis.Emulated}
		}
		if len(words) > 0 {
			out = append(out, fact{"cold " + c.Provider, strings.Join(words, ", ")})
		}
	}
	return out
}

func design(a *analysis.Analysis) string {
	run := a.Record.Run
	var words []string
	if d := run.Design; d != nil {
		words = append(words, d.Order+" order in blocks")
		switch {
		case d.UntilCIPpm > 0:
			words = append(words, fmt.Sprintf("stopped at an interval of ±%s%% (declared before the start)", units.Digits(float64(d.UntilCIPpm)/1e4, 2)))
		case d.BudgetNs > 0:
			words = append(words, "budget "+units.FormatDuration(time.Duration(d.BudgetNs)))
		}
	}
	if run.Launches > 1 {
		words = append(words, fmt.Sprintf("%d launches with fresh processes", run.Launches))
	}
	words = append(words, fmt.Sprintf("seed %d", run.Seed))
	if slices.ContainsFunc(a.Rows, func(r *analysis.Row) bool { return r.Checked > 0 || r.Failed > 0 }) {
		words = append(words, "data checked outside of the clock")
	} else {
		words = append(words, "data NOT checked")
	}
	return strings.Join(words, ", ")
}

// tilde shortens a path under the home directory.
func tilde(path string) string {
	home, err := os.UserHomeDir()
	if err != nil || home == "" || home == "/" {
		return path
	}
	if rel, err := filepath.Rel(home, path); err == nil && filepath.IsAbs(path) && filepath.IsLocal(rel) {
		return "~/" + rel
	}
	return path
}
