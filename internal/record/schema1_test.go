package record

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What early builds wrote in another way is read as it is written now.
func TestSchema1IsTurnedIntoSchema2(t *testing.T) {
	const in = `{"type":"run","schema":1,"id":"x","host":{"memlock_bytes":18446744073709551615},"peer":{"memlock_bytes":65536}}
{"type":"comparison","a":0,"b":1,"verdict":"different","ratio":0.5,"ratio_lo":0.4,"ratio_hi":0.8,"p":0.002,"p_holm":0.004,"n":10,"detectable":0.1,"interleaved":true}
{"type":"comparison","a":0,"b":2,"verdict":"too-few","ratio":2,"ratio_lo":0,"ratio_hi":0,"p":0,"p_holm":0,"n":2,"detectable":0,"interleaved":true}
{"type":"comparison","a":0,"b":3,"verdict":"different","time_b_over_time_a":4,"p":0.5,"n":7,"interleaved":true}
`
	f := func(v float64) *float64 { return &v }
	got, err := Read(strings.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	soft := uint64(65536)
	want := &Record{Run: Run{Schema: 1, ID: "x", Host: Host{Memlock: "unlimited"}, Peer: &Host{MemlockSoft: &soft}}, Comparisons: []Comparison{
		{A: 0, B: 1, Verdict: "different", Ratio: f(2), RatioLo: f(1.25), RatioHi: f(2.5), P: f(0.002), PHolm: f(0.004), N: 10, Detectable: f(0.1), Interleaved: true},
		{A: 0, B: 2, Verdict: "too-few", Ratio: f(0.5), N: 2, Interleaved: true},
		{A: 0, B: 3, Verdict: "different", Ratio: f(4), P: f(0.5), N: 7, Interleaved: true},
	}}
	if d := cmp.Diff(want, got, unpack); d != "" {
		t.Error(d)
	}
}
