package ttft

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/metrics"
	"github.com/xferbench/xferbench/internal/serving/twoleg"
)

// Geometry is what is known of an arm's KV cache before its engines are asked. What
// they say themselves goes before all of it.
type Geometry struct {
	// Model is whose cache it is; without a name, the one of the served name.
	Model kv.Model
	// DType is the type of a cached value where Model has no name, "" or "auto": the
	// model's own.
	DType string
	// BytesPerToken, when not 0, takes the place of a model: a token's bytes over all
	// ranks, each counted once.
	BytesPerToken int64
	// PrefillTP and DecodeTP are the tensor-parallel sizes, 0: as the engines say.
	PrefillTP, DecodeTP int
	// DraftLayers are those of a draft head (MTP, EAGLE), whose cache moves too.
	DraftLayers int
}

// expects says what the requests of one arm have to move.
type expects struct {
	Geometry
	// known: Model is that of the engines, as far as anybody knows.
	known       bool
	version     string
	blockTokens int
	// pageLo and pageHi bound the bytes of a block on one decode rank, 0: not said.
	pageLo, pageHi int64
}

// span is a range of bytes.
type span struct{ lo, hi int64 }

// need is what one request has to move.
type need struct {
	rule string
	// ways are the bytes of a valid transfer, over all ranks, by each way in which the
	// engines may do it; none: not known.
	ways []span
	// blocks of each layer group that cross; nil: not known.
	blocks []int
	// transfers that it takes at least.
	transfers int64
	// misfit says why the blocks that were handed over are not the prompt's.
	misfit verdict
	// note says what of the geometry could not be used.
	note string
}

// release is a version as far as something follows from it: "" for one from before NIXL
// could be proven (0.11), as builds from source call themselves (0.1.dev…).
func release(version string) string {
	x := expects{version: version}
	if !x.since(11) {
		return ""
	}
	return version
}

// since reports whether the engines are of release 0.minor or later.
func (x *expects) since(minor int) bool {
	var major, n int
	if _, err := fmt.Sscanf(x.version, "%d.%d", &major, &n); err != nil {
		return false
	}
	return major > 0 || n >= minor
}

// publish takes over what the pages of the engines say of their caches.
func (x *expects) publish(decode []metrics.Cache) error {
	for _, c := range decode {
		if c.BlockHi == 0 {
			continue
		}
		x.pageLo = max(x.pageLo, c.BlockLo)
		x.pageHi = cmp.Or(min(cmp.Or(x.pageHi, c.BlockHi), c.BlockHi), c.BlockHi)
	}
	if !x.known || x.BytesPerToken > 0 {
		return nil
	}
	x.Model.Groups = slices.Clone(x.Model.Groups)
	for _, c := range decode {
		for i := range x.Model.Groups {
			g := &x.Model.Groups[i]
			g.States = slices.Clone(g.States)
			for k := range g.States {
				// The recurrent state follows those of the convolution.
				said := c.ConvDType
				if k > 0 && k == len(g.States)-1 {
					said = c.StateDType
				}
				if err := x.typed(&g.States[k].DType, said); err != nil {
					return err
				}
			}
		}
		if err := x.typed(&x.Model.DType, c.DType); err != nil {
			return err
		}
	}
	return nil
}

// typed sets a type that an engine says, in its words; one that is not known makes the
// geometry unknown.
func (x *expects) typed(to *kv.DType, said string) error {
	if said == "" {
		return nil
	}
	d, err := kv.ParseDType(said)
	if err != nil {
		x.known = false
		return fmt.Errorf("the engines' cache is of type %q: %w", said, err)
	}
	*to = d
	return nil
}

// ranks are the tensor-parallel sizes of a request's engines, of which NIXL counted so
// many transfers per request (0: not a whole number).
func (x *expects) ranks(r reqEvidence, counted int) (prefill, decode int) {
	var handed int
	if r.handed != nil {
		handed = r.handed.TP
	}
	decode = cmp.Or(r.decodeTP, x.DecodeTP)
	if decode == 0 {
		// Not said: as many as prefill has, or as there were transfers if that is more,
		// since each rank makes one. Fewer would be a rank that got nothing.
		decode = cmp.Or(handed, x.PrefillTP, 1)
		if counted > decode && counted%decode == 0 {
			decode = counted
		}
	}
	return cmp.Or(handed, x.PrefillTP, decode), decode
}

