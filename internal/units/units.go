// Package units reads and writes the quantities of the command line: sizes in
// bytes, token counts, link rates, percentages, durations.
//
// Reading is strict: MB is 10^6 bytes, MiB is 2^20, a bare number is bytes, and
// a bare K, M or G is refused with both readings named, because the tools
// around this one disagree about it. A value that is not a whole number of its
// base unit (byte, token, bit/s) is refused rather than rounded.
package units

import (
	"fmt"
	"math/big"
	"strings"
)

// Byte multiples.
const (
	KB  = int64(1000)
	MB  = 1000 * KB
	GB  = 1000 * MB
	TB  = 1000 * GB
	KiB = int64(1) << 10
	MiB = int64(1) << 20
	GiB = int64(1) << 30
	TiB = int64(1) << 40
)

// maxDigits bounds the digits of one number, so that a hostile argument cannot
// cost more than a glance. The largest int64 has 19.
const maxDigits = 40

type multiple struct {
	name  string
	value int64
}

// byteUnits are in bytes. The order is that of CompactBytes: of two ways of
// writing a value that are as short, the later one.
var byteUnits = []multiple{
	{"TB", TB}, {"GB", GB}, {"MB", MB}, {"KB", KB}, {"kB", KB},
	{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"B", 1},
}

// ParseBytes reads a size in bytes: a plain number of bytes, or a number with
// one of B, kB, KB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (powers of
// 1024), written without a space and in this case. A decimal point is allowed
// where the result is a whole number of bytes ("1.5GB").
//
// Errors quote s, say what is wrong, and name what to write instead.
func ParseBytes(s string) (int64, error) {
	num, unit, err := splitNumber("size", s)
	if err != nil {
		return 0, forExample(err, s, "438MB, 16MiB or 65536")
	}
	if unit == "" {
		return scale("size", s, num, 1, "bytes")
	}
	for _, u := range byteUnits {
		if unit == u.name {
			return scale("size", s, num, u.value, "bytes")
		}
	}
	return 0, unitError(s, num, unit)
}

// unitError explains why unit is no unit of bytes.
func unitError(s, num, unit string) error {
	if len(unit) == 1 && strings.Contains("kKmMgGtT", unit) {
		p := strings.ToUpper(unit)
		dec, ibi := num+p+"B", num+p+"iB"
		d, errD := ParseBytes(dec)
		i, errI := ParseBytes(ibi)
		if errD == nil && errI == nil {
			return fmt.Errorf("size %q: %s can be read two ways: say %s (%s) or %s (%s)",
				s, unit, dec, FormatExact(d), ibi, FormatExact(i))
		}
		return fmt.Errorf("size %q: %s can be read two ways: say %s or %s", s, unit, dec, ibi)
	}
	for _, u := range byteUnits {
		if strings.EqualFold(unit, u.name) {
			return fmt.Errorf("size %q: unknown unit %q; upper and lower case count: did you mean %s%s?",
				s, unit, num, u.name)
		}
	}
	return fmt.Errorf("size %q: unknown unit %q; use B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024)",
		s, unit)
}

// forExample adds to splitNumber's error of s what to write, unless it says so.
func forExample(err error, s, examples string) error {
	if oneNumber(s) != nil {
		return err
	}
	return fmt.Errorf("%w; write for example %s", err, examples)
}

// splitNumber splits s into an unsigned decimal number and what follows it.
func splitNumber(what, s string) (num, unit string, err error) {
	if strings.TrimSpace(s) == "" {
		return "", "", fmt.Errorf("%s is empty", what)
	}
	if strings.HasPrefix(s, "-") {
		return "", "", fmt.Errorf("%s %q is negative", what, s)
	}
	if one := oneNumber(s); one != nil {
		return "", "", fmt.Errorf("%s %q has a comma: write %s", what, s, strings.Join(one, " or "))
	}
	if strings.ContainsAny(s, " \t\r\n") {
		return "", "", fmt.Errorf("%s %q contains a space", what, s)
	}
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || s[end] == '.') {
		end++
	}
	num, unit = s[:end], s[end:]
	whole, frac, point := strings.Cut(num, ".")
	switch {
	case num == "":
		return "", "", fmt.Errorf("%s %q does not start with a number", what, s)
	case strings.Contains(frac, "."), whole == "", point && frac == "":
		return "", "", fmt.Errorf("%s %q: %q is not a number", what, s, num)
	case len(num) > maxDigits:
		return "", "", fmt.Errorf("%s %q has more than %d digits", what, s, maxDigits)
	}
	return num, unit, nil
}

