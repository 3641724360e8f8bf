package transport

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/ucx"
)

// ucxErrHandling is the option that is not UCX's own: the endpoints' error handling,
// "peer" (as NIXL, the default) or "none".
const ucxErrHandling = "ERR_HANDLING"

// nixlSettings are what NIXL's UCX plugin forces unless the environment says
// otherwise (nixl src/plugins/ucx/ucx_utils.cpp). A measurement under others
// would be of another protocol than the one that vLLM gets.
func nixlSettings(v ucx.Version, efa bool) []ucx.Setting {
	s := []ucx.Setting{
		{Key: "RNDV_THRESH", Value: "inf"},
		{Key: "MAX_RMA_RAILS", Value: "2"},
		{Key: "IB_PCI_RELAXED_ORDERING", Value: "try"},
		{Key: "RC_FENCE", Value: "none"},
	}
	if !v.Less(ucx.Version{Major: 1, Minor: 21}) {
		s = append(s, ucx.Setting{Key: "MAX_HCA_PER_GPU", Value: "auto"})
	}
	if !v.Less(ucx.Version{Major: 1, Minor: 22}) {
		s = append(s, ucx.Setting{Key: "RNDV_PIPELINE_ERROR_HANDLING", Value: "y"})
	}
	if efa {
		s = append(s, ucx.Setting{Key: "ADDRESS_VERSION", Value: "v2"})
		if !v.Less(ucx.Version{Major: 1, Minor: 19}) {
			s = append(s, ucx.Setting{Key: "MAX_COMPONENT_MDS", Value: "32"})
		}
	}
	for i := range s {
		s[i].Optional = true
	}
	return s
}

// ucxWant is what decides UCX's settings.
type ucxWant struct {
	tls     string            // UCX_TLS; "": UCX's choice, or the environment's
	devices string            // UCX_NET_DEVICES, unless the environment has one; "": UCX's choice
	rails   int               // UCX_MAX_RMA_RAILS, over how many NICs an operation is spread; 0: NIXL's 2
	options map[string]string // by UCX's name, with or without "UCX_"
	shared  bool              // more than one worker will be made
}

// ucxSettings decides every setting: options over the environment over the provider
// over NIXL's; but the provider's transports win over the environment's.
func ucxSettings(w ucxWant, v ucx.Version, efa bool, environ []string) (ucx.Config, error) {
	c := ucx.Config{Shared: w.shared}
	env := map[string]bool{}
	for _, e := range environ {
		if k, _, ok := strings.Cut(e, "="); ok && strings.HasPrefix(k, "UCX_") {
			env[strings.TrimPrefix(k, "UCX_")] = true
		}
	}
	options := map[string]string{}
	for k, val := range w.options {
		k = strings.TrimPrefix(k, "UCX_")
		if _, twice := options[k]; twice {
			return c, &ucx.Error{Call: "setting " + k, Detail: "given with and without UCX_", Kind: ucx.ErrSetting}
		}
		options[k] = val
	}
	for _, s := range nixlSettings(v, efa) {
		if s.Key == "MAX_RMA_RAILS" && w.rails > 0 {
			s.Value = strconv.Itoa(w.rails)
		}
		if _, given := options[s.Key]; !given && !env[s.Key] {
			c.Settings = append(c.Settings, s)
		}
	}
	if _, given := options["TLS"]; !given && w.tls != "" {
		c.Settings = append(c.Settings, ucx.Setting{Key: "TLS", Value: w.tls})
	}
	if _, given := options["NET_DEVICES"]; !given && w.devices != "" && !env["NET_DEVICES"] {
		c.Settings = append(c.Settings, ucx.Setting{Key: "NET_DEVICES", Value: w.devices})
	}
	if mode, given := options[ucxErrHandling]; given {
		switch mode {
		case "peer":
			c.Errors = ucx.ErrorsPeer
		case "none":
			c.Errors = ucx.ErrorsNone
		default:
			return c, &ucx.Error{Call: ucxErrHandling + "=" + mode, Detail: "want peer or none", Kind: ucx.ErrSetting}
		}
		delete(options, ucxErrHandling)
	}
	for _, k := range slices.Sorted(maps.Keys(options)) {
		c.Settings = append(c.Settings, ucx.Setting{Key: k, Value: options[k]})
	}
	return c, nil
}

// ucxInForce is what the record says was in force, and a note where UCX has no error
// handling.
func ucxInForce(c *ucx.Context) (settings map[string]string, note string) {
	settings = maps.Clone(c.Settings())
	mode, why := c.Errors()
	settings[ucxErrHandling] = "peer"
	if mode == ucx.ErrorsNone {
		settings[ucxErrHandling] = "none"
	}
	if why != "" { // NIXL with its default would not run at all
		note = fmt.Sprintf("these transports have no peer error handling (%s): %s=none, and a peer that dies shows as a timeout", why, ucxErrHandling)
	}
	return settings, note
}
