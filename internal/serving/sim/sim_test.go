package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/analysis/pool"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/peer"
	"github.com/xferbench/xferbench/internal/serving/metrics"
	"github.com/xferbench/xferbench/internal/testenv"
	"github.com/xferbench/xferbench/internal/transport"
)

var small = Geometry{BlockTokens: 16, Regions: 4, BytesPerToken: 256}

func startSet(t testing.TB, cfg Config, unified bool) *Set {
	t.Helper()
	cfg.Geometry = small
	set, err := StartSet(cfg, "127.0.0.1", unified)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	return set
}

// ask posts a completion and returns the status and the answer.
func ask(t testing.TB, url, body string) (int, map[string]any) {
	t.Helper()
	res, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, out
}

// handOver runs both legs and returns the decode engine's answer.
func handOver(t testing.TB, set *Set, prompt []int) (int, map[string]any) {
	t.Helper()
	ids, err := json.Marshal(prompt)
	if err != nil {
		t.Fatal(err)
	}
	status, answer := ask(t, set.Prefill.URL, fmt.Sprintf(`{"prompt":%s,"max_tokens":1,"kv_transfer_params":{"do_remote_decode":true}}`, ids))
	if status != 200 {
		t.Fatalf("prefill: %d %v", status, answer)
	}
	params, err := json.Marshal(answer["kv_transfer_params"])
	if err != nil {
		t.Fatal(err)
	}
	return ask(t, set.Decode.URL, fmt.Sprintf(`{"prompt":%s,"max_tokens":2,"kv_transfer_params":%s}`, ids, params))
}

