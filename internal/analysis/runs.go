package analysis

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/stats"
)

// Source is a record with what it says: transfers, or requests.
type Source struct {
	Record *record.Record
	Raw    *Analysis // nil for a TTFT run
	TTFT   *Requests // nil for raw transfers
	// Rows are those of the record, in its order.
	Rows []*Figures
}

// Figures are what a comparison of records takes of a row, of transfers or of
// requests. Times are ns.
type Figures struct {
	// Label names the row among those of its record.
	Label     string
	Condition record.Condition
	Raw       *Row        // nil for requests
	TTFT      *RequestRow // nil for transfers
	// Units are what the comparison takes for independent: block medians, or medians
	// of launches where there are several.
	Units    []stats.Unit
	Launches int
	// N counts the samples or valid requests behind the figures, Invalid the requests
	// that do not count, and Failed the data checks that did not pass.
	N, Invalid, Failed int
	// MedianNs is the median of Units and CI its interval, nil with too few.
	MedianNs          float64
	CI                *stats.Interval
	Ceiling, Emulated bool
}

// HasSpeed tells whether the row may carry a speed: see [Row.HasSpeed].
func (f *Figures) HasSpeed() bool { return f.N > 0 && f.Failed == 0 && !f.Emulated }

// NewSource analyses a record for a comparison with others.
func NewSource(rec *record.Record) (*Source, error) {
	s := &Source{Record: rec}
	var err error
	if rec != nil && rec.Run.Kind == kindTTFT {
		if s.TTFT, err = OfRequests(rec); err != nil {
			return nil, err
		}
		for _, r := range s.TTFT.Rows {
			f := &Figures{Label: r.Condition.Name, Condition: r.Condition, TTFT: r, Units: r.Units, Launches: max(1, r.Launches), N: r.N(), Invalid: r.Invalid}
			if r.TTFT != nil {
				f.MedianNs, f.CI = r.TTFT.Median, r.TTFT.CI
			}
			s.Rows = append(s.Rows, f)
		}
		return s, nil
	}
	if s.Raw, err = Of(rec); err != nil {
		return nil, err
	}
	for _, r := range s.Raw.Rows {
		s.Rows = append(s.Rows, &Figures{Label: r.Label, Condition: r.Condition, Raw: r, Units: r.Units, Launches: max(1, r.Launches), N: r.N,
			Failed: r.Failed, MedianNs: r.MedianNs, CI: r.CI, Ceiling: r.Ceiling, Emulated: r.Emulated})
	}
	return s, nil
}

// kindTTFT is the Kind of a record of requests.
const kindTTFT = "ttft"

// Simulated tells whether what was measured is a stand-in: an emulated device, or
// engines that compute nothing.
func (s *Source) Simulated() bool {
	if s.TTFT != nil {
		return s.TTFT.Simulated
	}
	return s.Raw.Emulated()
}

// Unfinished says how the run ended where that was not in order, and is "" where
// it was. A run that ended with too little data for its own verdict is whole.
func (s *Source) Unfinished() string {
	switch end := s.Record.End; {
	case end == nil:
		return "was cut off: it has no end line"
	case s.Record.Cut:
		return "is of a compressed file that ends early"
	case end.Status == record.StatusOK || end.ExitCode == exitTooFew:
		return ""
	case end.Status == record.StatusInterrupted:
		return "was interrupted"
	case end.Error != "":
		return "failed: " + end.Error
	}
	return "failed"
}

// Exit codes in an end line, from package fault.
const (
	exitData   = 4
	exitTooFew = 6
)

// EndedOverCheck tells whether a run ended over a failed data check.
func EndedOverCheck(r *record.Record) bool { return r.End != nil && r.End.ExitCode == exitData }

// Delta is one row of two records.
type Delta struct {
	// A and B are the row in each record, nil where it is not in that one.
	A, B *Figures
	// Verdict has the ratio of time B over time A. It is not set when Refused.
	Verdict stats.Verdict
	// Refused says why there is no comparison at all, "" when there is one.
	Refused string
}

// Label names the row as the first record that has it does.
func (d *Delta) Label() string {
	if d.A != nil {
		return d.A.Label
	}
	return d.B.Label
}

// Ceiling tells whether the row is one that others are compared to.
func (d *Delta) Ceiling() bool { return d.Row().Ceiling }

// Failed tells whether a data check failed on either side.
func (d *Delta) Failed() bool {
	return d.A != nil && d.A.Failed > 0 || d.B != nil && d.B.Failed > 0
}

// Launches is the larger number of launches of the two sides.
func (d *Delta) Launches() int {
	n := 1
	for _, f := range []*Figures{d.A, d.B} {
		if f != nil {
			n = max(n, f.Launches)
		}
	}
	return n
}

// Row are the figures of A, or of B where A has none.
func (d *Delta) Row() *Figures {
	if d.A != nil {
		return d.A
	}
	return d.B
}

// Outcome is the verdict in the words of the record, and "only-a" or "only-b" of a
// row that the other record does not have.
func (d *Delta) Outcome() string {
	switch {
	case d.B == nil:
		return "only-a"
	case d.A == nil:
		return "only-b"
	case d.Refused != "":
		return "refused"
	}
	return outcome(d.Verdict)
}

