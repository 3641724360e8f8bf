package analysis

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/units"
)

// sameBytes is how far the bytes of a raw row may be from those that an engine
// moved for the two to count as the same transfer: a part of a block of a short
// prompt.
const sameBytes = 0.02

// sameDescs is by which factor the descriptors of a raw row may be off those that
// NIXL posted for the row to tell for its shape.
const sameDescs = 2

// Mismatch is a field in which a raw row is not what the engines used.
type Mismatch struct {
	Field        string // one of the constants
	Raw, Engines string // of the row, and of the engines
}

// Fields by which a raw row is held to be the engines' transfer.
const (
	FieldModel       = "model"
	FieldOp          = "op"
	FieldConnector   = "connector"
	FieldTransport   = "transport"
	FieldLibrary     = "library"
	FieldHosts       = "host pair"
	FieldDescriptors = "descriptors"
	FieldTime        = "time" // it takes longer than all that it would be a part of
)

// joined are the fields of [engines.match] in their order.
var joined = []string{FieldModel, FieldOp, FieldConnector, FieldTransport, FieldLibrary, FieldHosts}

// String says it in words: "other op: WRITE, the engines READ".
func (d Mismatch) String() string {
	verb := map[string]string{FieldModel: "the engines serve", FieldConnector: "the engines use", FieldTransport: "the engines use", FieldOp: "the engines",
		FieldLibrary: "the engines loaded", FieldHosts: "the engines ran on", FieldDescriptors: "NIXL posted"}[d.Field]
	if d.Field == FieldTime {
		return fmt.Sprintf("its %s are not less than the %s of the whole TTFT, so it cannot be what was used", d.Raw, d.Engines)
	}
	return fmt.Sprintf("other %s: %s, %s %s", d.Field, d.Raw, verb, d.Engines)
}

// engines are what the record of a TTFT run knows of an arm.
type engines struct {
	record.Serving
	local  record.Host // where the run itself ran
	stated string      // the transport that the user states
}

// newEngines collects what is known of the arm of a row.
func newEngines(row *RequestRow, run *record.Run, stated string) engines {
	e := engines{local: run.Host, stated: stated}
	if row.Condition.Serving != nil {
		e.Serving = *row.Condition.Serving
	}
	if e.Op == "" {
		e.Op = counted(row.Requests)
	}
	if len(e.PrefillHosts) == 0 && len(e.DecodeHosts) == 0 {
		for _, q := range row.Requests {
			e.PrefillHosts, e.DecodeHosts = addHost(e.PrefillHosts, q.Prefill), addHost(e.DecodeHosts, q.Decode)
		}
	}
	return e
}

// counted is the op of the engine that counted all transfers, "" where it is not
// known.
func counted(lines []record.Request) (op string) {
	ops := map[string]string{record.ByDecode: "read", record.ByPrefill: "write"}
	for _, q := range lines {
		if q.Moved == nil {
			continue
		}
		if op != "" && op != ops[q.Moved.By] {
			return ""
		}
		op = ops[q.Moved.By]
	}
	return op
}

func addHost(list []string, base string) []string {
	if u, err := url.Parse(base); err == nil && u.Hostname() != "" && !slices.Contains(list, u.Hostname()) {
		return append(list, u.Hostname())
	}
	return list
}

// uses is the transport that the engines used, by its name among the providers; ""
// where it is not known.
func (e engines) uses() string { return cmp.Or(e.stated, e.Provider) }

// match holds a raw row of the engines' bytes against what is known of them.
// Fields that either record lacks are in unknown.
func (e engines) match(r *Row, run *record.Run) (differs []Mismatch, unknown []string) {
	for _, field := range joined {
		raw, ours, agree := e.field(field, r, run)
		switch agree {
		case other:
			differs = append(differs, Mismatch{field, raw, ours})
		case notKnown:
			unknown = append(unknown, field)
		}
	}
	return differs, unknown
}

// ceiling holds a ceiling to the engines' hosts alone; memory is a host's own.
func (e engines) ceiling(r *Row, run *record.Run) []Mismatch {
	raw, ours, agree := e.hosts(r.Op, run)
	if agree != other || r.API == "memcpy" {
		return nil
	}
	return []Mismatch{{FieldHosts, raw, ours}}
}

// accord is how a field of two records stands.
type accord int

const (
	same accord = iota
	notKnown
	other
)

func agree(raw, ours string) accord {
	switch {
	case raw == "" || ours == "":
		return notKnown
	case strings.EqualFold(raw, ours):
		return same
	}
	return other
}

// field is what both records have of a field, in words, and whether they agree.
func (e engines) field(field string, r *Row, run *record.Run) (raw, ours string, _ accord) {
	switch field {
	case FieldModel:
		return r.Model, e.KVModel, agree(r.Model, e.KVModel)
	case FieldOp:
		raw, ours = strings.ToUpper(r.Op), strings.ToUpper(e.Op)
		return raw, ours, agree(raw, ours)
	case FieldConnector:
		return e.connector(r)
	case FieldTransport:
		return e.transport(r)
	case FieldLibrary:
		if r.API == "socket" || r.API == "memcpy" {
			return "", "", same // the kernel's
		}
		return r.Transport.Library, e.Library, agree(r.Transport.Library, e.Library)
	}
	return e.hosts(r.Op, run)
}

