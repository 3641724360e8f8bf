package units

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestParseByteList(t *testing.T) {
	for in, want := range map[string][]int64{
		"1MB,16MiB":     {1000000, 16777216},
		"438MB":         {438000000},
		"64KiB:1MiB":    {65536, 131072, 262144, 524288, 1048576},
		"64KiB:1MiB:x2": {65536, 131072, 262144, 524288, 1048576},
		"64KiB:1MiB:x4": {65536, 262144, 1048576},
		"1kB:5kB":       {1000, 2000, 4000, 5000}, // the end is always a point
		"1MB:1GB:4":     {1e6, 1e7, 1e8, 1e9},
		"1:4:2":         {1, 4},
		"8B,1kB:4kB":    {8, 1000, 2000, 4000},
		// Lists that cannot be meant as one number.
		"4096,65536":         {4096, 65536},
		"1,28,700,7000":      {1, 28, 700, 7000},
		"64,4096,1MB":        {64, 4096, 1e6},
		"1MB,500MB":          {1e6, 500e6},
		"1B,500B":            {1, 500},
		"1000,500":           {1000, 500},
		"1,5":                {1, 5},
		"1,16,256":           {1, 16, 256},
		"100:200:x2,1MB:2MB": {100, 200, 1e6, 2e6},
		"4611686018427387904:9223372036854775807":    {1 << 62, 1<<63 - 1},
		"1:9223372036854775807:x9223372036854775807": {1, 1<<63 - 1},
	} {
		got, err := ParseByteList(in)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("ParseByteList(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"":                        "empty",
		"1MB,":                    "empty",
		"1MB,1000000":             "twice",
		"1M:1GB":                  "say 1MB",
		"1MB:1G":                  "say 1GB",
		"1GB:1MB":                 "must be above",
		"1MB:1MB":                 "must be above",
		"0:1MB":                   "starts at 0",
		"1MB:1GB:1":               "at least 2",
		"1MB:1GB:x1":              "at least 2",
		"1MB:1GB:y":               "neither a factor",
		"1MB:1GB:-3":              "neither a factor",
		"1:10:10:10":              "too many colons",
		"1:4:8":                   "only 4 of 8 points differ",
		"1MB:1GB:1001":            "more than 1000",
		"1MB:1GB:1000,1:1MB:1000": "ask for fewer",
	} {
		if got, err := ParseByteList(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseByteList(%q) = %v, %v; want an error with %q", in, got, err, want)
		}
	}
}

// A comma may be one between values, or one inside a value: where both can be,
// the list is refused, with what to write for each.
func TestAmbiguousLists(t *testing.T) {
	for in, want := range map[string][]string{
		"438,566,912":     {"438566912 (one number)", "438, 566 and 912 (3 of them)", "once for each"},
		"8,000":           {"8000 (one number)", "8 and 000 (2 of them)"},
		"1,500MB":         {"1500MB or 1.500MB (one number)", "1 and 500MB"},
		"1,5GB":           {"1.5GB (one number)", "1 and 5GB"},
		"0,5GB":           {"0.5GB"},
		"0,500":           {"0.500"},
		"4096,16KiB":      {"4096.16KiB"},
		"1,234.5MB":       {"1234.5MB"},
		"100,200,300":     {"100200300"},
		"1,000:8,000":     {`"1,000"`, "1000 (one number)"},
		"1,5MB:1GB":       {"1.5MB"},
		"64KiB:1,5GB":     {"1.5GB"},
		"100:200,500:800": {"200500"},
		"8,1kB:4kB":       {"8.1kB"},
	} {
		for name, parse := range map[string]func(string) ([]int64, error){"bytes": ParseByteList, "tokens": ParseTokenList, "rates": ParseRateList} {
			got, err := parse(in)
			if err == nil {
				t.Errorf("%s list %q gave %v", name, in, got)
				continue
			}
			for _, w := range append(want, "can be read two ways") {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%s list %q: %v; want %q", name, in, err, w)
				}
			}
		}
	}
	for in, want := range map[string]string{
		"438,566,912": "write 438566912", "1,5GB": "write 1.5GB", "1,500MB": "write 1500MB or 1.500MB",
	} {
		if _, err := ParseBytes(in); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "for example") {
			t.Errorf("ParseBytes(%q): %v; want %q", in, err, want)
		}
	}
}

func TestGuardLists(t *testing.T) {
	fs := pflag.NewFlagSet("t", pflag.ContinueOnError)
	var ints, none []int
	var rates []float64
	fs.IntSliceVar(&ints, "ints", []int{16}, "")
	fs.IntSliceVar(&none, "none", nil, "")
	fs.Float64SliceVar(&rates, "rates", nil, "")
	GuardLists(fs)
	if d := fs.Lookup("ints").DefValue; d != "16" {
		t.Errorf("default %q", d)
	}
	if u := fs.FlagUsages(); strings.Contains(u, "[") {
		t.Errorf("usage: %s", u)
	}
	if err := fs.Parse([]string{"--ints", "1,28", "--ints=700", "--rates", "0.5,2"}); err != nil || !slices.Equal(ints, []int{1, 28, 700}) || len(rates) != 2 {
		t.Errorf("%v %v: %v", ints, rates, err)
	}
	for _, in := range []string{"--ints=1,000", "--none=28,700", "--rates=1,500", "--rates=0,5"} {
		if err := fs.Parse([]string{in}); err == nil || !strings.Contains(err.Error(), "two ways") {
			t.Errorf("%s: %v", in, err)
		}
	}
}