// scale returns num × mult exactly, or an error when that is no whole number or
// does not fit 63 bits. num is what splitNumber returned.
func scale(what, s, num string, mult int64, base string) (int64, error) {
	r, ok := new(big.Rat).SetString(num)
	if !ok {
		return 0, fmt.Errorf("%s %q: %q is not a number", what, s, num)
	}
	r.Mul(r, new(big.Rat).SetInt64(mult))
	if !r.IsInt() {
		return 0, fmt.Errorf("%s %q is not a whole number of %s", what, s, base)
	}
	if !r.Num().IsInt64() {
		return 0, fmt.Errorf("%s %q is too large: the limit is 2^63-1 %s", what, s, base)
	}
	return r.Num().Int64(), nil
}

// ParseTokens reads a number of tokens: digits only, at least 1.
func ParseTokens(s string) (int64, error) {
	num, unit, err := splitNumber("token count", s)
	if err != nil {
		return 0, forExample(err, s, "8000")
	}
	if unit == "k" || unit == "K" {
		dec, errD := scale("token count", s, num, 1000, "tokens")
		ibi, errI := scale("token count", s, num, 1024, "tokens")
		if errD == nil && errI == nil {
			return 0, fmt.Errorf("token count %q: %s can be read two ways: say %d or %d", s, unit, dec, ibi)
		}
	}
	if unit != "" {
		return 0, fmt.Errorf("token count %q: %q is not part of a number; write for example 8000", s, unit)
	}
	n, err := scale("token count", s, num, 1, "tokens")
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, fmt.Errorf("token count %q must be at least 1", s)
	}
	return n, nil
}

// ParsePercent reads a share as a percentage, "2%", or as a fraction below 1,
// "0.02"; both are 0.02. A number from 1 on without the sign is refused, because 2
// can be meant either way.
func ParsePercent(s string) (float64, error) {
	num, unit, err := splitNumber("percentage", s)
	if err != nil {
		return 0, forExample(err, s, "2%")
	}
	r, ok := new(big.Rat).SetString(num)
	if !ok {
		return 0, fmt.Errorf("percentage %q: %q is not a number", s, num)
	}
	switch unit {
	case "%":
		f, _ := r.Quo(r, big.NewRat(100, 1)).Float64()
		return f, nil
	case "":
		if r.Cmp(big.NewRat(1, 1)) < 0 {
			f, _ := r.Float64()
			return f, nil
		}
		pct := new(big.Rat).Mul(r, big.NewRat(100, 1))
		return 0, fmt.Errorf("percentage %q has no %% sign: say %s%% or %s%%", s, num, ratString(pct))
	}
	return 0, fmt.Errorf("percentage %q: unknown unit %q; write for example 2%%", s, unit)
}

// ratString writes r without trailing zeros; r has a finite decimal expansion
// of at most maxDigits places.
func ratString(r *big.Rat) string {
	s := r.FloatString(maxDigits)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// rateUnits are in bit/s.
var rateUnits = []multiple{
	{"Tbit/s", TB}, {"Gbit/s", GB}, {"Mbit/s", MB}, {"kbit/s", KB}, {"bit/s", 1},
	{"Tb/s", TB}, {"Gb/s", GB}, {"Mb/s", MB}, {"kb/s", KB}, {"b/s", 1},
	{"Tbps", TB}, {"Gbps", GB}, {"Mbps", MB}, {"kbps", KB}, {"bps", 1},
	{"TB/s", 8 * TB}, {"GB/s", 8 * GB}, {"MB/s", 8 * MB}, {"kB/s", 8 * KB}, {"KB/s", 8 * KB}, {"B/s", 8},
	{"TiB/s", 8 * TiB}, {"GiB/s", 8 * GiB}, {"MiB/s", 8 * MiB}, {"KiB/s", 8 * KiB},
}

// ParseRate reads a link rate and returns bit/s: "100Gbit/s", "400Gbps",
// "100Gb/s" (bits), "12.5GB/s", "10GiB/s" (bytes). Small b is bits and capital
// B is bytes; the forms ending in Bps are refused, because they are written
// for both.
func ParseRate(s string) (int64, error) {
	num, unit, err := splitNumber("rate", s)
	if err != nil {
		return 0, forExample(err, s, "100Gbit/s or 12.5GB/s")
	}
	for _, u := range rateUnits {
		if unit != u.name {
			continue
		}
		n, err := scale("rate", s, num, u.value, "bit/s")
		if err == nil && n == 0 {
			err = fmt.Errorf("rate %q must be above zero", s)
		}
		return n, err
	}
	switch {
	case unit == "":
		return 0, fmt.Errorf("rate %q has no unit: say for example %sGbit/s or %sGB/s", s, num, num)
	case strings.HasSuffix(unit, "Bps"):
		p := strings.TrimSuffix(unit, "Bps")
		return 0, fmt.Errorf("rate %q: %s can be read two ways: say %s%sbit/s or %s%sB/s", s, unit, num, p, num, p)
	}
	return 0, fmt.Errorf("rate %q: unknown unit %q; use kbit/s, Mbit/s, Gbit/s, Tbit/s (or kbps, Mbps, Gbps) or MB/s, GB/s, MiB/s, GiB/s",
		s, unit)
}
