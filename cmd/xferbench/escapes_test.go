package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// evil is text that drives a terminal or hides: a colour, a title, C1, bidi, and
// a byte that is no UTF-8.
const evil = "\x1b[31m\x1b]0;t\x07\u009b31m\u202e\x9b"

// evilJSON is the same inside a JSON text, as far as that can hold it.
const evilJSON = `\u001b[31m\u001b]0;t\u0007\u009b31m\u202e`

// tame holds output to be free of what drives a terminal, and to show the
// escapes in its place.
func tame(t *testing.T, text string) {
	t.Helper()
	text = strings.ReplaceAll(text, "\r\n", "\n")
	if i := strings.IndexFunc(text, func(r rune) bool {
		return !unicode.IsGraphic(r) && r != '\n' && r != '\t' || r == unicode.ReplacementChar
	}); i >= 0 {
		t.Errorf("%q reaches the terminal in\n%s", text[i:min(len(text), i+20)], text)
	}
	if !strings.Contains(text, `\x1b[31m`) && !strings.Contains(text, `\x1b\[31m`) {
		t.Errorf("the escape is not shown in\n%q", text)
	}
}

// Whatever an engine says reaches the terminal as text.
func TestEnginesDoNotDriveTheTerminal(t *testing.T) {
	models := whole(`{"data":[{"id":"m` + evilJSON + `"}]}`)
	args := []string{"--no-record", "--prompt-tokens", "16", "--iterations", "1", "--blocks", "1", "--warmup", "0", "--max-tokens", "2", "--settle", "10ms"}
	for name, tt := range map[string]struct {
		other map[string]func(net.Conn)
		args  []string
		code  int
		pair  bool // of a prefill and a decode engine
	}{
		"model's name":  {map[string]func(net.Conn){"/v1/models": models}, []string{"--model", "m"}, 3, false},
		"a warning":     {map[string]func(net.Conn){"/v1/models": models, "/metrics": whole("vllm:prompt_tokens_total 0\n")}, nil, 5, true},
		"status":        {map[string]func(net.Conn){"/version": endlessly("HTTP/1.1 500 x\r\nContent-Length: 40\r\n\r\n"+evil, "", 0)}, nil, 3, false},
		"redirect":      {map[string]func(net.Conn){"/version": endlessly("HTTP/1.1 307 x\r\nLocation: /\x9b\u009b\u202e\r\nContent-Length: 40\r\n\r\n"+evil, "", 0)}, nil, 3, false},
		"metrics":       {map[string]func(net.Conn){"/metrics": whole("vllm:prompt_tokens_total{a=\"" + evil + "} 0\n")}, nil, 5, false},
		"error's text":  {map[string]func(net.Conn){"/v1/completions": endlessly("HTTP/1.1 400 Bad\r\n\r\n"+evil, evil, 0), "/metrics": whole("vllm:prompt_tokens_total 0\n")}, nil, 5, false},
		"error event":   {map[string]func(net.Conn){"/v1/completions": whole("data: {\"error\":\"" + "\u009b\u202e" + `\x1b[31m` + "\"}\n\n"), "/metrics": whole("vllm:prompt_tokens_total 0\n")}, nil, 5, false},
		"broken stream": {map[string]func(net.Conn){"/v1/completions": whole("data: " + evil + "\n\n"), "/metrics": whole("vllm:prompt_tokens_total 0\n")}, nil, 5, false},
	} {
		engines := []string{"--url", engineLike(t, tt.other)}
		if tt.pair {
			engines = []string{"--prefill", engines[1], "--decode", engineLike(t, tt.other)}
		}
		p := xferbench(t, slices.Concat([]string{"ttft"}, engines, args, tt.args)...)
		defer t.Run(name, func(t *testing.T) {
			p.t = t
			p.exits(tt.code)
			text := p.Errs.String() + p.Out.String()
			if name == "broken stream" || name == "error event" {
				text += `\x1b[31m` // Go's words quote, or JSON's do, what is told of it
			}
			tame(t, text)
		})
	}
}

// What a client calls its request stands in the proxy's log.
func TestClientsDoNotDriveTheProxysTerminal(t *testing.T) {
	refusing := rawEngine(t, func(c net.Conn, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(c, "HTTP/1.1 500 x\r\nConnection: close\r\n\r\n")
	})
	p, address := frontOf(t, refusing, refusing)
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\nX-Request-Id: my\x9b31m\u202e\u009b\r\n\r\n%s", `{"prompt":"x"}`); err != nil {
		t.Fatal(err)
	}
	p.Until("the request is in the log", func() bool { return strings.Contains(p.Errs.String(), "request my") })
	if !strings.Contains(p.Errs.String(), `my\x9b31m\u202e\u009b`) {
		t.Errorf("%q", p.Errs.String())
	}
}

// What a record says, which came from another host, is text in every format
// that is text.
func TestRecordsDoNotDriveTheTerminal(t *testing.T) {
	dir := t.TempDir()
	for kind, args := range map[string][]string{
		"raw": {"--provider", "tcp", "--size", "64KiB", "--blocks", "6", "--iterations", "1"},
		"ttft": {"ttft", "--sim", "--sim-prefill-time", "1ms", "--sim-prefill-per-token", "0", "--sim-step-time", "1ms", "--sim-blocks", "20",
			"--prompt-tokens", "64", "--max-tokens", "2", "--iterations", "6", "--settle", "200ms"},
	} {
		t.Run(kind, func(t *testing.T) {
			file := filepath.Join(dir, kind+".jsonl")
			p := xferbench(t, append(args, "--record", file)...)
			p.exits(0)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text := string(b)
			for _, key := range []string{"hostname", "os", "cpu_model", "name", "provider", "arm", "shape", "id"} {
				text = strings.ReplaceAll(text, `"`+key+`":"`, `"`+key+`":"`+evilJSON)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, format := range []string{"text", "markdown", "csv", "benchfmt", "html", "json"} {
				t.Run(format, func(t *testing.T) {
					p := xferbench(t, "report", "--format", format, file)
					p.exits(0)
					text := p.Out.String() + p.Errs.String()
					if format == "json" {
						text = strings.ReplaceAll(text, `\u001b`, `\x1b`) // JSON's own escape
					}
					tame(t, text)
				})
			}
			t.Run("compare", func(t *testing.T) {
				p := xferbench(t, "compare", file, file)
				<-p.Done
				tame(t, p.Out.String()+p.Errs.String()+`\x1b[31m`)
			})
		})
	}
}

// What is on the command line is not trusted either: it is pasted.
func TestErrorsDoNotDriveTheTerminal(t *testing.T) {
	for _, args := range [][]string{{"--provider", "x" + evil}, {"nowhere.invalid:1#" + evil}, {"report", evil}, {"kv", "--model", evil}, {evil}} {
		p := xferbench(t, args...)
		<-p.Done
		tame(t, p.Out.String()+p.Errs.String()+`\x1b[31m`)
	}
}
