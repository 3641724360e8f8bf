package units

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// Size is a number of bytes as a flag; see [ParseBytes]. It implements pflag.Value.
type Size int64

// Tokens is a number of tokens as a flag; see [ParseTokens].
type Tokens int64

// Rate is a link rate in bit/s as a flag; see [ParseRate].
type Rate int64

// Percent is a fraction as a flag, "2%" → 0.02; see [ParsePercent].
type Percent float64

// SizeList is a list of sizes in bytes as a flag; see [ParseByteList]. The
// first Set replaces the default, later ones append.
type SizeList struct{ list }

// TokenList is a list of token counts as a flag; see [ParseTokenList].
type TokenList struct{ list }

// RateList is a list of link rates in bit/s as a flag; see [ParseRateList].
type RateList struct{ list }

var (
	_ pflag.Value = (*Size)(nil)
	_ pflag.Value = (*Tokens)(nil)
	_ pflag.Value = (*Rate)(nil)
	_ pflag.Value = (*Percent)(nil)
	_ pflag.Value = (*SizeList)(nil)
	_ pflag.Value = (*TokenList)(nil)
	_ pflag.Value = (*RateList)(nil)
)

// Set implements pflag.Value.
func (v *Size) Set(s string) error { return setOne((*int64)(v), s, ParseBytes) }

// String implements pflag.Value; [ParseBytes] reads it back.
func (v *Size) String() string { return CompactBytes(int64(*v)) }

// Type implements pflag.Value.
func (*Size) Type() string { return "size" }

// Set implements pflag.Value.
func (v *Tokens) Set(s string) error { return setOne((*int64)(v), s, ParseTokens) }

// String implements pflag.Value.
func (v *Tokens) String() string { return strconv.FormatInt(int64(*v), 10) }

// Type implements pflag.Value.
func (*Tokens) Type() string { return "tokens" }

// Set implements pflag.Value.
func (v *Rate) Set(s string) error { return setOne((*int64)(v), s, ParseRate) }

// String implements pflag.Value; [ParseRate] reads it back.
func (v *Rate) String() string { return CompactRate(int64(*v)) }

// Type implements pflag.Value.
func (*Rate) Type() string { return "rate" }

// Set implements pflag.Value.
func (v *Percent) Set(s string) error {
	f, err := ParsePercent(s)
	if err != nil {
		return err
	}
	*v = Percent(f)
	return nil
}

// String implements pflag.Value; [ParsePercent] reads it back. It is "0", which
// help leaves out, where the flag was not given.
func (v *Percent) String() string {
	if *v == 0 {
		return "0"
	}
	return percentString(float64(*v))
}

// Type implements pflag.Value.
func (*Percent) Type() string { return "percent" }

// NewSizeList returns a SizeList with a default, in bytes.
func NewSizeList(bytes ...int64) *SizeList { return SizeListOf(&bytes) }

// SizeListOf returns a SizeList that keeps its values, in bytes, in to, whose
// values are the default.
func SizeListOf(to *[]int64) *SizeList { return &SizeList{list{vals: to}} }

// Set implements pflag.Value.
func (v *SizeList) Set(s string) error { return v.set(s, ParseByteList) }

// String implements pflag.Value.
func (v *SizeList) String() string { return v.join(CompactBytes) }

// Type implements pflag.Value.
func (*SizeList) Type() string { return "sizes" }

// NewTokenList returns a TokenList with a default.
func NewTokenList(tokens ...int64) *TokenList { return TokenListOf(&tokens) }

// TokenListOf returns a TokenList that keeps its values in to, whose values are
// the default.
func TokenListOf(to *[]int64) *TokenList { return &TokenList{list{vals: to}} }

// Set implements pflag.Value.
func (v *TokenList) Set(s string) error { return v.set(s, ParseTokenList) }

// String implements pflag.Value.
func (v *TokenList) String() string {
	return v.join(func(n int64) string { return strconv.FormatInt(n, 10) })
}

// Type implements pflag.Value.
func (*TokenList) Type() string { return "tokens" }

// NewRateList returns a RateList with a default, in bit/s.
func NewRateList(bitsPerSecond ...int64) *RateList { return &RateList{list{vals: &bitsPerSecond}} }

// Set implements pflag.Value.
func (v *RateList) Set(s string) error { return v.set(s, ParseRateList) }

// String implements pflag.Value.
func (v *RateList) String() string { return v.join(CompactRate) }

// Type implements pflag.Value.
func (*RateList) Type() string { return "rates" }

// list holds what the list flags share.
type list struct {
	vals  *[]int64
	given bool
}

// Values returns the values in the order given. The slice belongs to the flag.
func (l *list) Values() []int64 {
	if l.vals == nil {
		return nil
	}
	return *l.vals
}

func (l *list) set(s string, parse func(string) ([]int64, error)) error {
	v, err := parse(s)
	if err != nil {
		return err
	}
	if l.vals == nil {
		l.vals = new([]int64)
	}
	if !l.given {
		*l.vals, l.given = nil, true
	}
	for _, n := range v {
		if slices.Contains(*l.vals, n) {
			return fmt.Errorf("%q repeats a value of an earlier use of this flag", s)
		}
	}
	*l.vals = append(*l.vals, v...)
	return nil
}

func (l *list) join(one func(int64) string) string {
	parts := make([]string, len(l.Values()))
	for i, v := range l.Values() {
		parts[i] = one(v)
	}
	return strings.Join(parts, ",")
}

func setOne(dst *int64, s string, parse func(string) (int64, error)) error {
	n, err := parse(s)
	if err != nil {
		return err
	}
	*dst = n
	return nil
}
