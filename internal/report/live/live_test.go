package live

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/testenv/synth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines are those of a synthetic record.
func lines(t *testing.T) [][]byte {
	t.Helper()
	s := synth.Specs()["two-providers.jsonl"]
	b, err := s.Make()
	if err != nil {
		t.Fatal(err)
	}
	var lines [][]byte
	for l := range strings.Lines(string(b)) {
		lines = append(lines, []byte(l))
	}
	return lines
}

// served is a page at work.
type served struct {
	url      string
	stop     func()
	finished bool
	err      error
	done     chan struct{}
}

// start serves the record path, which is thought lost after quiet.
func start(t *testing.T, path string, wait, quiet time.Duration) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &served{url: "http://" + l.Addr().String(), stop: cancel, done: make(chan struct{})}
	o := Options{Path: path, Wait: wait}
	p := newPage(o)
	p.quiet = quiet
	go func() {
		defer close(s.done)
		s.finished, s.err = p.serve(ctx, l, o)
	}()
	t.Cleanup(func() { cancel(); <-s.done })
	return s
}

// end stops the page and is how long that took.
func (s *served) end() time.Duration {
	began := time.Now()
	s.stop()
	<-s.done
	return time.Since(began)
}

func get(t *testing.T, url string, header ...string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(b)
}

// until reads the states of the page up to one that ok takes.
func until(t *testing.T, s *served, ok func(state) bool) state {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var last state
	for sc := bufio.NewScanner(r.Body); sc.Scan(); {
		data, is := strings.CutPrefix(sc.Text(), "data: ")
		if !is {
			continue
		}
		if err := json.Unmarshal([]byte(data), &last); err != nil {
			t.Fatal(err)
		}
		if ok(last) {
			return last
		}
	}
	t.Fatalf("the last state was %+v", last)
	return last
}

