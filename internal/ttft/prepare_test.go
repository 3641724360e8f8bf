package ttft

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/proxy"
	"github.com/xferbench/xferbench/internal/serving/sim"
)

// inFront starts a P/D proxy with a hook on its /health.
func inFront(t *testing.T, prefill, decode string, health http.HandlerFunc) string {
	t.Helper()
	p, err := proxy.New(proxy.Config{Prefill: []string{prefill}, Decode: []string{decode}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	mux := http.NewServeMux()
	mux.Handle("/", p)
	mux.HandleFunc("GET /health", health)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// A proxy without /health, as vLLM's toy proxy is, is measured without a word;
// one that says 503 while it looks for its engines is waited for.
func TestProxiesAreWaitedFor(t *testing.T) {
	var asked atomic.Int32
	for name, health := range map[string]http.HandlerFunc{
		"no such page": http.NotFound,
		"engines seen late": func(w http.ResponseWriter, _ *http.Request) {
			if asked.Add(1) < 4 {
				http.Error(w, "no engine yet", http.StatusServiceUnavailable)
			}
		},
	} {
		set := simulate(t, sim.Config{}, false)
		rec := &recorder{}
		a := twoLeg(set)
		a.Path, a.Front = record.PathProxy, inFront(t, set.Prefill.URL, set.Decode.URL, health)
		res := mustRun(t, rec, quick(rec, 2, a))
		if res.N != 2 || res.Invalid != 0 {
			t.Errorf("%s: %d requests, invalid %v", name, res.N, res.Reasons)
		}
		for _, e := range rec.rec.Events {
			if e.Level != record.Info {
				t.Errorf("%s: %s: %s", name, e.Level, e.Message)
			}
		}
	}
	if asked.Load() < 4 {
		t.Errorf("asked %d times", asked.Load())
	}
}

// A block pool that two arms draw from is none to predict from.
func TestSharedPools(t *testing.T) {
	set, other := simulate(t, sim.Config{Blocks: 100}, false), simulate(t, sim.Config{Blocks: 100}, false)
	for name, tt := range map[string]struct {
		second Arm
		want   int
	}{"shared": {twoLeg(set), 0}, "apart": {twoLeg(other), 100}} {
		a, b := twoLeg(set), tt.second
		a.Name, b.Name = "a", "b"
		rec := &recorder{}
		mustRun(t, rec, quick(rec, 1, a, b))
		for _, l := range rec.rec.Requests {
			if l.PoolBlocks != tt.want {
				t.Errorf("%s: arm %s has a pool of %d blocks, want %d", name, l.Arm, l.PoolBlocks, tt.want)
			}
		}
	}
}

func TestProxyThatIsNotThere(t *testing.T) {
	set := simulate(t, sim.Config{}, false)
	a := twoLeg(set)
	a.Path, a.Front = record.PathProxy, "http://127.0.0.1:1"
	if err := Run(context.Background(), quick(&recorder{}, 2, a)); err == nil || !strings.Contains(err.Error(), "the proxy does not answer") {
		t.Errorf("error %v", err)
	}
}

// --dtype alone goes with the preset of the served name; without one it is said to have
// no effect, and tokens alone decide.
func TestDTypeOfTheServedName(t *testing.T) {
	m, err := kv.Resolve("Qwen2.5-7B", "fp8")
	if err != nil {
		t.Fatal(err)
	}
	g, err := sim.GeometryOf(m, 16, 1, "0.15.1")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"Qwen2.5-7B": record.RuleBlocks, "anything": record.RuleTokens} {
		// That release's page says nothing of bytes.
		set := simulate(t, sim.Config{Model: name, Release: "0.15.1", Geometry: g, Blocks: 20}, false)
		a := twoLeg(set)
		a.KV = Geometry{DType: "fp8"}
		rec := &recorder{}
		mustRun(t, rec, quick(rec, 1, a))
		if q := rec.measured()[0]; !q.Valid || q.Rule != want {
			t.Errorf("%s: valid %v (%s: %s) by %s, want %s", name, q.Valid, q.Reason, q.Detail, q.Rule, want)
		}
		said := false
		for _, e := range rec.rec.Events {
			said = said || strings.Contains(e.Message, "--dtype fp8 has no effect without it")
		}
		if said != (want == record.RuleTokens) {
			t.Errorf("%s: events %+v", name, rec.rec.Events)
		}
	}
}
