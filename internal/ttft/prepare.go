package ttft

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/kv"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/metrics"
)

// prepareArms asks each arm's servers what they are and warns of what makes a
// comparison unfair. A server that does not answer is an error here: no request
// has been lost yet.
func (r *runner) prepareArms(ctx context.Context) error {
	if v, ok := os.LookupEnv("NIXL_BACKEND"); ok {
		if err := r.event(record.Warning, NixlBackendNote("this environment", v)); err != nil {
			return err
		}
	}
	for i := range r.cfg.Arms {
		a := &r.cfg.Arms[i]
		if err := r.prepareArm(ctx, a); err != nil {
			return fmt.Errorf("arm %s: %w", a.Name, err)
		}
	}
	r.sharedPools()
	return nil
}

// sharedPools forgets the block pools of engines that several arms use: where an
// arm's own requests make one wrap around cannot be said then.
func (r *runner) sharedPools() {
	users := map[string]int{}
	for _, a := range r.cfg.Arms {
		for base := range a.pools {
			users[base]++
		}
	}
	for _, a := range r.cfg.Arms {
		maps.DeleteFunc(a.pools, func(base string, _ metrics.Cache) bool { return users[base] > 1 })
	}
}

// NixlBackendNote is what there is to say about NIXL_BACKEND, which people set
// to choose a transport and which neither vLLM nor NIXL reads.
func NixlBackendNote(where, value string) string {
	return fmt.Sprintf("NIXL_BACKEND=%s in %s has no effect: neither vLLM nor NIXL reads it, and the default backend is UCX. "+
		`Choose one with --kv-transfer-config '{…,"kv_connector_extra_config":{"backends":["LIBFABRIC"]}}'`, value, where)
}

func (r *runner) prepareArm(ctx context.Context, a *Arm) error {
	a.versions, a.pools = map[string]string{}, map[string]metrics.Cache{}
	for _, base := range a.all() {
		if base == a.Front && a.Path == record.PathProxy {
			if err := r.awaitProxy(ctx, base); err != nil {
				return err
			}
			continue // a proxy need not know more than completions
		}
		if err := r.askEngine(ctx, a, base); err != nil {
			return err
		}
	}
	if a.Path == record.PathDirect {
		if err := r.event(record.Warning, "arm "+a.Name+": the direct path ends at the prefill engine and contains no transfer of KV cache"); err != nil {
			return err
		}
	}
	if err := r.geometry(a); err != nil {
		return err
	}
	return r.checkEqual(a)
}

// geometry settles what the arm's requests have to move, and warns of what is not
// known of that.
func (r *runner) geometry(a *Arm) error {
	prefill, decode := a.engines()
	x := expects{Geometry: a.KV, version: release(a.versions[prefill[0]]), blockTokens: a.pools[prefill[0]].BlockTokens, known: true}
	a.noted = map[string]bool{}
	warn := func(format string, args ...any) error {
		if len(decode) == 0 {
			return nil // nothing is to move
		}
		return r.event(record.Warning, "arm "+a.Name+": "+fmt.Sprintf(format, args...))
	}
	switch {
	case x.BytesPerToken > 0:
		x.Model = kv.Model{Name: "bytes_per_token", Heads: 1, DType: kv.BF16, Groups: []kv.Group{{Kind: kv.Full, Layers: 1, SlotBytes: int(x.BytesPerToken)}}}
	case x.Model.Name == "":
		var err error
		if x.Model, err = kv.Resolve(a.Model, cmp.Or(x.DType, "auto")); err != nil {
			x.known = false
			text := "the geometry of model %s is not known: where the engines' own answers do not tell the bytes either, tokens alone decide; name it with --kv-model"
			if x.DType != "" && x.DType != "auto" {
				text += "; --dtype " + x.DType + " has no effect without it"
			}
			if err := warn(text, a.Model); err != nil {
				return err
			}
		}
	}
	var pages []metrics.Cache
	for _, base := range decode {
		pages = append(pages, a.pools[base])
	}
	if err := x.publish(pages); err != nil {
		if err := warn("%v; the bytes of %s are not known", err, x.Model.Name); err != nil {
			return err
		}
	}
	if a.expects = x; x.known && x.BytesPerToken == 0 {
		a.Serving.KVModel = x.Model.Name
	}
	return nil
}

