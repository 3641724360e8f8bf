package units

import (
	"math"
	"testing"
	"time"
)

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0:             "0 B",
		999:           "999 B",
		57344:         "57,344 B (57.34 kB, 56.00 KiB)",
		438566912:     "438,566,912 B (438.57 MB, 418.25 MiB)",
		458752000:     "458,752,000 B (458.75 MB, 437.50 MiB)",
		1 << 30:       "1,073,741,824 B (1,073.74 MB, 1,024.00 MiB)",
		999999999:     "999,999,999 B (1,000.00 MB, 953.67 MiB)",
		-57344:        "-57,344 B (-57.34 kB, -56.00 KiB)",
		math.MaxInt64: "9,223,372,036,854,775,807 B (9,223,372,036,854.78 MB, 8,796,093,022,208.00 MiB)",
	} {
		if got := FormatBytes(n); got != want {
			t.Errorf("FormatBytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ns", 36: "36 ns", 999: "999 ns", 1000: "1.00 µs", 1234: "1.23 µs", 12345: "12.3 µs",
		999499: "999 µs", 999500: "1.00 ms", 36700160: "36.7 ms", time.Second: "1.00 s",
		999999999: "1.00 s", 1234 * time.Second: "1,234 s", -1234: "-1.23 µs", 9996: "10.0 µs",
		99960: "100 µs",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("FormatDuration(%d) = %q, want %q", d, got, want)
		}
	}
	for ns, want := range map[float64]string{85.31: "85.3 ns", 0.5: "0.500 ns", math.Inf(1): "n/a"} {
		if got := FormatNanos(ns); got != want {
			t.Errorf("FormatNanos(%v) = %q, want %q", ns, got, want)
		}
	}
}

func TestFormatRates(t *testing.T) {
	if got := FormatGBps(12.5e9); got != "12.5 GB/s" {
		t.Error(got)
	}
	if got := FormatGBps(1.234e6); got != "0.00123 GB/s" {
		t.Error(got)
	}
	if got := FormatGbps(3200e9); got != "3,200 Gbit/s" {
		t.Error(got)
	}
	if got := FormatGbps(99.96e9); got != "100 Gbit/s" {
		t.Error(got)
	}
	if got := FormatPercent(0.0234); got != "2.34%" {
		t.Error(got)
	}
}

func TestDigits(t *testing.T) {
	for _, tt := range []struct {
		f    float64
		n    int
		want string
	}{
		{9.9996, 4, "10.00"}, {0.99996, 4, "1.000"}, {999.96, 4, "1000"}, {-9.9996, 4, "-10.00"},
		{1234567, 4, "1234567"}, {0.05734, 3, "0.0573"}, {0, 3, "0"}, {math.NaN(), 3, "-"}, {math.Inf(1), 3, "-"},
	} {
		if got := Digits(tt.f, tt.n); got != tt.want {
			t.Errorf("Digits(%v, %d) = %q, want %q", tt.f, tt.n, got, tt.want)
		}
	}
}

func TestFormatCount(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 7: "7", -7: "-7", 999: "999", -999: "-999", 1000: "1,000", -1000: "-1,000", 123456: "123,456", 438566912: "438,566,912",
		math.MaxInt64: "9,223,372,036,854,775,807", math.MinInt64: "-9,223,372,036,854,775,808"} {
		if got := FormatCount(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
