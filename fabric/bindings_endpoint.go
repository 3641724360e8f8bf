package fabric

/*
#include <stdlib.h>
#include "ofi.h"
*/
import "C"

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/dl"
	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
)

// EndpointConfig says how an interface is opened.
type EndpointConfig struct {
	Initiator bool // posts operations; the other side is the target
	Depth     int  // operations in flight at most, at least 1
	// QueueSize is how many completions each of the two queues holds; 0: 1024. It is
	// a ring in memory that each completion moves along: one that outgrows the cache
	// costs a miss a completion. Depth is its least, and a provider that refuses gets
	// half of it, and so on.
	QueueSize int
	// NoSharedMemory forbids efa to carry same-host traffic over shared memory
	// (from libfabric 1.18 on): see [Limits].SharedForbidden.
	NoSharedMemory bool
	// RNRRetries is how often efa sends again to a peer that is not ready, 7 for
	// ever; 0 leaves it to the provider.
	RNRRetries int
}

// Limits is what an open endpoint can do.
type Limits struct {
	MaxRMA, MaxMessage uint64 // bytes of one READ or WRITE, of one SEND
	// Inject is the longest tagged message, in bytes, that is injected: it is
	// complete as soon as it is posted.
	Inject uint64
	// EmulatedRead and EmulatedWrite tell whether efa makes RMA of messages;
	// Known is false where the library cannot say (before 1.18) or is not efa.
	EmulatedRead, EmulatedWrite, Known bool
	// SharedForbidden tells whether efa's same-host shortcut is off.
	SharedForbidden bool
}

// Endpoint is one side of a connection over one interface: its own fabric,
// domain, queues and region. See the package's description for its threads.
type Endpoint struct {
	lib      *Library
	provider string // as errors call it
	hints    Hints
	attr     Attributes
	limits   Limits
	ep       *C.struct_xb_ofi_ep
	region   loop.Region
	peer     Address
	name     []byte
	secret   uint64 // labels what this side receives
}

// Address is what a peer needs to reach an endpoint's region.
type Address struct {
	Name []byte `json:"name"` // of the endpoint, opaque
	Base uint64 `json:"base"` // what offsets are added to
	Key  uint64 `json:"key"`
	Len  uint64 `json:"len"` // of the region, bytes
	// Secret is a random number that labels what is sent to this endpoint, in tags
	// and, where both sides have 8 bytes of it (DataBytes), in CQ data.
	Secret    uint64 `json:"secret"`
	DataBytes int    `json:"cq_data_bytes"`
	// PID is the endpoint's process, so that a peer on the same host can tell
	// whether it is gone.
	PID int `json:"pid"`
}

// Open opens one of the interfaces that were found, and enables it.
// Wraps: fi_dupinfo(3), fi_fabric(3), fi_domain(3), fi_cq_open(3), fi_av_open(3), fi_eq_open
// (fi_eq(3)), fi_endpoint(3), fi_ep_bind(3), fi_setopt(3), fi_enable(3),
// fi_getopt(3).
func (f *Found) Open(i Interface, cfg EndpointConfig) (*Endpoint, error) {
	if cfg.Depth < 1 || cfg.Depth > math.MaxInt32 {
		return nil, fmt.Errorf("fabric: depth %d: want 1 to %d", cfg.Depth, math.MaxInt32)
	}
	if cfg.QueueSize < 0 || cfg.RNRRetries < 0 || cfg.QueueSize > math.MaxInt32 {
		return nil, fmt.Errorf("fabric: queues of %d completions, %d retries", cfg.QueueSize, cfg.RNRRetries)
	}
	if !slices.ContainsFunc(f.Interfaces, func(o Interface) bool { return o.info == i.info }) {
		return nil, errors.New("fabric: the interface is not among those found, or they were freed")
	}
	h := f.hints
	how := C.struct_xb_ofi_open{
		depth: C.uint32_t(cfg.Depth), queue: C.uint32_t(cmp.Or(cfg.QueueSize, queueSize)), rnr_retries: C.uint32_t(cfg.RNRRetries),
		initiator: flag(cfg.Initiator), acked: flag(h.acked()), landing: C.int(h.Landing), sends: C.int(h.Sends), rma: flag(h.rma()),
		efa: flag(i.Provider == "efa"), no_shm: flag(cfg.NoSharedMemory),
	}
	var limits C.struct_xb_ofi_limits
	var e C.struct_xb_ofi_error
	var ep *C.struct_xb_ofi_ep
	// shm takes over SIGINT and others when an endpoint is enabled.
	err := dl.Guarded(func() error {
		ep = C.xb_ofi_open(f.lib.table, i.info, &how, &limits, &e)
		return nil
	})
	if err != nil || ep == nil {
		return nil, hinted(failure(h.name(), &e), i.Provider)
	}
	var secret [8]byte
	rand.Read(secret[:]) // never fails
	return &Endpoint{secret: binary.NativeEndian.Uint64(secret[:]), lib: f.lib, provider: h.name(), hints: h, attr: i.Attributes, ep: ep, limits: Limits{
		MaxRMA: uint64(limits.max_rma), MaxMessage: uint64(limits.max_msg), Inject: uint64(limits.inject),
		EmulatedRead: limits.emulated_read == 1, EmulatedWrite: limits.emulated_write == 1,
		Known: limits.emulated_read >= 0, SharedForbidden: limits.no_shm == 1,
	}}, nil
}

