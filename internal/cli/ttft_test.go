package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xferbench/xferbench/internal/record"
)

// runSub runs a subcommand as the root would.
func runSub(t *testing.T, ctx context.Context, cmd *cobra.Command, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.ExecuteContext(ctx)
	return out.String(), errs.String(), err
}

// smallSim are flags for simulated engines that take no time.
var smallSim = []string{"--sim", "--sim-prefill-time=1ms", "--sim-prefill-per-token=0", "--sim-step-time=1ms", "--sim-blocks=20", "--prompt-tokens=64", "--max-tokens=2", "--no-record", "--settle=200ms"}

func TestTTFTDemo(t *testing.T) {
	stdout, _, err := runSub(t, context.Background(), newTTFTCommand(), append(smallSim, "--iterations=6", "--seed=5")...)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ttft run ", "# design: random order in blocks, seed 5\n", "# SIMULATED", "# 12 requests, 0 invalid (0 %)", "unified", "two-leg", " sim\n", "block pool: 20 blocks, 4 a request"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
}

func TestTTFTRecordOnStdout(t *testing.T) {
	stdout, _, err := runSub(t, context.Background(), newTTFTCommand(), append(smallSim, "--iterations=6", "--json=-", "--rate=200")...)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := record.Read(strings.NewReader(stdout))
	if err != nil {
		t.Fatal(err)
	}
	if len(rec.Requests) != 12+2+4 || rec.End == nil || rec.Requests[17].Load != record.LoadOpen {
		t.Errorf("%d requests, end %+v", len(rec.Requests), rec.End)
	}
}

func TestTTFTExitCodes(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		code int
		want string
	}{
		"nothing named":       {nil, 2, "no engine is named"},
		"rate and level":      {[]string{"--sim", "--rate=1", "--concurrency=2"}, 2, "exclude each other"},
		"measurement":         {[]string{"--sim", "--measurement=later"}, 2, "online or offline"},
		"offline and rate":    {[]string{"--sim", "--measurement=offline", "--rate=1"}, 2, "sends all requests at once"},
		"prompt":              {[]string{"--sim", "--prompt=poem"}, 2, "tokens or text"},
		"fault":               {[]string{"--sim", "--sim-fault=bad luck"}, 2, "unknown fault"},
		"json":                {[]string{"--sim", "--json=file"}, 2, "a file is --record"},
		"record and none":     {[]string{"--sim", "--record=x", "--no-record"}, 2, "exclude each other"},
		"record in no folder": {[]string{"--sim", "--record=/does/not/exist"}, 2, "record"},
		"no engine there":     {[]string{"--url=http://127.0.0.1:1", "--no-record"}, 3, "is the engine up?"},
		"invalid":             {append(smallSim, "--iterations=6", "--sim-fault=null-params"), 5, "null-params 6"},
		"too few blocks":      {append(smallSim, "--iterations=4", "--blocks=2"), 6, "raise --blocks"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := runSub(t, context.Background(), newTTFTCommand(), tt.args...)
			if exitCode(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q with exit code %d", err, tt.want, tt.code)
			}
		})
	}
}

// lineReader gives the lines that a command prints while it runs.
type lineReader struct {
	*io.PipeWriter
	lines *bufio.Scanner
}

func newLineReader() *lineReader {
	r, w := io.Pipe()
	return &lineReader{w, bufio.NewScanner(r)}
}

func (l *lineReader) next(t *testing.T, prefix string) string {
	t.Helper()
	if !l.lines.Scan() {
		t.Fatalf("no line %q", prefix)
	}
	s, ok := strings.CutPrefix(l.lines.Text(), prefix)
	if !ok {
		t.Fatalf("line %q, want %q", l.lines.Text(), prefix)
	}
	return s
}

// sim and proxy serve until they are interrupted, and together they answer.
func TestSimAndProxyServe(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	start := func(cmd *cobra.Command, args ...string) *lineReader {
		out := newLineReader()
		cmd.SetOut(out)
		cmd.SetErr(io.Discard)
		cmd.SetArgs(args)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		go func() { ended <- cmd.ExecuteContext(ctx) }()
		return out
	}
	sim := start(newSimCommand(), "--listen=127.0.0.1:0", "--prefill-time=1ms", "--blocks=20")
	prefill, decode := sim.next(t, "simulated prefill engine: "), sim.next(t, "simulated decode engine: ")
	sim.next(t, "simulated unified engine: ")
	proxy := start(newProxyCommand(), "--listen=127.0.0.1:0", "--prefill="+prefill, "--decode="+decode)
	url := proxy.next(t, "proxy: ")
	res, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(`{"prompt":[1,2],"max_tokens":2}`))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || !strings.Contains(string(body), `"completion_tokens":2`) {
		t.Errorf("%s %s, %v", res.Status, body, err)
	}
	if err := res.Body.Close(); err != nil {
		t.Error(err)
	}
	cancel()
	for range 2 {
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("did not end")
		}
	}
}

func TestServersRefuseBadFlags(t *testing.T) {
	for name, tt := range map[string]struct {
		cmd  *cobra.Command
		args []string
	}{
		"proxy without engines": {newProxyCommand(), nil},
		"proxy URL":             {newProxyCommand(), []string{"--prefill=ftp://x", "--decode=http://y:1"}},
		"sim address":           {newSimCommand(), []string{"--listen=here"}},
		"sim port":              {newSimCommand(), []string{"--listen=127.0.0.1:http"}},
		"sim order":             {newSimCommand(), []string{"--pool-order=random"}},
		"sim model":             {newSimCommand(), []string{"--model=/none"}},
	} {
		_, _, err := runSub(t, context.Background(), tt.cmd, tt.args...)
		if exitCode(err) != 2 {
			t.Errorf("%s: %v, want a usage error", name, err)
		}
	}
}

// Each flag of the three commands is in its page, and no page names others.
func TestTTFTDocsNameEveryFlag(t *testing.T) {
	for page, cmd := range map[string]*cobra.Command{"ttft": newTTFTCommand(), "proxy": newProxyCommand(), "sim": newSimCommand()} {
		doc, err := os.ReadFile("../../docs/" + page + ".md")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if strings.HasPrefix(f.Name, "sim-") {
				return // those of sim, whose page has them
			}
			if !strings.Contains(string(doc), fmt.Sprintf("`--%s", f.Name)) {
				t.Errorf("docs/%s.md does not have --%s", page, f.Name)
			}
		})
	}
}