// connector compares the library below a connector with the one of a raw row. Where
// the transport is known, that says more.
func (e engines) connector(r *Row) (raw, ours string, _ accord) {
	apis := map[string]string{"UCX": "ucx", "LIBFABRIC": "libfabric"}
	switch {
	case e.uses() != "":
		return "", "", same
	case e.Connector == "" || e.Connector == "simulated" || strings.HasPrefix(e.Connector, "Nixl") && e.Backend == "":
		return "", "", notKnown
	case apis[e.Backend] == r.API:
		return r.API, e.Backend, same
	}
	return r.API, strings.TrimSpace(e.Connector + " " + e.Backend), other
}

// transport compares the provider that ran with the engines'.
func (e engines) transport(r *Row) (raw, ours string, _ accord) {
	asked := providerOf(r.Condition)
	ran := asked
	if ours = e.uses(); r.API == "libfabric" { // whatever was asked for
		ran, ours = core(r.Transport.Provider), core(ours)
	}
	switch {
	case e.stated != "" && (r.Provider == e.stated || asked == e.stated):
		return asked, ours, same
	case ran == "ucx" && strings.HasPrefix(ours, "ucx:"), ours == "ucx" && strings.HasPrefix(ran, "ucx:"):
		return ran, ours, notKnown // UCX chose one
	}
	return ran, ours, agree(ran, ours)
}

// core is a provider of libfabric without what it is layered with: "tcp;ofi_rxm" is
// tcp, and so is "net", the name of some releases for it.
func core(provider string) string {
	p, _, _ := strings.Cut(strings.TrimPrefix(provider, "fabric:"), ";")
	if p == "net" {
		return "tcp"
	}
	return p
}

// providerOf is the provider of a condition without what tells it from others of
// the same: "tcp" of "tcp#2 s=4".
func providerOf(c record.Condition) string {
	p, _, _ := strings.Cut(c.Provider, " ")
	p, _, _ = strings.Cut(p, "#")
	return p
}

// hosts compares the pair of hosts that a raw run joined with the engines', in
// either direction. The words follow the bytes.
func (e engines) hosts(op string, run *record.Run) (raw, ours string, _ accord) {
	from, to := run.Host, run.Host
	if run.Peer != nil {
		from = *run.Peer
	}
	if op != "read" {
		from, to = to, from
	}
	raw = from.Hostname + "→" + to.Hostname
	if len(e.PrefillHosts) == 0 || len(e.DecodeHosts) == 0 {
		return raw, "", notKnown
	}
	ours = strings.Join(e.PrefillHosts, ",") + "→" + strings.Join(e.DecodeHosts, ",")
	all := same
	for _, p := range e.PrefillHosts {
		for _, d := range e.DecodeHosts {
			all = max(all, min(max(e.host(p, from), e.host(d, to)), max(e.host(p, to), e.host(d, from))))
		}
	}
	return raw, ours, all
}

// host compares an engine's host, a name or an address, with one of a raw run.
func (e engines) host(name string, h record.Host) accord {
	ip := net.ParseIP(name)
	if name == "localhost" || ip != nil && ip.IsLoopback() {
		return agree(e.local.Hostname, h.Hostname)
	}
	address := net.ParseIP(h.Address)
	short, _, _ := strings.Cut(h.Hostname, ".")
	switch {
	case strings.EqualFold(name, h.Hostname) || strings.EqualFold(name, short) || ip != nil && ip.Equal(address):
		return same
	case ip != nil && (address == nil || address.IsLoopback()) || ip == nil && h.Hostname == "":
		return notKnown
	}
	return other
}

// shape leaves of a transport's rows those whose descriptors are nearest to what
// NIXL posted, where it was counted and they are near; it returns the others.
func shape(rungs []Rung, m *MovedMedians) (kept, others []Rung) {
	if m == nil || m.MinDesc < 1 {
		return rungs, nil
	}
	posted := math.Sqrt(float64(m.MinDesc) * float64(m.MaxDesc))
	off := func(g Rung) float64 { return math.Abs(math.Log(float64(max(g.row.Descs, 1)) / posted)) }
	for _, g := range rungs {
		nearest := math.Inf(1)
		for _, h := range rungs {
			if h.row.Provider == g.row.Provider {
				nearest = math.Min(nearest, off(h))
			}
		}
		if nearest <= math.Log(sameDescs) && off(g) > nearest {
			counted := units.FormatCount(m.MinDesc)
			if m.MaxDesc > m.MinDesc {
				counted += " to " + units.FormatCount(m.MaxDesc)
			}
			g.Differs = append(g.Differs, Mismatch{FieldDescriptors, units.FormatCount(int64(g.row.Descs)), counted})
			others = append(others, g)
			continue
		}
		kept = append(kept, g)
	}
	return kept, others
}
