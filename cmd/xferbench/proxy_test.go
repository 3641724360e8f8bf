package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
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
	p.until("the proxy says where it is", func() bool {
		var ok bool
		address, ok = strings.CutPrefix(p.out.String(), "proxy: http://")
		return ok && strings.HasSuffix(address, "\n")
	})
	return p, strings.TrimSpace(address)
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
	p.signal(syscall.SIGTERM)
	p.exits(0)
}
