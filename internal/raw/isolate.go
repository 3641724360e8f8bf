package raw

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/transport"
)

// Isolable says whether a run within this host can have a network of its own
// that has nothing but a loopback: nobody else then reaches what its transports
// listen on. why is the reason against it; both are zero for a run to a peer.
func (p *Plan) Isolable() (ok bool, why string) {
	if p.spec.Hosts.Peer != "" {
		return false, ""
	}
	for _, pair := range p.memories {
		for _, m := range []mem.Kind{pair.local.Kind, pair.peer.Kind} {
			if m != mem.Host && m != mem.HostHuge {
				return false, fmt.Sprintf("--memory %s: the GPU's transports may need this host's", m)
			}
		}
	}
	for _, c := range p.transports {
		if why := usesNIC(c); why != "" {
			return false, why
		}
	}
	return true, ""
}

// interfaceVars choose a network interface behind --bind's back.
var interfaceVars = []string{"UCX_NET_DEVICES", "FI_TCP_IFACE", "FI_SOCKETS_IFACE", "FI_UDP_IFACE"}

// loopbackTransports are UCX's that need no device but the loopback.
var loopbackTransports = []string{"tcp", "self", "sm", "shm", "mm", "sysv", "posix", "xpmem", "knem", "cma"}

// usesNIC says for what c may need more of this host's network than a loopback,
// "" for nothing. A provider that is not known may.
func usesNIC(c transport.Config) string {
	for _, b := range c.Bind {
		if ip := net.ParseIP(b); ip == nil || !ip.IsLoopback() {
			return c.Provider + " is bound to " + b
		}
	}
	for _, v := range interfaceVars {
		if s := os.Getenv(v); s != "" && s != "lo" && s != "all" {
			return v + " is set"
		}
	}
	if d := c.Options["NET_DEVICES"]; d != "" && d != "lo" && d != "all" {
		return "--ucx-config NET_DEVICES is set"
	}
	api, name, _ := strings.Cut(c.Provider, ":")
	switch api {
	case "socket", "memcpy":
		return ""
	case "ucx":
		return ucxUsesNIC(c.Provider, name)
	case "fabric":
	default:
		name = c.Provider
	}
	layered, _, _ := strings.Cut(strings.TrimSuffix(name, "-rxm"), ";")
	if slices.Contains([]string{"tcp", "net", "sockets", "udp", "shm"}, layered) {
		return ""
	}
	return c.Provider + " may use this host's NICs"
}

// ucxUsesNIC is [usesNIC] of a ucx provider with its list of transports.
func ucxUsesNIC(provider, list string) string {
	tls := strings.Split(list, ",")
	if list != "" && !slices.ContainsFunc(tls, func(t string) bool { return !slices.Contains(loopbackTransports, strings.TrimSpace(t)) }) {
		return ""
	}
	if d := host.Root("").RDMADevices(); len(d) > 0 {
		return fmt.Sprintf("%s may use %s", provider, strings.Join(d, ", "))
	}
	if slices.ContainsFunc(tls, func(t string) bool { return strings.HasPrefix(t, "cuda") || strings.HasPrefix(t, "gdr") }) {
		return provider + " may use a GPU"
	}
	return ""
}