// queueSize is that of a config that names none.
const queueSize = 1024

func flag(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// SharedBytes is what an endpoint of the shm provider takes of /dev/shm: libfabric
// 1.17 offers the provider only where that much is free for each core.
const SharedBytes = 17 << 20

// hinted gives the error of a call that sets an endpoint of provider up its kind and
// the next step: what a library refuses there is unavailable, never an internal error.
func hinted(e *Error, provider string) *Error {
	shared := uint64(0)
	if provider == "shm" {
		shared = SharedBytes
	}
	switch what, next := mem.Shortage(syscall.Errno(e.Errno), shared); {
	case e.Call == "fi_mr_regattr" && e.Errno == ErrNoMemory:
		e.Kind = ErrMemlock
		e.Hint = Hint("raise the limit of locked memory, " + memlock() + ": ulimit -l unlimited, LimitMEMLOCK=infinity, or docker --ulimit memlock=-1")
	case what != "":
		e.Kind, e.Hint = ErrUnavailable, Hint(next)
		e.Detail += ": " + what
	case e.Errno == ErrAccess || e.Errno == ErrNotPermitted:
		e.Kind = ErrPermission
		e.Hint = "check who may open the device (/dev/infiniband, /dev/shm) and ptrace_scope"
	case e.Errno == ErrNoAddress:
		e.Kind = ErrUnavailable
		e.Hint = "choose a local IP address (see `ip address`)"
	case e.Errno == ErrNotSupported || e.Errno == ErrNotImplemented:
		e.Kind = ErrUnsupported
	default:
		e.Kind, e.Hint, e.Environment = ErrUnavailable, "FI_LOG_LEVEL=warn says more", environment()
	}
	return e
}

// environment names the variables that libfabric reads and that are set.
func environment() []string {
	var set []string
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "FI_") && !strings.HasPrefix(kv, "FI_LOG_") {
			set = append(set, kv)
		}
	}
	slices.Sort(set)
	return set
}

// memlock is the limit in words.
func memlock() string {
	const limitMemlock = 8
	var r syscall.Rlimit
	if err := syscall.Getrlimit(limitMemlock, &r); err != nil {
		return "which cannot be read (" + err.Error() + ")"
	}
	if r.Cur == ^uint64(0) {
		return "which is unlimited"
	}
	return fmt.Sprintf("now %d bytes", r.Cur)
}

// Attributes are those of the interface.
func (e *Endpoint) Attributes() Attributes { return e.attr }

// Limits are those that the open endpoint told.
func (e *Endpoint) Limits() Limits { return e.limits }

// Register makes r the endpoint's region, once. An error matches [ErrMemlock] where
// the limit of locked memory is too small, and [ErrUnsupported] where r is GPU memory
// that the provider cannot reach. Wraps: fi_mr_regattr(3), fi_mr_bind(3),
// fi_mr_enable(3), fi_mr_desc(3).
func (e *Endpoint) Register(r loop.Region) error {
	if e.ep == nil {
		return errClosed
	}
	if r.Address == 0 || r.Len == 0 {
		return errors.New("fabric: an empty region")
	}
	if e.region.Len != 0 {
		return errors.New("fabric: the endpoint has a region already")
	}
	var fe C.struct_xb_ofi_error
	if C.xb_ofi_register(e.ep, C.uint64_t(r.Address), C.uint64_t(r.Len), flag(r.CUDA), C.int(r.Device), &fe) != 0 {
		err := hinted(failure(e.provider, &fe), e.attr.Provider)
		err.Detail = fmt.Sprintf("%d bytes of %s memory: %s", r.Len, r.Kind(), err.Detail)
		if r.CUDA && errors.Is(err, ErrUnavailable) {
			err.Kind, err.Hint, err.Environment = ErrUnsupported, HintGPUDirect, nil
		}
		return err
	}
	e.region = r
	return nil
}

