package ttft

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/metrics"
	"github.com/xferbench/xferbench/internal/serving/twoleg"
)

// evidence is what is known of the requests of one batch, one or several, that
// were in flight together.
type evidence struct {
	path string
	reqs []reqEvidence
	// Deltas of the counts over the batch, added up over the engines of each side;
	// decode is unused on the unified and direct paths. scrapeErr is why there
	// are none.
	prefill, decode metrics.Reading
	reset           []metrics.Count
	scrapeErr       error
	expects         expects
}

// reqEvidence is what one request's answers say.
type reqEvidence struct {
	failure *failure
	tokens  int // of the prompt
	// reachedDecode: the decode leg was sent, so that its counts may be in decode.
	reachedDecode bool
	// cached prompt tokens by each engine's own word; -1: not said.
	prefillCached, decodeCached int
	// handed is what the prefill engine handed over, nil if not known; decodeTP the
	// decode engine's tensor-parallel size by its own word, 0 if not known.
	handed   *twoleg.Handed
	decodeTP int
}

// verdict is the decision on one request.
type verdict struct {
	reason record.Reason // "" if valid
	detail string
	proof  string
	rule   string // what the bytes were held to; "" where the answer decided, or none had to move
	blocks []int  // of each layer group that had to cross; nil: not known
	note   string // on that, for the user
}

// judge decides on each request of a batch. What an answer itself shows decides
// on its request alone; what only the engines' counts show decides on all the
// others together, because nobody can tell whose tokens they were. With one
// request in the batch that is the same.
func judge(ev evidence) []verdict {
	out := make([]verdict, len(ev.reqs))
	scope := record.ProofBatch
	if len(ev.reqs) == 1 {
		scope = record.ProofSample
	}
	cause := ev.cause()
	var open []int // not decided by their answers
	for i, r := range ev.reqs {
		if out[i] = ev.answered(r, cause, scope); out[i].reason == "" {
			open = append(open, i)
		}
	}
	if len(open) == 0 {
		return out
	}
	v := ev.counts(open)
	if own, others := ev.confessed(open); v.reason != "" && len(own) > 0 && len(others) > 0 {
		// Some answers say that their prompt was loaded and some that it was not. If
		// the counts add up for the former, it is the latter that do not count.
		if w := ev.counts(others); w.reason == "" {
			for _, i := range own {
				out[i] = verdict{reason: v.reason, detail: v.detail + "; by their own usage these are the requests", proof: scope, rule: v.rule}
			}
			v, open = w, others
		}
	}
	v.proof = scope
	counted := ev.perRequest()
	for _, i := range open {
		out[i] = v
		if !ev.disaggregated() || ev.scrapeErr != nil {
			continue
		}
		n := ev.expects.of(ev.reqs[i], counted)
		out[i].rule, out[i].blocks, out[i].note = n.rule, n.blocks, n.note
		if v.reason == "" && n.misfit.reason != "" {
			out[i].reason, out[i].detail, out[i].proof = n.misfit.reason, n.misfit.detail, record.ProofNone
		}
	}
	return out
}

// answered is the decision on a request whose answer shows that it does not count.
func (ev evidence) answered(r reqEvidence, cause verdict, scope string) verdict {
	switch {
	case r.failure != nil && r.failure.reason != record.ReasonNullParams && r.reachedDecode && cause.reason != "":
		return verdict{reason: cause.reason, detail: cause.detail + "; " + r.failure.Error(), proof: scope}
	case r.failure != nil:
		return verdict{reason: r.failure.reason, detail: r.failure.detail, proof: record.ProofNone}
	case r.prefillCached > 0:
		return verdict{reason: record.ReasonPrefixHit, proof: record.ProofNone,
			detail: fmt.Sprintf("%s found %d of %d prompt tokens in its cache, by its own usage", ev.first(), r.prefillCached, r.tokens)}
	}
	return verdict{}
}

