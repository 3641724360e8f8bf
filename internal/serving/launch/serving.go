package launch

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
)

// serving is what an engine's command and environment say of how it moves the KV
// cache.
func (e *Engine) serving() record.Serving {
	s := record.Serving{}
	s.BatchTokens, _ = strconv.Atoi(e.option("--max-num-batched-tokens")) // 0 for what is no number
	var c struct {
		Connector string `json:"kv_connector"`
		Extra     struct {
			Backends []string `json:"backends"`
		} `json:"kv_connector_extra_config"`
	}
	// What cannot be read is not known here; the engine itself refuses it.
	if json.Unmarshal([]byte(e.option("--kv-transfer-config")), &c) != nil {
		return s
	}
	s.Connector = c.Connector
	switch c.Connector {
	case "NixlConnector", "NixlPullConnector":
		s.Op = "read"
	case "NixlPushConnector":
		s.Op = "write"
	default:
		return s
	}
	switch len(c.Extra.Backends) {
	case 0:
		s.Backend = "UCX"
	case 1:
		s.Backend = c.Extra.Backends[0]
	}
	s.Provider = e.provider(s.Backend)
	return s
}

// option is the value of a long option of the command, the last one given: "--x v"
// or "--x=v".
func (e *Engine) option(name string) (value string) {
	for i, a := range e.Argv {
		if v, ok := strings.CutPrefix(a, name+"="); ok {
			value = v
		} else if a == name && i+1 < len(e.Argv) {
			value = e.Argv[i+1]
		}
	}
	return value
}

// provider is what the environment holds a backend to, as --provider names it; ""
// where the library chooses.
func (e *Engine) provider(backend string) string {
	switch backend {
	case "LIBFABRIC":
		return e.Env["FI_PROVIDER"]
	case "UCX":
		// Memory is copied by other transports beside the one of the wire.
		wire := slices.DeleteFunc(strings.Split(e.Env["UCX_TLS"], ","), func(t string) bool {
			return t == "self" || strings.HasSuffix(t, "_copy")
		})
		if len(wire) == 1 && wire[0] != "" && wire[0] != "all" {
			return "ucx:" + wire[0]
		}
	}
	return ""
}

// agreed keeps what all engines of an arm have in common.
func agreed(a, b record.Serving) record.Serving {
	for _, f := range [][2]*string{{&a.Connector, &b.Connector}, {&a.Backend, &b.Backend}, {&a.Provider, &b.Provider}, {&a.Op, &b.Op}} {
		if *f[0] != *f[1] {
			*f[0] = ""
		}
	}
	if a.BatchTokens != b.BatchTokens {
		a.BatchTokens = 0
	}
	return a
}
