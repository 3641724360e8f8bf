package units

import (
	"math"
	"math/big"
	"strings"
	"testing"
)

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1": 1, "65536": 65536, "0007": 7, "12B": 12,
		"438MB": 438000000, "438MiB": 459276288,
		"1kB": 1000, "1KB": 1000, "1MB": 1e6, "1GB": 1e9, "1TB": 1e12,
		"1KiB": 1 << 10, "1MiB": 1 << 20, "1GiB": 1 << 30, "1TiB": 1 << 40,
		"1.5GB": 1500000000, "0.5KiB": 512, "437.5MiB": 458752000, "1.000": 1,
		"0.001kB":             1,
		"9223372036854775807": math.MaxInt64,
	} {
		got, err := ParseBytes(in)
		if err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
}

func TestParseBytesRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"438M":                        "say 438MB (438,000,000 B) or 438MiB (459,276,288 B)",
		"64k":                         "say 64KB (64,000 B) or 64KiB (65,536 B)",
		"1G":                          "say 1GB (1,000,000,000 B) or 1GiB (1,073,741,824 B)",
		"0.3T":                        "say 0.3TB or 0.3TiB",
		"":                            "empty",
		"  ":                          "empty",
		"-1":                          "negative",
		"438 MB":                      "contains a space",
		"NaN":                         "does not start with a number",
		"Inf":                         "does not start with a number",
		"+1":                          "does not start with a number",
		".5MB":                        "is not a number",
		"1.MB":                        "is not a number",
		"1.2.3MB":                     "is not a number",
		"1e6":                         "unknown unit",
		"0x10":                        "unknown unit",
		"1_000":                       "unknown unit",
		"1mb":                         "did you mean 1MB?",
		"1mib":                        "did you mean 1MiB?",
		"1Mib":                        "did you mean 1MiB?",
		"1PB":                         "unknown unit",
		"1.5":                         "not a whole number of bytes",
		"0.0001kB":                    "not a whole number of bytes",
		"9223372036854775808":         "too large",
		"10000000000GB":               "too large",
		"٣MB":                         "does not start with a number",
		strings.Repeat("9", 50) + "B": "digits",
	} {
		got, err := ParseBytes(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseBytes(%q) = %d, %v; want an error with %q", in, got, err, want)
		}
	}
}

func TestParseTokens(t *testing.T) {
	if n, err := ParseTokens("8000"); n != 8000 || err != nil {
		t.Errorf("ParseTokens(8000) = %d, %v", n, err)
	}
	for in, want := range map[string]string{
		"8k": "say 8000 or 8192", "0": "at least 1", "-5": "negative", "": "empty",
		"1.5": "whole number", "8000t": "not part of a number", "1e3": "not part of a number",
	} {
		if n, err := ParseTokens(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseTokens(%q) = %d, %v; want an error with %q", in, n, err, want)
		}
	}
}