// Address is what the peer's Connect takes; valid after Register.
// Wraps: fi_getname(3), fi_mr_key(3).
func (e *Endpoint) Address() (Address, error) {
	if e.ep == nil {
		return Address{}, errClosed
	}
	if e.region.Len == 0 {
		return Address{}, errors.New("fabric: an address needs a registered region")
	}
	name := make([]byte, 512)
	n := C.size_t(len(name))
	var fe C.struct_xb_ofi_error
	if C.xb_ofi_name(e.ep, unsafe.Pointer(&name[0]), &n, &fe) != 0 {
		return Address{}, hinted(failure(e.provider, &fe), e.attr.Provider)
	}
	var base, key C.uint64_t
	C.xb_ofi_remote(e.ep, &base, &key)
	e.name = name[:n]
	return Address{Name: e.name, Base: uint64(base), Key: uint64(key), Len: e.region.Len,
		Secret: e.secret, DataBytes: e.attr.CQDataSize, PID: os.Getpid()}, nil
}

// wideData is how many bytes of CQ data hold a label and a secret.
const wideData = 8

// Connect makes peer the endpoint's peer. Nothing is sent: the first operation
// sets the connection up. Wraps: fi_av_insert(3).
func (e *Endpoint) Connect(peer Address) error {
	if e.ep == nil {
		return errClosed
	}
	if len(peer.Name) == 0 {
		return errors.New("fabric: the peer's address is empty")
	}
	// Names that are strings are read up to their end.
	name := C.CBytes(append(append([]byte(nil), peer.Name...), make([]byte, 64)...))
	defer C.free(name)
	var fe C.struct_xb_ofi_error
	if C.xb_ofi_connect(e.ep, name, C.uint64_t(peer.Base), C.uint64_t(peer.Key), C.uint64_t(e.secret), C.uint64_t(peer.Secret),
		flag(min(e.attr.CQDataSize, peer.DataBytes) >= wideData), &fe) != 0 {
		return hinted(failure(e.provider, &fe), e.attr.Provider)
	}
	e.peer = peer
	return nil
}

// Lane hands the connected endpoint to a measuring loop; see [loop.NewGroup]. It is used
// through: fi_read, fi_writemsg, fi_writedata (fi_rma(3)), fi_tsend, fi_tinject,
// fi_trecv (fi_tagged(3)), fi_send, fi_inject, fi_senddata, fi_recv (fi_msg(3)),
// fi_cq_read, fi_cq_readerr, fi_cq_strerror (fi_cq(3)), fi_eq_read, fi_eq_readerr
// (fi_eq(3)).
func (e *Endpoint) Lane() loop.Lane {
	return loop.Lane{Impl: unsafe.Pointer(e.ep), Ops: unsafe.Pointer(&C.xb_ofi_ops), Own: e.region.Len, Peer: e.peer.Len}
}

// Drain waits until no operation that this side posted is in flight, for d at
// most, and returns how many still are. No group may run the endpoint. Closed
// under operations in flight, tcp;ofi_rxm of libfabric 1.17 crashes: it takes an
// error without a context for one of its own operations.
// Wraps: fi_cq_read, fi_cq_readerr (fi_cq(3)).
func (e *Endpoint) Drain(d time.Duration) int {
	if e.ep == nil {
		return 0
	}
	return int(C.xb_ofi_drain(e.ep, C.int64_t(d)))
}

// Close closes the endpoint, its registrations, queues and domain. All closes
// are tried; the first that failed is reported. The shared-memory file of a peer
// over shm or efa that was killed on this host is removed. It may be called twice.
// Wraps: fi_close(3).
func (e *Endpoint) Close() error {
	if e.ep == nil {
		return nil
	}
	var fe C.struct_xb_ofi_error
	rc := C.xb_ofi_close(e.ep, &fe)
	e.ep, e.region = nil, loop.Region{}
	var err error
	if rc != 0 {
		err = failure(e.provider, &fe)
	}
	return errors.Join(err, e.sweepPeer())
}

// Abandon is Close for an endpoint that a thread is still inside: it stays open
// until the process ends, and so must its memory. Abandon removes the shared-memory
// files that its provider would leave.
func (e *Endpoint) Abandon() error {
	if e.ep == nil {
		return nil
	}
	e.ep, e.region = nil, loop.Region{}
	var err error
	if e.attr.Provider == "shm" {
		err = removeOwn(shmDir, e.name)
	}
	return errors.Join(err, e.sweepPeer())
}

func (e *Endpoint) sweepPeer() error {
	switch e.attr.Provider {
	case "shm":
		if e.peer.PID > 1 {
			_, err := RemoveShared(e.peer.PID)
			return err
		}
	case "efa":
		return sweepEFA(shmDir, e.peer)
	}
	return nil
}