// perRequest is how many transfers NIXL counted for each request, 0 if they are not
// as many for each.
func (ev evidence) perRequest() int {
	var reached int64
	for _, q := range ev.reqs {
		if q.reachedDecode {
			reached++
		}
	}
	n := get(ev.moved(), metrics.Transfers)
	if reached == 0 || n%reached != 0 || n/reached > 1<<12 {
		return 0
	}
	return int(n / reached)
}

// pushed reports whether the prefill engine moved the KV cache and counted it, as
// NixlPushConnector does; otherwise the decode engine did.
func (ev evidence) pushed() bool {
	return get(ev.decode, metrics.Transfers) == 0 && get(ev.prefill, metrics.Transfers) > 0
}

// moved is the counts of the side that moved the KV cache.
func (ev evidence) moved() metrics.Reading {
	if ev.pushed() {
		return ev.prefill
	}
	return ev.decode
}

// confessed parts requests into those whose answer says that the decode engine
// did not load the prompt and those whose answer says that it did. Not every
// release counts loaded tokens as cached (0.15 does, 0.32 does not), so that
// this never decides alone.
func (ev evidence) confessed(open []int) (own, others []int) {
	if !ev.disaggregated() {
		return nil, nil
	}
	for _, i := range open {
		if r := ev.reqs[i]; r.decodeCached < r.tokens-1 {
			own = append(own, i)
		} else {
			others = append(others, i)
		}
	}
	return own, others
}

func (ev evidence) disaggregated() bool {
	return ev.path == record.PathTwoLeg || ev.path == record.PathProxy
}

func (ev evidence) first() string {
	if ev.disaggregated() {
		return "the prefill engine"
	}
	return "the engine"
}

// cause is what the counts say about a decode leg that failed.
func (ev evidence) cause() verdict {
	if !ev.disaggregated() || ev.scrapeErr != nil {
		return verdict{}
	}
	if n, ok := ev.prefill.Get(metrics.ExpiredLeases); ok && n > 0 {
		return verdict{reason: record.ReasonExpiredLease, detail: fmt.Sprintf("the prefill engine released the blocks of %d requests before they were fetched", n)}
	}
	if n := get(ev.decode, metrics.FailedXfers) + get(ev.prefill, metrics.FailedXfers); n > 0 {
		return verdict{reason: record.ReasonFailedTransfer, detail: fmt.Sprintf("NIXL counted %d failed transfers", n)}
	}
	return verdict{}
}

// counts decides on the open requests by the engines' counts.
func (ev evidence) counts(open []int) verdict {
	if ev.scrapeErr != nil {
		return verdict{reason: record.ReasonMetricsMissing, detail: ev.scrapeErr.Error()}
	}
	if missing := ev.missing(); len(missing) > 0 {
		return verdict{reason: record.ReasonMetricsMissing, detail: "nothing can be proven without " + strings.Join(missing, ", ")}
	}
	if len(ev.reset) > 0 {
		return verdict{reason: record.ReasonEngineRestart, detail: ev.reset[0].Name() + " went backwards"}
	}
	isOpen := make(map[int]bool, len(open))
	for _, i := range open {
		isOpen[i] = true
	}
	// Of the requests in question, of all that were sent, and of all that
	// reached the decode engine.
	counted := ev.perRequest()
	var wanted, sent, decoded total
	for i, r := range ev.reqs {
		slack := 0
		var of need
		if ev.disaggregated() {
			slack, of = ev.expects.slack(r), ev.expects.of(r, counted)
		}
		if isOpen[i] {
			wanted.add(r.tokens, slack, of)
		}
		sent.add(r.tokens, slack, of)
		if r.reachedDecode {
			decoded.add(r.tokens, slack, of)
		}
	}
	if v := ev.prefillSide(wanted, sent); v.reason != "" {
		return v
	}
	if !ev.disaggregated() {
		return verdict{}
	}
	return ev.decodeSide(wanted, decoded)
}

// total adds up requests.
type total struct {
	reqs, tokens int64
	slack        int64 // tokens that prefill engines may have left to decode engines
	transfers    int64 // at least
	// ways are the bytes, by each way in which engines may move them; unknown: of some
	// request nobody knows.
	ways    []span
	unknown bool
}

