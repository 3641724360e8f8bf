package units

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain, 5 µs × 3 → „x“ 日本 é": "plain, 5 µs × 3 → „x“ 日本 é",
		"\x1b[31mred\x1b[0m":         `\x1b[31mred\x1b[0m`,
		"\x1b]0;title\x07":           `\x1b]0;title\x07`,
		"C1 \u009b31m and \x9b":      `C1 \u009b31m and \x9b`,
		"bidi \u202eabc\u2066":       `bidi \u202eabc\u2066`,
		"bad \xff\xfe":               `bad \xff\xfe`,
		"back\bspace\r\x7f\x00":      `back\x08space\r\x7f\x00`,
		"hidden \u200b\U000e0041":    `hidden \u200b\U000e0041`,
		"two\nlines\tand":            `two\nlines\tand`,
		"\ufffd itself":              "\ufffd itself",
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := PrintableText("a\tb\n\x1bc\r\n"); got != "a\tb\n\\x1bc\\r\n" {
		t.Errorf("%q", got)
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b\u202e\xff\n")
	f.Fuzz(func(t *testing.T, s string) {
		got := Printable(s)
		if !utf8.ValidString(got) || strings.IndexFunc(got, func(r rune) bool { return !unicode.IsGraphic(r) }) >= 0 || Printable(got) != got {
			t.Errorf("%q becomes %q", s, got)
		}
	})
}