func reading(t testing.TB, url string) metrics.Reading {
	t.Helper()
	res, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r, err := metrics.Parse(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func prompt(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = 1000 + i
	}
	return out
}

// The decode engine has the prefill engine's KV cache, byte for byte where the
// stamps are, and both engines count what vLLM counts.
func TestKVCacheMoves(t *testing.T) {
	set := startSet(t, Config{}, true)
	status, answer := handOver(t, set, prompt(40))
	if status != 200 {
		t.Fatalf("%d %v", status, answer)
	}
	_, alone := ask(t, set.Unified.URL, fmt.Sprintf(`{"prompt":%s,"max_tokens":2}`, strings.ReplaceAll(fmt.Sprint(prompt(40)), " ", ",")))
	text := func(a map[string]any) any { return a["choices"].([]any)[0].(map[string]any)["text"] }
	if text(answer) != text(alone) {
		t.Errorf("first token %v over two engines and %v over one", text(answer), text(alone))
	}
	for _, tt := range []struct {
		url  string
		want map[metrics.Count]int64
	}{
		{set.Prefill.URL, map[metrics.Count]int64{metrics.PromptTokens: 40, metrics.LocalCompute: 40, metrics.ExternalKV: 0, metrics.Transfers: 0, metrics.PrefixHits: 0, metrics.ExpiredLeases: 0, metrics.Requests: 1}},
		{set.Decode.URL, map[metrics.Count]int64{metrics.PromptTokens: 40, metrics.LocalCompute: 0, metrics.ExternalKV: 40, metrics.ExternalHits: 40, metrics.Transfers: 1, metrics.TransferBytes: 3 * 16 * 256, metrics.Descriptors: 4, metrics.FailedXfers: 0}},
	} {
		r := reading(t, tt.url)
		for c, want := range tt.want {
			if got, ok := r.Get(c); !ok || got != want {
				t.Errorf("%s: %s is %d, %v; want %d", tt.url, c.Name(), got, ok, want)
			}
		}
	}
	// The blocks came back on both sides.
	for _, e := range []*Server{set.Prefill, set.Decode} {
		waitFor(t, "free blocks", func() bool { e.mu.Lock(); defer e.mu.Unlock(); return e.pool.Available() == e.cfg.Blocks-1 })
	}
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}

// A cache that arrives altered is not taken for the prompt's.
func TestAlteredCacheIsRefused(t *testing.T) {
	set := startSet(t, Config{}, false)
	ids := strings.ReplaceAll(fmt.Sprint(prompt(40)), " ", ",")
	_, answer := ask(t, set.Prefill.URL, fmt.Sprintf(`{"prompt":%s,"max_tokens":1,"kv_transfer_params":{"do_remote_decode":true}}`, ids))
	params := answer["kv_transfer_params"].(map[string]any)
	first := int(params["remote_block_ids"].([]any)[0].([]any)[1].(float64))
	// One bit of the second block in the last region.
	set.Prefill.memory.Bytes()[3*small.regionBytes(set.Prefill.cfg.Blocks)+first*small.blockBytes()] ^= 1
	raw, err := json.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	status, out := ask(t, set.Decode.URL, fmt.Sprintf(`{"prompt":%s,"max_tokens":2,"kv_transfer_params":%s}`, ids, raw))
	if status != 500 || !strings.Contains(fmt.Sprint(out), "is not the prompt's") {
		t.Errorf("%d %v", status, out)
	}
}

// Blocks that nobody fetches come back when the lease ends, and are counted.
func TestLeaseExpires(t *testing.T) {
	set := startSet(t, Config{Lease: 50 * time.Millisecond}, false)
	status, answer := ask(t, set.Prefill.URL, `{"prompt":[1,2,3],"max_tokens":1,"kv_transfer_params":{"do_remote_decode":true}}`)
	if status != 200 {
		t.Fatalf("%d %v", status, answer)
	}
	waitFor(t, "the lease to end", func() bool { n, _ := reading(t, set.Prefill.URL).Get(metrics.ExpiredLeases); return n == 1 })
	raw, err := json.Marshal(answer["kv_transfer_params"])
	if err != nil {
		t.Fatal(err)
	}
	status, answer = ask(t, set.Decode.URL, fmt.Sprintf(`{"prompt":[1,2,3],"max_tokens":2,"kv_transfer_params":%s}`, raw))
	if status != 500 || !strings.Contains(fmt.Sprint(answer), ErrLease.Error()) {
		t.Errorf("%d %v", status, answer)
	}
}

// A pool that is full makes requests wait and not fail.
func TestRequestsWaitForBlocks(t *testing.T) {
	set := startSet(t, Config{Blocks: 5, PrefillTime: 5 * time.Millisecond}, true) // 4 blocks, a request takes 3
	done := make(chan int, 4)
	for range 4 {
		go func() {
			res, err := http.Post(set.Unified.URL+"/v1/completions", "application/json", strings.NewReader(fmt.Sprintf(`{"prompt":%s,"max_tokens":2}`, strings.ReplaceAll(fmt.Sprint(prompt(40)), " ", ","))))
			if err != nil {
				done <- 0
				return
			}
			_ = res.Body.Close()
			done <- res.StatusCode
		}()
	}
	for range 4 {
		if got := <-done; got != 200 {
			t.Errorf("status %d", got)
		}
	}
	status, answer := ask(t, set.Unified.URL, fmt.Sprintf(`{"prompt":%s,"max_tokens":2}`, strings.ReplaceAll(fmt.Sprint(prompt(400)), " ", ",")))
	if status != 500 || !strings.Contains(fmt.Sprint(answer), "the pool has 4") {
		t.Errorf("a prompt larger than the pool: %d %v", status, answer)
	}
}

// What the engine says of its first token is what it was told to take.
func TestTimesAreKept(t *testing.T) {
	set := startSet(t, Config{PrefillTime: 20 * time.Millisecond, PrefillPerToken: time.Millisecond, StepTime: 15 * time.Millisecond}, true)
	_, answer := ask(t, set.Unified.URL, `{"prompt":[1,2,3,4,5,6,7,8,9,10],"max_tokens":3}`)
	ns := answer["usage"].(map[string]any)["sim_first_token_ns"].(float64)
	if ns < 30e6 || ns > 30e6+5e9 {
		t.Errorf("first token after %v ns, want 30 ms", ns)
	}
	r := reading(t, set.Unified.URL)
	if d, _ := r.Get(metrics.DecodeNS); d < 30e6 {
		t.Errorf("two more tokens took %d ns, want 30 ms", d)
	}
}

func TestBadRequests(t *testing.T) {
	set := startSet(t, Config{MaxTokens: 100}, true)
	for body, want := range map[string]string{
		`{`:                               "body",
		`{"prompt":{}}`:                   "neither a text nor a list",
		`{"prompt":[]}`:                   "a prompt of 0 tokens",
		`{"prompt":[1],"max_tokens":100}`: "together at most 100",
		`{"prompt":[1],"model":"x"}`:      "does not exist",
		`{"prompt":[1],"n":2}`:            "n is 2",
		`{"prompt":[1],"stream_options":{"include_usage":true}}`: "only be defined when stream",
		`{"prompt":[1],"max_tokens":2,"min_tokens":3}`:           "min_tokens",
		`{"prompt":[1],"kv_transfer_params":7}`:                  "kv_transfer_params",
	} {
		status, answer := ask(t, set.Unified.URL, body)
		if status != 400 || !strings.Contains(fmt.Sprint(answer), want) {
			t.Errorf("%s: %d %v, want 400 with %q", body, status, answer, want)
		}
	}
}

// A prompt is a text or token ids, or a list of one of them, which is that prompt.
func TestPromptForms(t *testing.T) {
	set := startSet(t, Config{MaxTokens: 100}, true)
	for prompt, want := range map[string]float64{
		`[7,8,9]`: 3, `[[7,8,9]]`: 3, `"nine byte"`: 3, `["nine byte"]`: 3,
	} {
		status, answer := ask(t, set.Unified.URL, `{"prompt":`+prompt+`}`)
		usage, _ := answer["usage"].(map[string]any)
		if status != 200 || usage["prompt_tokens"] != want {
			t.Errorf("%s: %d %v, want %v prompt tokens", prompt, status, answer, want)
		}
	}
}

// Bodies have an end, in bytes and in time.
func TestBodiesThatAreTooLongOrSlow(t *testing.T) {
	set := startSet(t, Config{MaxTokens: 100}, true)
	if status, answer := ask(t, set.Unified.URL, `{"prompt":"`+strings.Repeat("x", 2<<20)+`"}`); status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %v, want 413", status, answer)
	}
	set.Unified.bodyTime = 100 * time.Millisecond
	r, w := io.Pipe()
	defer w.Close()
	res, err := http.Post(set.Unified.URL+"/v1/completions", "application/json", r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusRequestTimeout {
		t.Errorf("%s, want 408", res.Status)
	}
}

func TestConfigRefuses(t *testing.T) {
	for name, c := range map[string]Config{
		"role":     {Role: "both"},
		"geometry": {Role: Unified, Geometry: Geometry{BlockTokens: 16, Regions: 3, BytesPerToken: 256}},
		"blocks":   {Role: Unified, Blocks: 1},
		"order":    {Role: Unified, Order: "random"},
		"time":     {Role: Unified, StepTime: -1},
		"fault":    {Role: Unified, Faults: []Injection{{NullParams, 0}}},
	} {
		if s, err := Listen(c, "127.0.0.1", 0); err == nil {
			t.Errorf("%s: taken", name)
			_ = s.Close()
		}
	}
	if _, err := ParseInjection("null-params:0"); err == nil {
		t.Error("every 0th request: taken")
	}
	if _, err := ParseInjection("nothing"); err == nil || !strings.Contains(err.Error(), "null-params") {
		t.Errorf("an unknown fault: %v", err)
	}
	if in, err := ParseInjection("hang:3"); err != nil || in != (Injection{Hang, 3}) {
		t.Errorf("hang:3 is %+v, %v", in, err)
	}
}

// The mover copies scattered pieces exactly over each transport, refuses what
// is outside of the memory, and knows an ended lease and a peer that dies.
func TestWire(t *testing.T) {
	for _, provider := range []string{"socket", "tcp", "ucx:tcp"} {
		t.Run(provider, func(t *testing.T) { testWire(t, provider) })
	}
}

func testWire(t *testing.T, provider string) {
	buffer := func() *mem.Buffer {
		b, err := mem.New(mem.Host, -1, 1<<16)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := b.Free(); err != nil {
				t.Error(err)
			}
		})
		return b
	}
	src, dst := buffer(), buffer()
	for i := range src.Bytes() {
		src.Bytes()[i] = byte(i * 7)
	}
	done := make(chan string, 4)
	server, err := NewWire(provider, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewWire(provider, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(client.Close(), server.Close()); err != nil {
			t.Error(err)
		}
	})
	leases := Leases{Done: func(id string, _ Moved) { done <- id }, Cut: func(id string) bool { return id == "cut" }, Begin: func(id string) error {
		if id == "over" {
			return ErrLease
		}
		return nil
	}}
	if err := server.Export(src, leases); err != nil {
		t.Fatal(err)
	}
	from := func(request string) Remote {
		r := server.Address()
		r.Request = request
		return r
	}
	descs := []kv.Desc{{Local: 0, Remote: 4096, Len: 100}, {Local: 60_000, Remote: 0, Len: 5000}, {Local: 200, Remote: 65_535, Len: 1}}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for i := range 2 { // the second time over the same connection
		clear(dst.Bytes())
		m, err := client.Pull(ctx, from("a"), dst, transport.List{Pieces: descs})
		if i == 0 && errors.Is(err, transport.ErrUnavailable) {
			testenv.Need(t, map[string]string{"tcp": "libfabric", "ucx:tcp": "ucx"}[provider], err)
		}
		if err != nil || m.Bytes != 5101 || m.Descriptors != 3 || m.Post < 0 || m.Total <= 0 || m.Total < m.Post {
			t.Fatalf("moved %+v, %v", m, err)
		}
		for _, d := range descs {
			if !bytes.Equal(dst.Bytes()[d.Local:d.Local+d.Len], src.Bytes()[d.Remote:d.Remote+d.Len]) {
				t.Errorf("piece %+v differs", d)
			}
		}
		if id := <-done; id != "a" {
			t.Errorf("done with %q", id)
		}
	}
	if _, err := client.Pull(ctx, from("over"), dst, transport.List{Pieces: descs}); !errors.Is(err, ErrLease) {
		t.Errorf("an ended lease: %v", err)
	}
	if m, err := client.Pull(ctx, from("cut"), dst, transport.List{Pieces: descs}); err == nil || ctx.Err() != nil {
		t.Errorf("a peer that dies: %+v, %v; the deadline: %v", m, err, ctx.Err())
	}
	if _, err := client.Pull(ctx, from("a"), dst, transport.List{Pieces: []kv.Desc{{Local: 0, Remote: 65_536, Len: 1}}}); err == nil {
		t.Error("a byte behind the end was read")
	}
	cancel()
	if _, err := client.Pull(ctx, from("a"), dst, transport.List{Pieces: descs}); err == nil {
		t.Error("pulled with a context that is done")
	}
}

