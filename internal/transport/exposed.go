package transport

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/cgo/gate"
	"github.com/xferbench/xferbench/internal/host"
)

// watched is what an endpoint may listen on, and what this process held before the
// endpoint was opened.
type watched struct {
	provider string
	binds    []string
	chosen   bool // the user chose UCX's devices himself
	before   map[uint64]bool
	own      map[uint64]bool // the sockets that were opened in a call of the endpoint
	told     map[string]bool
	withdraw func() // of the admission of its peers
}

// watch begins the watch over an endpoint of c that will be opened, and lets c's
// peers alone reach it; nil when c names no address.
func watch(c Config) (*watched, error) {
	if len(c.Bind) == 0 {
		return nil, nil
	}
	api, _, _ := strings.Cut(c.Provider, ":")
	w := &watched{provider: c.Provider, binds: c.Bind, chosen: api == "ucx" && ucxDevicesGiven(c),
		before: map[uint64]bool{}, own: map[uint64]bool{}, told: map[string]bool{}}
	own, err := host.Root("").OwnSockets()
	if err != nil {
		return nil, err
	}
	for _, o := range own {
		w.before[o.Inode] = true
	}
	w.withdraw, err = Admit(c)
	return w, err
}

// end is for an endpoint that is closed, or did not open.
func (w *watched) end() {
	if w != nil {
		w.withdraw()
	}
}

// claim notes the sockets that a call of the endpoint has opened, and returns all
// that are its: those that are not before it and not another's.
func (w *watched) claim(another func(inode uint64) bool) ([]host.Socket, error) {
	if w == nil {
		return nil, nil
	}
	all, err := host.Root("").OwnSockets()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(o host.Socket) bool {
		if o.State != host.Listening || w.before[o.Inode] || another(o.Inode) {
			return true
		}
		w.own[o.Inode] = true
		return false
	}), nil
}

// check holds the endpoint's sockets to the addresses that the peer uses and to
// loopback. What is open for others by the user's own choice, or since the library
// takes an interface's first address, is a note.
func (w *watched) check(another func(inode uint64) bool) (notes []string, err error) {
	own, err := w.claim(another)
	if err != nil || w == nil {
		return nil, err
	}
	for _, o := range own {
		note, err := w.judge(o)
		if err != nil {
			return nil, err
		}
		if note != "" && !w.told[note] {
			w.told[note] = true
			notes = append(notes, note)
		}
	}
	if err := gate.Refused(); err != nil && !w.told[err.Error()] {
		w.told[err.Error()] = true
		notes = append(notes, fmt.Sprintf("%s: %v: who reaches its port can connect", w.provider, err))
	}
	return notes, nil
}

// judge is the note or the error of a socket that takes data.
func (w *watched) judge(o host.Socket) (string, error) {
	at := o.Local.Addr()
	if at.IsLoopback() {
		return "", nil
	}
	for _, b := range w.binds {
		if a, err := netip.ParseAddr(b); err == nil && a.Unmap() == at {
			return "", nil
		}
	}
	used := strings.Join(w.binds, ", ")
	if !at.IsUnspecified() && slices.ContainsFunc(w.binds, func(b string) bool { return sameInterface(b, at) }) {
		return fmt.Sprintf("%s listens on %s, the first address of the interface of %s", w.provider, at, used), nil
	}
	if w.chosen {
		return fmt.Sprintf("%s listens on %s besides the peer's way over %s, as UCX_NET_DEVICES says: who reaches it can change this process's memory", w.provider, at, used), nil
	}
	return "", fmt.Errorf("%w: %s has opened %s, which others reach, while the peer uses %s: unset what makes it (UCX_* and FI_* in the environment), or name the address by --bind",
		ErrUnavailable, w.provider, o, used)
}

// sameInterface reports whether an interface of this host has both addresses.
func sameInterface(bind string, at netip.Addr) bool {
	one, err := interfaceOf(bind)
	if err != nil {
		return false
	}
	two, err := interfaceOf(at.String())
	return err == nil && one == two
}

// interfaceOf is the name of the interface that has address ip.
func interfaceOf(ip string) (string, error) {
	want := net.ParseIP(ip)
	if want == nil {
		return "", fmt.Errorf("address %q: not an IP address", ip)
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			return "", fmt.Errorf("addresses of %s: %w", i.Name, err)
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if ok && (n.IP.Equal(want) || want.IsLoopback() && n.IP.IsLoopback() && n.Contains(want)) {
				return i.Name, nil
			}
		}
	}
	return "", fmt.Errorf("%w: no interface of this host has address %s", ErrUnavailable, ip)
}
