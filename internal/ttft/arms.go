package ttft

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/serving/metrics"
)

// Arm is one deployment that is measured: engines and the way requests take.
type Arm struct {
	Name string
	Mode string
	Path string
	// Front is where requests go on the unified, proxy and direct paths.
	Front string
	// Prefill and Decode are the engines' base URLs. On the proxy path they are
	// there for their metrics: without them nothing is proven.
	Prefill, Decode []string
	// Model is the served model name; empty: the first one that /v1/models lists.
	Model string
	// KV is the KV cache of its engines, as far as it is known beforehand.
	KV Geometry
	// Serving is what is known of the engines beforehand; hosts come from the URLs.
	Serving record.Serving

	// Found by Prepare.
	expects   expects
	noted     map[string]bool // on the geometry
	simulated bool
	versions  map[string]string        // by engine
	pools     map[string]metrics.Cache // by engine
}

// ParseArm reads NAME=URL,… as the --arm flag takes it. A URL alone is the front
// (a unified engine or a proxy), two are a prefill and a decode engine; with a
// key they are what it says: prefill=URL and decode=URL (each may be given
// several times), proxy=URL, unified=URL, direct=URL. model=NAME names the
// served model.
func ParseArm(s string) (Arm, error) {
	name, rest, ok := strings.Cut(s, "=")
	if !ok || name == "" || strings.ContainsAny(name, "/:, ") || rest == "" {
		return Arm{}, fmt.Errorf("arm %q: want NAME=URL,… such as tcp=prefill=http://a:8100,decode=http://b:8200", s)
	}
	a := Arm{Name: name}
	var bare []string
	for _, part := range strings.Split(rest, ",") {
		key, value := "", part
		if k, v, ok := strings.Cut(part, "="); ok && !strings.ContainsAny(k, "/:?") {
			key, value = k, v
		}
		if key == "" {
			u, err := BaseURL(value)
			if err != nil {
				return Arm{}, fmt.Errorf("arm %s: %w", name, err)
			}
			bare = append(bare, u)
			continue
		}
		if err := a.set(key, value); err != nil {
			return Arm{}, fmt.Errorf("arm %s: %w", name, err)
		}
	}
	if err := a.place(bare); err != nil {
		return Arm{}, fmt.Errorf("arm %s: %w", name, err)
	}
	return a.Resolve("", "")
}

// set takes one key=value.
func (a *Arm) set(key, value string) error {
	if key == "model" {
		if value == "" {
			return errors.New("the model has no name")
		}
		a.Model = value
		return nil
	}
	u, err := BaseURL(value)
	if err != nil {
		return err
	}
	switch key {
	case "prefill":
		a.Prefill = append(a.Prefill, u)
	case "decode":
		a.Decode = append(a.Decode, u)
	case record.PathProxy, record.PathUnified, record.PathDirect:
		if a.Front != "" {
			return fmt.Errorf("two front ends, %s and %s", a.Front, u)
		}
		a.Front, a.Path = u, key
	default:
		return fmt.Errorf("unknown key %q; use prefill, decode, proxy, unified, direct or model", key)
	}
	return nil
}

// place gives the URLs without a key their place, where their number tells it.
func (a *Arm) place(bare []string) error {
	switch {
	case len(bare) == 1 && a.Front == "":
		a.Front = bare[0]
	case len(bare) == 2 && a.Front == "" && a.Prefill == nil && a.Decode == nil:
		a.Prefill, a.Decode = bare[:1], bare[1:]
	case len(bare) > 0:
		return fmt.Errorf("what is %s? Write prefill=, decode=, proxy= or unified= before each URL", strings.Join(bare, " and "))
	}
	return nil
}

// BaseURL checks the base URL of a server and removes a slash at its end.
func BaseURL(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", fmt.Errorf("URL %q: %w", s, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", fmt.Errorf("URL %q: want http://HOST:PORT", s)
	}
	u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/v1")
	return strings.TrimRight(u.String(), "/"), nil
}