// Runs is the comparison of two records that were not interleaved: A is the base,
// B is held against it. Both are of raw transfers, or both of requests.
type Runs struct {
	A, B *Source
	// Rows are those of A in its order, then those that only B has.
	Rows []*Delta
	// Chance is of the verdicts on Rows together.
	Chance Chance
	// Differences say what else is not the same in the two records.
	Differences []string
}

// Common counts the rows that both records have.
func (r *Runs) Common() int {
	n := 0
	for _, d := range r.Rows {
		if d.A != nil && d.B != nil {
			n++
		}
	}
	return n
}

// match is what rows of two records must share. What a provider chooses for
// itself (streams, depth) may differ: it is among the Differences.
type match struct {
	payload
	provider, shape string
	descs           int
	setting         setting // only where a record varied it
	name            string  // of requests: arm, prompt tokens and load
	again           int     // which of several equal rows
}

// keys are what each row of one of two records is matched by.
func keys(of, a, b *Source) []match {
	seen := map[match]int{}
	out := make([]match, len(of.Rows))
	for i, f := range of.Rows {
		m := match{name: f.Condition.Name}
		if row := f.Raw; row != nil {
			m = match{payload: payloadOf(row), provider: row.Provider, shape: row.Shape, descs: row.Descs}
			if a.Raw.varied(row) || b.Raw.varied(row) {
				m.setting = settingOf(row)
			}
		}
		seen[m]++
		m.again = seen[m]
		out[i] = m
	}
	return out
}

// question is what Holm's correction runs over: the sizes, or prompt lengths, of
// one way to move or serve them.
func (m match) question(f *Figures) match {
	m.Bytes, m.descs = 0, 0
	if f.TTFT != nil {
		m.name = f.TTFT.Arm + "\x00" + f.TTFT.Load
	}
	return m
}

// Compare matches the rows of two records of one kind and compares their units.
// Holm's correction runs over the sizes of each question.
func Compare(a, b *Source) (*Runs, error) {
	if (a.Raw == nil) != (b.Raw == nil) {
		return nil, fmt.Errorf("%s and %s are of two kinds, transfers and requests", a.Record.Path, b.Record.Path)
	}
	r := &Runs{A: a, B: b, Differences: differences(&a.Record.Run, &b.Record.Run)}
	ka, kb := keys(a, a, b), keys(b, a, b)
	groups := map[match][]*Delta{}
	var order []match
	matched := map[int]bool{}
	for i, x := range a.Rows {
		d := &Delta{A: x}
		r.Rows = append(r.Rows, d)
		j := slices.Index(kb, ka[i])
		if j < 0 {
			continue
		}
		matched[j], d.B = true, b.Rows[j]
		if err := d.decide(a.Record.Run.Seed); err != nil {
			return nil, err
		}
		if x.Raw != nil {
			r.Differences = append(r.Differences, transportDifferences(x.Raw, d.B.Raw)...)
		} else {
			r.Differences = append(r.Differences, armDifferences(x.TTFT, d.B.TTFT)...)
		}
		if d.Refused == "" {
			q := ka[i].question(x)
			if groups[q] == nil {
				order = append(order, q)
			}
			groups[q] = append(groups[q], d)
		}
	}
	for j, y := range b.Rows {
		if !matched[j] {
			r.Rows = append(r.Rows, &Delta{B: y})
		}
	}
	var questions [][]stats.Verdict
	for _, q := range order {
		var vs []stats.Verdict
		for _, d := range groups[q] {
			vs = append(vs, d.Verdict)
		}
		adj, err := stats.AdjustFamily(vs)
		if err != nil {
			return nil, err
		}
		for k, d := range groups[q] {
			d.Verdict = adj[k]
		}
		questions = append(questions, adj)
	}
	var err error
	r.Chance, _, err = chanceOf(questions)
	r.Differences = once(r.Differences)
	return r, err
}

func (d *Delta) decide(seed uint64) error {
	switch {
	case d.A.Emulated || d.B.Emulated:
		d.Refused = Emulated
	case d.Failed():
		d.Refused = "a data check failed, so there is no speed to compare"
	case d.A.N == 0 || d.B.N == 0:
		d.Refused = "one side has no " + d.A.things()
	default:
		d.Refused = UnlikeUnits(d.A.Units, d.B.Units)
	}
	if d.Refused != "" {
		return nil
	}
	v, err := stats.CompareUnpaired(stats.Values(d.A.Units), stats.Values(d.B.Units), stats.Options{Level: Level, Seed: seed})
	if err != nil {
		return fmt.Errorf("%s: %w", d.A.Label, err)
	}
	d.Verdict = v
	return nil
}

// things are what a row counts.
func (f *Figures) things() string {
	if f.TTFT != nil {
		return "valid requests"
	}
	return "samples"
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

// armDifferences are those of what served a row.
func armDifferences(x, y *RequestRow) []string {
	var out []string
	add := func(what, s, t string) {
		if s != t {
			out = append(out, fmt.Sprintf("%s %s: %s, then %s", x.Arm, what, orNone(s), orNone(t)))
		}
	}
	add("model", x.Condition.Model, y.Condition.Model)
	add("tokens of a KV block", fmt.Sprint(x.Condition.Block), fmt.Sprint(y.Condition.Block))
	add("bytes of KV", fmt.Sprint(x.Condition.Bytes), fmt.Sprint(y.Condition.Bytes))
	if x.N() > 0 && y.N() > 0 {
		add("path", x.Path, y.Path)
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