// FuzzCommas holds that what is printed with thousands separators or written
// with a decimal comma is never taken for a list, and that a list whose values
// all have units always is.
func FuzzCommas(f *testing.F) {
	f.Add(int64(438566912), "1,5GB", uint16(3))
	f.Add(int64(1000), "1,500", uint16(999))
	f.Add(int64(57344), "64,4096,1MB", uint16(1))
	grouped := regexp.MustCompile(`^[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]+)?[A-Za-z]*$`)
	decimal := regexp.MustCompile(`^[0-9]+,[0-9]+[A-Za-z]+$`)
	f.Fuzz(func(t *testing.T, n int64, s string, m uint16) {
		if n >= 1000 {
			if v, err := ParseByteList(FormatCount(n)); err == nil {
				t.Errorf("%q was taken for %v", FormatCount(n), v)
			}
		}
		if grouped.MatchString(s) || decimal.MatchString(s) {
			if v, err := ParseByteList(s); err == nil {
				t.Errorf("%q was taken for %v", s, v)
			}
		}
		if n = max(n, 0) % GB; n != int64(m) {
			list := fmt.Sprintf("%dB,%dB", n, m)
			if v, err := ParseByteList(list); err != nil || !slices.Equal(v, []int64{n, int64(m)}) {
				t.Errorf("%q: %v, %v", list, v, err)
			}
		}
	})
}

func TestParseTokenAndRateLists(t *testing.T) {
	if got, err := ParseTokenList("1000:8000"); err != nil || !slices.Equal(got, []int64{1000, 2000, 4000, 8000}) {
		t.Errorf("tokens: %v, %v", got, err)
	}
	if got, err := ParseRateList("25Gbit/s,12.5GB/s"); err != nil || !slices.Equal(got, []int64{25e9, 100e9}) {
		t.Errorf("rates: %v, %v", got, err)
	}
}

func TestFlags(t *testing.T) {
	fs := pflag.NewFlagSet("t", pflag.ContinueOnError)
	size, toks, rate, pct := Size(438*MB), Tokens(8000), Rate(100e9), Percent(0.02)
	sizes, links, tl := NewSizeList(MiB, 16*MiB), NewRateList(100e9, 3200e9), NewTokenList(1000)
	fs.Var(&size, "size", "")
	fs.Var(&toks, "tokens", "")
	fs.Var(&rate, "rate", "")
	fs.Var(&pct, "pct", "")
	fs.Var(sizes, "sizes", "")
	fs.Var(links, "links", "")
	fs.Var(tl, "tl", "")
	for name, want := range map[string]string{
		"size": "438MB", "tokens": "8000", "rate": "100Gbit/s", "pct": "2%",
		"sizes": "1MiB,16MiB", "links": "100Gbit/s,3200Gbit/s", "tl": "1000",
	} {
		f := fs.Lookup(name)
		if got := f.Value.String(); got != want {
			t.Errorf("default of %s is %q, want %q", name, got, want)
		}
		if err := f.Value.Set(f.DefValue); err != nil {
			t.Errorf("default of %s does not parse: %v", name, err)
		}
	}
	fs2 := pflag.NewFlagSet("t", pflag.ContinueOnError)
	sizes2 := NewSizeList(MiB)
	fs2.Var(sizes2, "sizes", "")
	if err := fs2.Parse([]string{"--sizes", "1kB,2kB", "--sizes=4kB"}); err != nil {
		t.Fatal(err)
	}
	if got := sizes2.Values(); !slices.Equal(got, []int64{1000, 2000, 4000}) {
		t.Errorf("repeated flag gave %v", got)
	}
	if err := fs2.Parse([]string{"--sizes", "2000"}); err == nil {
		t.Error("a repeated value was accepted")
	}
	if err := size.Set("1M"); err == nil || size != Size(438*MB) {
		t.Errorf("bad value: err %v, size %d", err, size)
	}
}

func TestCompactBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 1: "1", 57344: "56KiB", 12345: "12345", 458752000: "458752kB", 438 * MB: "438MB", 16 * MiB: "16MiB",
		GB: "1GB", GiB: "1GiB", 1000: "1kB", 1024: "1KiB",
	} {
		got := CompactBytes(n)
		if back, err := ParseBytes(got); err != nil || back != n {
			t.Errorf("CompactBytes(%d) = %q, read back as %d, %v", n, got, back, err)
		}
		if got != want {
			t.Errorf("CompactBytes(%d) = %q, want %q", n, got, want)
		}
	}
}
