package peer

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

// Limits of connections. A connection waits from its acceptance to the end of
// its TLS handshake, then it is inside.
const (
	maxWaiting        = 256 // in all
	maxWaitingAddress = 64  // of one address, see place
	maxInside         = 64
	// A connection that does not know the secret is answered after a delay,
	// which doubles with each of its address, while few others are delayed.
	minDelay, maxDelay = 50 * time.Millisecond, 2 * time.Second
	maxDelayed         = 32
	maxDelayedAddress  = 4
	// maxPlaces bounds the addresses that are remembered, placeAge how long.
	maxPlaces = 1024
	placeAge  = 10 * time.Minute
	// summaryEvery is how often refusals are logged that were not the first of
	// their address.
	summaryEvery = time.Minute
)

var (
	errStranger  = errors.New("it does not know the secret")
	errDisplaced = errors.New("it gave way to newer connections before it had shown that it knows the secret")
	errAllow     = errors.New("its address is not in --allow")
	errFull      = errors.New("there are too many connections")
)

// door lets connections in that know the secret, and bounds what others can
// take. Nothing in it waits in Accept.
type door struct {
	net.Listener
	allow []netip.Prefix // none: all
	knock string
	log   func(format string, args ...any)

	mu       sync.Mutex
	shut     bool
	waiting  []*visitor // oldest first
	inside   int
	delayed  int
	places   map[netip.Prefix]*placeRecord
	quiet    int // refusals since the last summary that were not logged
	quietFor map[netip.Prefix]bool
}

// placeRecord is what is known of an address.
type placeRecord struct {
	strangers int // refused for not knowing the secret
	delayed   int
	last      time.Time
}

// visitor is one connection.
type visitor struct {
	net.Conn
	d      *door
	place  netip.Prefix
	gone   chan struct{}
	once   sync.Once
	known  bool  // showed the knock
	inside bool  // through the handshake
	cause  error // why it was displaced
}

func newDoor(l net.Listener, s Secret, allow []netip.Prefix, log func(string, ...any)) *door {
	return &door{Listener: l, allow: allow, knock: s.knock(), log: log, places: map[netip.Prefix]*placeRecord{}, quietFor: map[netip.Prefix]bool{}}
}

// place is what counts as one address: an IPv6 host has a whole /64 of them.
func place(a net.Addr) netip.Prefix {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip, _ := netip.AddrFromSlice(t.IP)
	ip = ip.Unmap()
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// Accept returns the next connection that may try.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if v := d.admit(c); v != nil {
			return v, nil
		}
		c.Close()
	}
}