func (t *total) add(tokens, slack int, n need) {
	t.reqs++
	t.tokens, t.slack = t.tokens+int64(tokens), t.slack+int64(slack)
	t.transfers += n.transfers
	if len(n.ways) == 0 {
		t.unknown = true
		return
	}
	// All engines of an arm move in the same way.
	at := func(list []span, i int) span {
		if len(list) == 0 {
			return span{}
		}
		return list[min(i, len(list)-1)]
	}
	sum := make([]span, max(len(t.ways), len(n.ways)))
	for i := range sum {
		a, b := at(t.ways, i), at(n.ways, i)
		sum[i] = span{a.lo + b.lo, a.hi + b.hi}
	}
	t.ways = sum
}

// missing names the series without which there is no proof.
func (ev evidence) missing() (names []string) {
	oneOf := func(side string, r metrics.Reading, cs ...metrics.Count) {
		var all []string
		for _, c := range cs {
			if r.Has(c) {
				return
			}
			all = append(all, c.Name())
		}
		names = append(names, side+" "+strings.Join(all, " or "))
	}
	side := "engine:"
	if ev.disaggregated() {
		side = "prefill:"
	}
	oneOf(side, ev.prefill, metrics.PromptTokens)
	oneOf(side, ev.prefill, metrics.PrefixHits)
	if !ev.disaggregated() {
		return names
	}
	oneOf("decode:", ev.decode, metrics.PromptTokens)
	oneOf("decode:", ev.decode, metrics.PrefixHits)
	oneOf("decode:", ev.moved(), metrics.Transfers)
	oneOf("decode:", ev.moved(), metrics.TransferBytes)
	oneOf("decode:", ev.moved(), metrics.FailedXfers)
	oneOf("decode:", ev.decode, metrics.ExternalKV, metrics.ExternalHits)
	oneOf("decode:", ev.decode, metrics.LocalCompute, metrics.KVComputed)
	if ev.expects.blockTokens == 0 {
		names = append(names, `decode: vllm:cache_config_info{block_size=…}`)
	}
	return names
}

// get returns a count, 0 where it is not there; missing has asked for those
// that must be.
func get(r metrics.Reading, c metrics.Count) int64 {
	v, _ := r.Get(c)
	return v
}

// computed is how many prompt tokens an engine computed, and the count that says
// so. Where there is a count by source it is the one: the other histogram holds
// loaded tokens too in later releases (seen in 0.32.0).
func computed(r metrics.Reading) (int64, metrics.Count) {
	if v, ok := r.Get(metrics.LocalCompute); ok {
		return v, metrics.LocalCompute
	}
	return get(r, metrics.KVComputed), metrics.KVComputed
}

func (ev evidence) prefillSide(need, sent total) verdict {
	p := ev.prefill
	least := need.tokens - need.slack
	if got := get(p, metrics.PromptTokens); got > sent.tokens {
		return verdict{reason: record.ReasonForeignTraffic, detail: fmt.Sprintf("%s took %d prompt tokens and %d were sent", ev.first(), got, sent.tokens)}
	} else if got < least {
		return verdict{reason: record.ReasonForeignTraffic, detail: fmt.Sprintf("%s took %d prompt tokens of the %d that were sent: is this its metrics page?", ev.first(), got, need.tokens)}
	}
	// Hits that answers of the batch own up to are theirs.
	hits := max(get(p, metrics.PrefixHits), get(p, metrics.LocalCacheHit))
	for _, r := range ev.reqs {
		hits -= int64(max(r.prefillCached, 0))
	}
	if hits > 0 {
		return verdict{reason: record.ReasonPrefixHit, detail: fmt.Sprintf("%s found %d prompt tokens in its cache", ev.first(), hits)}
	}
	if got, ok := p.Get(metrics.LocalCompute); ok && got < least {
		return verdict{reason: record.ReasonPrefixHit, detail: fmt.Sprintf("%s computed %d of %d prompt tokens", ev.first(), got, need.tokens)}
	}
	if got := get(p, metrics.ExternalKV); got > 0 {
		return verdict{reason: record.ReasonUnexpectedMove, detail: fmt.Sprintf("%s loaded %d prompt tokens from elsewhere", ev.first(), got)}
	}
	return verdict{}
}