// Resolve fills in Mode and Path, from what is asked for and what URLs there
// are, and refuses what does not fit together. Empty means: as the URLs say.
func (a Arm) Resolve(mode, path string) (Arm, error) {
	mode, path = a.way(mode, path)
	paths := map[string][]string{record.ModeUnified: {record.PathUnified}, record.ModeDisaggregated: {record.PathTwoLeg, record.PathProxy, record.PathDirect}}
	if paths[mode] == nil {
		return a, fmt.Errorf("unknown mode %q; use %s or %s", mode, record.ModeUnified, record.ModeDisaggregated)
	}
	if !slices.Contains(paths[mode], path) {
		return a, fmt.Errorf("arm %s: the %s mode has no path %q; use %s", a.Name, mode, path, strings.Join(paths[mode], ", "))
	}
	a.Mode, a.Path = mode, path
	if path == record.PathDirect && a.Front == "" && len(a.Prefill) > 0 {
		a.Front = a.Prefill[0]
	}
	if err := a.complete(); err != nil {
		return a, fmt.Errorf("arm %s: %w", a.Name, err)
	}
	return a, nil
}

// way is the mode and the path: as asked for, or as the URLs say.
func (a Arm) way(mode, path string) (string, string) {
	path = cmp.Or(path, a.Path)
	if mode == "" {
		mode = record.ModeDisaggregated
		if path == record.PathUnified || path == "" && len(a.Prefill) == 0 && len(a.Decode) == 0 {
			mode = record.ModeUnified
		}
	}
	switch {
	case path != "":
	case mode == record.ModeUnified:
		path = record.PathUnified
	case a.Front != "":
		path = record.PathProxy
	default:
		path = record.PathTwoLeg
	}
	return mode, path
}

// complete tells which URLs the path lacks, or has and cannot use.
func (a Arm) complete() error {
	pair := len(a.Prefill) > 0 && len(a.Decode) > 0
	switch {
	case a.Path == record.PathTwoLeg && !pair:
		return errors.New("the two-leg path needs --prefill URL and --decode URL")
	case a.Path == record.PathProxy && a.Front == "":
		return errors.New("the proxy path needs the proxy's URL")
	case a.Path == record.PathProxy && !pair:
		return errors.New("behind a proxy nothing shows whether the KV cache moved; add the engines' own URLs with prefill= and decode=, for their /metrics")
	case a.Path == record.PathDirect && a.Front == "":
		return errors.New("the direct path needs the prefill engine's URL")
	case a.Path == record.PathUnified && a.Front == "":
		return errors.New("the unified mode needs one URL")
	case a.Path == record.PathUnified && len(a.Prefill)+len(a.Decode) > 0:
		return errors.New("a unified engine has no prefill and decode URLs")
	}
	return nil
}

// engines are the base URLs whose metrics prove a request.
func (a Arm) engines() (prefill, decode []string) {
	if a.Path == record.PathUnified || a.Path == record.PathDirect {
		return []string{a.Front}, nil
	}
	return a.Prefill, a.Decode
}

// all are the base URLs of all servers that requests go to.
func (a Arm) all() []string {
	p, d := a.engines()
	list := append(slices.Clone(p), d...)
	if a.Path == record.PathProxy {
		list = append(list, a.Front)
	}
	return list
}

// pairs is how many pairs of a prefill and a decode engine there are.
func (a Arm) pairs() int {
	p, d := a.engines()
	return len(p) * max(len(d), 1)
}

// pair is pair number i, going round over all pairs: engines of both sides
// alternate, so that neighbouring requests share none where that is possible.
func (a Arm) pair(i int) (prefill, decode string) {
	p, d := a.engines()
	if len(d) == 0 {
		return p[i%len(p)], ""
	}
	// Going round both lists at once meets every pair only if their lengths have
	// no common factor; shifting one list by one each time they meet again does.
	lcm := len(p) * len(d) / gcd(len(p), len(d))
	return p[i%len(p)], d[(i+i/lcm)%len(d)]
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