// admit takes a connection, or nil for one that is to be closed at once. Where
// there is no room for it, the oldest gives way that has not shown that it knows
// the secret: who does shows it at once, and so is never kept out by strangers.
func (d *door) admit(c net.Conn) *visitor {
	v := &visitor{Conn: c, d: d, place: place(c.RemoteAddr()), gone: make(chan struct{})}
	if !d.allowed(c.RemoteAddr()) {
		d.refused(v, errAllow)
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut {
		return nil
	}
	var mine, all *visitor
	count := 0
	for _, w := range slices.Backward(d.waiting) {
		if w.place == v.place {
			count++
		}
		if w.known {
			continue
		}
		all = w
		if w.place == v.place {
			mine = w
		}
	}
	switch {
	case d.inside >= maxInside, len(d.waiting) >= maxWaiting && all == nil:
		d.refuse(v.place, v.RemoteAddr(), errFull)
		return nil
	case count >= maxWaitingAddress && mine != nil:
		d.displace(mine)
	case len(d.waiting) >= maxWaiting:
		d.displace(all)
	}
	d.waiting = append(d.waiting, v)
	return v
}

func (d *door) allowed(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	if !ok || len(d.allow) == 0 {
		return ok
	}
	ip, _ := netip.AddrFromSlice(t.IP)
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(d.allow, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// displace closes w under the lock.
func (d *door) displace(w *visitor) {
	w.cause = errDisplaced
	d.remove(w)
	w.once.Do(func() { close(w.gone) })
	w.Conn.Close()
}

func (d *door) remove(v *visitor) {
	d.waiting = slices.DeleteFunc(d.waiting, func(w *visitor) bool { return w == v })
}

// Close closes the connection, however far it is.
func (v *visitor) Close() error {
	v.d.mu.Lock()
	if v.inside {
		v.inside = false
		v.d.inside--
	}
	v.d.remove(v)
	v.once.Do(func() { close(v.gone) })
	v.d.mu.Unlock()
	return v.Conn.Close()
}

// close ends all that waits.
func (d *door) close() {
	d.mu.Lock()
	d.shut = true
	for len(d.waiting) > 0 {
		d.displace(d.waiting[0])
	}
	d.mu.Unlock()
	d.summary()
}

// hello looks at a connection's first message, before anything is computed for
// it. A client that holds the secret names its knock as the server's name.
func (d *door) hello(h *tls.ClientHelloInfo) (*tls.Config, error) {
	if subtle.ConstantTimeCompare([]byte(h.ServerName), []byte(d.knock)) != 1 {
		if v, ok := h.Conn.(*visitor); ok {
			d.delay(v)
		}
		return nil, errStranger
	}
	if v, ok := h.Conn.(*visitor); ok {
		d.mu.Lock()
		v.known = true
		d.mu.Unlock()
	}
	return nil, nil
}

// delay waits before a stranger is answered.
func (d *door) delay(v *visitor) {
	d.mu.Lock()
	r := d.place(v.place)
	if r == nil {
		d.mu.Unlock()
		return
	}
	r.strangers++
	wait := min(minDelay<<min(r.strangers-1, 16), maxDelay)
	full := d.shut || d.delayed >= maxDelayed || r.delayed >= maxDelayedAddress
	if !full {
		d.delayed++
		r.delayed++
	}
	d.mu.Unlock()
	if full {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-v.gone:
	}
	d.mu.Lock()
	d.delayed--
	r.delayed--
	d.mu.Unlock()
}

// place finds or makes the record of an address, nil when there are too many.
func (d *door) place(p netip.Prefix) *placeRecord {
	r := d.places[p]
	if r == nil {
		if len(d.places) >= maxPlaces {
			for k, old := range d.places {
				if old.delayed == 0 && time.Since(old.last) > placeAge {
					delete(d.places, k)
				}
			}
		}
		if len(d.places) >= maxPlaces {
			return nil
		}
		r = &placeRecord{}
		d.places[p] = r
	}
	if time.Since(r.last) > placeAge {
		r.strangers = 0
	}
	return r
}

// handshaken is the end of a connection's handshake.
func (d *door) handshaken(v *visitor, err error) error {
	d.mu.Lock()
	d.remove(v)
	if v.cause != nil {
		err = v.cause
	}
	if err == nil && d.inside >= maxInside {
		err = errFull
	}
	if err == nil && !d.shut {
		v.inside = true
		d.inside++
	}
	shut := d.shut
	d.mu.Unlock()
	if err != nil && !shut {
		d.refused(v, err)
	}
	return err
}

// refused notes a refusal.
func (d *door) refused(v *visitor, why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuse(v.place, v.RemoteAddr(), why)
}

// refusedPeer notes a client that holds the secret and is refused all the same.
func (d *door) refusedPeer(from net.Addr, why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuse(place(from), from, why)
}

// refuse logs the first refusal of an address; others are summed up.
func (d *door) refuse(p netip.Prefix, from net.Addr, why error) {
	r := d.place(p)
	if r != nil && r.last.IsZero() {
		r.last = time.Now()
		d.log("refused %s: %v", from, why)
		return
	}
	if r != nil {
		r.last = time.Now()
	}
	d.quiet++
	if len(d.quietFor) < maxPlaces {
		d.quietFor[p] = true
	}
}

// summary logs what was refused and not logged.
func (d *door) summary() {
	d.mu.Lock()
	n, from := d.quiet, len(d.quietFor)
	d.quiet = 0
	clear(d.quietFor)
	d.mu.Unlock()
	if n > 0 {
		s := "es"
		if from == 1 {
			s = ""
		}
		d.log("refused %d more connections, from %d known address%s", n, from, s)
	}
}

// watch writes summaries until ctx ends.
func (d *door) watch(ctx context.Context) {
	t := time.NewTicker(summaryEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			d.summary()
		case <-ctx.Done():
			return
		}
	}
}

// doorKeeper is the server's TLS, which tells the door how each handshake ended.
type doorKeeper struct {
	credentials.TransportCredentials
	d *door
}

// ServerHandshake takes a connection of the door's.
func (k *doorKeeper) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := k.TransportCredentials.ServerHandshake(raw)
	if v, ok := raw.(*visitor); ok {
		if err = k.d.handshaken(v, err); err != nil {
			return nil, nil, fmt.Errorf("handshake: %w", err)
		}
	}
	return c, info, err
}
