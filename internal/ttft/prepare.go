package ttft

import (
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
		maps.DeleteFunc(a.pools, func(base string, _ blockPool) bool { return users[base] > 1 })
	}
}

// NixlBackendNote is what there is to say about NIXL_BACKEND, which people set
// to choose a transport and which neither vLLM nor NIXL reads.
func NixlBackendNote(where, value string) string {
	return fmt.Sprintf("NIXL_BACKEND=%s in %s has no effect: neither vLLM nor NIXL reads it, and the default backend is UCX. "+
		`Choose one with --kv-transfer-config '{…,"kv_connector_extra_config":{"backends":["LIBFABRIC"]}}'`, value, where)
}

func (r *runner) prepareArm(ctx context.Context, a *Arm) error {
	a.versions, a.pools = map[string]string{}, map[string]blockPool{}
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
	if a.BytesPerToken == 0 {
		if m, err := kv.Resolve(a.Model, "auto"); err == nil {
			a.BytesPerToken, a.Serving.KVModel = m.BytesPerToken(), m.Name
		} else if err := r.event(record.Warning, "arm "+a.Name+": the KV bytes per token of model "+a.Model+
			" are not known, so that a transfer is only held to whole blocks; name its geometry with --kv-model"); err != nil {
			return err
		}
	}
	return r.checkEqual(a)
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
	a.pools[base] = blockPool{m.Cache.Blocks, m.Cache.BlockTokens, m.Cache.PrefixCaching}
	if a.blockTokens == 0 {
		a.blockTokens = m.Cache.BlockTokens
	}
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
		if x.blockTokens != y.blockTokens {
			notes = append(notes, fmt.Sprintf("blocks have %d tokens on %s and %d on %s", x.blockTokens, first, y.blockTokens, base))
		}
		if x.blocks != y.blocks {
			notes = append(notes, fmt.Sprintf("the block pool has %d blocks on %s and %d on %s; set --num-gpu-blocks-override to the same on both", x.blocks, first, y.blocks, base))
		}
		if y.caching != nil && *y.caching {
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
