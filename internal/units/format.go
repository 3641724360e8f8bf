package units

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// FormatExact writes n bytes exactly: "438,566,912 B".
func FormatExact(n int64) string { return FormatCount(n) + " B" }

// FormatCount writes a count with thousands separators: "7,648".
func FormatCount(n int64) string {
	s := strconv.FormatInt(n, 10)
	first := 0 // of the digits
	if n < 0 {
		first = 1
	}
	for i := len(s) - 3; i > first; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// FormatMB writes n bytes in MB (10^6) with two decimals: "438.57 MB".
func FormatMB(n int64) string { return fixed(n, MB) + " MB" }

// FormatMiB writes n bytes in MiB (2^20) with two decimals: "418.25 MiB".
func FormatMiB(n int64) string { return fixed(n, MiB) + " MiB" }

// fixed writes n/unit with two decimals and thousands separators.
func fixed(n, unit int64) string {
	sign := ""
	u := uint64(n)
	if n < 0 {
		sign, u = "-", -u
	}
	d := uint64(unit)
	whole, hundredths := u/d, (u%d*100+d/2)/d
	if hundredths == 100 {
		whole, hundredths = whole+1, 0
	}
	return fmt.Sprintf("%s%s.%02d", sign, FormatCount(int64(whole)), hundredths)
}

// FormatBytes writes n bytes exactly and in both families of units:
// "438,566,912 B (438.57 MB, 418.25 MiB)"; below 1 MB in kB and KiB, and below
// 1 kB the exact bytes alone.
func FormatBytes(n int64) string {
	switch {
	case n > -KB && n < KB:
		return FormatExact(n)
	case n > -MB && n < MB:
		return fmt.Sprintf("%s (%s kB, %s KiB)", FormatExact(n), fixed(n, KB), fixed(n, KiB))
	}
	return fmt.Sprintf("%s (%s, %s)", FormatExact(n), FormatMB(n), FormatMiB(n))
}

// FormatDuration writes d with three significant digits in the unit that fits:
// "36 ns", "1.23 µs", "36.7 ms", "1.00 s", "1,234 s". Whole nanoseconds below
// 1 µs are written as they are.
func FormatDuration(d time.Duration) string {
	if d > -time.Microsecond && d < time.Microsecond {
		return strconv.FormatInt(int64(d), 10) + " ns"
	}
	return FormatNanos(float64(d))
}

// FormatNanos is [FormatDuration] for a fraction of nanoseconds, such as a time
// per descriptor: "85.3 ns". NaN and infinities are written as "n/a".
func FormatNanos(ns float64) string {
	if math.IsNaN(ns) || math.IsInf(ns, 0) {
		return "n/a"
	}
	if ns == 0 {
		return "0 ns"
	}
	names := []string{"ns", "µs", "ms", "s"}
	i := 0
	// 999.5 is the first value that three digits would write as 1000.
	for i < len(names)-1 && math.Abs(ns) >= 999.5 {
		ns /= 1000
		i++
	}
	return FormatSignificant(ns) + " " + names[i]
}

// FormatSignificant writes f with three significant digits and without an
// exponent, with thousands separators from 1,000 on: "0.00123", "36.7", "1,234".
func FormatSignificant(f float64) string {
	if f == 0 {
		return "0"
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return "n/a"
	}
	if s := Digits(f, 3); math.Abs(f) < 999.5 || math.Abs(f) >= 1<<62 {
		return s
	}
	return FormatCount(int64(math.Round(f)))
}

// Digits writes f with n significant digits, never with an exponent or thousands
// separators, so that programs can read it; "-" is no number.
func Digits(f float64, n int) string {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return "-"
	}
	if f == 0 {
		return "0"
	}
	// Rounding may carry into a new digit (9.9996 → 10.00).
	r, err := strconv.ParseFloat(strconv.FormatFloat(f, 'e', n-1, 64), 64)
	if err != nil {
		r = f
	}
	decimals := n - 1 - int(math.Floor(math.Log10(math.Abs(r))))
	return strconv.FormatFloat(f, 'f', max(decimals, 0), 64)
}

// FormatGBps writes a rate given in bytes per second, in GB/s (10^9 bytes).
func FormatGBps(bytesPerSecond float64) string {
	return FormatSignificant(bytesPerSecond/1e9) + " GB/s"
}

// FormatGbps writes a rate given in bits per second, in Gbit/s (10^9 bits).
func FormatGbps(bitsPerSecond float64) string {
	return FormatSignificant(bitsPerSecond/1e9) + " Gbit/s"
}

// FormatPercent writes a fraction as a percentage with three significant
// digits: 0.0234 → "2.34%".
func FormatPercent(fraction float64) string { return FormatSignificant(fraction*100) + "%" }
