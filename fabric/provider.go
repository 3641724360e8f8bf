package fabric

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/cgo/mem"
)

// candidate is one way in which a library may offer a provider.
type candidate struct {
	provider  string // exact name in fi_info
	fabric    string // exact fabric name, or "" for any
	addressed bool   // takes a local IP address
	count     bool   // counting beats delivery complete, whose every write is answered
	note      string // for the header, when this one was chosen
}

// Provider is a name that the user gave, with what stands for it in libfabric.
type Provider struct {
	Name       string
	candidates []candidate
}

// efa reports whether EFA's own options and hints apply.
func (c candidate) efa() bool { return c.provider == "efa" }

var providers = map[string][]candidate{
	"efa":        {{provider: "efa", fabric: "efa"}},
	"efa-direct": {{provider: "efa", fabric: "efa-direct"}},
	"tcp": {
		{provider: "tcp", addressed: true, count: true},
		{provider: "net", addressed: true, count: true, note: "this libfabric has native RDM tcp under the name net"},
	},
	"net":           {{provider: "net", addressed: true, count: true}},
	"tcp;ofi_rxm":   {{provider: "tcp;ofi_rxm", addressed: true, count: true}},
	"tcp-rxm":       {{provider: "tcp;ofi_rxm", addressed: true, count: true}},
	"shm":           {{provider: "shm"}},
	"sockets":       {{provider: "sockets", addressed: true}},
	"verbs":         {{provider: "verbs;ofi_rxm"}},
	"verbs;ofi_rxm": {{provider: "verbs;ofi_rxm"}},
}

// other is the prefix of names that are passed to libfabric as they are.
const other = "fabric:"

// ProviderNames lists the names that [ParseProvider] knows, sorted; besides
// them it takes any libfabric provider as "fabric:NAME".
func ProviderNames() []string {
	names := make([]string, 0, len(providers))
	for n := range providers {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// ParseProvider reads a provider's name.
func ParseProvider(name string) (Provider, error) {
	if c, ok := providers[name]; ok {
		return Provider{name, c}, nil
	}
	if n, ok := strings.CutPrefix(name, other); ok && n != "" {
		ip := n != "shm" && (strings.HasPrefix(n, "tcp") || strings.HasPrefix(n, "udp") || strings.HasPrefix(n, "net") ||
			strings.HasPrefix(n, "sockets"))
		return Provider{name, []candidate{{provider: n, addressed: ip}}}, nil
	}
	return Provider{}, fmt.Errorf("libfabric provider %q: want one of %s, or %sNAME",
		name, strings.Join(ProviderNames(), ", "), other)
}

// query is what one fi_getinfo call asks for.
type query struct {
	provider, fabric, node string
	caps, mode, opFlags    uint64
	mrMode                 int
	manual                 bool // FI_PROGRESS_MANUAL
	list                   bool // everything of the provider, for listing
}

// query builds the hints for w. FI_TAGGED is asked for only where SEND will be
// run, since NIXL's plugin, which efa is compared to, does not ask for it.
func (c candidate) query(w Want) query {
	q := query{
		provider: c.provider, fabric: c.fabric,
		caps:   capMsg | capSend | capRecv,
		mode:   modeContext | modeContext2,
		mrMode: mrLocal | mrVirtAddr | mrAllocated | mrProvKey | mrEndpoint,
	}
	if c.addressed {
		q.node = w.Bind
	}
	if w.rma() {
		q.caps |= capRMA | capRead | capWrite | capRemoteRead | capRemoteWrite
	}
	if w.CUDA {
		q.caps |= capHMEM
		q.mrMode |= mrHMEM
	}
	// The measuring loop polls from connect to close: a provider's own progress
	// thread would only take a core from it.
	q.manual = true
	if c.efa() {
		q.manual = false
		// The hints of NIXL's plugin: without FI_CONTEXT2 the efa fabric answers.
		q.caps |= capRemoteComm
		if !w.NoShared {
			q.caps |= capLocalComm
		}
		q.mrMode = mrLocal | mrVirtAddr | mrAllocated | mrProvKey | mrHMEM
		if c.fabric == "efa" {
			q.mode = modeContext
		}
	}
	return q
}

// unavailable says why a provider cannot be had, from what fi_getinfo answered
// and what the host shows.
func (l *Library) unavailable(p Provider, w Want, got *Error) error {
	c := p.candidates[0]
	e := &Error{Call: got.Call, Provider: p.Name, Errno: got.Errno, Detail: got.Detail, Kind: ErrUnavailable}
	if c.efa() && len(efaDevices()) == 0 {
		return l.noEFA(p, e) // whatever FI_PROVIDER says
	}
	names, err := l.names()
	if err != nil {
		return errors.Join(e, err)
	}
	there := slices.ContainsFunc(p.candidates, func(c candidate) bool { return slices.Contains(names, c.provider) })
	if list, set := os.LookupEnv("FI_PROVIDER"); set && !there {
		if what, next := hiding(list, p.candidates); what != "" {
			e.Kind, e.Detail, e.Hint = ErrHidden, fmt.Sprintf("FI_PROVIDER=%s hides %s: %s", list, what, got.Detail), Hint(next)
			return e
		}
	}
	if c.efa() {
		return l.noEFA(p, e)
	}
	switch {
	case !there:
		if c.provider == "shm" {
			if what, next := mem.Shortage(0, uint64(runtime.NumCPU())*sharedBytes); what != "" {
				e.Detail, e.Hint = fmt.Sprintf("%s: %s", what, got.Detail), Hint(next)
				return e
			}
		}
		e.Detail = fmt.Sprintf("libfabric %v (%s) offers no %s on this host: %s; it offers %s",
			l.version, l.Path(), c.provider, got.Detail, cmp.Or(strings.Join(names, ", "), "nothing"))
		e.Hint, e.Environment = "see `fi_info`, or choose another libfabric with --libfabric", environment()
	case w.CUDA:
		e.Kind = ErrUnsupported
		e.Detail = "GPU memory (FI_HMEM) refused: " + got.Detail
		e.Hint = "this libfabric was built without CUDA or the provider cannot use GPU memory: use AWS's libfabric (--libfabric) or --memory cuda-host"
	case w.Bind != "" && c.addressed:
		e.Detail = fmt.Sprintf("nothing on local address %s: %s", w.Bind, got.Detail)
		e.Hint = "choose a local IP address (see `ip address`); FI_TCP_IFACE, if set, must name its interface"
	default:
		e.Kind = ErrUnsupported
		e.Detail = "the provider is there but refuses what these operations need: " + got.Detail
		e.Hint, e.Environment = "run fewer kinds of operation with --op, or see FI_LOG_LEVEL=info", environment()
	}
	return e
}

// hiding names what an FI_PROVIDER list hides of candidates, with the way out; "" when
// it lets one through that could stand for all.
func hiding(list string, candidates []candidate) (what, next string) {
	var hidden, parts []string
	for _, c := range candidates {
		if allowed(list, c.provider) {
			continue
		}
		hidden = append(hidden, c.provider)
		for p := range strings.SplitSeq(c.provider, ";") {
			if !allowed(list, p) && !slices.Contains(parts, p) {
				parts = append(parts, p)
			}
		}
	}
	names := strings.Join(parts, " and ")
	switch {
	case hidden == nil:
		return "", ""
	case strings.HasPrefix(list, "^"):
		next = "unset it, or take " + names + " out of it"
	case list == "":
		next = "unset FI_PROVIDER, which is set and empty"
	default:
		next = "unset it, or add " + names + " to it"
	}
	return strings.Join(hidden, " and "), next
}

// allowed reports whether an FI_PROVIDER list lets provider through: the names of
// layered providers must all be listed, or none excluded with ^.
func allowed(list, provider string) bool {
	rest, deny := strings.CutPrefix(list, "^")
	names := strings.FieldsFunc(rest, func(r rune) bool { return r == ',' || r == ';' })
	for _, part := range strings.Split(provider, ";") {
		if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, part) }) == deny {
			// ofi_rxm need not be named: the core keeps utility providers.
			if !deny && strings.HasPrefix(part, "ofi_") {
				continue
			}
			return false
		}
	}
	return true
}