func ownSockets(t *testing.T) []host.Socket {
	t.Helper()
	own, err := host.Root("").OwnSockets()
	if err != nil {
		t.Fatal(err)
	}
	return own
}

// Nobody but the peer connects to what a wire's transport listens on.
func TestWireTakesItsPeerOnly(t *testing.T) {
	for _, provider := range []string{"tcp", "ucx:tcp"} {
		t.Run(provider, func(t *testing.T) {
			memory, err := mem.New(mem.Host, -1, 4096)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := memory.Free(); err != nil {
					t.Error(err)
				}
			})
			var wires [2]*Wire
			for i := range wires {
				if wires[i], err = NewWire(provider, "127.0.0.1"); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := wires[i].Close(); err != nil {
						t.Error(err)
					}
				})
			}
			if err := wires[0].Export(memory, anyLease); err != nil {
				t.Fatal(err)
			}
			before := ownSockets(t)
			_, err = wires[1].Pull(t.Context(), wires[0].Address(), memory, transport.List{Pieces: []kv.Desc{{Len: 100}}})
			if errors.Is(err, transport.ErrUnavailable) {
				testenv.Need(t, map[string]string{"tcp": "libfabric", "ucx:tcp": "ucx"}[provider], err)
			}
			if err != nil {
				t.Fatal(err)
			}
			tried := 0
			for _, s := range ownSockets(t) {
				if s.Net != "tcp" || s.State != host.Listening || slices.ContainsFunc(before, func(b host.Socket) bool { return b.Inode == s.Inode }) {
					continue
				}
				tried++
				d := net.Dialer{Timeout: 300 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 77)}}
				if c, err := d.Dial("tcp", s.Local.String()); err == nil {
					c.Close()
					t.Errorf("a stranger has connected to %s", s.Local)
				}
			}
			if tried == 0 {
				t.Error("the transport listens on nothing")
			}
		})
	}
}

