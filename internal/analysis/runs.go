package analysis

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// Runs is the comparison of two records that were not interleaved: A is the base,
// B is held against it.
type Runs struct {
	A, B *Analysis
	// Pairs are the rows that both have, in the order of A.
	Pairs []Pair
	// OnlyA and OnlyB are the rows without a partner.
	OnlyA, OnlyB []*Row
	// Differences say what else is not the same in the two records.
	Differences []string
	// Warnings are about what was compared with what.
	Warnings []Warning
}

// match is what rows of two records must share. What a provider chooses for
// itself (streams, depth) may differ: it is among the Differences.
type match struct {
	payload
	provider, shape string
	descs           int
	setting         setting // only where a record varied it
	again           int     // which of several equal rows
}

// Compare matches the conditions of two records and compares their units.
// Holm's correction runs over the sizes of each question.
func Compare(a, b *Analysis) (*Runs, error) {
	r := &Runs{A: a, B: b, Differences: differences(&a.Record.Run, &b.Record.Run)}
	key := func(of *Analysis) []match {
		seen := map[match]int{}
		out := make([]match, len(of.Rows))
		for i, row := range of.Rows {
			m := match{payload: payloadOf(row), provider: row.Provider, shape: row.Shape, descs: row.Descs}
			if a.varied(row) || b.varied(row) {
				m.setting = settingOf(row)
			}
			seen[m]++
			m.again = seen[m]
			out[i] = m
		}
		return out
	}
	ka, kb := key(a), key(b)
	type question struct {
		payload
		provider, shape string
		setting         setting
		again           int
	}
	groups := map[question][]int{}
	var order []question
	matched := map[int]bool{}
	for i, x := range a.Rows {
		j := slices.Index(kb, ka[i])
		if j < 0 {
			r.OnlyA = append(r.OnlyA, x)
			continue
		}
		matched[j] = true
		p := Pair{A: x, B: b.Rows[j]}
		if err := p.unpaired(a.Record.Run.Seed); err != nil {
			return nil, err
		}
		r.Differences = append(r.Differences, transportDifferences(x, p.B)...)
		if w := OneLaunch(x.Units, p.B.Units); w != nil && p.Refused == "" {
			r.Warnings = once(append(r.Warnings, *w))
		}
		if p.Refused == "" {
			q := question{ka[i].payload, ka[i].provider, ka[i].shape, ka[i].setting, ka[i].again}
			q.Bytes = 0
			if groups[q] == nil {
				order = append(order, q)
			}
			groups[q] = append(groups[q], len(r.Pairs))
		}
		r.Pairs = append(r.Pairs, p)
	}
	for j, y := range b.Rows {
		if !matched[j] {
			r.OnlyB = append(r.OnlyB, y)
		}
	}
	for _, q := range order {
		var vs []stats.Verdict
		for _, i := range groups[q] {
			vs = append(vs, r.Pairs[i].Verdict)
		}
		adj, err := stats.AdjustFamily(vs)
		if err != nil {
			return nil, err
		}
		for k, i := range groups[q] {
			r.Pairs[i].Verdict = adj[k]
		}
	}
	r.Differences = once(r.Differences)
	return r, nil
}

func (p *Pair) unpaired(seed uint64) error {
	if p.refuse(); p.Refused != "" {
		return nil
	}
	v, err := stats.CompareUnpaired(stats.Values(p.A.Units), stats.Values(p.B.Units), stats.Options{Level: Level, Seed: seed})
	if err != nil {
		return fmt.Errorf("%s: %w", p.A.Label, err)
	}
	p.Verdict = v
	return nil
}

// refuse says why there is nothing to compare, if so.
func (p *Pair) refuse() {
	switch {
	case p.A.Emulated || p.B.Emulated:
		p.Refused = Emulated
	case p.A.Failed > 0 || p.B.Failed > 0:
		p.Refused = "a data check failed, so there is no speed to compare"
	case p.A.N == 0 || p.B.N == 0:
		p.Refused = "one side has no samples"
	default:
		p.Refused = UnlikeUnits(p.A.Units, p.B.Units)
	}
}

// differences are what the two runs do not share, as far as it may matter.
func differences(a, b *record.Run) []string {
	var out []string
	add := func(what, x, y string) {
		if x != y {
			out = append(out, fmt.Sprintf("%s: %s, then %s", what, orNone(x), orNone(y)))
		}
	}
	add("xferbench", a.ToolVersion+" ("+a.ToolCommit+")", b.ToolVersion+" ("+b.ToolCommit+")")
	hosts := func(what string, x, y record.Host) {
		add(what, x.Hostname, y.Hostname)
		add(what+" instance", x.Instance, y.Instance)
		add(what+" system", x.OS+", Linux "+x.Kernel, y.OS+", Linux "+y.Kernel)
		add(what+" processor", fmt.Sprintf("%d × %s", x.CPUs, x.CPUModel), fmt.Sprintf("%d × %s", y.CPUs, y.CPUModel))
	}
	hosts("initiator", a.Host, b.Host)
	var pa, pb record.Host
	if a.Peer != nil {
		pa = *a.Peer
	}
	if b.Peer != nil {
		pb = *b.Peer
	}
	hosts("target", pa, pb)
	for _, k := range slices.Sorted(maps.Keys(union(a.Env, b.Env))) {
		add(k, a.Env[k], b.Env[k])
	}
	return out
}

// transportDifferences are those of what carried a row.
func transportDifferences(x, y *Row) []string {
	var out []string
	add := func(what, s, t string) {
		if s != t {
			out = append(out, fmt.Sprintf("%s %s: %s, then %s", x.Provider, what, orNone(s), orNone(t)))
		}
	}
	p, q := x.Transport, y.Transport
	add("library", strings.TrimSpace(p.Version+" "+p.Library), strings.TrimSpace(q.Version+" "+q.Library))
	add("devices", deviceNames(p), deviceNames(q))
	add("streams, rails, depth, chunk", fmt.Sprint(p.Streams, p.Rails, p.Depth, p.Chunk), fmt.Sprint(q.Streams, q.Rails, q.Depth, q.Chunk))
	add("polling", p.Poll, q.Poll)
	for _, k := range slices.Sorted(maps.Keys(union(p.Settings, q.Settings))) {
		add(k, p.Settings[k], q.Settings[k])
	}
	return out
}

func deviceNames(t record.Transport) string {
	var out []string
	for _, d := range t.Devices {
		out = append(out, d.Name)
	}
	return strings.Join(out, " ")
}

func union(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, b)
	return out
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func once[T comparable](xs []T) []T {
	var out []T
	for _, x := range xs {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}
