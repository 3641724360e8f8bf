package transport

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/ucx"
)

// ucxDepth is how many operations a lane has in flight by default. NIXL posts a
// whole transfer without a limit; UCX queues what its transports cannot take,
// so this bounds memory (some hundred bytes a request), not speed.
const ucxDepth = 4096

// ucxChunk bounds an operation by default: a wait ends when no operation
// completes within the timeout, and UCX says nothing of a part.
const ucxChunk = 64 << 20

// ucxEndpoint is one side of a transfer over UCX: a context, and a worker with
// its endpoint for each lane.
type ucxEndpoint struct {
	looped
	cfg     Config
	tls     string
	lib     *ucx.Library
	ctx     *ucx.Context
	mem     *ucx.Memory
	base    uint64
	length  uint64
	workers []*ucx.Worker
	key     []byte // the peer's, for the report
	efa     bool
	notes   []string
	stuck   bool // a thread is inside a worker
}

// OpenUCX opens provider "ucx" (UCX chooses its transports) or "ucx:LIST",
// where LIST is UCX_TLS word for word: nothing is added to it, so that the
// rows are those of an engine run with the same UCX_TLS. Of Config, Streams is
// the number of workers and lanes, Rails is UCX_MAX_RMA_RAILS (UCX spreads an
// operation over NICs by itself), and Bind chooses the IP interfaces, the only ones
// that UCX then listens on; RDMA devices stay its choice. UCX_NET_DEVICES, where
// the user has set it, wins. An error matches [ErrUnavailable] when the library or
// a transport is not there.
func OpenUCX(_ context.Context, cfg Config) (Endpoint, error) {
	name, tls, given := strings.Cut(cfg.Provider, ":")
	if name != "ucx" || given && strings.Trim(tls, ", ") == "" {
		return nil, fmt.Errorf("provider %q: want ucx or ucx:TRANSPORT[,TRANSPORT…]", cfg.Provider)
	}
	cfg.Streams = max(cfg.Streams, 1)
	if cfg.Depth <= 0 {
		cfg.Depth = ucxDepth
	}
	if cfg.Chunk == 0 {
		cfg.Chunk = ucxChunk
	}
	e := &ucxEndpoint{cfg: cfg, tls: tls}
	var err error
	if e.lib, err = ucx.Load(cfg.Library); err != nil {
		return nil, ucxError(err)
	}
	e.efa = len(host.Root("").EFAOnBus()) > 0
	devices := ""
	if !ucxDevicesGiven(cfg) {
		if devices, err = ucxDevices("", tls, cfg.Bind); err != nil {
			return nil, err
		}
	}
	config, err := ucxSettings(ucxWant{tls: tls, devices: devices, rails: cfg.Rails, options: cfg.Options, shared: cfg.Streams > 1},
		e.lib.Release(), e.efa, os.Environ())
	if err == nil {
		e.ctx, err = e.lib.Open(config)
	}
	if err != nil {
		err = ucxError(err)
		if ip := net.ParseIP(firstBind(cfg.Bind)); devices != "" && ip != nil && ip.To4() == nil {
			err = fmt.Errorf("%w; for %s: tcp of UCX 1.13 wants an IPv4 address on the interface, that of 1.18 does not (--libucp)", err, ip)
		}
		return nil, err
	}
	return e, nil
}

