package transport

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/internal/host"
)

// Options of the libfabric providers, in Config.Options.
const (
	// FabricLanding forces what proves that a WRITE landed: "dc"
	// (FI_DELIVERY_COMPLETE) or "count" (counted remote CQ data).
	FabricLanding = "write-landing"
	// FabricShared is "on" or "off": whether efa may carry same-host traffic over
	// shared memory. Off by default, so that an efa number is an EFA number and,
	// from libfabric 1.18 on, no killed process leaves a file in /dev/shm.
	FabricShared = "efa-shm"
)

// fabricTimeout ends a wait without progress when Config says nothing.
const fabricTimeout = 10 * time.Second

// fabricEndpoint is one side of a transfer over libfabric: an endpoint for each
// lane.
type fabricEndpoint struct {
	looped
	cfg    Config
	lib    *fabric.Library
	found  *fabricFound
	founds []*fabricFound // by rail, where a rail is an address
	asked  int            // --rails
	rails  []fabric.Interface
	lanes  []*fabric.Endpoint
	buf    *mem.Buffer
	notes  []string
	limits fabric.Limits // the least of all lanes
	noCUDA error         // why GPU memory cannot be registered
}

// OpenFabric opens a libfabric provider: a name that the command line lists, or
// "fabric:NAME". Of Config, Rails is the number of NICs, Streams the endpoints
// on each, every lane with a domain and queues of its own. An error matches
// [ErrUnavailable] when this host cannot run it and [ErrUnsupported] when the
// provider cannot do what is asked.
func OpenFabric(ctx context.Context, cfg Config) (Endpoint, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	want := fabricWant{ops: cfg.Ops, bind: firstBind(cfg.Bind), noShared: true}
	if err := fabricOptions(&want, cfg.Options); err != nil {
		return nil, err
	}
	lib, err := fabric.Load(cfg.Library)
	if err != nil {
		return nil, fabricError(err)
	}
	e := &fabricEndpoint{cfg: cfg, lib: lib, asked: cfg.Rails}
	if len(cfg.Bind) > 1 {
		e.cfg.Rails = 0 // see addressRails
	}
	if cfg.Device >= 0 {
		// As NIXL's plugin does: with FI_HMEM, and without where that is refused.
		want.cuda = true
		e.found, e.noCUDA = findFabric(lib, cfg.Provider, want)
		want.cuda = false
	}
	if e.found == nil {
		if e.found, err = findFabric(lib, cfg.Provider, want); err != nil {
			return nil, fabricError(err)
		}
	}
	e.notes = slices.Clone(e.found.notes)
	if err := e.open(want); err != nil {
		if len(cfg.Bind) > 0 {
			err = fmt.Errorf("on local address %s: %w", strings.Join(cfg.Bind, ", "), Flagged(err))
		}
		return nil, errors.Join(fabricError(err), e.Close())
	}
	return e, nil
}

// fabricOptions reads Config.Options; an unknown one is an error.
func fabricOptions(w *fabricWant, options map[string]string) error {
	for k, v := range options {
		switch k + "=" + v {
		case FabricLanding + "=dc":
			w.landings = []fabric.Landing{fabric.DeliveryComplete}
		case FabricLanding + "=count":
			w.landings = []fabric.Landing{fabric.RemoteCount}
		case FabricShared + "=on":
			w.noShared = false
		case FabricShared + "=off":
			w.noShared = true
		default:
			return fmt.Errorf("libfabric option %s=%s: want %s=dc|count or %s=on|off", k, v, FabricLanding, FabricShared)
		}
	}
	return nil
}

