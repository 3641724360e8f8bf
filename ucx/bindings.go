package ucx

/*
#include <stdlib.h>
#include "ucp.h"
*/
import "C"

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/dl"
	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cuda"
)

// Library is a loaded libucp.
type Library struct {
	path, version string
	release       Version
	known         map[string]bool // settings, by name without "UCX_"
	u             *C.struct_xb_ucp
}

// Path is the file that was loaded.
func (l *Library) Path() string { return l.path }

// Version is the library's own word for its version.
func (l *Library) Version() string { return l.version }

// Release is Version's numbers.
func (l *Library) Release() Version { return l.release }

var (
	loading sync.Mutex
	loaded  = map[string]*Library{} // by the name that was asked for
)

// environment is what UCX must find when it is loaded, unless the user set it.
var environment = []Setting{
	// Go's signal handlers stay, and crashes are Go's to report.
	{Key: "UCX_HANDLE_ERRORS", Value: "none"},
	// UCX's hooks rewrite libc's mmap and munmap in place, which is not safe
	// beside Go's running threads; all memory here is registered by hand.
	{Key: "UCX_MEM_EVENTS", Value: "no"},
}

// setEnvironment prepares the process for UCX. UCX logs to standard output,
// where results go: its lines are caught, its tables of protocols go to a file
// in memory. A user's own UCX_LOG_FILE wins.
func setEnvironment() error {
	for _, s := range environment {
		if err := dl.Setenv(s.Key, s.Value); err != nil {
			return err
		}
	}
	var path [64]C.char
	if fd, err := C.xb_ucx_tables_open(&path[0], C.size_t(len(path))); fd < 0 {
		return fmt.Errorf("memfd_create: %w", err)
	}
	return dl.Setenv("UCX_LOG_FILE", C.GoString(&path[0]))
}

// Load opens path, else $XFERBENCH_LIBUCP, else the loader's libucp.so.0, once
// a process and name. Its own modules find it, so it is loaded globally.
// An error matches [ErrUnavailable]. See the package's description for what is set for
// the whole process. Wraps: ucp_get_version_string, ucs_log_push_handler,
// ucs_config_parser_print_all_opts of ucs_config_global_list, uct_query_components,
// uct_release_component_list.
func Load(path string) (*Library, error) {
	loading.Lock()
	defer loading.Unlock()
	if path == "" {
		path = os.Getenv("XFERBENCH_LIBUCP")
	}
	if path == "" {
		path = "libucp.so.0"
	}
	if l := loaded[path]; l != nil {
		return l, nil
	}
	if err := setEnvironment(); err != nil {
		return nil, err
	}
	lib, err := dl.Open(dl.Global, path)
	if err != nil {
		return nil, &Error{Call: "loading " + path, Detail: err.Error(), Kind: ErrUnavailable, Hint: HintLoad}
	}
	l := &Library{path: lib.Path()}
	l.u = (*C.struct_xb_ucp)(C.calloc(1, C.sizeof_struct_xb_ucp))
	if l.u == nil {
		return nil, &Error{Call: "loading " + path, Detail: "out of memory", Kind: ErrUnavailable}
	}
	if err := lib.Symbols(symbols(l.u)); err != nil {
		C.free(unsafe.Pointer(l.u))
		return nil, &Error{Call: "loading " + path, Detail: err.Error(), Kind: ErrUnavailable,
			Hint: "UCX 1.13 or newer is needed"}
	}
	C.xb_ucx_log_capture(l.u, flag(echoLog()))
	err = dl.Guarded(func() error {
		text := C.xb_ucx_known_settings(l.u)
		if text != nil {
			l.known = knownSettings(C.GoString(text))
			C.free(unsafe.Pointer(text))
		}
		l.version = C.GoString(C.xb_ucx_version(l.u))
		l.release, err = dl.ParseVersion(l.version)
		return err
	})
	if err != nil {
		return nil, err
	}
	loaded[path] = l
	return l, nil
}

