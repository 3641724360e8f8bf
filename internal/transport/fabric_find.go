package transport

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/record"
)

// Why a provider cannot be had, besides the kinds of package fabric.
var (
	errNoEFA  = errors.New("no EFA device")
	errTooOld = errors.New("libfabric is too old")
	errHidden = errors.New("hidden by FI_PROVIDER")
)

// fabricCandidate is one way in which a library may offer a provider.
type fabricCandidate struct {
	provider  string // exact name in fi_info
	fabric    string // exact fabric name, or "" for any
	addressed bool   // takes a local IP address
	count     bool   // counting beats delivery complete, whose every write is answered
	note      string // for the header, when this one was chosen
}

// efa reports whether EFA's own options and hints apply.
func (c fabricCandidate) efa() bool { return c.provider == "efa" }

// fabricChoice is a name that the user gave, with what stands for it in libfabric.
type fabricChoice struct {
	name       string
	candidates []fabricCandidate
}

var fabricProviders = map[string][]fabricCandidate{
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

// otherFabric is the prefix of names that are passed to libfabric as they are.
const otherFabric = "fabric:"

// fabricNames lists the names that parseFabric knows, sorted; besides them it takes
// any libfabric provider as "fabric:NAME".
func fabricNames() []string { return slices.Sorted(maps.Keys(fabricProviders)) }

// parseFabric reads a provider's name.
func parseFabric(name string) (fabricChoice, error) {
	if c, ok := fabricProviders[name]; ok {
		return fabricChoice{name, c}, nil
	}
	if n, ok := strings.CutPrefix(name, otherFabric); ok && n != "" {
		ip := n != "shm" && (strings.HasPrefix(n, "tcp") || strings.HasPrefix(n, "udp") || strings.HasPrefix(n, "net") ||
			strings.HasPrefix(n, "sockets"))
		return fabricChoice{name, []fabricCandidate{{provider: n, addressed: ip}}}, nil
	}
	return fabricChoice{}, fmt.Errorf("libfabric provider %q: want one of %s, or %sNAME",
		name, strings.Join(fabricNames(), ", "), otherFabric)
}

// fabricWant says what an interface must be able to do.
type fabricWant struct {
	ops []loop.Op // that will be run
	// bind is the local IP address whose interface IP-based providers use.
	bind string
	// cuda: the region is device memory.
	cuda bool
	// landings are the proofs of landing that WRITE may have, best first; none: count
	// over tcp, delivery complete elsewhere, the other where it is refused.
	landings []fabric.Landing
	// noShared forbids efa to carry same-host traffic over shared memory.
	noShared bool
}

// hints are what libfabric is asked for. FI_TAGGED is asked for only where SEND will
// be run, since NIXL's plugin, which efa is compared to, does not ask for it.
func (c fabricCandidate) hints(w fabricWant, landing fabric.Landing, sends fabric.Sends) fabric.Hints {
	h := fabric.Hints{Provider: c.provider, Fabric: c.fabric, Ops: w.ops, Landing: landing, Sends: sends, CUDA: w.cuda}
	if c.addressed {
		h.Source = w.bind
	}
	if c.efa() {
		// The hints of NIXL's plugin: without FI_CONTEXT2 the efa fabric answers.
		h.AutoProgress = true
		h.Caps = fabric.RemoteComm
		if !w.noShared {
			h.Caps |= fabric.LocalComm
		}
		h.MRMode = fabric.MRLocal | fabric.MRVirtAddr | fabric.MRAllocated | fabric.MRProvKey | fabric.MRHMEM
		if c.fabric == "efa" {
			h.Mode = fabric.ModeContext
		}
	}
	return h
}

// endpoint says how an interface is opened for depth operations in flight.
func (f *fabricFound) endpoint(initiator bool, depth int) fabric.EndpointConfig {
	c := fabric.EndpointConfig{Initiator: initiator, Depth: depth}
	if f.candidate.efa() {
		// As NIXL's plugin.
		c.QueueSize, c.RNRRetries = 12288, 7
		c.NoSharedMemory = f.want.noShared
	}
	return c
}

// fabricFound is what can run a provider on this host.
type fabricFound struct {
	*fabric.Found
	candidate fabricCandidate
	want      fabricWant
	notes     []string
}

// findFabric asks lib what can run provider on this host, its candidates in their
// order, with the best landing and message kind first. It never answers with another
// provider than the name says; a [*fabric.Error] says why there is none.
func findFabric(lib *fabric.Library, name string, w fabricWant) (*fabricFound, error) {
	p, err := parseFabric(name)
	if err != nil {
		return nil, err
	}
	var first *fabric.Error
	for _, c := range p.candidates {
		f, err := c.find(lib, name, w)
		if err == nil {
			if c.note != "" {
				f.notes = append(f.notes, fmt.Sprintf("%s: %s", name, c.note))
			}
			return f, nil
		}
		var e *fabric.Error
		if !errors.As(err, &e) {
			return nil, err
		}
		if first == nil || !known(first) && known(e) {
			first = e
		}
	}
	if known(first) {
		return nil, Flagged(first)
	}
	return nil, p.unavailable(lib, w, first)
}

// known reports whether e has its reason: what is only unavailable may have many.
func known(e *fabric.Error) bool { return !errors.Is(e, fabric.ErrUnavailable) }

func (c fabricCandidate) find(lib *fabric.Library, name string, w fabricWant) (*fabricFound, error) {
	landings := w.landings
	if landings == nil {
		landings = []fabric.Landing{fabric.DeliveryComplete, fabric.RemoteCount}
		if c.count {
			landings = []fabric.Landing{fabric.RemoteCount, fabric.DeliveryComplete}
		}
	}
	if !slices.Contains(w.ops, loop.Write) {
		landings = landings[:1]
	}
	sends := []fabric.Sends{fabric.NoSends}
	if slices.Contains(w.ops, loop.Send) {
		sends = []fabric.Sends{fabric.Tagged, fabric.Slots}
	}
	var last error
	for _, landing := range landings {
		for _, s := range sends {
			h := c.hints(w, landing, s)
			h.Name = name
			f, err := lib.Find(h)
			if err != nil && c.fabric == "efa-direct" && errors.Is(err, fabric.ErrUnavailable) {
				// Without unsolicited receives, newer libraries want receives posted for
				// remote CQ data; delivery complete does not use any.
				h.Mode = fabric.ModeContext | fabric.ModeContext2 | fabric.ModeRxCQData
				again, err2 := lib.Find(h)
				if err2 == nil || !errors.Is(err2, fabric.ErrUnavailable) {
					f, err = again, err2
				}
			}
			if err == nil {
				return &fabricFound{Found: f, candidate: c, want: w}, nil
			}
			if last == nil || !errors.Is(err, fabric.ErrUnavailable) {
				last = err
			}
		}
	}
	return nil, last
}

// fabricOffers lists the providers that the library offers on this host with reliable
// datagrams, the only endpoints that are used.
func fabricOffers(lib *fabric.Library) ([]string, error) {
	all, err := lib.Interfaces()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, a := range all {
		if a.Type == "rdm" {
			names = append(names, a.Provider)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// unavailable says why a provider cannot be had, from what fi_getinfo answered
// and what the host shows.
func (p fabricChoice) unavailable(lib *fabric.Library, w fabricWant, got *fabric.Error) error {
	c := p.candidates[0]
	devices := host.Root("").EFADevices()
	e := &fabric.Error{Call: got.Call, Provider: p.name, Errno: got.Errno, Detail: got.Detail, Kind: fabric.ErrUnavailable}
	if c.efa() && len(devices) == 0 {
		return p.noEFA(lib, devices, nil, e) // whatever FI_PROVIDER says
	}
	names, err := fabricOffers(lib)
	if err != nil {
		return errors.Join(e, err)
	}
	there := slices.ContainsFunc(p.candidates, func(c fabricCandidate) bool { return slices.Contains(names, c.provider) })
	if list, set := os.LookupEnv("FI_PROVIDER"); set && !there {
		if what, next := fabricHiding(list, p.candidates); what != "" {
			e.Kind, e.Detail, e.Hint = errHidden, fmt.Sprintf("FI_PROVIDER=%s hides %s: %s", list, what, got.Detail), fabric.Hint(next)
			return e
		}
	}
	if c.efa() {
		return p.noEFA(lib, devices, names, e)
	}
	switch {
	case !there:
		if c.provider == "shm" {
			if what, next := mem.Shortage(0, uint64(runtime.NumCPU())*fabric.SharedBytes); what != "" {
				e.Detail, e.Hint = fmt.Sprintf("%s: %s", what, got.Detail), fabric.Hint(next)
				return e
			}
		}
		e.Detail = fmt.Sprintf("libfabric %v (%s) offers no %s on this host: %s; it offers %s",
			lib.Version(), lib.Path(), c.provider, got.Detail, cmp.Or(strings.Join(names, ", "), "nothing"))
		e.Hint, e.Environment = "see `fi_info`, or choose another libfabric with --libfabric", got.Environment
	case w.cuda:
		e.Kind = fabric.ErrUnsupported
		e.Detail = "GPU memory (FI_HMEM) refused: " + got.Detail
		e.Hint = "this libfabric was built without CUDA or the provider cannot use GPU memory: use AWS's libfabric (--libfabric) or --memory cuda-host"
	case w.bind != "" && c.addressed:
		e.Detail = fmt.Sprintf("nothing on local address %s: %s", w.bind, got.Detail)
		e.Hint = "choose a local IP address (see `ip address`); FI_TCP_IFACE, if set, must name its interface"
	default:
		e.Kind = fabric.ErrUnsupported
		e.Detail = "the provider is there but refuses what these operations need: " + got.Detail
		e.Hint, e.Environment = "run fewer kinds of operation with --op, or see FI_LOG_LEVEL=info", got.Environment
	}
	return e
}

// fabricHiding names what an FI_PROVIDER list hides of candidates, with the way out; "" when
// it lets one through that could stand for all.
func fabricHiding(list string, candidates []fabricCandidate) (what, next string) {
	var hidden, parts []string
	for _, c := range candidates {
		if fabricAllowed(list, c.provider) {
			continue
		}
		hidden = append(hidden, c.provider)
		for p := range strings.SplitSeq(c.provider, ";") {
			if !fabricAllowed(list, p) && !slices.Contains(parts, p) {
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

// fabricAllowed reports whether an FI_PROVIDER list lets provider through: the names of
// layered providers must all be listed, or none excluded with ^.
func fabricAllowed(list, provider string) bool {
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

// noEFA tells apart the reasons for a missing efa, which libfabric offers under names.
func (p fabricChoice) noEFA(lib *fabric.Library, devices []record.NIC, names []string, e *fabric.Error) error {
	if len(devices) == 0 {
		e.Kind = errNoEFA
		e.Detail = "this host has no EFA device: " + e.Detail
		e.Hint = "run on an EC2 instance with an EFA interface attached, or choose another --provider"
		return e
	}
	var list []string
	for _, d := range devices {
		list = append(list, d.Name)
	}
	device := strings.Join(list, ", ")
	if err := openable(); err != nil {
		e.Kind = fabric.ErrPermission
		e.Detail = fmt.Sprintf("EFA device %s cannot be opened: %v; %s", device, err, e.Detail)
		e.Hint = "give this user /dev/infiniband (in a container: the vpc.amazonaws.com/efa resource, or --device)"
		return e
	}
	at := fmt.Sprintf("libfabric %v (%s)", lib.Version(), lib.Path())
	switch direct := p.candidates[0].fabric == "efa-direct"; {
	case !slices.Contains(names, "efa"):
		e.Detail = fmt.Sprintf("%s has no efa provider for device %s: %s", at, device, e.Detail)
		e.Hint = "load AWS's: --libfabric /opt/amazon/efa/lib64/libfabric.so.1 (lib on Debian and Ubuntu)"
	case direct && lib.Version().Less(fabric.Version{Major: 2, Minor: 1}):
		e.Kind = errTooOld
		e.Detail = fmt.Sprintf("%s has no efa-direct, which came with 2.1: %s", at, e.Detail)
		e.Hint = "load a newer one with --libfabric"
	default:
		e.Kind = fabric.ErrUnsupported
		e.Detail = fmt.Sprintf("the EFA device is there but refuses what these operations need: %s", e.Detail)
		e.Hint = "efa-direct needs RDMA read and write in the device, GPU memory needs a libfabric with CUDA; efa emulates the former, --memory cuda-host avoids the latter"
	}
	return e
}

// openable is the error of opening the verbs files, if any: without them
// libibverbs sees no device and says nothing.
func openable() error {
	_, denied := host.Root("").VerbsFiles()
	var errs []error
	for _, n := range slices.Sorted(maps.Keys(denied)) {
		errs = append(errs, denied[n])
	}
	return errors.Join(errs...)
}

// FabricDetail is what an open endpoint over libfabric does not say.
type FabricDetail struct {
	Interfaces []fabric.Attributes // all that the provider can use, one a NIC
	SharedOff  bool                // efa does not go over shared memory within a host
	CUDA       error               // why regions cannot be GPU memory; nil: they can, or gpu was not set
}

// DetailFabric asks libfabric for what provider c.Provider has for c.Ops; with gpu,
// for GPU memory too.
func DetailFabric(c Config, gpu bool) (d FabricDetail, err error) {
	lib, err := fabric.Load(c.Library)
	if err != nil {
		return d, fabricError(err)
	}
	want := fabricWant{ops: c.Ops, bind: firstBind(c.Bind), noShared: true}
	found, err := findFabric(lib, c.Provider, want)
	if err != nil {
		return d, fabricError(err)
	}
	defer found.Free()
	for _, i := range found.Interfaces {
		d.Interfaces = append(d.Interfaces, i.Attributes)
	}
	if found.candidate.efa() {
		ep, err := found.Open(found.Interfaces[0], found.endpoint(true, 16))
		if err != nil {
			return d, fabricError(err)
		}
		d.SharedOff = ep.Limits().SharedForbidden
		if err := ep.Close(); err != nil {
			return d, err
		}
	}
	if gpu {
		want.cuda = true
		with, err := findFabric(lib, c.Provider, want)
		if err == nil {
			with.Free()
		}
		d.CUDA = err
	}
	return d, nil
}
