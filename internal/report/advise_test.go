package report

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/xferbench/xferbench/internal/analysis"
)

// prompts of Qwen2.5-7B: whole KV blocks of 16 tokens at 57,344 B.
func prompts(tokens ...int64) (ps []analysis.Prompt) {
	for _, n := range tokens {
		ps = append(ps, analysis.Prompt{Tokens: n, Bytes: (n + 15) / 16 * 16 * 57_344, N: 1})
	}
	return ps
}

func advise(t *testing.T, o AdviseOptions, names ...string) (string, error) {
	t.Helper()
	var paths []string
	for _, n := range names {
		paths = append(paths, filepath.Join(recordsDir, n+".jsonl"))
	}
	if o.Format == "" {
		o.Format = "text"
	}
	o.Model, o.Source = "Qwen2.5-7B", "--tokens"
	if o.Concurrency == 0 {
		o.Concurrency = 1
	}
	if o.Worth.Ns == 0 {
		o.Worth.Fraction = 0.05
	}
	var b bytes.Buffer
	err := Advise(&b, paths, o)
	return b.String(), err
}

// docs/advise.md shows this one; its command makes the same options.
func pageOptions() AdviseOptions {
	return AdviseOptions{Deployment: analysis.Deployment{Prompts: prompts(200, 500, 1000, 2000), Concurrency: 4, PricePerHour: 98, TTFTNs: []float64{60e6, 250e6}}}
}

func TestAdviseGolden(t *testing.T) {
	for _, format := range AdviseFormats() {
		o := pageOptions()
		o.Format = format
		out, err := advise(t, o, "sweep")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "advise."+map[string]string{"text": "txt", "markdown": "md", "json": "json"}[format], []byte(out))
	}
	out, err := advise(t, AdviseOptions{Deployment: analysis.Deployment{Prompts: prompts(4000, 7648), PricePerHour: 98, Worth: analysis.Worth{Ns: 60e6}}}, "two-providers", "ttft")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "advise-ttft.txt", []byte(out))
}

func TestAdvisePage(t *testing.T) {
	out, err := advise(t, pageOptions(), "sweep")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/advise.md")
	if err != nil {
		t.Fatal(err)
	}
	// The place of the records is not the reader's.
	out = strings.ReplaceAll(out, recordsDir+"/", "")
	if !strings.Contains(string(doc), "```\n"+out+"```\n") {
		t.Errorf("docs/advise.md does not hold\n%s", out)
	}
}

func TestAdviseOutcomes(t *testing.T) {
	at := func(tokens ...int64) AdviseOptions {
		return AdviseOptions{Deployment: analysis.Deployment{Prompts: prompts(tokens...)}}
	}
	arm := at(7648)
	arm.Arm = "none"
	for name, tt := range map[string]struct {
		o    AdviseOptions
		of   []string
		want error
		say  string
	}{
		"no size near":      {at(7648), []string{"same-twice"}, ErrTooFew, "run xferbench sweep --provider tcp --size 438566912"},
		"emulated":          {at(7648), []string{"emulated"}, ErrTooFew, "no record has a transfer within a factor of two"},
		"only ttft":         {at(7648), []string{"ttft"}, ErrRefused, "no record of raw transfers"},
		"ttft twice":        {at(7648), []string{"two-providers", "ttft", "ttft"}, ErrRefused, "both of TTFT runs"},
		"no file":           {at(7648), []string{"none"}, ErrRefused, "no such file"},
		"no such arm":       {arm, []string{"two-providers", "ttft"}, ErrRefused, `no valid request of an arm "none"`},
		"one of two sizes":  {at(1000, 8000), []string{"sweep"}, nil, "not known: tcp READ contiguous at p95: 458.75 MB is beyond a factor of two of record A"},
		"too few":           {at(7648), []string{"short"}, nil, "undecided between"},
		"two records":       {at(7648), []string{"two-providers", "another-day"}, nil, "transports of different records are not compared"},
		"failed check":      {at(7648), []string{"failed-check"}, nil, "rows whose data check failed advise nothing: tcp READ fragmented"},
		"one size, another": {at(5000), []string{"two-providers"}, nil, "measure that size itself"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := advise(t, tt.o, tt.of...)
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			for l := range strings.Lines(out) {
				if n := utf8.RuneCountInString(strings.TrimRight(l, "\n")); n > 80 {
					t.Errorf("%d columns: %s", n, l)
				}
			}
			if err != nil {
				out += err.Error()
			}
			if flat := strings.Join(strings.Fields(out), " "); !strings.Contains(flat, tt.say) {
				t.Errorf("%q is not in\n%s", tt.say, out)
			}
		})
	}
}