func TestWireRefusesAnUnknownTransport(t *testing.T) {
	if w, err := NewWire("carrier-pigeon", "127.0.0.1"); err == nil {
		t.Errorf("opened %+v", w)
	}
}

// wirePair is a wire that exports memory and one that pulls.
func wirePair(t *testing.T, leases Leases) (server, client *Wire, src, dst *mem.Buffer) {
	t.Helper()
	var buffers [2]*mem.Buffer
	var wires [2]*Wire
	for i := range wires {
		var err error
		if buffers[i], err = mem.New(mem.Host, -1, 1<<16); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := buffers[i].Free(); err != nil {
				t.Error(err)
			}
		})
		if wires[i], err = NewWire("socket", "127.0.0.1"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := wires[i].Close(); err != nil {
				t.Error(err)
			}
		})
	}
	if err := wires[0].Export(buffers[0], leases); err != nil {
		t.Fatal(err)
	}
	return wires[0], wires[1], buffers[0], buffers[1]
}

var anyLease = Leases{Begin: func(string) error { return nil }, Cut: func(string) bool { return false }, Done: func(string, Moved) {}}

// More pulls at a time than there are links wait for one another; all arrive.
func TestWireCarriesManyPulls(t *testing.T) {
	server, client, src, dst := wirePair(t, anyLease)
	for i := range src.Bytes() {
		src.Bytes()[i] = byte(i*7) | 1
	}
	const pulls = 3 * maxLinks
	var all sync.WaitGroup
	for i := range uint64(pulls) {
		all.Go(func() {
			list := transport.List{Pieces: []kv.Desc{{Local: 512 * i, Remote: 512 * (pulls - 1 - i), Len: 512}}}
			if m, err := client.Pull(t.Context(), server.Address(), dst, list); err != nil || m.Bytes != 512 {
				t.Errorf("pull %d: %+v, %v", i, m, err)
			}
		})
	}
	all.Wait()
	for i := range pulls {
		if !bytes.Equal(dst.Bytes()[512*i:][:512], src.Bytes()[512*(pulls-1-i):][:512]) {
			t.Errorf("pull %d differs", i)
		}
	}
	if n := len(client.idle[server.Address()]); n < 1 || n > maxLinks {
		t.Errorf("%d links, want at most %d", n, maxLinks)
	}
}