func (ev evidence) decodeSide(need, decoded total) verdict {
	d := ev.decode
	if got := get(d, metrics.PromptTokens); got > decoded.tokens {
		return verdict{reason: record.ReasonForeignTraffic, detail: fmt.Sprintf("the decode engine took %d prompt tokens and %d were sent", got, decoded.tokens)}
	}
	// A transfer from blocks that were given up succeeds as well and may hold
	// another request's tokens (seen on 0.32.0, whose leases last 30 s). A lease
	// counted here may be an earlier request's: nobody can tell.
	if v := ev.cause(); v.reason != "" {
		return v
	}
	if hits := max(get(d, metrics.PrefixHits), get(d, metrics.LocalCacheHit)); hits > 0 {
		return verdict{reason: record.ReasonPrefixHit, detail: fmt.Sprintf("the decode engine found %d prompt tokens in its own cache", hits)}
	}
	// The last prompt token of each request is computed again for its logits;
	// releases differ in whether they count it as loaded.
	other := decoded.tokens - need.tokens
	if got, c := computed(d); got > need.reqs+need.slack+other {
		return verdict{reason: record.ReasonLocalRecompute, detail: fmt.Sprintf("the decode engine computed %d prompt tokens itself (%s), more than one a request", got, c.Name())}
	}
	for _, c := range []metrics.Count{metrics.ExternalKV, metrics.ExternalHits} {
		if got, ok := d.Get(c); ok && got < need.tokens-need.slack-need.reqs {
			return verdict{reason: record.ReasonLocalRecompute, detail: fmt.Sprintf("the decode engine loaded %d of %d prompt tokens (%s)", got, need.tokens, c.Name())}
		}
	}
	if n := get(ev.moved(), metrics.Transfers); n < need.reqs {
		return verdict{reason: record.ReasonNoTransfer, detail: fmt.Sprintf("NIXL counted %d transfers for %d requests", n, need.reqs)}
	} else if !ev.pushed() && n < need.transfers {
		return verdict{reason: record.ReasonNoTransfer, detail: fmt.Sprintf("NIXL counted %d transfers for %d requests, and each rank of the decode engine makes one: at least %d", n, need.reqs, need.transfers)}
	}
	return ev.bytes(need, decoded)
}

// bytes holds the bytes moved to what the requests in question need, and to what
// all that reached the decode engine may have added before they failed.
func (ev evidence) bytes(need, decoded total) verdict {
	got := get(ev.moved(), metrics.TransferBytes)
	if got == 0 {
		return verdict{reason: record.ReasonNoTransfer, detail: "NIXL counted no bytes"}
	}
	if need.unknown {
		return verdict{} // the tokens have decided
	}
	// Of the ways in which engines may move it, the nearest says what is wrong.
	var texts []string
	var reason record.Reason
	nearest := int64(math.MaxInt64)
	for i, w := range need.ways {
		hi := int64(math.MaxInt64)
		if !decoded.unknown {
			hi = decoded.ways[min(i, len(decoded.ways)-1)].hi
		}
		far, is := w.lo-got, record.ReasonShortBytes
		if got > hi {
			far, is = got-hi, record.ReasonExcessBytes
		}
		if far <= 0 {
			return verdict{}
		}
		if far < nearest {
			nearest, reason = far, is
		}
		texts = append(texts, spanText(w.lo, hi))
	}
	return verdict{reason: reason, detail: fmt.Sprintf("%d bytes moved, and the prompts' KV blocks are %s", got, strings.Join(texts, " or "))}
}

func spanText(lo, hi int64) string {
	switch hi {
	case lo:
		return strconv.FormatInt(lo, 10)
	case math.MaxInt64:
		return fmt.Sprintf("%d and more", lo)
	}
	return fmt.Sprintf("%d to %d", lo, hi)
}
