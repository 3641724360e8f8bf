package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// rawEngine answers each connection as h does: nothing that HTTP asks for is
// given.
func rawEngine(t *testing.T, h func(net.Conn, *http.Request)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					h(c, r)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// frontOf starts a proxy and returns its address.
func frontOf(t *testing.T, prefill, decode string, args ...string) (p *proc, address string) {
	t.Helper()
	p = xferbench(t, append([]string{"proxy", "--listen", "127.0.0.1:0", "--prefill", prefill, "--decode", decode}, args...)...)
	p.Until("the proxy says where it is", func() bool {
		var ok bool
		address, ok = strings.CutPrefix(p.Out.String(), "proxy: http://")
		return ok && strings.HasSuffix(address, "\n")
	})
	return p, strings.TrimSpace(address)
}

// The client's key, trace, session and query reach both engines, and what the
// engine says reaches the client; an engine cannot make a tunnel, and one late
// check takes none out.
func TestProxyPassesOn(t *testing.T) {
	heads := make(chan string, 10)
	answering := func(answer string) string {
		var late atomic.Bool
		late.Store(true)
		return rawEngine(t, func(c net.Conn, r *http.Request) {
			if r.URL.Path == "/health" {
				if late.Swap(false) {
					time.Sleep(3 * time.Second)
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			heads <- strings.Join([]string{r.URL.RequestURI(), r.Header.Get("Authorization"), r.Header.Get("traceparent"), r.Header.Get("X-Session-Id")}, " ")
			_, _ = io.WriteString(c, answer)
		})
	}
	const params = `{"kv_transfer_params":{"do_remote_prefill":true,"remote_engine_id":"e","remote_block_ids":[1],"remote_host":"h","remote_port":1}}`
	prefill := answering("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + params)
	decode := answering("HTTP/1.1 429 Slow down\r\nRetry-After: 17\r\nConnection: close\r\n\r\nin a while")
	tunnel := answering("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhello")
	p, address := frontOf(t, prefill, decode, "--health-every", "500ms")
	_, tunnelled := frontOf(t, prefill, tunnel)
	send := func(method, address, path, body string) (int, http.Header, string) {
		t.Helper()
		req, err := http.NewRequest(method, "http://"+address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Authorization": {"key"}, "Traceparent": {"trace"}, "X-Session-Id": {"session"}}
		res, err := (&http.Client{Timeout: time.Minute}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, res.Header, string(b)
	}
	for _, body := range []string{`{"prompt":["x"]}`, `{"prompt":[[1,2,3]],"n":1.0}`} {
		status, header, text := send("POST", address, "/v1/completions?a=b", body)
		if status != 429 || header.Get("Retry-After") != "17" || text != "in a while" {
			t.Errorf("%s: %d %v %s", body, status, header, text)
		}
		for range 2 {
			if got := <-heads; got != "/v1/completions?a=b key trace session" {
				t.Errorf("a leg has %q", got)
			}
		}
	}
	if status, _, _ := send("GET", address, "/v1/models", ""); status != 429 || <-heads != "/v1/models key trace session" {
		t.Errorf("models: %d", status)
	}
	if status, _, text := send("POST", tunnelled, "/v1/completions", `{"prompt":"x"}`); status != 502 || !strings.Contains(text, "101") {
		t.Errorf("tunnel: %d %s", status, text)
	}
	time.Sleep(4 * time.Second) // the late check is over
	if strings.Contains(p.Errs.String(), "is out") {
		t.Errorf("a late check:\n%s", p.Errs.String())
	}
}

// Bodies of 64 MiB that were announced, and of which little comes, cost what
// came; who sends a whole request is served meanwhile.
func TestProxySlowBodies(t *testing.T) {
	engine := rawEngine(t, func(c net.Conn, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		const body = `{"kv_transfer_params":{"do_remote_prefill":true,"remote_engine_id":"e","remote_block_ids":[1],"remote_host":"h","remote_port":1}}`
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	})
	p, address := frontOf(t, engine, engine)
	for range 1100 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 67108864\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
	}
	client := &http.Client{Timeout: time.Minute}
	res, err := client.Post("http://"+address+"/v1/completions", "application/json", strings.NewReader(`{"prompt":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(res.Body)
		t.Errorf("a whole request beside them: %s %s", res.Status, b)
	}
	if hwm := p.kilobytes("VmHWM"); hwm > 200_000 {
		t.Errorf("1100 slow bodies took %d kB", hwm)
	} else {
		t.Logf("VmHWM %d kB", hwm)
	}
	p.Signal(syscall.SIGTERM)
	p.exits(0)
}
