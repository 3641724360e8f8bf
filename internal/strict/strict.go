// Package strict reads a person's YAML or JSON: each key known, each value of its
// type, and errors that name the line instead of Go's types.
package strict

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// MaxBytes bounds a text.
const MaxBytes = 1 << 20

// Unmarshal reads text into what to points to; keys that are not there leave
// their values. A key that to does not have, or that is there twice, is an error.
func Unmarshal(text []byte, to any) error {
	return decode(text, to, yaml.Strict(), yaml.DisallowUnknownField())
}

// Peek is [Unmarshal] of the keys that to has, whatever others there are.
func Peek(text []byte, to any) error { return decode(text, to) }

func decode(text []byte, to any, how ...yaml.DecodeOption) (err error) {
	if len(text) > MaxBytes {
		return fmt.Errorf("longer than %d bytes", MaxBytes)
	}
	defer func() {
		// The parser has inputs on which it ends so: "a: !tag]" before a list.
		if p := recover(); p != nil {
			err = fmt.Errorf("the YAML parser gave up: %v; is there a bracket, quote or ! too many?", p)
		}
	}()
	if err := yaml.UnmarshalWithOptions(text, to, how...); err != nil {
		return words(err)
	}
	return nil
}

// words is what the parser says, with the line, and without Go's types.
func words(err error) error {
	var over *yaml.OverflowError
	if errors.As(err, &over) && over.Token != nil {
		return fmt.Errorf("line %d: %s: too large, or below 0", over.Token.Position.Line, strings.TrimSpace(over.Token.Value))
	}
	var t *yaml.TypeError
	if !errors.As(err, &t) || t.DstType == nil || t.Token == nil {
		return errors.New(strings.TrimSpace(yaml.FormatError(err, false, true)))
	}
	want := "another kind of value"
	switch k := t.DstType.Kind(); {
	case t.DstType == reflect.TypeFor[time.Duration]():
		want = "a time with its unit, such as 10s"
	case k == reflect.Bool:
		want = "true or false"
	case k == reflect.Struct || k == reflect.Map:
		want = "keys with values"
	case k == reflect.Float64:
		want = "a number"
	case k >= reflect.Int && k <= reflect.Uint64:
		want = "a whole number"
	case k == reflect.String:
		want = "a text"
	case k == reflect.Slice:
		want = "a list"
	}
	return fmt.Errorf("line %d: %s: want %s", t.Token.Position.Line, strings.TrimSpace(t.Token.Value), want)
}