// slack is how many of the last prompt tokens the prefill engine left to the decode
// engine: before a state, which must not have seen the token decoded first, it
// leaves one, and a model that is not known may have states.
func (x *expects) slack(r reqEvidence) int {
	const most = 8
	if r.handed != nil && r.handed.Tokens > 0 {
		if n := r.tokens - r.handed.Tokens; n >= 0 && n <= most {
			return n
		}
		return 0
	}
	n := max(0, min(x.DraftLayers-1, most))
	if !x.known || slices.ContainsFunc(x.Model.Groups, func(g kv.Group) bool { return g.Kind == kv.State }) {
		n = max(n, 1)
	}
	return n
}

// crossings are what a prompt moves by the model's geometry: with the hybrid KV cache
// manager and without it, since nothing says which runs. Those that the engines'
// own bytes of a block rule out are left out, for the reason in note.
func (x *expects) crossings(tokens, prefill, decode int) (list []kv.Crossing, note string) {
	if !x.known {
		return nil, ""
	}
	d := kv.Deployment{BlockTokens: x.blockTokens, PrefillTP: prefill, DecodeTP: decode, DraftLayers: x.DraftLayers, Version: x.version}
	if x.BytesPerToken > 0 {
		d.PrefillTP, d.DecodeTP = 1, 1
	}
	for _, m := range x.models() {
		more, why := x.crossingsOf(m, tokens, decode, d)
		list, note = append(list, more...), cmp.Or(why, note)
	}
	if len(list) > 0 {
		note = "" // without the hybrid manager some models do not run
	}
	return list, note
}

// models are the geometries that the engines' word allows: on GPUs with FlashMLA, vLLM
// makes its fp8_ds_mla of an fp8 cache with an index, and still says fp8.
func (x *expects) models() []kv.Model {
	other := x.Model
	if other.DType != kv.FP8 || !slices.ContainsFunc(other.Groups, func(g kv.Group) bool { return g.Kind == kv.Index }) {
		return []kv.Model{x.Model}
	}
	other.DType = kv.FP8Latent
	return []kv.Model{x.Model, other}
}

// crossingsOf are those of one geometry.
func (x *expects) crossingsOf(m kv.Model, tokens, decode int, d kv.Deployment) (list []kv.Crossing, note string) {
	for _, hybrid := range []bool{true, false} {
		if d.Hybrid = hybrid; hybrid && x.version != "" && !x.since(23) {
			continue
		}
		c, err := m.Crossing(tokens, d)
		if err != nil {
			note = err.Error()
			continue
		}
		var block int64
		for _, g := range c.Groups {
			block = max(block, g.BytesPerBlock)
		}
		if x.BytesPerToken > 0 {
			block /= int64(decode)
		}
		if x.pageHi > 0 && (block < x.pageLo || block > x.pageHi) {
			note = fmt.Sprintf("a KV block takes %d bytes on each rank by the geometry of %s, and %d to %d by the engines' own page", block, m.Name, x.pageLo, x.pageHi)
			continue
		}
		if !slices.ContainsFunc(list, func(o kv.Crossing) bool { return slices.Equal(o.Groups, c.Groups) }) {
			list = append(list, c)
		}
	}
	return list, note
}

// of is what a request has to move.
func (x *expects) of(r reqEvidence, counted int) need {
	prefill, decode := x.ranks(r, counted)
	n := need{rule: record.RuleTokens, transfers: int64(decode)}
	var list []kv.Crossing
	list, n.note = x.crossings(r.tokens, prefill, decode)
	ranks := int64(decode)
	if x.BytesPerToken > 0 {
		ranks = 1
	}
	if r.handed == nil {
		for _, c := range list {
			n.rule = record.RuleGeometry
			n.ways = append(n.ways, span{c.BytesLo, c.BytesLo})
			if c.BytesHi > c.BytesLo && !x.since(32) {
				// Earlier releases may send all that the clip lets through.
				n.ways = append(n.ways, span{c.BytesHi, c.BytesHi})
			}
		}
		return n
	}
	if of := x.byLists(list, r, ranks); of.rule != "" {
		of.transfers, of.note = n.transfers, n.note
		n = of
		if n.misfit.reason == "" {
			return n
		}
	}
	if blocks := r.handed.Blocks() * int64(decode); n.rule == record.RuleTokens && len(r.handed.Groups) == 1 && x.pageHi > 0 && blocks <= math.MaxInt64/x.pageHi {
		// Several groups need not move all that a block takes.
		n.rule, n.blocks, n.ways = record.RuleBlocks, r.handed.Groups, []span{{blocks * x.pageLo, blocks * x.pageHi}}
	}
	if n.rule == record.RuleTokens && len(list) > 0 {
		n.note = fmt.Sprintf("the prefill engine lists the blocks of %d layer groups, and %s has %d by its geometry", len(r.handed.Groups), x.Model.Name, len(list[0].Groups))
	}
	return n
}

