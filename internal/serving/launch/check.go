package launch

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/internal/ttft"
)

// Problem is something about a file that spoils a measurement.
type Problem struct {
	Fatal bool // the run cannot succeed
	Text  string
}

// flagsOf are the options of a command line, without dashes: --a=b, --a b, and
// --no-a as a: "false". An option without a value is "true". The last one wins.
func flagsOf(argv []string) map[string]string {
	out := map[string]string{}
	for i := 0; i < len(argv); i++ {
		name, ok := strings.CutPrefix(argv[i], "--")
		if !ok || name == "" {
			continue
		}
		name, value, has := strings.Cut(name, "=")
		if !has {
			value = "true"
			if i+1 < len(argv) && !strings.HasPrefix(argv[i+1], "--") {
				i++
				value = argv[i]
			}
		}
		name = strings.ReplaceAll(name, "_", "-")
		if positive, no := strings.CutPrefix(name, "no-"); no && !has && value == "true" {
			name, value = positive, "false"
		}
		out[name] = value
	}
	return out
}

// transferConfig is --kv-transfer-config as far as it matters here.
type transferConfig struct {
	Connector string `json:"kv_connector"`
	Role      string `json:"kv_role"`
	Policy    string `json:"kv_load_failure_policy"`
	Buffer    string `json:"kv_buffer_device"`
	Extra     struct {
		Backends []string `json:"backends"`
		Policy   string   `json:"kv_load_failure_policy"`
	} `json:"kv_connector_extra_config"`
}

// setting is one engine's options, read from its command.
type setting struct {
	e     Engine
	flags map[string]string
	kv    transferConfig
	hasKV bool
}

// Check looks for settings that do not fit together or make a measurement of
// promptTokens and outputTokens unfair. It sees only what the file says; the
// engines' own word is asked for when they run.
func (f *File) Check(promptTokens, outputTokens int) []Problem {
	var out []Problem
	add := func(fatal bool, format string, args ...any) {
		out = append(out, Problem{fatal, fmt.Sprintf(format, args...)})
	}
	first := map[string]setting{} // of each arm
	for _, name := range f.names() {
		s := setting{e: f.Engines[name], flags: flagsOf(f.Engines[name].Argv)}
		if raw, ok := s.flags["kv-transfer-config"]; ok {
			if err := json.Unmarshal([]byte(raw), &s.kv); err != nil {
				add(true, "engine %s: --kv-transfer-config is no JSON: %v", name, err)
				continue
			}
			s.hasKV = true
		}
		s.backend(add)
		s.fair(add, promptTokens, outputTokens)
		if s.e.Role != RoleUnified {
			s.connector(add)
		}
		ref, ok := first[s.e.Arm]
		if !ok {
			first[s.e.Arm] = s
			continue
		}
		s.equal(ref, add)
	}
	return out
}

type adder func(fatal bool, format string, args ...any)

// backend flags NIXL_BACKEND wherever it stands.
func (s setting) backend(add adder) {
	if v, ok := s.e.Env["NIXL_BACKEND"]; ok {
		add(false, "engine %s: %s", s.e.name, ttft.NixlBackendNote("its environment", v))
	}
	for _, a := range s.e.Argv {
		if v, ok := strings.CutPrefix(a, "NIXL_BACKEND="); ok {
			add(false, "engine %s: %s", s.e.name, ttft.NixlBackendNote("its command", v))
		}
	}
}

// number is an option as a number; not ok if it is missing or none.
func (s setting) number(name string) (int, bool) {
	n, err := strconv.Atoi(s.flags[name])
	return n, err == nil
}

func (s setting) fair(add adder, prompt, output int) {
	if s.flags["enable-prefix-caching"] != "false" {
		add(false, "engine %s: prefix caching is not off; add --no-enable-prefix-caching", s.e.name)
	}
	if n, ok := s.number("max-model-len"); ok && n < prompt+output {
		add(true, "engine %s: --max-model-len %d is less than %d prompt and %d output tokens", s.e.name, n, prompt, output)
	}
	if s.e.Role == RoleDecode {
		return
	}
	if n, ok := s.number("max-num-batched-tokens"); !ok {
		add(false, "engine %s: --max-num-batched-tokens is not set; below the prompt's %d tokens the prompt is computed in pieces", s.e.name, prompt)
	} else if n < prompt {
		add(false, "engine %s: --max-num-batched-tokens %d is less than the prompt's %d tokens: it is computed in pieces, and its KV cache leaves after the last one", s.e.name, n, prompt)
	}
}

func (s setting) connector(add adder) {
	if !s.hasKV {
		add(true, "engine %s: no --kv-transfer-config, so that no KV cache can move", s.e.name)
		return
	}
	switch s.kv.Connector {
	case "NixlConnector", "NixlPullConnector":
	default:
		add(true, "engine %s: kv_connector is %q; the two-leg protocol here is NixlConnector's (pull)", s.e.name, s.kv.Connector)
	}
	if s.kv.Extra.Policy != "" {
		add(false, "engine %s: kv_load_failure_policy stands in kv_connector_extra_config, where nothing reads it; move it up one level", s.e.name)
	}
	if s.kv.Policy != "fail" {
		add(false, `engine %s: kv_load_failure_policy is %q; with "fail" a failed transfer is an error and not a silent recompute`, s.e.name, s.kv.Policy)
	}
}

// equal compares with the arm's first engine.
func (s setting) equal(ref setting, add adder) {
	for _, o := range []struct {
		name  string
		fatal bool // the handshake refuses a difference
	}{{"block-size", true}, {"dtype", true}, {"kv-cache-dtype", true}, {"num-gpu-blocks-override", false}, {"max-num-seqs", false}, {"enforce-eager", false}} {
		if a, b := ref.flags[o.name], s.flags[o.name]; a != b {
			add(o.fatal, "arm %s: --%s is %q on %s and %q on %s", s.e.Arm, o.name, a, ref.e.name, b, s.e.name)
		}
	}
	if a, b := ref.kv.backends(), s.kv.backends(); a != b {
		add(true, "arm %s: NIXL backends are %s on %s and %s on %s", s.e.Arm, a, ref.e.name, b, s.e.name)
	}
}

// backends is what NIXL is told to use.
func (c transferConfig) backends() string {
	if len(c.Extra.Backends) == 0 {
		return "UCX (the default)"
	}
	return strings.Join(c.Extra.Backends, "+")
}

// Backends says for each disaggregated arm which NIXL backend its engines are
// configured with.
func (f *File) Backends() map[string]string {
	out := map[string]string{}
	for _, name := range f.names() {
		e := f.Engines[name]
		var c transferConfig
		if raw, ok := flagsOf(e.Argv)["kv-transfer-config"]; ok && json.Unmarshal([]byte(raw), &c) == nil && e.Role != RoleUnified {
			out[e.Arm] = c.backends()
		}
	}
	return out
}
