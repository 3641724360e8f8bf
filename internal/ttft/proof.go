package ttft

import (
	"fmt"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/metrics"
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
	blockTokens     int
	bytesPerToken   int64
}

// reqEvidence is what one request's answers say.
type reqEvidence struct {
	failure *failure
	tokens  int // of the prompt
	// reachedDecode: the decode leg was sent, so that its counts may be in decode.
	reachedDecode bool
	// cached prompt tokens by each engine's own word; -1: not said.
	prefillCached, decodeCached int
}

// verdict is the decision on one request.
type verdict struct {
	reason record.Reason // "" if valid
	detail string
	proof  string
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
		switch {
		case r.failure != nil && r.failure.reason == record.ReasonNullParams:
			out[i] = verdict{r.failure.reason, r.failure.detail, record.ProofNone}
		case r.failure != nil && r.reachedDecode && cause.reason != "":
			out[i] = verdict{cause.reason, cause.detail + "; " + r.failure.Error(), scope}
		case r.failure != nil:
			out[i] = verdict{r.failure.reason, r.failure.detail, record.ProofNone}
		case r.prefillCached > 0:
			out[i] = verdict{record.ReasonPrefixHit, fmt.Sprintf("%s found %d of %d prompt tokens in its cache, by its own usage", ev.first(), r.prefillCached, r.tokens), record.ProofNone}
		default:
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
				out[i] = verdict{v.reason, v.detail + "; by their own usage these are the requests", scope}
			}
			v, open = w, others
		}
	}
	v.proof = scope
	for _, i := range open {
		out[i] = v
	}
	return out
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
	if n, ok := ev.decode.Get(metrics.FailedXfers); ok && n > 0 {
		return verdict{reason: record.ReasonFailedTransfer, detail: fmt.Sprintf("NIXL counted %d failed transfers", n)}
	}
	return verdict{}
}

// expect bounds a count: at least lo, which the requests in question need, and at
// most hi, which includes what others of the batch may have added before they
// failed.
type expect struct{ lo, hi int64 }

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
	// reached the decode engine: tokens and bytes.
	var need, sent, decoded total
	for i, r := range ev.reqs {
		if isOpen[i] {
			need.add(r.tokens, ev.blockTokens)
		}
		sent.add(r.tokens, ev.blockTokens)
		if r.reachedDecode {
			decoded.add(r.tokens, ev.blockTokens)
		}
	}
	if v := ev.prefillSide(need, sent); v.reason != "" {
		return v
	}
	if !ev.disaggregated() {
		return verdict{}
	}
	return ev.decodeSide(need, decoded)
}

// total adds up requests.
type total struct{ reqs, tokens, blocks int64 }

func (t *total) add(tokens, blockTokens int) {
	t.reqs++
	t.tokens += int64(tokens)
	if blockTokens > 0 {
		t.blocks += int64((tokens + blockTokens - 1) / blockTokens)
	}
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
	oneOf("decode:", ev.decode, metrics.Transfers)
	oneOf("decode:", ev.decode, metrics.TransferBytes)
	oneOf("decode:", ev.decode, metrics.FailedXfers)
	oneOf("decode:", ev.decode, metrics.ExternalKV, metrics.ExternalHits)
	oneOf("decode:", ev.decode, metrics.LocalCompute, metrics.KVComputed)
	if ev.blockTokens == 0 {
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
	if got := get(p, metrics.PromptTokens); got > sent.tokens {
		return verdict{reason: record.ReasonForeignTraffic, detail: fmt.Sprintf("%s took %d prompt tokens and %d were sent", ev.first(), got, sent.tokens)}
	} else if got < need.tokens {
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
	if got, ok := p.Get(metrics.LocalCompute); ok && got < need.tokens {
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
	if got, c := computed(d); got > need.reqs+other {
		return verdict{reason: record.ReasonLocalRecompute, detail: fmt.Sprintf("the decode engine computed %d prompt tokens itself (%s), more than one a request", got, c.Name())}
	}
	for _, c := range []metrics.Count{metrics.ExternalKV, metrics.ExternalHits} {
		if got, ok := d.Get(c); ok && got < need.tokens-need.reqs {
			return verdict{reason: record.ReasonLocalRecompute, detail: fmt.Sprintf("the decode engine loaded %d of %d prompt tokens (%s)", got, need.tokens, c.Name())}
		}
	}
	n := get(d, metrics.Transfers)
	if n < need.reqs {
		return verdict{reason: record.ReasonNoTransfer, detail: fmt.Sprintf("NIXL counted %d transfers for %d requests", n, need.reqs)}
	}
	return ev.bytes(need, decoded)
}

// bytes holds the bytes moved to whole blocks.
func (ev evidence) bytes(need, decoded total) verdict {
	got := get(ev.decode, metrics.TransferBytes)
	if ev.bytesPerToken == 0 {
		// All that can be asked is whole blocks of one size.
		if need.blocks == decoded.blocks && (got == 0 || got%(need.blocks*int64(ev.blockTokens)) != 0) {
			return verdict{reason: record.ReasonShortBytes, detail: fmt.Sprintf("%d bytes are not %d whole blocks", got, need.blocks)}
		}
		return verdict{}
	}
	block := int64(ev.blockTokens) * ev.bytesPerToken
	want := expect{need.blocks * block, decoded.blocks * block}
	if got < want.lo {
		return verdict{reason: record.ReasonShortBytes, detail: fmt.Sprintf("%d bytes moved, %d blocks are %d", got, need.blocks, want.lo)}
	}
	if got > want.hi {
		return verdict{reason: record.ReasonExcessBytes, detail: fmt.Sprintf("%d bytes moved, %d blocks are %d", got, decoded.blocks, want.hi)}
	}
	return verdict{}
}
