package units

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
)

// MaxPoints bounds the values that one list may expand to.
const MaxPoints = 1000

// ParseByteList reads a comma-separated list of sizes and ranges of sizes, in
// bytes, in the order given:
//
//	1MB,16MiB       two sizes
//	64KiB:1GiB      A:B    A, 2A, 4A, … up to B; B itself is always the last
//	64KiB:1GiB:x4   A:B:xF the same with factor F, an integer of at least 2
//	1MB:1GB:10      A:B:N  N sizes from A to B, equally spaced on a log scale,
//	                       each rounded to the nearest byte
//
// A repeated size is refused, and so is a list that may be meant as one number:
// "438,566,912" (thousands separators), "1,5GB" (a decimal comma).
func ParseByteList(s string) ([]int64, error) {
	return parseList("size", s, "B", ParseBytes)
}

// ParseTokenList reads a list of token counts with the syntax of [ParseByteList]:
// "1000,8000", "1000:32000", "1000:64000:x4", "1000:10000:5".
func ParseTokenList(s string) ([]int64, error) {
	return parseList("token count", s, "tokens", ParseTokens)
}

// ParseRateList reads a comma-separated list of link rates, in bit/s.
func ParseRateList(s string) ([]int64, error) {
	return parseList("rate", s, "bit/s", ParseRate)
}

func parseList(what, s, unit string, one func(string) (int64, error)) ([]int64, error) {
	if strings.TrimSpace(s) == "" {
		return nil, fmt.Errorf("list of %ss is empty", what)
	}
	if err := ambiguous(s); err != nil {
		return nil, err
	}
	var out []int64
	seen := make(map[int64]bool)
	for item := range strings.SplitSeq(s, ",") {
		var vals []int64
		if strings.Contains(item, ":") {
			r, err := parseRange(what, item, unit, one)
			if err != nil {
				return nil, err
			}
			vals = r
		} else {
			v, err := one(item)
			if err != nil {
				return nil, err
			}
			vals = []int64{v}
		}
		for _, v := range vals {
			if seen[v] {
				return nil, fmt.Errorf("list %q names %d %s twice", s, v, unit)
			}
			seen[v] = true
		}
		if out = append(out, vals...); len(out) > MaxPoints {
			return nil, fmt.Errorf("list %q has more than %d values", s, MaxPoints)
		}
	}
	return out, nil
}

func parseRange(what, item, unit string, one func(string) (int64, error)) ([]int64, error) {
	parts := strings.Split(item, ":")
	if len(parts) > 3 {
		return nil, fmt.Errorf("range %q has too many colons; write A:B, A:B:xF or A:B:N", item)
	}
	from, err := one(parts[0])
	if err != nil {
		return nil, fmt.Errorf("range %q: %w", item, err)
	}
	to, err := one(parts[1])
	if err != nil {
		return nil, fmt.Errorf("range %q: %w", item, err)
	}
	if from == 0 {
		return nil, fmt.Errorf("range %q starts at 0: a log scale needs a %s above zero", item, what)
	}
	if from >= to {
		return nil, fmt.Errorf("range %q: the second %s must be above the first", item, what)
	}
	factor := int64(2)
	if len(parts) == 3 {
		step, geometric := strings.CutPrefix(parts[2], "x")
		n, err := parseInt(step)
		if err != nil {
			return nil, fmt.Errorf("range %q: %q is neither a factor such as x4 nor a number of points such as 10", item, parts[2])
		}
		if n < 2 {
			return nil, fmt.Errorf("range %q: %q must be at least 2", item, step)
		}
		if !geometric {
			return logPoints(item, unit, from, to, n)
		}
		factor = n
	}
	var out []int64
	for v := from; v < to; v *= factor {
		out = append(out, v)
		if v > to/factor {
			break
		}
	}
	return append(out, to), nil
}

// parseInt reads a plain unsigned integer.
func parseInt(s string) (int64, error) {
	num, unit, err := splitNumber("number", s)
	if err != nil {
		return 0, err
	}
	if unit != "" {
		return 0, fmt.Errorf("number %q: unexpected %q", s, unit)
	}
	return scale("number", s, num, 1, "units")
}

// logPoints returns n values from from to to, both exact, equally spaced in log.
func logPoints(item, unit string, from, to, n int64) ([]int64, error) {
	if n > MaxPoints {
		return nil, fmt.Errorf("range %q has more than %d points", item, MaxPoints)
	}
	out := make([]int64, n)
	out[0], out[n-1] = from, to
	ratio := math.Log(float64(to) / float64(from))
	for i := int64(1); i < n-1; i++ {
		f := float64(from) * math.Exp(ratio*float64(i)/float64(n-1))
		out[i] = min(int64(math.Round(f)), to)
	}
	if d := slices.Compact(slices.Clone(out)); int64(len(d)) < n || !slices.IsSorted(out) {
		return nil, fmt.Errorf("range %q: only %d of %d points differ once rounded to whole %s; ask for fewer",
			item, len(d), n, unit)
	}
	return out, nil
}

// CompactBytes writes n the way [ParseBytes] reads it, exactly and short:
// "438MB", "16MiB", "56KiB", "12345" (bytes).
func CompactBytes(n int64) string {
	s := fmt.Sprintf("%d", n)
	for _, u := range byteUnits {
		if n <= 0 || u.value == 1 || n%u.value != 0 {
			continue
		}
		if t := fmt.Sprintf("%d%s", n/u.value, u.name); len(t) <= len(s) {
			s = t
		}
	}
	return s
}

// CompactRate writes a rate in bit/s the way [ParseRate] reads it, in the
// largest of Gbit/s, Mbit/s, kbit/s that divides it: "100Gbit/s", "3200Gbit/s".
func CompactRate(bitsPerSecond int64) string {
	for _, u := range []multiple{{"Gbit/s", GB}, {"Mbit/s", MB}, {"kbit/s", KB}} {
		if bitsPerSecond != 0 && bitsPerSecond%u.value == 0 {
			return fmt.Sprintf("%d%s", bitsPerSecond/u.value, u.name)
		}
	}
	return fmt.Sprintf("%dbit/s", bitsPerSecond)
}

// percentString writes f so that ParsePercent gives f again, to 40 decimals.
func percentString(f float64) string {
	r := new(big.Rat)
	if r.SetFloat64(f) == nil {
		return "0%"
	}
	short, ok := new(big.Rat).SetString(fmt.Sprintf("%v", f))
	if ok {
		r = short
	}
	return ratString(r.Mul(r, big.NewRat(100, 1))) + "%"
}
