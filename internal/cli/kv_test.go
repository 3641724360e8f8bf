package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/internal/kv"
)

// update rewrites the golden files of this package's tests.
var update = flag.Bool("update", false, "rewrite the golden files")

func runKV(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := newKVCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.Execute()
	return out.String(), err
}

func TestKVGolden(t *testing.T) {
	for name, args := range map[string][]string{
		"default.txt":   nil,
		"70b.txt":       {"--model=Llama-3.1-70B"},
		"438MB.txt":     {"--size", "438MB,458752000"},
		"split.md":      {"--kv-layout=split", "--tokens=4000,8000", "--format=markdown"},
		"r1-tp8.txt":    {"--model=deepseek-ai/DeepSeek-R1", "--tensor-parallel=8", "--tokens=1000:128000:x4", "--kv-layout=split"},
		"crossing.txt":  {"--model=Qwen3.5-35B-A3B", "--connector=nixl", "--tokens=1000,8000", "--tensor-parallel=2"},
		"crossing.json": {"--model=gpt-oss-120b", "--connector=nixl-push", "--tokens=8000", "--format=json", "--prefill-tensor-parallel=2", "--draft-layers=1", "--hybrid=false"},
		"gpt-oss.txt":   {"--model=gpt-oss-120b", "--tokens=8000", "--link=100Gbit/s"},
		"70b-tp16.csv":  {"--model=Llama-3.1-70B", "--tensor-parallel=16", "--tokens=8000", "--size=1GB", "--link=25GB/s,3200Gbps", "--format=csv"},
		"fp8.json":      {"--model=../../testdata/models/Qwen3-8B/config.json", "--dtype=fp8", "--tokens=100", "--block-tokens=128", "--link=100Gbit/s", "--format=json"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := runKV(t, args...)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "kv", name)
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("kv %s (-want +got):\n%s", strings.Join(args, " "), d)
			}
			if strings.HasSuffix(name, ".txt") {
				for line := range strings.Lines(got) {
					if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
						t.Errorf("%d columns: %s", n, line)
					}
				}
			}
		})
	}
}

// TestKVDocs holds that the outputs in docs/kv.md are what the command prints.
func TestKVDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/kv.md")
	if err != nil {
		t.Fatal(err)
	}
	crossing := []string{"--connector", "nixl", "--tokens", "8000", "--engine-version", "0.32.0"}
	for _, args := range [][]string{nil, {"--size", "438MB,458752000"}, append([]string{"--model", "gpt-oss-120b"}, crossing...)} {
		out, err := runKV(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(doc), "```\n"+out+"```\n") {
			t.Errorf("docs/kv.md does not hold the output of kv %s", strings.Join(args, " "))
		}
	}
	for _, args := range [][]string{{"--size", "438M"}, {"--tensor-parallel", "8"}} {
		_, err := runKV(t, args...)
		if err == nil || !strings.Contains(string(doc), "      "+err.Error()+"\n") {
			t.Errorf("docs/kv.md does not hold the error of kv %s: %v", strings.Join(args, " "), err)
		}
	}
}

// TestKVDocsCrossings runs the command beside each line of the table of what crosses,
// and holds that every built-in model and every name of a type is on the page.
func TestKVDocsCrossings(t *testing.T) {
	doc, err := os.ReadFile("../../docs/kv.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `xferbench kv (.*)` \\| (.*) \\| (.*) \\| (.*) \\|$").FindAllStringSubmatch(string(doc), -1)
	if len(rows) != 10 {
		t.Errorf("%d models in the table of what crosses, want 10", len(rows))
	}
	for _, r := range rows {
		out, err := runKV(t, append(strings.Fields(r[1]), "--connector", "nixl", "--tokens", "8000", "--engine-version", "0.32.0")...)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"\n8,000 tokens: " + r[2] + " B (", "\n" + r[3] + " descriptors in " + r[4] + " transfer"} {
			if !strings.Contains(out, want) {
				t.Errorf("kv %s does not print %q:\n%s", r[1], want, out)
			}
		}
	}
	for _, name := range kv.Presets() {
		if !strings.Contains(string(doc), "`"+name+"`") {
			t.Errorf("docs/kv.md does not name the model %s", name)
		}
	}
}

