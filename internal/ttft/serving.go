package ttft

import (
	"net/url"
	"slices"

	"github.com/xferbench/xferbench/internal/record"
)

// simulatedConnector stands in the record for that of simulated engines.
const simulatedConnector = "simulated"

// serving is what the record says of the arm's engines: nil where no KV cache moves.
func (a *Arm) serving() *record.Serving {
	if a.Path == record.PathUnified || a.Path == record.PathDirect {
		return nil
	}
	s := a.Serving
	s.PrefillHosts, s.DecodeHosts = hosts(a.Prefill), hosts(a.Decode)
	return &s
}

// hosts are those of base URLs, each once.
func hosts(bases []string) (out []string) {
	for _, base := range bases {
		// BaseURL has parsed it before.
		if u, err := url.Parse(base); err == nil && !slices.Contains(out, u.Hostname()) {
			out = append(out, u.Hostname())
		}
	}
	return out
}
