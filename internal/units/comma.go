package units

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// oneNumber are the ways in which s, which has commas, may be meant as a single
// number: with thousands separators ("438,566,912"), or with a decimal comma
// ("1,5GB"), each written without it. A size that this program prints has the
// former, and half of the world writes the latter.
func oneNumber(s string) (readings []string) {
	parts := strings.Split(s, ",")
	first, last := parts[0], parts[len(parts)-1]
	n := digits(last)
	if len(parts) < 2 || first == "" || digits(first) != len(first) || n == 0 {
		return nil
	}
	grouped := len(first) <= 3 && first[0] != '0' && n == 3
	for _, p := range parts[1 : len(parts)-1] {
		grouped = grouped && len(p) == 3 && digits(p) == 3
	}
	if grouped {
		readings = append(readings, strings.Join(parts, ""))
	}
	// "1,5" alone is a list of two, as every list of small numbers is.
	if len(parts) == 2 && (n < len(last) || first == "0") && !strings.HasPrefix(last[n:], ".") {
		readings = append(readings, first+"."+last)
	}
	return readings
}

// digits is how many digits s begins with.
func digits(s string) int {
	return len(s) - len(strings.TrimLeft(s, "0123456789"))
}

// ambiguous is the error of a list that may be meant as one number: nothing
// tells a comma between two values from one inside a value.
func ambiguous(s string) error {
	// A range's ends and steps are numbers of their own.
	for part := range strings.SplitSeq(s, ":") {
		one := oneNumber(part)
		if one == nil {
			continue
		}
		list := strings.Split(part, ",")
		return fmt.Errorf("%q can be read two ways: as %s (one number), or as %s (%d of them): write %s, or give the flag once for each",
			part, strings.Join(one, " or "), and(list), len(list), strings.Join(one, " or "))
	}
	return nil
}

// and writes a list in words.
func and(list []string) string {
	last := len(list) - 1
	return strings.Join(list[:last], ", ") + " and " + list[last]
}

// plainList is a flag that takes a list, with the rule of [ambiguous].
type plainList struct{ pflag.Value }

// Set implements pflag.Value.
func (v plainList) Set(s string) error {
	if err := ambiguous(s); err != nil {
		return err
	}
	return v.Value.Set(s)
}

// String implements pflag.Value.
func (v plainList) String() string {
	if v.Value == nil {
		return ""
	}
	return strings.Trim(v.Value.String(), "[]")
}

// GuardLists has the flags of fs that are lists of plain numbers refuse a list
// that may be meant as one number, as [ParseByteList] does: "1,000". It
// may be called again when flags were added.
func GuardLists(fs *pflag.FlagSet) {
	fs.VisitAll(func(f *pflag.Flag) {
		_, done := f.Value.(plainList)
		if !done && slices.Contains([]string{"intSlice", "float64Slice"}, f.Value.Type()) {
			f.Value = plainList{f.Value}
			f.DefValue = f.Value.String()
		}
	})
}
