package ttft

import "testing"

func TestServerTiming(t *testing.T) {
	const h = `prefill;dur=12.500, handover;desc="x";dur=0.1, decode-headers;dur=nonsense`
	for name, want := range map[string]int64{"prefill": 12_500_000, "handover": 100_000, "decode-headers": 0, "none": 0} {
		if got := serverTiming(h, name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}

func FuzzServerTiming(f *testing.F) {
	f.Add("prefill;dur=1", "prefill")
	f.Fuzz(func(t *testing.T, header, name string) {
		if v := serverTiming(header, name); v < 0 || v > 1e15 {
			t.Fatalf("%q: %d", header, v)
		}
	})
}
