package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/record"
)

const (
	// bytesPerToken of testdata/kvshape: K and V of 28 layers, 4 heads of 128 values
	// in bfloat16.
	bytesPerToken = 2 * 28 * 4 * 128 * 2
	layers        = 28
	maxTokens     = 4 // output of each request
)

// wholeBlocks is the bytes in the blocks that n tokens take.
func wholeBlocks(n, blockTokens int) uint64 {
	return uint64((n+blockTokens-1)/blockTokens*blockTokens) * bytesPerToken
}

// problems are what keeps a request of a record from being a proven one.
func problems(l record.Request, blockTokens int) (out []string) {
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if !l.Valid {
		add("invalid, %s: %s", l.Reason, l.Detail)
		return out
	}
	inFlight, scope := int64(1), "sample"
	if l.Concurrency > 1 {
		inFlight, scope = int64(l.Concurrency), "batch"
	}
	if l.Proof != scope {
		add("proof %q, want %q", l.Proof, scope)
	}
	// A busy server puts several tokens into one chunk: fewer gaps are sound.
	if l.Completion != maxTokens || len(l.ITLNs) >= maxTokens || l.TTFTNs <= 0 || l.E2ENs < l.TTFTNs {
		add("%d tokens, TTFT %d ns, %d gaps, end %d ns", l.Completion, l.TTFTNs, len(l.ITLNs), l.E2ENs)
	}
	if s := l.Split; s == nil {
		add("no split")
	} else if sum := s.Wait + s.Prefill + s.HandOver + s.DecodeQueue + s.OneToken + s.Network; sum != l.TTFTNs || s.Engine != (scope == "sample") {
		add("the parts add up to %d ns of %d, from the engines: %v", sum, l.TTFTNs, s.Engine)
	}
	if l.Path == record.PathTwoLeg {
		g := l.Legs
		if g == nil || !slices.IsSorted([]int64{0, g.SendPrefill, g.PrefillHeaders, g.PrefillBody, g.SendDecode, g.DecodeHeaders, g.FirstToken}) || g.FirstToken != l.TTFTNs {
			add("legs %+v", g)
		}
	}
	if l.Path == record.PathUnified || l.Path == record.PathDirect {
		if l.Moved != nil {
			add("%+v moved where nothing can", *l.Moved)
		}
		return out
	}
	want := int64(wholeBlocks(l.PromptTokens, blockTokens)) * inFlight
	switch m := l.Moved; {
	case m == nil:
		add("nothing is said of a transfer")
	case m.Scope != scope || m.Transfers != inFlight || m.Bytes != want:
		add("%d bytes in %d transfers (%s), want %d in %d", m.Bytes, m.Transfers, m.Scope, want, inFlight)
	case m.Descriptors < layers*inFlight || m.XferNs <= 0 || m.PostNs <= 0:
		add("%d descriptors, %d ns, posted in %d ns", m.Descriptors, m.XferNs, m.PostNs)
	}
	return out
}

// What the tests against engines ask for can be missed: each change of a sound
// line is found.
func TestProblems(t *testing.T) {
	sound := func(path string, concurrency int) record.Request {
		l := record.Request{Path: path, Phase: "measure", Sequence: 3, PromptTokens: 1000, Concurrency: concurrency, Completion: 4, TTFTNs: 100, E2ENs: 130,
			ITLNs: []int64{10, 10, 10}, Valid: true, Proof: "sample", Split: &record.Split{Prefill: 60, DecodeQueue: 30, Network: 10, Engine: true}}
		if path == record.PathTwoLeg {
			l.Legs = &record.Legs{SendPrefill: 1, PrefillHeaders: 50, PrefillBody: 60, SendDecode: 61, DecodeHeaders: 70, FirstToken: 100}
		}
		if path == record.PathTwoLeg || path == record.PathProxy {
			// 63 blocks of 16 tokens: 1,008 tokens.
			l.Moved = &record.Moved{Scope: "sample", Transfers: 1, Bytes: 57_802_752, Descriptors: 56, XferNs: 20, PostNs: 1}
		}
		if concurrency > 1 {
			l.Proof, l.Split.Engine = "batch", false
			if l.Moved != nil {
				l.Moved.Scope, l.Moved.Transfers, l.Moved.Bytes, l.Moved.Descriptors = "batch", 4, 4*57_802_752, 224
			}
		}
		return l
	}
	for _, path := range []string{record.PathUnified, record.PathDirect, record.PathTwoLeg, record.PathProxy} {
		for _, c := range []int{1, 4} {
			if p := problems(sound(path, c), 16); len(p) > 0 {
				t.Errorf("%s c%d: %q in a sound line", path, c, p)
			}
		}
	}
	for want, change := range map[string]func(*record.Request){
		"invalid, no-transfer": func(l *record.Request) { l.Valid, l.Reason = false, record.ReasonNoTransfer },
		`proof "none"`:         func(l *record.Request) { l.Proof = "none" },
		"3 tokens":             func(l *record.Request) { l.Completion = 3 },
		"TTFT 0 ns":            func(l *record.Request) { l.TTFTNs = 0 },
		"4 gaps":               func(l *record.Request) { l.ITLNs = append(l.ITLNs, 1) },
		"end 99 ns":            func(l *record.Request) { l.E2ENs = 99 },
		"no split":             func(l *record.Request) { l.Split = nil },
		"add up to 99 ns":      func(l *record.Request) { l.Split.Network-- },
		"the engines: false":   func(l *record.Request) { l.Split.Engine = false },
		"legs":                 func(l *record.Request) { l.Legs.SendDecode = 59 },
		"nothing is said":      func(l *record.Request) { l.Moved = nil },
		"57802751 bytes in 1":  func(l *record.Request) { l.Moved.Bytes-- },
		"bytes in 2":           func(l *record.Request) { l.Moved.Transfers = 2 },
		"27 descriptors":       func(l *record.Request) { l.Moved.Descriptors = 27 },
		"posted in 0 ns":       func(l *record.Request) { l.Moved.PostNs = 0 },
		"where nothing can":    func(l *record.Request) { l.Path = record.PathDirect },
	} {
		l := sound(record.PathTwoLeg, 1)
		change(&l)
		if p := problems(l, 16); len(p) == 0 || !strings.Contains(strings.Join(p, "; "), want) {
			t.Errorf("problems %q, want one with %q", p, want)
		}
	}
}