// noEFA tells apart the reasons for a missing efa.
func (l *Library) noEFA(p Provider, e *Error) error {
	devices := efaDevices()
	if len(devices) == 0 {
		e.Kind = ErrNoDevice
		e.Detail = "this host has no EFA device: " + e.Detail
		e.Hint = "run on an EC2 instance with an EFA interface attached, or choose another --provider"
		return e
	}
	if err := openable(devices); err != nil {
		e.Kind = ErrPermission
		e.Detail = fmt.Sprintf("EFA device %s cannot be opened: %v; %s", strings.Join(devices, ", "), err, e.Detail)
		e.Hint = "give this user /dev/infiniband (in a container: the vpc.amazonaws.com/efa resource, or --device)"
		return e
	}
	names, err := l.names()
	if err != nil {
		return errors.Join(e, err)
	}
	at := fmt.Sprintf("libfabric %v (%s)", l.version, l.Path())
	switch direct := p.candidates[0].fabric == "efa-direct"; {
	case !slices.Contains(names, "efa"):
		e.Detail = fmt.Sprintf("%s has no efa provider for device %s: %s", at, strings.Join(devices, ", "), e.Detail)
		e.Hint = "load AWS's: --libfabric /opt/amazon/efa/lib64/libfabric.so.1 (lib on Debian and Ubuntu)"
	case direct && l.version.Less(Version{Major: 2, Minor: 1}):
		e.Kind = ErrTooOld
		e.Detail = fmt.Sprintf("%s has no efa-direct, which came with 2.1: %s", at, e.Detail)
		e.Hint = "load a newer one with --libfabric"
	default:
		e.Kind = ErrUnsupported
		e.Detail = fmt.Sprintf("the EFA device is there but refuses what these operations need: %s", e.Detail)
		e.Hint = "efa-direct needs RDMA read and write in the device, GPU memory needs a libfabric with CUDA; efa emulates the former, --memory cuda-host avoids the latter"
	}
	return e
}

// efaDevices names the RDMA devices of the efa driver.
func efaDevices() []string {
	links, err := filepath.Glob(filepath.Join(sysfs(), "class/infiniband/*/device/driver"))
	if err != nil {
		return nil
	}
	var names []string
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil && filepath.Base(target) == "efa" {
			names = append(names, filepath.Base(filepath.Dir(filepath.Dir(l))))
		}
	}
	return names
}

// openable is the error of opening the verbs files of devices, if any: without
// them libibverbs sees no device and says nothing.
func openable(devices []string) error {
	var errs []error
	for _, d := range devices {
		nodes, err := filepath.Glob(filepath.Join(sysfs(), "class/infiniband", d, "device/infiniband_verbs/uverbs*"))
		if err != nil {
			return err
		}
		for _, n := range nodes {
			f, err := os.OpenFile(filepath.Join("/dev/infiniband", filepath.Base(n)), os.O_RDWR, 0)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if err := f.Close(); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
