package report

import "testing"

func TestNumbers(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{percent(0.0569), "5.7"}, {percent(0.69), "69"}, {percent(1.234), "123"}, {percent(0.0999), "10"},
		{pvalue(2.0 / 1024), "p = 0.0020"}, {pvalue(1e-5), "p < 0.001"}, {pcell(1e-5), "<0.001"}, {rcell(0.98166), "0.982"}, {limit(0.05), "5%"}, {limit(0.025), "2.5%"},
		{shortBytes(999), "999 B"}, {shortBytes(44_444), "44.4 kB"}, {shortBytes(999_600), "1.00 MB"}, {shortBytes(67_108_864), "67.1 MB"},
		{list([]string{"a", "b", "c"}), "a, b and c"}, {list(nil), ""},
		{scale{"ms", 1e6}.time(438_566_912), "438.6"}, {tickTime(2.5e6), "2.5 ms"}, {tickTime(0), "0"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}