// A link whose connection is gone is not used again, and an engine that is gone is an
// error.
func TestWireForgetsALostLink(t *testing.T) {
	server, client, _, dst := wirePair(t, anyLease)
	list := transport.List{Pieces: []kv.Desc{{Len: 10}}}
	at := server.Address()
	for range 2 {
		if _, err := client.Pull(t.Context(), at, dst, list); err != nil {
			t.Fatal(err)
		}
		client.idle[at][0].cut()
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if _, err := client.Pull(t.Context(), at, dst, list); !errors.Is(err, peer.ErrPeer) {
		t.Errorf("a pull from an engine that has ended: %v", err)
	}
	if n := len(client.idle[at]); n != 0 {
		t.Errorf("%d links are kept", n)
	}
}

// Who holds an engine's token may read what is under a lease, and do nothing else.
func TestWireExportsForReading(t *testing.T) {
	server, client, src, dst := wirePair(t, Leases{Cut: anyLease.Cut, Done: anyLease.Done, Begin: func(id string) error {
		if id != "mine" {
			return ErrLease
		}
		return nil
	}})
	at := server.Address()
	at.Token = peer.Secret{}.String()
	if _, err := client.Pull(t.Context(), at, dst, transport.List{}); !errors.Is(err, peer.ErrPeer) {
		t.Errorf("another token: %v", err)
	}
	at = server.Address()
	secret, err := peer.ParseSecret(at.Token)
	if err != nil {
		t.Fatal(err)
	}
	c, err := peer.Dial(t.Context(), net.JoinHostPort(at.Host, strconv.Itoa(at.Port)), secret, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	side := &transport.Side{}
	t.Cleanup(func() {
		if err := side.Close(); err != nil {
			t.Error(err)
		}
	})
	pair := &transport.Pair{Local: side, Peer: c}
	want := transport.MemoryRequest{Kind: mem.Host, Bytes: 1 << 16}
	if _, _, err := pair.Allocate(t.Context(), want, want); !errors.Is(err, transport.ErrRefused) {
		t.Errorf("memory: %v", err)
	}
	if _, err := side.Memory(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	l, err := pair.Open(t.Context(), transport.Config{Provider: "socket", Bind: []string{"127.0.0.1"}, Timeout: 5 * time.Second, SameHost: true, Device: -1})
	if err != nil {
		t.Fatal(err)
	}
	list := &transport.List{Pieces: []kv.Desc{{Len: 8}}}
	for name, m := range map[string]transport.Move{
		"a write":   {Name: "mine", Op: loop.Write, List: list},
		"a payload": {Name: "mine", Op: loop.Read, KV: kv.Request{Bytes: 1 << 16, Shape: kv.Contiguous}},
	} {
		if _, err := l.Plan(t.Context(), m); !errors.Is(err, transport.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := l.Plan(t.Context(), transport.Move{Name: "another's", Op: loop.Read, List: list}); !errors.Is(err, transport.ErrGone) {
		t.Errorf("without a lease: %v", err)
	}
	src.Bytes()[0] = 42
	plan, err := l.Plan(t.Context(), transport.Move{Name: "mine", Op: loop.Read, List: list})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Transfer(t.Context(), transport.Batch{Iters: 1, Key: 3}); err == nil {
		t.Error("a payload was laid out")
	}
	if _, err := plan.Transfer(t.Context(), transport.Batch{Iters: 1, Unchecked: true}); err != nil || src.Bytes()[0] != 42 {
		t.Errorf("reading: %v, the memory begins with %d", err, src.Bytes()[0])
	}
}

// A stream is what vLLM sends: headers at once, a chunk a token, the usage, the
// end.
func TestStream(t *testing.T) {
	set := startSet(t, Config{PrefillTime: 30 * time.Millisecond}, true)
	begin := time.Now()
	res, err := http.Post(set.Unified.URL+"/v1/completions", "application/json", strings.NewReader(`{"prompt":[1,2],"max_tokens":3,"stream":true,"stream_options":{"include_usage":true},"return_token_ids":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	headers := time.Since(begin)
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if whole := time.Since(begin); headers > whole || whole < 30*time.Millisecond {
		t.Errorf("headers after %s, end after %s", headers, whole)
	}
	var kinds []string
	for _, ev := range strings.Split(strings.TrimSpace(string(body)), "\n\n") {
		data := strings.TrimPrefix(ev, "data: ")
		var c struct {
			Choices []struct {
				FinishReason *string `json:"finish_reason"`
				TokenIDs     []int   `json:"token_ids"`
			} `json:"choices"`
			Usage *struct {
				Completion int `json:"completion_tokens"`
			} `json:"usage"`
		}
		switch {
		case data == "[DONE]":
			kinds = append(kinds, "done")
			continue
		case json.Unmarshal([]byte(data), &c) != nil:
			t.Fatalf("event %q", ev)
		}
		switch {
		case len(c.Choices) == 0 && c.Usage != nil:
			kinds = append(kinds, fmt.Sprintf("usage %d", c.Usage.Completion))
		case len(c.Choices) == 1 && len(c.Choices[0].TokenIDs) == 1:
			k := "token"
			if r := c.Choices[0].FinishReason; r != nil {
				k += " " + *r
			}
			kinds = append(kinds, k)
		}
	}
	if d := cmp.Diff([]string{"token", "token", "token length", "usage 3", "done"}, kinds); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Descriptors are NIXL's: neighbours merged, per region, in either pool's terms.
func TestDescriptors(t *testing.T) {
	g := Geometry{BlockTokens: 2, Regions: 2, BytesPerToken: 16} // 16 bytes a block and region
	list := g.list(0, []int{1, 2, 5}, []int{3, 4, 5}, 10, 20)
	got := slices.Collect(list.Descs())
	want := []kv.Desc{{Local: 16, Remote: 48, Len: 32}, {Local: 80, Remote: 80, Len: 16}, {Local: 160 + 16, Remote: 320 + 48, Len: 32}, {Local: 160 + 80, Remote: 320 + 80, Len: 16}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if n := len(pool.Runs([]int{1, 2, 5}, []int{3, 4, 5})); n*g.Regions != len(got) {
		t.Errorf("%d runs", n)
	}
}

// The geometries that simulated engines play, worked out by hand: gpt-oss-120b has 18
// layers of each kind with 8 KV heads of 64 values, which share 18 tensors.
func TestGeometryOf(t *testing.T) {
	resolve := func(name string) kv.Model {
		m, err := kv.Resolve(name, "auto")
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for name, tt := range map[string]struct {
		model   kv.Model
		ranks   int
		release string
		want    Geometry
	}{
		"windows":         {resolve("gpt-oss-120b"), 1, "0.32.0", Geometry{BlockTokens: 16, Regions: 18, BytesPerToken: 18 * 2048, Ranks: 1, Windows: []int{128, 0}}},
		"without groups":  {resolve("gpt-oss-120b"), 1, "0.15.1", Geometry{BlockTokens: 16, Regions: 36, BytesPerToken: 36 * 2048, Ranks: 1, Windows: []int{0}}},
		"split heads":     {resolve("Llama-3.1-8B"), 4, "0.32.0", Geometry{BlockTokens: 16, Regions: 4 * 32, BytesPerToken: 131_072, Ranks: 4, Windows: []int{0}}},
		"copies of heads": {resolve("Llama-3.1-8B"), 16, "0.32.0", Geometry{BlockTokens: 16, Regions: 16 * 32, BytesPerToken: 2 * 131_072, Ranks: 16, Windows: []int{0}}},
		"latent":          {resolve("DeepSeek-R1"), 8, "0.32.0", Geometry{BlockTokens: 16, Regions: 8 * 61, BytesPerToken: 8 * 70_272, Ranks: 8, Windows: []int{0}}},
	} {
		g, err := GeometryOf(tt.model, 16, tt.ranks, tt.release)
		if d := cmp.Diff(tt.want, g); err != nil || d != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, d)
		}
	}
	state := kv.Model{Name: "states", Heads: 4, DType: kv.BF16, Groups: []kv.Group{{Kind: kv.Full, Layers: 2, KVHeads: 2, KeyDim: 64, ValueDim: 64},
		{Kind: kv.State, Layers: 2, States: []kv.Tensor{{Shards: 4, Values: 1024, DType: kv.FP32, Pieces: 1}}}}}
	if g, err := GeometryOf(state, 16, 1, "0.32.0"); err == nil {
		t.Errorf("a model with states is played as %+v", g)
	}
}

// Of a window the decode engine takes no more blocks than cross, and the prefill engine
// all until they were read; both pools are whole again afterwards.
func TestWindowsTakeBlocks(t *testing.T) {
	g := Geometry{BlockTokens: 16, Regions: 4, BytesPerToken: 256, Ranks: 2, Windows: []int{20, 0}}
	set, err := StartSet(Config{Geometry: g, Blocks: 7, Lease: time.Minute}, "127.0.0.1", false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	// 40 tokens are 3 blocks in each group: 6, all that the pool has. Of the window of
	// 20, the block that ends before token 22 has been given up.
	for range 3 {
		if status, answer := handOver(t, set, prompt(40)); status != 200 {
			t.Fatalf("%d %v", status, answer)
		}
	}
	r := reading(t, set.Decode.URL)
	for c, want := range map[metrics.Count]int64{metrics.Transfers: 6, metrics.TransferBytes: 3 * 5 * 16 * 256} {
		if got, _ := r.Get(c); got != want {
			t.Errorf("%s is %d, want %d", c.Name(), got, want)
		}
	}
	for _, e := range []*Server{set.Prefill, set.Decode} {
		waitFor(t, "free blocks", func() bool { e.mu.Lock(); defer e.mu.Unlock(); return e.pool.Available() == e.cfg.Blocks-1 })
	}
}