// fabricError gives a fabric error the sentinel that decides the exit code.
func fabricError(err error) error {
	err = Flagged(err)
	if errors.Is(err, fabric.ErrUnsupported) {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	for _, kind := range []error{fabric.ErrNoLibrary, errNoEFA, errTooOld, fabric.ErrPermission, errHidden, fabric.ErrMemlock,
		fabric.ErrUnavailable} {
		if errors.Is(err, kind) {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return err
}

func (e *fabricEndpoint) open(want fabricWant) error {
	if err := e.chooseRails(); err != nil {
		return err
	}
	if len(e.cfg.Bind) > 1 && e.found.candidate.addressed {
		if err := e.addressRails(want); err != nil {
			return err
		}
	}
	c := &e.cfg
	c.Streams = max(c.Streams, 1)
	if c.Depth <= 0 {
		c.Depth = fabricDepth(e.rails[0].Attributes)
	}
	if c.Timeout <= 0 {
		c.Timeout = fabricTimeout
	}
	// Lane i is stream i/Rails of rail i%Rails, so that neighbours use different
	// NICs.
	for i := range c.Streams * c.Rails {
		f := e.opener(i % c.Rails)
		ep, err := f.Open(e.rails[i%c.Rails], f.endpoint(c.Role == Initiator, c.Depth))
		if err != nil {
			return err
		}
		e.lanes = append(e.lanes, ep)
		l := ep.Limits()
		if i > 0 {
			l.MaxRMA, l.MaxMessage, l.Inject = min(l.MaxRMA, e.limits.MaxRMA), min(l.MaxMessage, e.limits.MaxMessage), min(l.Inject, e.limits.Inject)
		}
		e.limits = l
	}
	return nil
}

// addressRails makes a rail of each local address, for providers that know a
// NIC by its address.
func (e *fabricEndpoint) addressRails(want fabricWant) error {
	binds := e.cfg.Bind
	if e.asked > 0 {
		if e.asked > len(binds) {
			return &fabric.Error{Provider: e.cfg.Provider, Kind: fabric.ErrUnavailable,
				Detail: fmt.Sprintf("%d rails asked for, %d local addresses given", e.asked, len(binds)), Hint: "name one address a rail"}
		}
		binds = binds[:e.asked]
	}
	e.rails, e.founds = nil, nil
	for _, b := range binds {
		want.bind = b
		f, err := findFabric(e.lib, e.cfg.Provider, want)
		if err != nil {
			return err
		}
		e.founds = append(e.founds, f)
		e.rails = append(e.rails, f.Interfaces[0])
	}
	e.cfg.Rails = len(e.rails)
	return nil
}

// opener returns the search result that rail i is of.
func (e *fabricEndpoint) opener(i int) *fabricFound {
	if e.founds != nil {
		return e.founds[i]
	}
	return e.found
}

// firstBind is the address of the first rail, "" for the provider's choice.
func firstBind(binds []string) string {
	if len(binds) == 0 {
		return ""
	}
	return binds[0]
}

// chooseRails takes the NICs nearest to the GPU first.
func (e *fabricEndpoint) chooseRails() error {
	e.rails = e.found.Interfaces
	nearest := 0
	if e.cfg.Device >= 0 {
		if pci := host.GPUAddress(e.cfg.Device); pci != "" {
			nearest = nearestFirst("", e.rails, pci)
		}
	}
	if e.cfg.Rails <= 0 {
		// A GPU's own NICs; for host memory as many as there are cores to poll them.
		e.cfg.Rails = nearest
		if nearest == 0 {
			e.cfg.Rails = min(len(e.rails), max(1, runtime.NumCPU()/2))
		}
		if !e.found.candidate.efa() { // an IP interface is given by an address
			e.cfg.Rails = 1
		}
	}
	if e.cfg.Rails > len(e.rails) {
		return &fabric.Error{Provider: e.cfg.Provider, Kind: fabric.ErrUnavailable,
			Detail: fmt.Sprintf("%d rails asked for, this host has %d", e.cfg.Rails, len(e.rails)), Hint: "lower --rails"}
	}
	e.rails = e.rails[:e.cfg.Rails]
	return nil
}

// maxPiece is how many bytes one operation can move at most.
func (e *fabricEndpoint) maxPiece(op loop.Op) uint64 {
	switch {
	case op == loop.Send:
		return e.limits.MaxMessage
	case op == loop.Write && e.found.Hints().Landing == fabric.RemoteCount && e.rails[0].Provider == "efa":
		// efa cuts longer ones itself, and each part raises an event.
		return min(e.limits.MaxRMA, efaMaxRDMA)
	}
	return e.limits.MaxRMA
}

// efaMaxRDMA is the longest request of EFA devices in bytes; libfabric does not
// tell (ibv_device's max_rdma_size, 1 GiB in all generations).
const efaMaxRDMA = 1 << 30

func (e *fabricEndpoint) Lanes() int { return len(e.lanes) }

func (e *fabricEndpoint) Register(buf *mem.Buffer) error {
	if e.buf != nil {
		return errors.New("the endpoint has its region already")
	}
	if buf.Kind().OnDevice() && !e.found.want.cuda {
		return fmt.Errorf("%w: %w", ErrUnsupported, cmp.Or(e.noCUDA, errNoDevice))
	}
	if buf.Kind().OnDevice() && e.found.Hints().Sends == fabric.Slots {
		return fmt.Errorf("%w: %s sends are copied by the CPU and cannot end in GPU memory; use --op read or write, or --memory cuda-host",
			ErrUnsupported, e.cfg.Provider)
	}
	for _, l := range e.lanes {
		if err := l.Register(region(buf)); err != nil {
			return fabricError(err)
		}
	}
	e.buf = buf
	return nil
}

var errNoDevice = errors.New("GPU memory, but the endpoint was opened without --device")

// fabricAddress is what Address carries, as JSON.
type fabricAddress struct {
	API      string           `json:"api"`
	Provider string           `json:"provider"`
	Version  string           `json:"library_version"`
	Landing  string           `json:"landing"`
	Sends    fabric.Sends     `json:"sends"`
	Lanes    []fabric.Address `json:"lanes"`
}

func (e *fabricEndpoint) address() fabricAddress {
	a := e.rails[0].Attributes
	name := a.Provider
	if a.Provider == "efa" {
		name = a.Fabric
	}
	return fabricAddress{API: "libfabric", Provider: name, Version: e.lib.Version().String(),
		Landing: e.found.Hints().Landing.String(), Sends: e.found.Hints().Sends}
}

func (e *fabricEndpoint) Address() ([]byte, error) {
	if e.buf == nil {
		return nil, errors.New("the endpoint has no region yet")
	}
	a := e.address()
	for _, l := range e.lanes {
		la, err := l.Address()
		if err != nil {
			return nil, err
		}
		a.Lanes = append(a.Lanes, la)
	}
	return json.Marshal(a)
}

// parseFabricAddress reads a peer's Address that must fit this side's.
func parseFabricAddress(peer []byte, mine fabricAddress, lanes int) (fabricAddress, error) {
	var a fabricAddress
	d := json.NewDecoder(bytes.NewReader(peer))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return a, fmt.Errorf("the peer's libfabric address: %w", err)
	}
	switch {
	case a.API != mine.API:
		return a, fmt.Errorf("the peer's address is of %q, not of libfabric", a.API)
	case a.Provider != mine.Provider:
		return a, fmt.Errorf("the peer opened libfabric provider %s, this side %s", a.Provider, mine.Provider)
	case a.Landing != mine.Landing || a.Sends != mine.Sends:
		return a, fmt.Errorf("the peer's %s proves landing by %s, this side's by %s: use the same libfabric version on both sides (%s there, %s here)",
			a.Provider, a.Landing, mine.Landing, a.Version, mine.Version)
	case len(a.Lanes) != lanes:
		return a, fmt.Errorf("the peer has %d lanes, this side %d: use the same --streams and --rails", len(a.Lanes), lanes)
	}
	for _, l := range a.Lanes {
		if len(l.Name) == 0 || len(l.Name) > 512 || l.Len == 0 || l.Base+l.Len < l.Base {
			return a, errors.New("the peer's libfabric address is incomplete")
		}
	}
	return a, nil
}

func (e *fabricEndpoint) Connect(ctx context.Context, peer []byte) error {
	if e.group != nil {
		return errors.New("the endpoint is connected already")
	}
	if e.buf == nil {
		return errors.New("the endpoint has no region yet")
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	mine := e.address()
	a, err := parseFabricAddress(peer, mine, len(e.lanes))
	if err != nil {
		return err
	}
	if a.Version != mine.Version {
		e.notes = append(e.notes, fmt.Sprintf("libfabric %s here, %s at the peer", mine.Version, a.Version))
	}
	lanes := make([]loop.Lane, len(e.lanes))
	for i, l := range e.lanes {
		if err := l.Connect(a.Lanes[i]); err != nil {
			return fabricError(err)
		}
		lanes[i] = l.Lane()
	}
	return e.start(e.cfg, lanes, e.cfg.Depth, e.seen)
}

// checkPlans holds pieces within the provider's limits.
func (e *fabricEndpoint) checkPlans(op loop.Op, plans []*loop.Plan) error {
	if e.group == nil {
		return errNotConnected
	}
	if !slices.Contains(e.cfg.Ops, op) {
		return fmt.Errorf("%w: the endpoint was opened for %v, not for %v", ErrUnsupported, e.cfg.Ops, op)
	}
	most := e.maxPiece(op)
	for i, p := range plans {
		if i >= len(e.lanes) {
			return fmt.Errorf("%d plans for %d lanes", len(plans), len(e.lanes))
		}
		for j, q := range p.Pieces() {
			if q.Len > most {
				return fmt.Errorf("%w: piece %d has %d bytes, %s takes %d at most: use --chunk", ErrUnsupported, j, q.Len, e.cfg.Provider, most)
			}
		}
	}
	return nil
}

// seen is of SEND, and of a WRITE whose landing only the target can count.
func (e *fabricEndpoint) seen(op loop.Op) bool {
	return op == loop.Send || op == loop.Write && e.found.Hints().Landing == fabric.RemoteCount
}

// Arm posts a SEND's receives, and counts a WRITE without delivery complete.
func (e *fabricEndpoint) Arm(ctx context.Context, op loop.Op, plans []*loop.Plan, iters int) error {
	if err := e.checkPlans(op, plans); err != nil {
		return err
	}
	return e.looped.Arm(ctx, op, plans, iters)
}

func (e *fabricEndpoint) Transfer(ctx context.Context, op loop.Op, plans []*loop.Plan, iters int) ([]loop.Sample, error) {
	if err := e.checkPlans(op, plans); err != nil {
		return nil, err
	}
	return e.looped.Transfer(ctx, op, plans, iters)
}

// Close may be called twice.
func (e *fabricEndpoint) Close() error {
	closeLanes := e.closeLanes
	if e.group != nil {
		if err := e.group.Close(); err != nil {
			closeLanes = func() error { return e.abandon(err) }
		}
		e.group = nil
	}
	errs := []error{closeLanes()}
	if e.found != nil {
		e.found.Free()
	}
	for _, f := range e.founds {
		f.Free()
	}
	e.lanes = nil
	return errors.Join(errs...)
}

// abandon leaves the lanes to the thread that is still inside one.
func (e *fabricEndpoint) abandon(err error) error {
	errs := []error{fmt.Errorf("%s: %w: %w", e.cfg.Provider, ErrNotClosed, err)}
	for _, l := range e.lanes {
		errs = append(errs, l.Abandon())
	}
	return errors.Join(errs...)
}

// drainWait is how long operations in flight may take to end before a close.
const drainWait = 2 * time.Second

// closeLanes ends the wait for a lane whose close does not return: efa's waits
// until all that was sent has completed, which a peer that no longer runs but is
// not dead puts off for ever. A lane with operations in flight is not closed.
func (e *fabricEndpoint) closeLanes() error {
	limit := cmp.Or(max(e.cfg.Timeout, 0), fabricTimeout)
	late := time.NewTimer(limit)
	defer late.Stop()
	drained := time.Now().Add(min(limit/2, drainWait))
	var errs []error
	for i, l := range e.lanes {
		done := make(chan error, 1)
		go func() {
			if n := l.Drain(max(0, time.Until(drained))); n > 0 {
				done <- errors.Join(fmt.Errorf("%s: %w: %d operations are in flight that neither complete nor fail", e.cfg.Provider, ErrNotClosed, n), l.Abandon())
				return
			}
			done <- l.Close()
		}()
		select {
		case err := <-done:
			errs = append(errs, err)
		case <-late.C:
			return errors.Join(append(errs, fmt.Errorf("%s: fi_close: %w within %v: operations are in flight that neither complete nor fail; %d of %d endpoints stay open until this process ends",
				e.cfg.Provider, ErrNotClosed, limit, len(e.lanes)-i, len(e.lanes)))...)
		}
	}
	return errors.Join(errs...)
}

// fabricEnv are the variables that change what libfabric does.
func fabricEnv() map[string]string {
	set := map[string]string{}
	for _, kv := range os.Environ() {
		if k, v, _ := strings.Cut(kv, "="); strings.HasPrefix(k, "FI_") && !strings.HasPrefix(k, "FI_LOG_") {
			set[k] = v
		}
	}
	return set
}
