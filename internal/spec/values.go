package spec

import (
	"fmt"
	"reflect"
	"strconv"

	"github.com/xferbench/xferbench/internal/units"
)

// List is a list that a file may write as a single value.
type List[T any] []T

// UnmarshalYAML reads a value or a list of them.
func (l *List[T]) UnmarshalYAML(unmarshal func(any) error) error {
	var many []T
	err := unmarshal(&many)
	if err == nil {
		*l = many
		return nil
	}
	var what any
	if unmarshal(&what) == nil && reflect.ValueOf(what).Kind() == reflect.Slice {
		return err
	}
	var one T
	if err := unmarshal(&one); err != nil {
		return err
	}
	*l = List[T]{one}
	return nil
}

// Sizes are numbers of bytes; a file writes them as the flags do: 438MB,
// 64KiB:1GiB:x4, or plain numbers of bytes.
type Sizes []int64

// UnmarshalYAML reads what [units.ParseByteList] does, or a list of that.
func (v *Sizes) UnmarshalYAML(unmarshal func(any) error) error {
	return numbers((*[]int64)(v), unmarshal, units.ParseByteList)
}

// MarshalYAML writes what [Sizes.UnmarshalYAML] reads.
func (v Sizes) MarshalYAML() (any, error) {
	out := make([]string, len(v))
	for i, n := range v {
		out[i] = units.CompactBytes(n)
	}
	return out, nil
}

// Tokens are numbers of tokens; a file writes them as the flags do: 8000,
// 1000:32000.
type Tokens []int64

// UnmarshalYAML reads what [units.ParseTokenList] does, or a list of that.
func (v *Tokens) UnmarshalYAML(unmarshal func(any) error) error {
	return numbers((*[]int64)(v), unmarshal, units.ParseTokenList)
}

// numbers reads values and ranges by parse, and plain integers.
func numbers(to *[]int64, unmarshal func(any) error, parse func(string) ([]int64, error)) error {
	var words List[any]
	if err := unmarshal(&words); err != nil {
		return err
	}
	var out []int64
	for _, w := range words {
		if s, is := w.(string); is || w == nil {
			list, err := parse(s)
			if err != nil {
				return err
			}
			out = append(out, list...)
			continue
		}
		n, err := strconv.ParseInt(fmt.Sprint(w), 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("%v: want a whole number, 0 or more, or one with its unit", w)
		}
		out = append(out, n)
	}
	*to = out
	return nil
}

// Percent is a share; a file writes it as the flags do: 2%, or 0.02.
type Percent float64

// UnmarshalYAML reads what [units.ParsePercent] does.
func (v *Percent) UnmarshalYAML(unmarshal func(any) error) error {
	var w any
	if err := unmarshal(&w); err != nil {
		return err
	}
	f, err := units.ParsePercent(fmt.Sprint(w))
	if err != nil {
		return err
	}
	*v = Percent(f)
	return nil
}

// MarshalYAML writes what [Percent.UnmarshalYAML] reads.
func (v Percent) MarshalYAML() (any, error) { p := units.Percent(v); return p.String(), nil }

// Settings are a library's settings, each with the values that it takes in turn.
type Settings map[string]List[string]