func TestParseRate(t *testing.T) {
	for in, want := range map[string]int64{
		"100Gbit/s": 100e9, "400Gbps": 400e9, "100Gb/s": 100e9, "12.5GB/s": 100e9,
		"3200Gbit/s": 3200e9, "3.2Tbps": 3200e9, "1GiB/s": 8 << 30, "1kbit/s": 1000,
		"56kbps": 56000, "1B/s": 8, "1bit/s": 1, "0.125B/s": 1,
	} {
		if got, err := ParseRate(in); err != nil || got != want {
			t.Errorf("ParseRate(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"100":              "say for example 100Gbit/s or 100GB/s",
		"12GBps":           "say 12Gbit/s or 12GB/s",
		"1Bps":             "say 1bit/s or 1B/s",
		"100G":             "unknown unit",
		"0Gbit/s":          "above zero",
		"0.1bit/s":         "whole number",
		"-1Gbit/s":         "negative",
		"":                 "empty",
		"fast":             "does not start with a number",
		"2e9GB/s":          "unknown unit",
		"9999999999Tbit/s": "too large",
	} {
		if got, err := ParseRate(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseRate(%q) = %d, %v; want an error with %q", in, got, err, want)
		}
	}
}

func TestParsePercent(t *testing.T) {
	for in, want := range map[string]float64{"2%": 0.02, "0%": 0, "0.5%": 0.005, "150%": 1.5, "100%": 1, "33.3%": 0.333, "0.02": 0.02, "0": 0, "0.999": 0.999} {
		if got, err := ParsePercent(in); err != nil || got != want {
			t.Errorf("ParsePercent(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"2": "say 2% or 200%", "1": "say 1% or 100%", "1.5": "say 1.5% or 150%", "": "empty", "-2%": "negative", "NaN%": "does not start",
		"2%%": "unknown unit", "2 %": "space", "%": "does not start",
	} {
		if got, err := ParsePercent(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParsePercent(%q) = %v, %v; want an error with %q", in, got, err, want)
		}
	}
}

// FuzzParseBytes holds that a size that parses is not negative, agrees with
// exact rational arithmetic, and survives being written back.
func FuzzParseBytes(f *testing.F) {
	for _, s := range []string{"438MB", "1.5GB", "16MiB", "438M", "", "-1", "NaN", "1e9", "9223372036854775807", "00.10KiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseBytes(s)
		if err != nil {
			return
		}
		if n < 0 {
			t.Fatalf("ParseBytes(%q) = %d", s, n)
		}
		i := strings.IndexFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
		num, unit := s, "B"
		if i >= 0 {
			num, unit = s[:i], s[i:]
		}
		mult := map[string]int64{"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
			"KiB": 1024, "MiB": 1048576, "GiB": 1073741824, "TiB": 1099511627776}[unit]
		r, ok := new(big.Rat).SetString(num)
		if !ok || new(big.Rat).Mul(r, new(big.Rat).SetInt64(mult)).Cmp(new(big.Rat).SetInt64(n)) != 0 {
			t.Fatalf("ParseBytes(%q) = %d", s, n)
		}
		if back, err := ParseBytes(CompactBytes(n)); err != nil || back != n {
			t.Fatalf("CompactBytes(%d) = %q, read back as %d, %v", n, CompactBytes(n), back, err)
		}
	})
}

func FuzzParseTokens(f *testing.F) {
	for _, s := range []string{"8000", "8k", "0", "-1", "1.0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseTokens(s); err == nil && n < 1 {
			t.Fatalf("ParseTokens(%q) = %d", s, n)
		}
	})
}

func FuzzParseRate(f *testing.F) {
	for _, s := range []string{"100Gbit/s", "12.5GB/s", "400Gbps", "1GBps", "100"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseRate(s)
		if err != nil {
			return
		}
		if n < 1 {
			t.Fatalf("ParseRate(%q) = %d", s, n)
		}
		if back, err := ParseRate(CompactRate(n)); err != nil || back != n {
			t.Fatalf("CompactRate(%d) = %q, read back as %d, %v", n, CompactRate(n), back, err)
		}
	})
}

func FuzzParsePercent(f *testing.F) {
	for _, s := range []string{"2%", "0.02", "33.3%", "%", "1e400%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParsePercent(s)
		if err != nil {
			return
		}
		if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
			t.Fatalf("ParsePercent(%q) = %v", s, v)
		}
	})
}

func FuzzParseLists(f *testing.F) {
	for _, s := range []string{"1MB,16MiB", "64KiB:1GiB", "64KiB:1GiB:x4", "1MB:1GB:10", "1:2:1000", "1000:8000", "1,1", "a:b:c:d", "1:9223372036854775807:x2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, parse := range map[string]func(string) ([]int64, error){
			"bytes": ParseByteList, "tokens": ParseTokenList, "rates": ParseRateList,
		} {
			v, err := parse(s)
			if err != nil {
				continue
			}
			if len(v) == 0 || len(v) > MaxPoints {
				t.Fatalf("%s list %q has %d values", name, s, len(v))
			}
			seen := map[int64]bool{}
			for _, n := range v {
				if n < 0 || seen[n] {
					t.Fatalf("%s list %q: %d negative or twice in %v", name, s, n, v)
				}
				seen[n] = true
			}
		}
	})
}