// A record that is not there yet comes, grows and ends, and the page with it.
func TestGrows(t *testing.T) {
	all := lines(t)
	path := filepath.Join(t.TempDir(), "run.jsonl")
	s := start(t, path, 5*time.Second, time.Minute)
	if s1 := until(t, s, func(state) bool { return true }); s1.Text != "waiting for "+path || s1.Ended {
		t.Errorf("%+v", s1)
	}
	if _, body := get(t, s.url+"/report"); body != "waiting for "+path+"\n" {
		t.Errorf("before the record: %q", body)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	half := len(all) / 2
	write := func(ls [][]byte) {
		for _, l := range ls {
			if _, err := f.Write(l); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(all[:half])
	first := until(t, s, func(s state) bool { return s.Text == "running" })
	r, body := get(t, s.url+"/report")
	if tag := r.Header.Get("ETag"); tag != `"`+first.Version+`"` {
		t.Errorf("ETag %s, version %s", tag, first.Version)
	}
	if !strings.Contains(body, "ucx:tcp") || strings.Contains(body, "cut off") {
		t.Error("the report of a run under way has no rows, or says that it was cut off")
	}
	if r, _ := get(t, s.url+"/report", "If-None-Match", r.Header.Get("ETag")); r.StatusCode != http.StatusNotModified {
		t.Errorf("the same report once more: %s", r.Status)
	}
	write(all[half:])
	last := until(t, s, func(s state) bool { return s.Ended })
	if last.Text != "finished: ok" || last.Version == first.Version {
		t.Errorf("%+v after %+v", last, first)
	}
	if _, now := get(t, s.url+"/report"); now == body {
		t.Error("the report did not change")
	}
	if s.end(); s.err != nil || !s.finished {
		t.Errorf("finished %v, %v", s.finished, s.err)
	}
}

// The end of the page does not wait for those who look at it, whether they read
// or not.
func TestStops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.jsonl")
	s := start(t, path, time.Minute, time.Minute)
	var conns []net.Conn
	for range maxStreams {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := fmt.Fprint(c, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for _, c := range conns { // each stream has begun; nothing is read after this
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if r, _ := get(t, s.url+"/events"); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
		t.Errorf("one stream too many: %s", r.Status)
	}
	if took := s.end(); took > 2*time.Second || s.err != nil || s.finished {
		t.Errorf("ended after %v, finished %v, %v", took, s.finished, s.err)
	}
}

func TestErrors(t *testing.T) {
	all := lines(t)
	other := []byte(strings.Replace(string(all[0]), `"id":"two-providers"`, `"id":"another"`, 1))
	for name, tt := range map[string]struct {
		text string
		want error
		say  string
	}{
		"absent":   {"", ErrRecord, "after 100ms: start the run with --record"},
		"no run":   {"{\"type\":\"sample\"}\n", ErrRecord, "this is not a record of xferbench"},
		"two runs": {string(all[0]) + string(other), record.ErrSeveral, "run another after two-providers"},
		"damaged":  {string(all[0]) + "{\"type\":\"sample\",\"condition\":7,\"phase\":\"measure\",\"total_ns\":1}\n", ErrRecord, "which no line describes"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "run.jsonl")
			if tt.text != "" {
				if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := start(t, path, 100*time.Millisecond, time.Minute)
			select {
			case <-s.done:
			case <-time.After(5 * time.Second):
				t.Fatal("no end")
			}
			if !errors.Is(s.err, tt.want) || !strings.Contains(s.err.Error(), tt.say) {
				t.Errorf("%v, want %q", s.err, tt.say)
			}
		})
	}
}

// A record that nobody has open any more and that has no end line was cut off,
// unless lines come all the same.
func TestLost(t *testing.T) {
	all := lines(t)
	path := filepath.Join(t.TempDir(), "run.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(texts(all[:len(all)-1]), "")), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, path, 0, 300*time.Millisecond)
	until(t, s, func(s state) bool {
		return strings.HasPrefix(s.Text, "cut off: no process of this host writes the record")
	})
	if _, body := get(t, s.url+"/report"); !strings.Contains(body, "This run was cut off.") {
		t.Error("the report does not say so")
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(all[len(all)-1]); err != nil {
		t.Fatal(err)
	}
	until(t, s, func(s state) bool { return s.Ended })
}

func texts(all [][]byte) (out []string) {
	for _, l := range all {
		out = append(out, string(l))
	}
	return out
}

// Only names of this host are taken, whatever the port.
func TestHost(t *testing.T) {
	s := start(t, filepath.Join(t.TempDir(), "run.jsonl"), time.Minute, time.Minute)
	for host, want := range map[string]int{
		"127.0.0.1:1": 200, "127.0.0.1": 200, "127.8.9.1:80": 200, "localhost:9000": 200, "LOCALHOST": 200, "[::1]:80": 200, "[::1]": 200,
		"evil.example": 421, "evil.example:80": 421, "127.0.0.1.evil.example": 421, "10.0.0.1:80": 421, "localhost.evil.example:80": 421, "0.0.0.0:80": 421,
	} {
		for _, path := range []string{"/", "/report", "/shell.js"} {
			if r, body := get(t, s.url+path, "Host", host); r.StatusCode != want {
				t.Errorf("%s of %s: %s\n%s", path, host, r.Status, body)
			}
		}
	}
	r, body := get(t, s.url)
	if csp := r.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'; script-src 'self'") || strings.Contains(csp, "unsafe") {
		t.Errorf("policy %q", csp)
	}
	if strings.Contains(body, "://") || !strings.Contains(body, "waiting for ") {
		t.Errorf("the page has an address, or no state:\n%s", body)
	}
	if r, _ := get(t, s.url+"/other"); r.StatusCode != http.StatusNotFound {
		t.Errorf("another path: %s", r.Status)
	}
}

// What a record says cannot become markup or another event.
func TestHostileText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "<script>x<\n\ndata: {}")
	s := start(t, path, time.Minute, time.Minute)
	if got := until(t, s, func(state) bool { return true }); got.Text != "waiting for "+path {
		t.Errorf("%q", got.Text)
	}
	if _, body := get(t, s.url); strings.Contains(body, "<script>x") {
		t.Errorf("markup:\n%s", body)
	}
}
