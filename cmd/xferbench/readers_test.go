package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// engineLike answers what an engine is asked before a run; a path in other is
// answered by that.
func engineLike(t *testing.T, other map[string]func(net.Conn)) (url string) {
	t.Helper()
	return rawEngine(t, func(c net.Conn, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if h := other[r.URL.Path]; h != nil {
			h(c)
			return
		}
		whole(map[string]string{"/version": `{"version":"0.32.0"}`, "/v1/models": `{"data":[{"id":"m"}]}`}[r.URL.Path])(c)
	})
}

// whole is an answer as it should be.
func whole(body string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	}
}

// endlessly sends head, and then piece over and over, with a pause.
func endlessly(head, piece string, pause time.Duration) func(net.Conn) {
	return func(c net.Conn) {
		_, err := io.WriteString(c, head)
		for err == nil {
			_, err = io.WriteString(c, piece)
			time.Sleep(pause)
		}
	}
}

const page = "HTTP/1.1 200 OK\r\n\r\n"

// Servers that do not end, send elsewhere or speak something else are given up,
// with words about it.
func TestTTFTServersThatAreNone(t *testing.T) {
	t.Parallel() // it waits more than it works
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	long := strings.Repeat("x", 1<<16)
	for name, tt := range map[string]struct {
		url  string
		want string
	}{
		"headers without end":  {engineLike(t, map[string]func(net.Conn){"/version": endlessly("HTTP/1.1 200 OK\r\nX: ", long, 0)}), "headers exceeded"},
		"headers one by one":   {engineLike(t, map[string]func(net.Conn){"/version": endlessly("HTTP/1.1 200 OK\r\n", "X: y\r\n", time.Second)}), "not whole after 10s"},
		"page without end":     {engineLike(t, map[string]func(net.Conn){"/v1/models": endlessly(page, long, 0)}), "/v1/models: given up: it is longer than 1048576 bytes"},
		"metrics without end":  {engineLike(t, map[string]func(net.Conn){"/metrics": endlessly(page, strings.Repeat("a 1\n", 1000), 0)}), "/metrics: given up: it is longer than"},
		"metrics byte by byte": {engineLike(t, map[string]func(net.Conn){"/metrics": endlessly(page, "a", time.Second)}), "/metrics: given up: it was not whole after 10s"},
		"error byte by byte":   {engineLike(t, map[string]func(net.Conn){"/version": endlessly("HTTP/1.1 401 Unauthorized\r\n\r\nno key", ".", time.Second)}), "401 Unauthorized: no key"},
		"error without end":    {engineLike(t, map[string]func(net.Conn){"/version": endlessly("HTTP/1.1 500 Oops\r\n\r\nbad day", long, 0)}), "bad dayxxx"},
		"redirect":             {engineLike(t, map[string]func(net.Conn){"/version": endlessly("HTTP/1.1 307 There\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", "", time.Second)}), "it redirects to http://elsewhere/, which is not followed"},
		"TLS":                  {strings.Replace(secure.URL, "https", "http", 1), "the server speaks TLS: write https://"},
		"TLS alert":            {engineLike(t, map[string]func(net.Conn){"/version": func(c net.Conn) { _, _ = io.WriteString(c, "\x15\x03\x01\x00\x02\x02\x46") }}), "the server speaks TLS: write https://"},
	} {
		// All wait at the same time.
		p := xferbench(t, "ttft", "--url", tt.url, "--no-record", "--prompt-tokens", "16", "--iterations", "6")
		defer t.Run(name, func(t *testing.T) {
			p.t = t
			p.exits(3)
			p.says(tt.want)
		})
	}
}

// What a server does to the requests themselves is in the text, in its own words.
func TestTTFTRequestsThatGoWrong(t *testing.T) {
	t.Parallel() // it waits more than it works
	event := "data: {\"choices\":[{\"text\":\"a\"}]}\n\n"
	for name, tt := range map[string]struct {
		answer func(net.Conn)
		want   string
	}{
		"its own words":          {endlessly("HTTP/1.1 400 Bad Request\r\nContent-Length: 40\r\n\r\n", `{"error":{"message":"no room at the inn"`, time.Second), "no room at the inn"},
		"error byte by byte":     {endlessly("HTTP/1.1 400 Bad Request\r\n\r\nno patience", ".", time.Second), "no patience"},
		"tokens without end":     {endlessly(page, event, 0), "2 tokens were asked for"},
		"event byte by byte":     {endlessly(page+"data: ", "x", time.Second), "request's time"},
		"event without end":      {endlessly(page+"data: ", strings.Repeat("x", 1<<16), 0), "event too long"},
		"headers byte by byte":   {endlessly("HTTP/1.1 200 OK\r\n", "X: y\r\n", time.Second), "request's time"},
		"nothing ends after all": {endlessly(page+event+event+"data: [DONE]\n\n", ":\n", time.Second), "did not end within 2s after [DONE]"},
		"more after all":         {endlessly(page+event+event+"data: [DONE]\n\n", strings.Repeat(":\n", 1000), 0), "goes on after [DONE]"},
	} {
		url := engineLike(t, map[string]func(net.Conn){"/v1/completions": tt.answer, "/metrics": whole("vllm:prompt_tokens_total 0\n")})
		p := xferbench(t, "ttft", "--url", url, "--no-record", "--prompt-tokens", "16", "--iterations", "1", "--blocks", "1", "--warmup", "0", "--max-tokens", "2", "--settle", "10ms", "--timeout", "10s")
		defer t.Run(name, func(t *testing.T) {
			p.t = t
			p.exits(5)
			if !strings.Contains(strings.ReplaceAll(p.Out.String(), "\n ", ""), tt.want) {
				t.Errorf("no %q in\n%s", tt.want, p.Out.String())
			}
		})
	}
}
