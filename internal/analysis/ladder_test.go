package analysis_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/xferbench/xferbench/internal/analysis"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv/synth"
)

// twoProviders is the analysis of a raw run of the bytes that MakeTTFT moves.
func twoProviders(t *testing.T) *analysis.Analysis {
	t.Helper()
	b, err := synth.Specs()["two-providers.jsonl"].Make()
	return of(t, read(t, b, err))
}

func read(t *testing.T, b []byte, err error) *record.Record {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	r, err := record.Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got/want-1) > tolerance {
		t.Errorf("%s: %v, want %v within %v%%", what, got, want, tolerance*100)
	}
}

// TestLadder holds the result against the truth of MakeTTFT, whose noise adds
// 1.6 % on average: unified 432 ms, the pair 420+4+330+9+3 = 766 ms of which
// NIXL's transfer takes 300.
func TestLadder(t *testing.T) {
	b, err := synth.MakeTTFT("x", 4, 10, 3, 7648, 438_566_912)
	res, err := analysis.NewLadder(twoProviders(t), ofRequests(t, read(t, b, err)))
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Rows) != 2 || res.Requests.N != 60 || res.Requests.Invalid != 0 || res.Requests.Simulated {
		t.Fatalf("%d rows, %d requests, %d invalid", len(res.Rows), res.Requests.N, res.Requests.Invalid)
	}
	unified, pair := res.Rows[0], res.Rows[1]
	near(t, "unified", unified.TTFT.Median, 432e6*1.016, 0.02)
	near(t, "pair", pair.TTFT.Median, 766e6*1.016, 0.02)
	if unified.Bytes != 0 || len(unified.Rungs) != 0 || unified.Increment != nil {
		t.Errorf("the unified arm moved something: %+v", unified)
	}
	near(t, "increment", pair.Increment.MedianNs, 334e6*1.016, 0.05)
	sum := 0.0
	for _, p := range pair.Parts {
		sum += p.Share.Value
		if p.Share.Interval == nil || !p.Share.Interval.Contains(p.Share.Value) {
			t.Errorf("%s: share %v in %v", p.Name, p.Share.Value, p.Share.Interval)
		}
	}
	near(t, "sum of the shares", sum, 1, 0.005)
	c := pair.Connector()
	if c == nil {
		t.Fatal("no NIXL rung")
	}
	near(t, "NIXL's share", c.Share.Value, 300.0/766, 0.02)
	// memcpy, socket, four transports, NIXL and the first token, by time.
	if len(pair.Rungs) != 8 || pair.Rungs[0].Kind != analysis.RungCeiling || pair.Rungs[7].Kind != analysis.RungTTFT || len(pair.Wire()) != 4 {
		t.Errorf("rungs %+v", pair.Rungs)
	}
	for _, g := range pair.Rungs[:7] {
		near(t, g.Name, g.Share.Value, g.MedianNs/pair.TTFT.Median, 0.03)
		near(t, g.Name+" of the increment", g.OfIncrement.Value, g.MedianNs/pair.Increment.MedianNs, 0.05)
	}
}

func TestLadderOfOtherBytes(t *testing.T) {
	b, err := synth.MakeTTFT("x", 4, 6, 1, 1000, 57_344_000)
	res, err := analysis.NewLadder(twoProviders(t), ofRequests(t, read(t, b, err)))
	if err != nil {
		t.Fatal(err)
	}
	if w := res.Rows[1].Wire(); len(w) != 0 || res.Rows[1].Bytes != 57_344_000 {
		t.Errorf("438 MB were taken for 57 MB: %+v", w)
	}
}

func TestLadderOfNothing(t *testing.T) {
	b, err := synth.MakeTTFT("x", 4, 6, 1, 1000, 57_344_000)
	b = bytes.ReplaceAll(b, []byte(`"valid":true`), []byte(`"valid":false`))
	if _, err := analysis.NewLadder(twoProviders(t), ofRequests(t, read(t, b, err))); !errors.Is(err, analysis.ErrNoRequest) {
		t.Errorf("%v, want %v", err, analysis.ErrNoRequest)
	}
}