// TestKVCSV reads the machine-readable form back and holds its arithmetic,
// which the golden file alone would not.
func TestKVCSV(t *testing.T) {
	out, err := runKV(t, "--tokens=8000", "--size=438MB", "--link=100Gbit/s", "--format=csv")
	if err != nil {
		t.Fatal(err)
	}
	recs, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range recs[1:] {
		got = append(got, strings.Join(r[6:], " "))
	}
	want := []string{ // asked_tokens asked_bytes shape tokens blocks bytes descriptors descriptor_bytes ideal_ns
		"8000 0 merged 8000 500 458752000 28 16384000 36700160",
		"8000 0 fragmented 8000 500 458752000 14000 32768 36700160",
		"8000 0 contiguous 8000 0 458752000 1 458752000 36700160",
		"0 438000000 merged 7648 478 438566912 28 15663104 35085353",
		"0 438000000 fragmented 7648 478 438566912 13384 32768 35085353",
		"0 438000000 contiguous 7638 0 438000000 1 438000000 35040000",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("csv (-want +got):\n%s", d)
	}
}

func TestKVJSON(t *testing.T) {
	out, err := runKV(t, "--model=DeepSeek-V3", "--tokens=16", "--link=8Gbit/s", "--format=json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		BytesPerToken int64 `json:"bytes_per_token"`
		LatentDim     int   `json:"latent_dim"`
		Rows          []struct {
			Shape string `json:"shape"`
			Bytes int64  `json:"bytes"`
			Ideal []struct {
				Time int64 `json:"time_ns"`
			} `json:"ideal"`
		} `json:"rows"`
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	if v.BytesPerToken != 70272 || v.LatentDim != 576 || len(v.Rows) != 3 || v.Rows[0].Bytes != 1124352 || v.Rows[0].Ideal[0].Time != 1124352 {
		t.Errorf("got %+v", v)
	}
}

func TestKVUsageErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"argument":     {[]string{"8000"}, `kv takes no arguments, but got "8000"`},
		"model":        {[]string{"--model=gpt-5"}, `unknown model "gpt-5"`},
		"no config":    {[]string{"--model=/nonexistent/config.json"}, "no such file"},
		"dtype":        {[]string{"--dtype=fp4"}, `unknown dtype "fp4"`},
		"connector":    {[]string{"--connector=mooncake"}, `unknown connector "mooncake"; use nixl or nixl-push`},
		"crossing csv": {[]string{"--connector=nixl", "--format=csv"}, "--format \"csv\" with --connector: use text or json"},
		"crossing MB":  {[]string{"--connector=nixl", "--size=1MB"}, "--size does not go with --connector"},
		"no connector": {[]string{"--draft-layers=1"}, "--draft-layers is about what crosses: give --connector too"},
		"few ranks":    {[]string{"--connector=nixl", "--prefill-tensor-parallel=-1"}, "--prefill-tensor-parallel is -1"},
		"layout":       {[]string{"--kv-layout=both"}, "--kv-layout: unknown KV layout"},
		"format":       {[]string{"--format=xml"}, "use text, markdown, csv, json"},
		"tp":           {[]string{"--tensor-parallel=8"}, "does not divide the 28 attention heads"},
		"tp zero":      {[]string{"--tensor-parallel=0"}, "at least 1"},
		"block tokens": {[]string{"--block-tokens=-1"}, "want 1 to"},
		"zero size":    {[]string{"--size=0"}, "either tokens or bytes"},
		"overflow":     {[]string{"--tokens=9223372036854775807"}, "too large"},
	} {
		out, err := runKV(t, tc.args...)
		if exitCode(err) != 2 || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want a usage error with %q", name, err, tc.want)
		}
		if out != "" {
			t.Errorf("%s: wrote %q", name, out)
		}
	}
	// Bad flag values are pflag's errors; the root command gives them code 2.
	if _, err := runKV(t, "--size=438M"); err == nil || !strings.Contains(err.Error(), "say 438MB (438,000,000 B) or 438MiB (459,276,288 B)") {
		t.Errorf("438M: %v", err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestKVWriteFails(t *testing.T) {
	cmd := newKVCommand()
	cmd.SetOut(failingWriter{})
	cmd.SetArgs([]string{})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if err := cmd.Execute(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a failed write gave %v", err)
	}
}
