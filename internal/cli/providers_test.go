package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/internal/providers"
)

// runProviders runs the subcommand in this process.
func runProviders(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := newProvidersCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestProvidersProbe(t *testing.T) {
	out, err := runProviders(t, "--probe", "memcpy", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var a struct{ Row providers.Row }
	if err := json.Unmarshal([]byte(out), &a); err != nil || a.Row.Provider != "memcpy" || a.Row.Outcome != providers.Runs {
		t.Errorf("%v: %s", err, out)
	}
}

func TestProvidersUsage(t *testing.T) {
	for _, args := range [][]string{{"--probe", "nosuch"}, {"--timeout", "0s"}, {"tcp"}} {
		if _, err := runProviders(t, args...); exitCode(err) != 2 {
			t.Errorf("%v: %v", args, err)
		}
	}
	if out, err := runProviders(t, "--help"); err != nil || strings.Contains(out, "--probe") {
		t.Errorf("--probe is not hidden (%v): %s", err, out)
	}
}

// docs/providers.md describes every key of the document.
func TestProvidersDocHasEveryKey(t *testing.T) {
	doc, err := os.ReadFile("../../docs/providers.md")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	src, err := os.ReadFile("../providers/report.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`json:"([a-z0-9_]+)`).FindAllStringSubmatch(string(src), -1) {
		keys[m[1]] = true
	}
	if len(keys) < 40 {
		t.Fatalf("only %d keys found in the source", len(keys))
	}
	for k := range keys {
		if !regexp.MustCompile("`[^`]*\\b" + k + "\\b[^`]*`").Match(doc) {
			t.Errorf("docs/providers.md does not name %q", k)
		}
	}
}