// byLists is what a request has to move by the prefill engine's lists and those of the
// crossings that have as many groups; without a rule where none has.
func (x *expects) byLists(list []kv.Crossing, r reqEvidence, ranks int64) (n need) {
	for _, c := range list {
		if len(c.Groups) != len(r.handed.Groups) {
			continue
		}
		of := x.listed(c, *r.handed, r.tokens, ranks)
		switch {
		case n.rule == "" || n.misfit.reason != "" && of.misfit.reason == "":
			n = of
		case of.misfit.reason == "" && slices.Equal(of.blocks, n.blocks):
			n.ways = append(n.ways, of.ways...)
		}
	}
	return n
}

// bytes are those of a prompt: of its tokens in layers that keep all of them, and of
// what moves in the first way, by what is known before any request.
func (x *expects) bytes(tokens int) (asked, moved int64) {
	prefill, decode := x.ranks(reqEvidence{}, 0)
	list, _ := x.crossings(tokens, prefill, decode)
	if len(list) == 0 || x.blockTokens == 0 {
		return 0, 0
	}
	return int64(tokens) * x.Model.BytesPerToken(), list[0].BytesLo
}

// listed is what a request has to move by the prefill engine's lists and a crossing with
// as many groups.
func (x *expects) listed(c kv.Crossing, h twoleg.Handed, tokens int, ranks int64) need {
	n := need{rule: record.RuleBlocks}
	var exact, all int64
	for i, g := range c.Groups {
		// What is listed beyond what can be is not counted: it is wrong as it is.
		k := min(h.Groups[i], 2*g.BlocksHi)
		switch {
		case k < g.BlocksLo:
			n.misfit = verdict{reason: record.ReasonShortBytes, detail: misfitText(i, h.Groups[i], g, g.BlocksLo, tokens)}
		case k > g.BlocksHi && n.misfit.reason == "":
			n.misfit = verdict{reason: record.ReasonExcessBytes, detail: misfitText(i, h.Groups[i], g, g.BlocksHi, tokens)}
		}
		all += int64(k) * g.BytesPerBlock * ranks
		if k > g.BlocksLo && k <= g.BlocksHi {
			// The list ends with what the window still covers, and the decode engine takes
			// no more (seen on 0.32.0: 4 of 5 listed blocks at 1,056 tokens).
			k = g.BlocksLo
		}
		n.blocks = append(n.blocks, k)
		exact += int64(k) * g.BytesPerBlock * ranks
	}
	n.ways = []span{{exact, exact}}
	if all > exact && !x.since(32) {
		n.ways = append(n.ways, span{all, all})
	}
	return n
}

func misfitText(i, blocks int, g kv.GroupCrossing, want, tokens int) string {
	return fmt.Sprintf("the prefill engine handed over %d KV blocks of layer group %d (%s), and %d tokens are %d", blocks, i+1, g.Kind, tokens, want)
}

// fingerprintTP finds the tensor-parallel size in an engine's system_fingerprint, such
// as vllm-0.32.0-tp2-ac44c9b0, which names none for 1; 0: not said.
func fingerprintTP(s string) int {
	if !strings.HasPrefix(s, "vllm-") {
		return 0
	}
	m := inFingerprint.FindStringSubmatch(s)
	if m == nil {
		return 1
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0
	}
	return n
}

var inFingerprint = regexp.MustCompile(`-tp(\d{1,4})(?:-|$)`)

// handedOver reads what a prefill engine or `xferbench proxy` says it handed over; nil
// where nothing of it can be read.
func handedOver(h twoleg.Handed, err error) *twoleg.Handed {
	if err != nil {
		return nil
	}
	return &h
}
