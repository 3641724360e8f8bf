package units

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable is text from elsewhere (a server, a peer, a library, a record) as one
// line for a terminal: control characters (C0, DEL, C1), invalid UTF-8 and
// characters that show nothing or turn others round stand as escapes, \x1b or
// \u202e, so that they can neither drive the terminal nor hide.
func Printable(s string) string { return printable(s, "") }

// PrintableText is [Printable] for text of several lines: newlines and tabs stay.
func PrintableText(s string) string { return printable(s, "\n\t") }

func printable(s, keep string) string {
	bad := func(r rune) bool { return !unicode.IsGraphic(r) && !strings.ContainsRune(keep, r) }
	if utf8.ValidString(s) && strings.IndexFunc(s, bad) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case !bad(r):
			b.WriteString(s[:n])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r <= 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		s = s[n:]
	}
	return b.String()
}