// proxyWait bounds the wait for a proxy that has no engine.
const proxyWait = 15 * time.Second

// awaitProxy waits until a proxy takes requests: one with health checks needs a
// while to see engines that have just come up, and answers 503 until then. Other
// answers are as good as none: a proxy need not know /health.
func (r *runner) awaitProxy(ctx context.Context, base string) error {
	ctx, cancel := context.WithTimeout(ctx, proxyWait)
	defer cancel()
	for {
		_, err := r.client.get(ctx, base+"/health", maxDocument)
		var status *statusError
		switch {
		case err == nil, errors.As(err, &status) && status.code != http.StatusServiceUnavailable:
			return nil
		case status == nil:
			return fmt.Errorf("the proxy does not answer: %w", err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the proxy takes no requests: %w; are its engines up?", err)
		}
	}
}

// askEngine reads version, model and block pool of one engine.
func (r *runner) askEngine(ctx context.Context, a *Arm, base string) error {
	body, err := r.client.get(ctx, base+"/version", maxDocument)
	if err != nil {
		return fmt.Errorf("%w; is the engine up? It must answer /version, /v1/models and /metrics", err)
	}
	var version struct {
		Version   string `json:"version"`
		Simulated bool   `json:"simulated"`
		Transport string `json:"kv_transport"` // of a simulated engine
	}
	if err := json.Unmarshal(body, &version); err != nil {
		return fmt.Errorf("%s/version: %w", base, err)
	}
	a.versions[base] = version.Version
	if version.Simulated {
		a.simulated = true
		a.Serving.Connector, a.Serving.Provider, a.Serving.Op = simulatedConnector, version.Transport, "read"
	}
	if body, err = r.client.get(ctx, base+"/v1/models", maxDocument); err != nil {
		return err
	}
	var models struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &models); err != nil {
		return fmt.Errorf("%s/v1/models: %w", base, err)
	}
	var names []string
	for _, m := range models.Data {
		names = append(names, m.ID)
	}
	switch {
	case len(names) == 0:
		return fmt.Errorf("%s serves no model", base)
	case a.Model == "":
		a.Model = names[0]
	case !slices.Contains(names, a.Model):
		return fmt.Errorf("%s serves %s and not %q", base, strings.Join(names, ", "), a.Model)
	}
	m, err := r.client.scrape(ctx, base)
	if errors.Is(err, ErrLimit) {
		return err // each request would wait for it
	}
	if err != nil {
		// The requests will say metrics-missing, each of them.
		return r.event(record.Warning, fmt.Sprintf("arm %s: %v", a.Name, err))
	}
	a.pools[base] = m.Cache
	return nil
}

// checkEqual warns of engines of one arm that differ where they must not.
func (r *runner) checkEqual(a *Arm) error {
	p, d := a.engines()
	engines := append(slices.Clone(p), d...)
	first := engines[0]
	for _, base := range engines {
		var notes []string
		if v, w := a.versions[first], a.versions[base]; v != w {
			notes = append(notes, fmt.Sprintf("%s runs version %s and %s runs %s; prefill and decode engines must be equal", first, v, base, w))
		}
		x, y := a.pools[first], a.pools[base]
		if x.BlockTokens != y.BlockTokens {
			notes = append(notes, fmt.Sprintf("blocks have %d tokens on %s and %d on %s", x.BlockTokens, first, y.BlockTokens, base))
		}
		if x.DType != y.DType {
			notes = append(notes, fmt.Sprintf("the cache is of type %s on %s and %s on %s; prefill and decode engines must be equal", cmp.Or(x.DType, "auto"), first, cmp.Or(y.DType, "auto"), base))
		}
		if x.Blocks != y.Blocks {
			notes = append(notes, fmt.Sprintf("the block pool has %d blocks on %s and %d on %s; set --num-gpu-blocks-override to the same on both", x.Blocks, first, y.Blocks, base))
		}
		if y.PrefixCaching != nil && *y.PrefixCaching {
			notes = append(notes, base+" runs with prefix caching; prompts are unique, but --no-enable-prefix-caching is what the proof can rest on")
		}
		for _, n := range notes {
			if err := r.event(record.Warning, "arm "+a.Name+": "+n); err != nil {
				return err
			}
		}
	}
	return nil
}
