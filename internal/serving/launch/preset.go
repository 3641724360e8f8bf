package launch

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Presets names the presets.
func Presets() []string { return []string{"unified", "ucx-tcp", "libfabric-efa"} }

// Defaults of presets: blocks of 16 tokens as on GPUs, and one pool for both
// sides.
const (
	presetBlockTokens = 16
	presetMaxModelLen = 8448
	presetMaxSeqs     = 8
)

// minor is the minor version of a 0.x release, or newest for anything else.
func minor(release string) int {
	const newest = 1 << 20
	rest, ok := strings.CutPrefix(release, "0.")
	if !ok {
		return newest
	}
	n, err := strconv.Atoi(strings.SplitN(rest, ".", 2)[0])
	if err != nil {
		return newest
	}
	return n
}

// preset is the command and environment of a preset for the file's release. The
// settings are those of a fair measurement: no prefix cache, the whole prompt
// in one step, equal pools, and no silent recompute.
func (f *File) preset(e *Engine) (argv []string, env map[string]string, err error) {
	if f.Model == "" {
		return nil, nil, fmt.Errorf("preset %s needs the file's model", e.Preset)
	}
	u, err := url.Parse(e.URL)
	if err != nil {
		return nil, nil, err
	}
	port := u.Port()
	if port == "" {
		return nil, nil, fmt.Errorf("preset %s needs a port in url %s", e.Preset, e.URL)
	}
	maxLen := orElse(f.MaxModelLen, presetMaxModelLen)
	argv = []string{"vllm", "serve", f.Model,
		"--host", u.Hostname(), "--port", port,
		"--dtype", "bfloat16", "--seed", "0",
		"--block-size", strconv.Itoa(orElse(f.BlockTokens, presetBlockTokens)),
		"--max-model-len", strconv.Itoa(maxLen),
		"--max-num-batched-tokens", strconv.Itoa(orElse(f.MaxBatchedTokens, maxLen)),
		"--max-num-seqs", strconv.Itoa(orElse(f.MaxSeqs, presetMaxSeqs)),
		"--no-enable-prefix-caching", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"}
	if f.ServedName != "" {
		argv = append(argv, "--served-model-name", f.ServedName)
	}
	if f.Blocks > 0 {
		argv = append(argv, "--num-gpu-blocks-override", strconv.Itoa(f.Blocks))
	}
	env = map[string]string{"VLLM_LOG_STATS_INTERVAL": "1", "VLLM_NO_USAGE_STATS": "1"}
	backends, err := f.transport(e, env)
	if err != nil || e.Role == RoleUnified {
		return argv, env, err
	}
	// kv_both is deprecated from 0.23 on; earlier releases know nothing else well.
	role := "kv_both"
	if minor(f.VLLM) >= 23 {
		role = map[string]string{RolePrefill: "kv_producer", RoleDecode: "kv_consumer"}[e.Role]
	}
	return append(argv, "--kv-transfer-config", fmt.Sprintf(
		`{"kv_connector":"NixlConnector","kv_role":%q,"kv_load_failure_policy":"fail","kv_connector_extra_config":{"backends":[%s]}}`, role, backends)), env, nil
}

// transport sets the environment of a preset and returns NIXL's backends.
func (f *File) transport(e *Engine, env map[string]string) (string, error) {
	if (e.Preset == "unified") != (e.Role == RoleUnified) {
		return "", fmt.Errorf("preset %s does not fit the role %s", e.Preset, e.Role)
	}
	switch e.Preset {
	case "unified":
		return "", nil
	case "ucx-tcp":
		// Without this list UCX would take shared memory, cuda_ipc or SRD where it can.
		env["UCX_TLS"] = "tcp,cuda_copy,self"
		return `"UCX"`, nil
	case "libfabric-efa":
		// A missing EFA is an error then, and not a silent fallback to tcp.
		env["FI_PROVIDER"] = "efa"
		if m := minor(f.VLLM); m < 11 {
			return "", errors.New("vLLM reads kv_connector_extra_config.backends from 0.11 on")
		}
		return `"LIBFABRIC"`, nil
	}
	return "", fmt.Errorf("unknown preset %q; use %s", e.Preset, strings.Join(Presets(), ", "))
}
