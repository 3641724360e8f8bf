package ucx

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/cgo/dl"
)

// ErrHandling is the option that is not UCX's own: the endpoints' error
// handling mode, "peer" (as NIXL, the default) or "none".
const ErrHandling = "ERR_HANDLING"

// Config says how to open a [Context].
type Config struct {
	// TLS is UCX_TLS, the comma-separated transports; "" leaves the choice to
	// UCX and to the user's environment.
	TLS string
	// NetDevices is UCX_NET_DEVICES; "" leaves it alone. The user's
	// environment and Options win over it.
	NetDevices string
	// Rails is UCX_MAX_RMA_RAILS, how many NICs one operation is spread over;
	// 0 means NIXL's 2.
	Rails int
	// Options are settings by their UCX name, with or without "UCX_". They win
	// over the environment and over everything above.
	Options map[string]string
	// Shared is set when more than one worker will be made.
	Shared bool
}

// Version is a release of UCX.
type Version = dl.Version

// setting is one key without "UCX_" and its value.
type setting struct{ key, value string }

// nixlSettings are what NIXL's UCX plugin forces unless the environment says
// otherwise (nixl src/plugins/ucx/ucx_utils.cpp). A measurement under others
// would be of another protocol than the one that vLLM gets.
func nixlSettings(v Version, efa bool) []setting {
	s := []setting{
		{"RNDV_THRESH", "inf"},
		{"MAX_RMA_RAILS", "2"},
		{"IB_PCI_RELAXED_ORDERING", "try"},
		{"RC_FENCE", "none"},
	}
	if !v.Less(Version{Major: 1, Minor: 21}) {
		s = append(s, setting{"MAX_HCA_PER_GPU", "auto"})
	}
	if !v.Less(Version{Major: 1, Minor: 22}) {
		s = append(s, setting{"RNDV_PIPELINE_ERROR_HANDLING", "y"})
	}
	if efa {
		s = append(s, setting{"ADDRESS_VERSION", "v2"})
		if !v.Less(Version{Major: 1, Minor: 19}) {
			s = append(s, setting{"MAX_COMPONENT_MDS", "32"})
		}
	}
	return s
}

// plan is what will be set, and what the record says was in force.
type plan struct {
	set        []setting         // through ucp_config_modify, in this order
	required   map[string]bool   // keys of set that the user asked for
	inForce    map[string]string // by full name, the environment's included
	peerErrors bool
	peerForced bool // by the user
	notes      []string
}

// resolve decides every setting: options over the environment over the
// provider over NIXL's. known is nil when UCX cannot say what it knows.
func resolve(cfg Config, v Version, efa bool, environ []string, known map[string]bool) (plan, error) {
	p := plan{required: map[string]bool{}, inForce: map[string]string{}, peerErrors: true}
	env := map[string]bool{}
	for _, e := range environ {
		if k, val, ok := strings.Cut(e, "="); ok && strings.HasPrefix(k, "UCX_") {
			env[strings.TrimPrefix(k, "UCX_")] = true
			p.inForce[k] = val
		}
	}
	options := map[string]string{}
	for k, val := range cfg.Options {
		k = strings.TrimPrefix(k, "UCX_")
		if _, twice := options[k]; twice {
			return p, &Error{Call: "setting " + k, Detail: "given with and without UCX_", Kind: ErrSetting}
		}
		options[k] = val
	}
	add := func(s setting) {
		if known != nil && !known[s.key] {
			p.notes = append(p.notes, fmt.Sprintf("this UCX does not know UCX_%s: left out", s.key))
			return
		}
		p.set = append(p.set, s)
		p.inForce["UCX_"+s.key] = s.value
	}
	for _, s := range nixlSettings(v, efa) {
		if s.key == "MAX_RMA_RAILS" && cfg.Rails > 0 {
			s.value = strconv.Itoa(cfg.Rails)
		}
		if _, given := options[s.key]; !given && !env[s.key] {
			add(s)
		}
	}
	if _, given := options["PROTO_INFO"]; !given && !env["PROTO_INFO"] && (known == nil || known["PROTO_INFO"]) {
		p.set = append(p.set, setting{"PROTO_INFO", "y"}) // read by Describe; changes nothing else
	}
	if _, given := options["TLS"]; !given && cfg.TLS != "" {
		add(setting{"TLS", cfg.TLS})
	}
	if _, given := options["NET_DEVICES"]; !given && cfg.NetDevices != "" && !env["NET_DEVICES"] {
		add(setting{"NET_DEVICES", cfg.NetDevices})
	}
	if mode, given := options[ErrHandling]; given {
		if mode != "peer" && mode != "none" {
			return p, &Error{Call: ErrHandling + "=" + mode, Detail: "want peer or none", Kind: ErrSetting}
		}
		p.peerErrors, p.peerForced = mode == "peer", true
		delete(options, ErrHandling)
	}
	p.inForce[ErrHandling] = map[bool]string{true: "peer", false: "none"}[p.peerErrors]
	for _, k := range slices.Sorted(maps.Keys(options)) {
		if known != nil && !known[k] {
			return p, &Error{Call: fmt.Sprintf("setting UCX_%s=%s", k, options[k]), Detail: "this UCX has no such setting",
				Hint: "`ucx_info -cf` lists them", Kind: ErrSetting}
		}
		add(setting{k, options[k]})
		p.required[k] = true
	}
	return p, nil
}

var settingName = regexp.MustCompile(`(?m)^(?:# inherits: *)?(UCX_\w+(?:=|, UCX_\w+|$).*)$`)

// knownSettings reads the keys out of UCX's own print of all settings: its
// assignments, and the names of groups in its "inherits:" comments.
func knownSettings(text string) map[string]bool {
	known := map[string]bool{}
	for _, m := range settingName.FindAllStringSubmatch(text, -1) {
		name, _, assigned := strings.Cut(m[1], "=")
		names := []string{name}
		if !assigned {
			names = strings.Split(m[1], ",")
		}
		for _, n := range names {
			known[strings.TrimPrefix(strings.TrimSpace(n), "UCX_")] = true
		}
	}
	return known
}

// hasEFA reports an Elastic Fabric Adapter among the PCI devices below sysfs:
// Amazon's vendor id with device ids 0xefa0 and up.
func hasEFA(sysfs string) (bool, error) {
	devices, err := filepath.Glob(filepath.Join(sysfs, "bus/pci/devices/*/vendor"))
	if err != nil {
		return false, err
	}
	for _, f := range devices {
		vendor, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue // unplugged since
		} else if err != nil {
			return false, err
		}
		device, err := os.ReadFile(filepath.Join(filepath.Dir(f), "device"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
		if strings.TrimSpace(string(vendor)) == "0x1d0f" && strings.HasPrefix(strings.TrimSpace(string(device)), "0xefa") {
			return true, nil
		}
	}
	return false, nil
}

// HasEFA reports whether this host has an Elastic Fabric Adapter.
func HasEFA() (bool, error) { return hasEFA("/sys") }