// ucxError gives a ucx error the sentinel that decides the exit code.
func ucxError(err error) error {
	err = Flagged(err)
	switch {
	case errors.Is(err, ucx.ErrUnavailable), errors.Is(err, ucx.ErrSetting):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case errors.Is(err, ucx.ErrUnsupported):
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return err
}

// localTransports move nothing over a network.
var localTransports = []string{"self", "sm", "shm", "mm", "sysv", "posix", "xpmem", "knem", "cma",
	"cuda", "cuda_copy", "cuda_ipc", "gdr_copy", "rocm", "rocm_copy", "rocm_ipc", "ze", "ze_copy", "ze_ipc"}

// ucxDevices is UCX_NET_DEVICES for binds: the interfaces that have those
// addresses, since UCX listens on every interface that it may use, and the ports
// of RDMA devices when tls lets UCX use transports besides tcp. A list without
// those ports would hide them; one that names what may not be used ("^eth0") UCX
// takes from 1.22 on only. "" without an address, or without a network transport.
func ucxDevices(root host.Root, tls string, binds []string) (string, error) {
	tcp, others := false, tls == "" || strings.HasPrefix(tls, "^")
	for t := range strings.SplitSeq(tls, ",") {
		t = strings.TrimPrefix(strings.TrimSpace(t), "\\")
		if t == "tcp" {
			tcp = true
		} else if !slices.Contains(localTransports, t) {
			others = true
		}
	}
	if len(binds) == 0 || !tcp && !others {
		return "", nil
	}
	var names []string
	if others {
		names = root.RDMAPorts()
	}
	for _, b := range binds {
		n, err := interfaceOf(b)
		if err != nil {
			return "", err
		}
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return strings.Join(names, ","), nil
}

// ucxDevicesGiven reports whether the user chose UCX_NET_DEVICES himself.
func ucxDevicesGiven(c Config) bool {
	_, bare := c.Options["NET_DEVICES"]
	_, whole := c.Options["UCX_NET_DEVICES"]
	_, env := os.LookupEnv("UCX_NET_DEVICES")
	return bare || whole || env
}

func (e *ucxEndpoint) Lanes() int { return e.cfg.Streams }

func (e *ucxEndpoint) Info() Info {
	info := Info{
		Provider: e.cfg.Provider, API: "ucx", Library: e.lib.Path(), Version: e.lib.Version(),
		Landing: map[string]string{"read": "local-completion", "write": "flush", "send": "target-ack"},
		Streams: e.cfg.Streams, Rails: max(e.cfg.Rails, 1), Depth: e.cfg.Depth, Chunk: e.cfg.Chunk,
		Poll: e.cfg.Poll.String(), Notes: slices.Clone(e.ctx.Notes()),
	}
	var note string
	if info.Settings, note = ucxInForce(e.ctx); note != "" {
		info.Notes = append(info.Notes, note)
	}
	info.Notes = append(info.Notes, e.notes...)
	if len(e.workers) == 0 {
		return info
	}
	report := ucx.ParseReport(e.workers[0].Describe(e.group != nil), e.key)
	info.Protocol = report.Protocol
	info.Emulated = report.Emulated
	for _, d := range report.Devices {
		info.Devices = append(info.Devices, record.NIC{Name: d, NUMA: -1})
	}
	if e.efa && len(report.Lanes) > 0 && !slices.ContainsFunc(report.Lanes, func(l string) bool { return strings.Contains(l, "srd") }) {
		info.Notes = append(info.Notes, fmt.Sprintf("this host has EFA devices, but UCX %s does not use them (SRD needs UCX 1.19 built with EFA)", e.lib.Version()))
	}
	return info
}

func (e *ucxEndpoint) Register(buf *mem.Buffer) error {
	if e.mem != nil {
		return errors.New("the endpoint has its region already")
	}
	m, err := e.ctx.Register(region(buf))
	if err != nil {
		return ucxError(err)
	}
	e.mem, e.base, e.length = m, buf.Address(), uint64(buf.Len())
	for range e.cfg.Streams {
		w, err := e.ctx.NewWorker(m)
		if err != nil {
			return ucxError(err)
		}
		e.workers = append(e.workers, w)
	}
	return nil
}

// ucxAddress is what Address carries, as JSON.
type ucxAddress struct {
	API     string   `json:"api"`
	Version string   `json:"library_version"`
	Workers [][]byte `json:"workers"`
	Labels  []uint32 `json:"labels"` // of the workers
	Key     []byte   `json:"key"`
	Base    uint64   `json:"base"`
	Length  uint64   `json:"length_bytes"`
}

func (e *ucxEndpoint) Address() ([]byte, error) {
	if e.mem == nil {
		return nil, errors.New("the endpoint has no region yet")
	}
	a := ucxAddress{API: "ucx", Version: e.lib.Version(), Key: e.mem.Key(), Base: e.base, Length: e.length}
	for _, w := range e.workers {
		wa, err := w.Address()
		if err != nil {
			return nil, err
		}
		a.Workers, a.Labels = append(a.Workers, wa.Worker), append(a.Labels, wa.Label)
	}
	return json.Marshal(a)
}

// parseUCXAddress reads a peer's Address that must serve lanes.
func parseUCXAddress(peer []byte, lanes int) (ucxAddress, error) {
	var a ucxAddress
	d := json.NewDecoder(bytes.NewReader(peer))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return a, fmt.Errorf("the peer's UCX address: %w", err)
	}
	if a.API != "ucx" || len(a.Key) == 0 || a.Base > a.Base+a.Length {
		return a, errors.New("the peer's UCX address is incomplete")
	}
	if len(a.Workers) != lanes {
		return a, fmt.Errorf("the peer has %d UCX workers, this side %d: use the same --streams", len(a.Workers), lanes)
	}
	if len(a.Labels) != lanes {
		return a, errors.New("the peer's UCX address is incomplete")
	}
	for _, w := range a.Workers {
		if len(w) == 0 {
			return a, errors.New("the peer's UCX address is incomplete")
		}
	}
	return a, nil
}

func (e *ucxEndpoint) Connect(ctx context.Context, peer []byte) error {
	if e.group != nil {
		return errors.New("the endpoint is connected already")
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	a, err := parseUCXAddress(peer, e.cfg.Streams)
	if err != nil {
		return err
	}
	if a.Version != e.lib.Version() {
		e.notes = append(e.notes, fmt.Sprintf("UCX %s here, %s at the peer", e.lib.Version(), a.Version))
	}
	e.key = a.Key
	if err := e.connectWorkers(ctx, a); err != nil {
		return err
	}
	lanes := make([]loop.Lane, len(e.workers))
	for i, w := range e.workers {
		lanes[i] = w.Lane()
	}
	// READ and WRITE need nothing of the target but that it progresses without
	// rest, which software-emulated RMA lives on.
	return e.start(e.cfg, lanes, e.cfg.Depth, func(op loop.Op) bool { return op == loop.Send })
}

// connectWorkers gives the endpoint up when UCX does not come back: by default it
// waits in connect(2), which takes two minutes where packets are dropped.
func (e *ucxEndpoint) connectWorkers(ctx context.Context, a ucxAddress) error {
	workers := e.workers
	done := make(chan error, 1)
	go func() {
		for i, w := range workers {
			if err := w.Connect(ucx.Address{Worker: a.Workers[i], Key: a.Key, Base: a.Base, Len: a.Length, Label: a.Labels[i]}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	limit := cmp.Or(max(e.cfg.Timeout, 0), fabricTimeout)
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case err := <-done:
		return ucxError(err)
	case <-ctx.Done():
		e.stuck = true
		return context.Cause(ctx)
	case <-late.C:
		e.stuck = true
		return fmt.Errorf("%w: %s has not connected within %v: does a firewall, or NAT, keep its ports from the other side?", ErrUnavailable, e.cfg.Provider, limit)
	}
}

func (e *ucxEndpoint) Close() error {
	var errs []error
	if e.stuck {
		e.workers, e.mem, e.ctx, e.stuck = nil, nil, nil, false
		return fmt.Errorf("%s: %w: it still connects", e.cfg.Provider, ErrNotClosed)
	}
	if e.group != nil {
		err := e.group.Close()
		e.group = nil
		if err != nil { // a thread is still inside a worker
			e.workers, e.mem, e.ctx = nil, nil, nil
			return fmt.Errorf("%s: %w: %w", e.cfg.Provider, ErrNotClosed, err)
		}
	}
	if e.ctx == nil {
		return nil
	}
	for _, w := range e.workers {
		errs = append(errs, w.Close())
	}
	e.workers = nil
	if err := errors.Join(errs...); errors.Is(err, ucx.ErrNotClosed) {
		e.mem, e.ctx = nil, nil
		return fmt.Errorf("%s: %w: %w", e.cfg.Provider, ErrNotClosed, err)
	}
	if e.mem != nil {
		errs = append(errs, e.mem.Close())
		e.mem = nil
	}
	return errors.Join(append(errs, e.ctx.Close())...)
}
