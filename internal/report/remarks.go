package report

import (
	"fmt"
	"slices"
)

// remarks are sentences about things, in order. The same sentence about many is
// said once.
type remarks struct {
	texts []string
	about map[string][]string
}

func (m *remarks) add(name, text string) {
	if m.about == nil {
		m.about = map[string][]string{}
	}
	if _, known := m.about[text]; !known {
		m.texts = append(m.texts, text)
	}
	if !slices.Contains(m.about[text], name) {
		m.about[text] = append(m.about[text], name)
	}
}

// maxNamed is about how many things a sentence is said one by one.
const maxNamed = 3

// sentences begin with what they are about; things is the plural of that.
func (m *remarks) sentences(things string) (out []string) {
	for _, text := range m.texts {
		names := m.about[text]
		if len(names) > maxNamed {
			names = []string{fmt.Sprintf("%d %s, %s to %s", len(names), things, names[0], names[len(names)-1])}
		}
		for _, n := range names {
			out = append(out, n+": "+text)
		}
	}
	return out
}
