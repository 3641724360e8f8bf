package ucx

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/xferbench/xferbench/cgo/dl"
)

// ErrorHandling is how an endpoint learns of a peer that is gone.
type ErrorHandling int

const (
	// ErrorsAuto, the zero value, is ErrorsPeer, and ErrorsNone where the transports
	// have no such handling (shared memory before UCX 1.19); see [Context.Errors].
	ErrorsAuto ErrorHandling = iota
	// ErrorsPeer fails operations to a peer that is gone (UCP_ERR_HANDLING_MODE_PEER).
	ErrorsPeer
	// ErrorsNone leaves them waiting.
	ErrorsNone
)

// String is "auto", "peer" or "none".
func (e ErrorHandling) String() string {
	switch e {
	case ErrorsPeer:
		return "peer"
	case ErrorsNone:
		return "none"
	}
	return "auto"
}

// Config says how to open a [Context]. The zero value leaves all to UCX and to the
// UCX_* variables of the environment.
type Config struct {
	// Settings are applied in their order, each over the environment's.
	Settings []Setting
	// Errors is how endpoints learn of a peer that is gone.
	Errors ErrorHandling
	// Shared is set when more than one worker will be made.
	Shared bool
}

// Setting is one of UCX's settings.
type Setting struct {
	Key, Value string // the key with or without "UCX_"
	// Optional lets it be left out where this UCX does not know the key or refuses
	// the value: [Context.Notes] says so. Otherwise that is an error.
	Optional bool
}

// Version is a release of UCX.
type Version = dl.Version

// plan is what will be set, and what is then in force.
type plan struct {
	set     []Setting         // through ucp_config_modify, in this order, without "UCX_"
	inForce map[string]string // by full name, the environment's included
	errors  ErrorHandling
	refused string // why ErrorsAuto is ErrorsNone
	notes   []string
}

// tables makes UCX write its tables of protocols, which [Worker.Describe] reads; it
// changes nothing else.
const tables = "PROTO_INFO"

// resolve looks at the settings before UCX does: known is what it knows, nil when it
// cannot say.
func resolve(cfg Config, environ []string, known map[string]bool) (plan, error) {
	p := plan{inForce: map[string]string{}, errors: cfg.Errors}
	for _, e := range environ {
		if k, v, ok := strings.Cut(e, "="); ok && strings.HasPrefix(k, "UCX_") {
			p.inForce[k] = v
		}
	}
	_, tabled := p.inForce["UCX_"+tables]
	for _, s := range cfg.Settings {
		s.Key = strings.TrimPrefix(s.Key, "UCX_")
		tabled = tabled || s.Key == tables
		if known != nil && !known[s.Key] {
			if !s.Optional {
				return p, &Error{Call: fmt.Sprintf("setting UCX_%s=%s", s.Key, s.Value), Kind: ErrSetting,
					Detail: "this UCX has no such setting", Hint: HintSettings}
			}
			p.notes = append(p.notes, fmt.Sprintf("this UCX does not know UCX_%s: left out", s.Key))
			continue
		}
		p.set = append(p.set, s)
		p.inForce["UCX_"+s.Key] = s.Value
	}
	if !tabled && (known == nil || known[tables]) {
		p.set = append(p.set, Setting{Key: tables, Value: "y", Optional: true})
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