// echoLog says whether the user asked to see UCX's log.
func echoLog() bool { return os.Getenv("UCX_LOG_LEVEL") != "" }

func flag(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

func symbols(u *C.struct_xb_ucp) map[string]*unsafe.Pointer {
	at := func(p unsafe.Pointer) *unsafe.Pointer { return (*unsafe.Pointer)(p) }
	return map[string]*unsafe.Pointer{
		"ucp_init_version":                  at(unsafe.Pointer(&u.init_version)),
		"ucp_cleanup":                       at(unsafe.Pointer(&u.cleanup)),
		"ucp_get_version_string":            at(unsafe.Pointer(&u.get_version_string)),
		"ucp_config_read":                   at(unsafe.Pointer(&u.config_read)),
		"ucp_config_modify":                 at(unsafe.Pointer(&u.config_modify)),
		"ucp_config_release":                at(unsafe.Pointer(&u.config_release)),
		"ucp_context_query":                 at(unsafe.Pointer(&u.context_query)),
		"ucp_mem_map":                       at(unsafe.Pointer(&u.mem_map)),
		"ucp_mem_unmap":                     at(unsafe.Pointer(&u.mem_unmap)),
		"ucp_mem_query":                     at(unsafe.Pointer(&u.mem_query)),
		"ucp_rkey_pack":                     at(unsafe.Pointer(&u.rkey_pack)),
		"ucp_rkey_buffer_release":           at(unsafe.Pointer(&u.rkey_buffer_release)),
		"ucp_worker_create":                 at(unsafe.Pointer(&u.worker_create)),
		"ucp_worker_destroy":                at(unsafe.Pointer(&u.worker_destroy)),
		"ucp_worker_progress":               at(unsafe.Pointer(&u.worker_progress)),
		"ucp_worker_flush_nbx":              at(unsafe.Pointer(&u.worker_flush_nbx)),
		"ucp_worker_get_address":            at(unsafe.Pointer(&u.worker_get_address)),
		"ucp_worker_release_address":        at(unsafe.Pointer(&u.worker_release_address)),
		"ucp_ep_create":                     at(unsafe.Pointer(&u.ep_create)),
		"ucp_ep_close_nbx":                  at(unsafe.Pointer(&u.ep_close_nbx)),
		"ucp_ep_flush_nbx":                  at(unsafe.Pointer(&u.ep_flush_nbx)),
		"ucp_ep_print_info":                 at(unsafe.Pointer(&u.ep_print_info)),
		"ucs_log_flush?":                    at(unsafe.Pointer(&u.log_flush)),
		"ucp_ep_rkey_unpack":                at(unsafe.Pointer(&u.ep_rkey_unpack)),
		"ucp_rkey_destroy":                  at(unsafe.Pointer(&u.rkey_destroy)),
		"ucp_put_nbx":                       at(unsafe.Pointer(&u.put_nbx)),
		"ucp_get_nbx":                       at(unsafe.Pointer(&u.get_nbx)),
		"ucp_tag_send_nbx":                  at(unsafe.Pointer(&u.tag_send_nbx)),
		"ucp_tag_recv_nbx":                  at(unsafe.Pointer(&u.tag_recv_nbx)),
		"ucp_request_free":                  at(unsafe.Pointer(&u.request_free)),
		"ucp_request_cancel":                at(unsafe.Pointer(&u.request_cancel)),
		"ucp_request_check_status":          at(unsafe.Pointer(&u.request_check_status)),
		"ucs_status_string":                 at(unsafe.Pointer(&u.status_string)),
		"uct_query_components":              at(unsafe.Pointer(&u.query_components)),
		"uct_release_component_list":        at(unsafe.Pointer(&u.release_components)),
		"ucs_log_push_handler?":             at(unsafe.Pointer(&u.log_push_handler)),
		"ucs_config_parser_print_all_opts?": at(unsafe.Pointer(&u.print_all_opts)),
		"ucs_config_global_list?":           at(unsafe.Pointer(&u.global_list)),
	}
}

func (l *Library) takeLog() string {
	var text [4096]C.char
	C.xb_ucx_log_take(&text[0], C.size_t(len(text)))
	return strings.TrimSpace(C.GoString(&text[0]))
}

// fail makes the error of a call that returned status; environment goes with
// hint.
func (l *Library) fail(call string, status C.ucs_status_t, kind error, hint Hint, environment ...string) *Error {
	e := &Error{Call: call, Status: Status(status), Kind: kind, Detail: C.GoString(C.xb_ucx_status(l.u, status)), Log: l.takeLog(),
		Hint: hint, Environment: environment}
	if errors.Is(kind, ErrUnavailable) {
		errno := syscall.Errno(0)
		if status == C.UCS_ERR_NO_MEMORY {
			errno = syscall.ENOMEM
		}
		e.explain(errno)
	}
	return e
}

// opening serialises what reads UCX's log, which belongs to the process, and
// guards opened, the number of contexts so far.
var (
	opening sync.Mutex
	opened  int
)

// Context is an instance of UCX with its settings. It is for one goroutine at
// a time and must outlive its memory and its workers.
type Context struct {
	lib      *Library
	h        C.ucp_context_h
	name     string // UCX's tables carry it
	plan     plan
	types    uint64
	children int
	closeBy  time.Time // set by the first worker that is closed
}

// Open makes a context. A transport or device that UCX lacks is an error that
// matches [ErrUnavailable] and holds UCX's own words; a setting that it refuses
// matches [ErrSetting]. Wraps: ucp_config_read, ucp_config_modify,
// ucp_config_release, ucp_init_version, ucp_context_query.
func (l *Library) Open(cfg Config) (*Context, error) {
	opening.Lock()
	defer opening.Unlock()
	p, unknown := resolve(cfg, os.Environ(), l.known)
	for _, s := range environment {
		if _, user := p.inForce[s.Key]; !user {
			p.inForce[s.Key] = s.Value
		}
	}
	l.takeLog()
	opened++
	c := &Context{lib: l, plan: p, name: fmt.Sprintf("xferbench%d", opened)}
	if err := dl.Guarded(func() error { return c.init(cfg, unknown) }); err != nil {
		return nil, err
	}
	c.types = uint64(C.xb_ucx_memory_types(l.u, c.h))
	if log := l.takeLog(); log != "" {
		c.plan.notes = append(c.plan.notes, strings.Split(log, "\n")...)
	}
	return c, nil
}

// init makes the UCP context. A setting that is unknown comes after what the
// environment has wrong, which keeps UCX from naming all that it knows.
func (c *Context) init(cfg Config, unknown error) error {
	l := c.lib
	var config *C.ucp_config_t
	if st := C.xb_ucx_config_read(l.u, &config); st != C.UCS_OK {
		return l.fail("ucp_config_read", st, ErrSetting, "mend or unset it", environmentWords(c.plan.inForce)...)
	}
	if unknown != nil {
		C.xb_ucx_config_release(l.u, config)
		return unknown
	}
	for _, s := range c.plan.set {
		k, v := C.CString(s.Key), C.CString(s.Value)
		st := C.xb_ucx_config_modify(l.u, config, k, v)
		C.free(unsafe.Pointer(k))
		C.free(unsafe.Pointer(v))
		if st == C.UCS_OK {
			continue
		}
		if !s.Optional {
			C.xb_ucx_config_release(l.u, config)
			return l.fail(fmt.Sprintf("setting UCX_%s=%s", s.Key, s.Value), st, ErrSetting, HintSettings)
		}
		delete(c.plan.inForce, "UCX_"+s.Key)
		e := l.fail(fmt.Sprintf("UCX_%s=%s", s.Key, s.Value), st, ErrSetting, "left out")
		c.plan.notes = append(c.plan.notes, e.Error())
	}
	name := C.CString(c.name)
	defer C.free(unsafe.Pointer(name))
	if st := C.xb_ucx_init(l.u, config, name, flag(cfg.Shared), &c.h); st != C.UCS_OK {
		call := "ucp_init"
		for _, s := range c.plan.set {
			if s.Key == "TLS" {
				call += " with UCX_TLS=" + s.Value
			}
		}
		return l.fail(call, st, ErrUnavailable, "`ucx_info -d` lists the transports of this host", environmentWords(c.plan.inForce)...)
	}
	return nil
}

// Settings are those that were made or came from the environment, by full name.
func (c *Context) Settings() map[string]string { return maps.Clone(c.plan.inForce) }

// Errors is how endpoints learn of a peer that is gone: of [ErrorsAuto] the first
// [Worker.Connect] makes one of the others, and why is UCX's reason where that is
// ErrorsNone.
func (c *Context) Errors() (mode ErrorHandling, why string) { return c.plan.errors, c.plan.refused }

// Notes say what was left out and what UCX warned of.
func (c *Context) Notes() []string { return slices.Clone(c.plan.notes) }

// SupportsCUDA reports whether regions may be device memory.
func (c *Context) SupportsCUDA() bool { return c.types&(1<<C.UCS_MEMORY_TYPE_CUDA) != 0 }

// Close frees the context; it refuses while memory or workers are open.
// Wraps: ucp_cleanup.
func (c *Context) Close() error {
	if c.h == nil {
		return nil
	}
	if c.children > 0 {
		return fmt.Errorf("closing a UCX context with %d open objects", c.children)
	}
	C.xb_ucx_cleanup(c.lib.u, c.h)
	c.h = nil
	return nil
}

// Memory is a registered region.
type Memory struct {
	c       *Context
	h       C.ucp_mem_h
	region  loop.Region
	cuda    C.struct_xb_ucx_cuda
	context *cuda.Context // of CUDA memory
	key     []byte

	workers int // that are open
}

// memoryType is UCX's word for where a region is.
func memoryType(r loop.Region) C.ucs_memory_type_t {
	if r.CUDA {
		return C.UCS_MEMORY_TYPE_CUDA
	}
	return C.UCS_MEMORY_TYPE_HOST
}

// Register registers r. An error matches [ErrUnsupported] when r is GPU memory and
// UCX was built without CUDA or the transports that were chosen cannot reach it.
// Wraps: ucp_mem_map, ucp_mem_query, ucp_rkey_pack, ucp_rkey_buffer_release.
func (c *Context) Register(r loop.Region) (*Memory, error) {
	m := &Memory{c: c, region: r}
	if c.h == nil {
		return nil, errClosed
	}
	if r.Address == 0 || r.Len == 0 {
		return nil, errors.New("ucx: an empty region")
	}
	if r.CUDA && !c.SupportsCUDA() {
		return nil, &Error{Call: "registering CUDA memory", Detail: "this UCX moves host memory only", Kind: ErrUnsupported, Hint: HintCUDA}
	}
	if r.CUDA {
		if err := m.retainContext(); err != nil {
			return nil, err
		}
	}
	kind, got := memoryType(r), C.int(-1)
	st := C.xb_ucx_mem_map(c.lib.u, c.h, &m.cuda, C.uint64_t(r.Address), C.uint64_t(r.Len), C.int(kind), &m.h, &got)
	if st != C.UCS_OK {
		return nil, errors.Join(c.lib.fail(fmt.Sprintf("ucp_mem_map of %d bytes", r.Len), st, ErrUnavailable,
			"raise the locked-memory limit (ulimit -l) or choose a smaller size"), m.releaseContext())
	}
	c.children++
	if got != C.int(kind) {
		return nil, errors.Join(&Error{Call: "registering CUDA memory", Detail: "UCX takes it for host memory", Kind: ErrUnsupported,
			Hint: HintCopy}, m.Close())
	}
	var key unsafe.Pointer
	var n C.size_t
	if st := C.xb_ucx_rkey_pack(c.lib.u, c.h, m.h, &key, &n); st != C.UCS_OK {
		return nil, errors.Join(c.lib.fail("ucp_rkey_pack", st, ErrUnavailable, ""), m.Close())
	}
	m.key = C.GoBytes(key, C.int(n))
	C.xb_ucx_rkey_buffer_release(c.lib.u, key)
	return m, nil
}

// errClosed is returned by calls on what is closed.
var errClosed = errors.New("ucx: it is closed")

// Key is the packed remote key, which [ParseReport] of the peer reads too.
func (m *Memory) Key() []byte { return m.key }

// Close ends the registration; it refuses while workers of it are open. It may be
// called twice. Wraps: ucp_mem_unmap.
func (m *Memory) Close() error {
	if m.h == nil {
		return nil
	}
	if m.workers > 0 {
		return fmt.Errorf("closing UCX memory with %d open workers", m.workers)
	}
	st := C.xb_ucx_mem_unmap(m.c.lib.u, m.c.h, m.h)
	m.h = nil
	m.c.children--
	err := m.releaseContext()
	if st != C.UCS_OK {
		return errors.Join(m.c.lib.fail("ucp_mem_unmap", st, nil, ""), err)
	}
	return err
}

// Worker is a UCP worker and its one endpoint: a lane.
type Worker struct {
	c      *Context
	m      *Memory
	lane   *C.struct_xb_ucx_lane
	report string
	label  uint32

	own, peer uint64 // bytes of the two regions
	connected bool
	flushing  bool // Flush was called
}

// NewWorker makes a worker whose operations are local to m.
// Wraps: ucp_worker_create.
func (c *Context) NewWorker(m *Memory) (*Worker, error) {
	if c.h == nil || m.h == nil {
		return nil, errClosed
	}
	var st C.ucs_status_t
	lane := C.xb_ucx_lane_new(c.lib.u, c.h, &st)
	if lane == nil {
		return nil, c.lib.fail("ucp_worker_create", st, ErrUnavailable, "UCX_LOG_LEVEL=diag says more", environmentWords(c.plan.inForce)...)
	}
	C.xb_ucx_lane_memory(lane, m.h, C.uint64_t(m.region.Address), C.int(memoryType(m.region)), &m.cuda)
	c.children++
	var label [4]byte
	rand.Read(label[:]) // never fails
	m.workers++
	return &Worker{c: c, m: m, lane: lane, label: binary.NativeEndian.Uint32(label[:]), own: m.region.Len}, nil
}

// Address is what a peer needs to reach a worker and its region.
type Address struct {
	Worker []byte // UCX's own, opaque
	Key    []byte // of the region: [Memory.Key]
	Base   uint64 // what offsets are added to
	Len    uint64 // of the region, bytes
	// Label is a random number that begins the tags of messages to the worker.
	Label uint32
}

// Address is what the peer's Connect takes.
// Wraps: ucp_worker_get_address, ucp_worker_release_address.
func (w *Worker) Address() (Address, error) {
	if w.lane == nil {
		return Address{}, errClosed
	}
	var a *C.ucp_address_t
	var n C.size_t
	if st := C.xb_ucx_lane_address(w.lane, &a, &n); st != C.UCS_OK {
		return Address{}, w.c.lib.fail("ucp_worker_get_address", st, ErrUnavailable, "")
	}
	defer C.xb_ucx_release_address(w.lane, a)
	return Address{Worker: C.GoBytes(unsafe.Pointer(a), C.int(n)), Key: w.m.Key(), Base: w.m.region.Address, Len: w.m.region.Len, Label: w.label}, nil
}

// Connect makes the endpoint to the peer's worker and unpacks the key of its
// region. The connection itself is made by the first operation, while both sides
// progress. peer must come from one that is trusted: UCX does not check it.
// Wraps: ucp_ep_create, ucp_ep_rkey_unpack.
func (w *Worker) Connect(peer Address) error {
	if w.lane == nil {
		return errClosed
	}
	if len(peer.Worker) == 0 || len(peer.Key) == 0 {
		return errors.New("connecting a UCX endpoint: the peer's address or key is empty")
	}
	p := &w.c.plan
	var what *C.char
	connect := func() C.ucs_status_t {
		return C.xb_ucx_lane_connect(w.lane, unsafe.Pointer(&peer.Worker[0]), unsafe.Pointer(&peer.Key[0]),
			C.uint64_t(peer.Base), flag(p.errors != ErrorsNone), &what)
	}
	C.xb_ucx_lane_labels(w.lane, C.uint32_t(w.label), C.uint32_t(peer.Label))
	w.c.lib.takeLog()
	st := connect()
	if st == C.UCS_ERR_UNREACHABLE && p.errors == ErrorsAuto {
		why := w.c.lib.takeLog()
		p.errors = ErrorsNone
		if st = connect(); st == C.UCS_OK {
			p.refused = why
		} else {
			p.errors = ErrorsAuto
		}
	}
	if st != C.UCS_OK {
		return w.c.lib.fail(C.GoString(what), st, ErrUnavailable,
			"the two sides share no such transport; compare `ucx_info -d` on both")
	}
	if p.errors == ErrorsAuto {
		p.errors = ErrorsPeer
	}
	w.peer, w.connected = peer.Len, true
	w.keep(C.xb_ucx_lane_print(w.lane))
	return nil
}

// Lane is the connected worker for the measuring loop.
func (w *Worker) Lane() loop.Lane {
	return loop.Lane{Impl: unsafe.Pointer(w.lane), Ops: unsafe.Pointer(&C.xb_ucx_ops), Own: w.own, Peer: w.peer}
}

// describeWait bounds the wait for a lane's thread: an idle one polls every ms.
const describeWait = 50 * time.Millisecond

// Describe is UCX's own report of the endpoint: its lanes, and from UCX 1.15 on
// a table for each kind of operation that was used so far. While a group runs
// the worker (running), its thread writes the report of lanes; if that does not
// poll, it is the last. [ParseReport] reads it.
// Wraps: ucp_ep_print_info, ucs_log_flush, UCX_PROTO_INFO.
func (w *Worker) Describe(running bool) string {
	if running && w.lane != nil {
		w.keep(C.xb_ucx_lane_info(w.lane, C.int64_t(describeWait)))
	}
	text := C.xb_ucx_tables_read(w.c.lib.u)
	if text == nil {
		return w.report
	}
	defer C.free(unsafe.Pointer(text))
	return w.report + tablesOf(C.GoString(text), w.c.name)
}

func (w *Worker) keep(text *C.char) {
	if text != nil {
		w.report = C.GoString(text)
		C.free(unsafe.Pointer(text))
	}
}

// closeWait bounds what closing a context's workers waits for a peer that may
// be gone; each has at least closeLeast.
const (
	closeWait  = time.Second
	closeLeast = 100 * time.Millisecond
)

// ErrNotClosed is matched by the error of a worker that UCX still has operations
// of in hand. The worker, its context and its memory must stay until the process
// ends.
var ErrNotClosed = errors.New("operations are in flight that neither complete nor fail")

// Close ends the endpoint and the worker, whatever the peer does: all workers
// of a context take about a second at most. No group may run the worker. An error
// matches [ErrNotClosed]. Wraps: ucp_ep_flush_nbx, ucp_ep_close_nbx,
// ucp_request_check_status, ucp_worker_flush_nbx, ucp_rkey_destroy,
// ucp_worker_destroy.
func (w *Worker) Close() error {
	if w.lane == nil {
		return nil
	}
	if w.c.closeBy.IsZero() {
		w.c.closeBy = time.Now().Add(closeWait)
	}
	left := C.xb_ucx_lane_free(w.lane, C.int64_t(max(time.Until(w.c.closeBy), closeLeast)))
	w.lane = nil
	if left != 0 {
		return &Error{Call: "closing a worker", Detail: fmt.Sprintf("%d %v", int64(left), ErrNotClosed), Kind: ErrNotClosed}
	}
	w.c.children--
	w.m.workers--
	return nil
}
