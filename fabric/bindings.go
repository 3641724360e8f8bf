package fabric

/*
#include <stdlib.h>
#include "ofi.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/dl"
	"github.com/xferbench/xferbench/cgo/loop"
)

// Caps are capabilities of fi_getinfo(3).
type Caps uint64

const (
	RemoteComm Caps = C.FI_REMOTE_COMM // with peers on other hosts
	LocalComm  Caps = C.FI_LOCAL_COMM  // with peers on this one

	capMsg         Caps = C.FI_MSG
	capRMA         Caps = C.FI_RMA
	capTagged      Caps = C.FI_TAGGED
	capRead        Caps = C.FI_READ
	capWrite       Caps = C.FI_WRITE
	capRecv        Caps = C.FI_RECV
	capSend        Caps = C.FI_SEND
	capRemoteRead  Caps = C.FI_REMOTE_READ
	capRemoteWrite Caps = C.FI_REMOTE_WRITE
	capHMEM        Caps = C.FI_HMEM
)

// Mode is what a provider demands of its caller, of fi_getinfo(3).
type Mode uint64

const (
	ModeContext  Mode = C.FI_CONTEXT
	ModeContext2 Mode = C.FI_CONTEXT2
	// ModeRxCQData: remote CQ data takes a receive that was posted. Endpoints of
	// this package post none, so RemoteCount cannot be had with it.
	ModeRxCQData Mode = C.FI_RX_CQ_DATA
)

// MRMode is what a provider demands of registration, of fi_mr(3).
type MRMode int

const (
	MRLocal     MRMode = C.FI_MR_LOCAL
	MRVirtAddr  MRMode = C.FI_MR_VIRT_ADDR
	MRAllocated MRMode = C.FI_MR_ALLOCATED
	MRProvKey   MRMode = C.FI_MR_PROV_KEY
	MREndpoint  MRMode = C.FI_MR_ENDPOINT
	MRHMEM      MRMode = C.FI_MR_HMEM
)

const opDeliveryComplete = C.FI_DELIVERY_COMPLETE

// Library is a loaded libfabric. It stays loaded until the process ends and may
// be used by several goroutines.
type Library struct {
	lib     *dl.Library
	table   *C.struct_xb_ofi_lib
	version Version
}

// libraryVar names the environment variable with the library's path.
const libraryVar = "XFERBENCH_LIBFABRIC"

// defaultLibraries are tried in order: the loader's own choice, then where the
// EFA installer puts it.
var defaultLibraries = []string{
	"libfabric.so.1", "/opt/amazon/efa/lib64/libfabric.so.1", "/opt/amazon/efa/lib/libfabric.so.1",
}

var loaded = struct {
	sync.Mutex
	by map[string]*Library
}{by: map[string]*Library{}}

// Load opens libfabric: path if it is not "", else the file that
// $XFERBENCH_LIBFABRIC names, else the loader's libfabric.so.1, else that of the
// EFA installer. An error matches [ErrNoLibrary]. The process's signal actions
// stay as they were. Wraps: dlopen(3), fi_version(3), fi_strerror(3).
func Load(path string) (*Library, error) {
	loaded.Lock()
	defer loaded.Unlock()
	names := defaultLibraries
	if path == "" {
		path = os.Getenv(libraryVar)
	}
	if path != "" {
		names = []string{path}
	}
	if l := loaded.by[path]; l != nil {
		return l, nil
	}
	// The psm providers' libraries take signals over as soon as they are loaded,
	// Ctrl-C too, unless they are told not to.
	for _, name := range []string{"IPATH_NO_BACKTRACE", "HFI_NO_BACKTRACE"} {
		if err := dl.Setenv(name, "1"); err != nil {
			return nil, err
		}
	}
	lib, err := dl.Open(dl.Local, names...)
	if err != nil {
		return nil, &Error{Call: "dlopen", Provider: "libfabric", Detail: err.Error(), Kind: ErrNoLibrary,
			Hint: HintLoad}
	}
	l := &Library{lib: lib, table: (*C.struct_xb_ofi_lib)(C.calloc(1, C.sizeof_struct_xb_ofi_lib))}
	if l.table == nil {
		return nil, &Error{Call: "calloc", Provider: "libfabric", Errno: ErrNoMemory, Detail: "no memory", Kind: ErrUnavailable}
	}
	t := l.table
	if err := lib.Symbols(map[string]*unsafe.Pointer{
		"fi_getinfo": &t.getinfo, "fi_freeinfo": &t.freeinfo, "fi_dupinfo": &t.dupinfo,
		"fi_fabric": &t.fabric, "fi_version": &t.version, "fi_strerror": &t.strerror,
	}); err != nil {
		C.free(unsafe.Pointer(t))
		return nil, &Error{Call: "dlsym", Provider: "libfabric", Detail: err.Error(), Kind: ErrNoLibrary,
			Hint: HintOther}
	}
	l.version = unpack(uint32(C.xb_ofi_version(t)))
	loaded.by[path] = l
	return l, nil
}

// Path is the file that was loaded.
func (l *Library) Path() string { return l.lib.Path() }

// Version is the library's own. Wraps: fi_version(3).
func (l *Library) Version() Version { return l.version }

// api is the version of the interface that fi_getinfo is asked for where the library
// knows it; see the package's description for why it is not the newest.
var api = Version{Major: 1, Minor: 18}

// API is the version of the interface that fi_getinfo is asked for.
func (l *Library) API() Version {
	if l.version.Less(api) {
		return l.version
	}
	return api
}

func unpack(v uint32) Version { return Version{Major: int(v >> 16), Minor: int(v & 0xffff)} }

// failure turns what C noted into an error.
func failure(provider string, e *C.struct_xb_ofi_error) *Error {
	out := &Error{Provider: provider, Errno: Errno(e.err), Detail: C.GoString(&e.words[0])}
	if e.call != nil {
		out.Call = C.GoString(e.call)
	}
	return out
}

// Interface is something that fi_getinfo offered: a provider on a NIC. It is
// valid until the [Found] that it came with is freed.
type Interface struct {
	Attributes
	info *C.struct_fi_info
}

// Found is the answer of [Library.Find]: one interface a NIC, in the library's
// order.
type Found struct {
	Interfaces []Interface

	hints Hints
	lib   *Library
	list  *C.struct_fi_info
}

// Hints are those that it was found by, with Sends as it will work.
func (f *Found) Hints() Hints { return f.hints }

// Free returns the library's memory; endpoints that were opened stay valid. It
// may be called twice. Wraps: fi_freeinfo(3).
func (f *Found) Free() {
	C.xb_ofi_freeinfo(f.lib.table, f.list)
	f.list, f.Interfaces = nil, nil
}

// getinfo asks the library once. The caller frees the list.
func (l *Library) getinfo(q query) (*C.struct_fi_info, *Error) {
	var req C.struct_xb_ofi_request
	for _, s := range []struct {
		to   **C.char
		from string
	}{{&req.provider, q.provider}, {&req.fabric, q.fabric}, {&req.node, q.node}} {
		if s.from != "" {
			*s.to = C.CString(s.from)
			defer C.free(unsafe.Pointer(*s.to))
		}
	}
	v := l.API()
	req.version = C.uint32_t(v.Major<<16 | v.Minor)
	req.caps, req.mode, req.op_flags = C.uint64_t(q.caps), C.uint64_t(q.mode), C.uint64_t(q.opFlags)
	req.mr_mode = C.int(q.mrMode)
	req.manual = flag(q.manual)
	if q.list {
		req.any_type = 1
	}
	var out *C.struct_fi_info
	var e C.struct_xb_ofi_error
	var rc C.int
	err := dl.Guarded(func() error {
		rc = C.xb_ofi_getinfo(l.table, &req, &out, &e)
		return nil
	})
	if err != nil || rc != 0 {
		return nil, failure(q.provider, &e)
	}
	return out, nil
}

// interfaces flattens a list.
func interfaces(list *C.struct_fi_info) []Interface {
	var all []Interface
	for i := list; i != nil; i = C.xb_ofi_next(i) {
		all = append(all, describe(i))
	}
	return all
}

func describe(info *C.struct_fi_info) Interface {
	var v C.struct_xb_ofi_view
	C.xb_ofi_describe(info, &v)
	a := Attributes{
		Provider: C.GoString(&v.provider[0]), Fabric: C.GoString(&v.fabric[0]), Domain: C.GoString(&v.domain[0]),
		ProviderVersion: unpack(uint32(v.provider_version)),
		ManualProgress:  v.manual_progress != 0,
		MRMode:          MRMode(v.mr_mode),
		MaxMessage:      uint64(v.max_msg),
		TxSize:          int(v.tx_size), RxSize: int(v.rx_size), CQDataSize: int(v.cq_data_size),
	}
	switch v.endpoint_type {
	case C.FI_EP_RDM:
		a.Type = "rdm"
	case C.FI_EP_MSG:
		a.Type = "msg"
	case C.FI_EP_DGRAM:
		a.Type = "dgram"
	}
	if v.has_nic != 0 {
		a.NIC = NIC{Name: C.GoString(&v.device[0]), Driver: C.GoString(&v.driver[0]), DeviceID: C.GoString(&v.device_id[0]), Firmware: C.GoString(&v.firmware[0]),
			PCI: C.GoString(&v.pci[0]), LinkBits: uint64(v.link_bits), LinkUp: v.link_up != 0, MTU: uint64(v.mtu),
			Network: C.GoString(&v.network[0])}
	}
	completeNIC(&a.NIC, a.Domain)
	return Interface{Attributes: a, info: info}
}

// Find asks the library once and returns one interface a NIC, each exactly what h
// names: libfabric answers with others too. Its error is an [*Error]: of kind
// [ErrUnavailable] where there is none, which may have many reasons, and of
// [ErrUnsupported] where WRITE has no proof of landing. The caller frees what is
// found. Wraps: fi_getinfo(3).
func (l *Library) Find(h Hints) (*Found, error) {
	h.Sends = h.sends()
	h.Ops = slices.Clone(h.Ops)
	none := func(e *Error) error {
		e.Provider, e.Kind, e.Hint, e.Environment = h.name(), ErrUnavailable, HintNone, environment()
		return e
	}
	list, e := l.getinfo(h.query())
	if e != nil {
		return nil, none(e)
	}
	f := &Found{hints: h, lib: l, list: list}
	var others []string
	for _, i := range interfaces(list) {
		same := (h.Provider == "" || i.Provider == h.Provider) && i.Type == "rdm" && (h.Fabric == "" || i.Fabric == h.Fabric)
		dup := slices.ContainsFunc(f.Interfaces, func(o Interface) bool { return o.Provider == i.Provider && o.Domain == i.Domain })
		switch {
		case !same:
			others = append(others, i.Provider)
		case !dup:
			f.Interfaces = append(f.Interfaces, i)
		}
	}
	if len(f.Interfaces) == 0 {
		f.Free()
		slices.Sort(others)
		return nil, none(&Error{Call: "fi_getinfo", Errno: ErrNoData,
			Detail: fmt.Sprintf("offers only %s", strings.Join(slices.Compact(others), ", "))})
	}
	if i := f.Interfaces[0]; h.does(loop.Write) && h.Landing == RemoteCount && (i.CQDataSize < labelBytes || Mode(i.info.mode)&ModeRxCQData != 0) {
		f.Free()
		return nil, &Error{Call: "fi_getinfo", Provider: h.name(), Kind: ErrUnsupported, Hint: HintLanding,
			Detail: fmt.Sprintf("WRITE cannot be proven to land: no FI_DELIVERY_COMPLETE, and %d bytes of unsolicited CQ data", i.CQDataSize)}
	}
	return f, nil
}

// labelBytes is how much CQ data holds a piece's number.
const labelBytes = 4

// Interfaces lists all that the library offers on this host, of any type.
// Wraps: fi_getinfo(3).
func (l *Library) Interfaces() ([]Attributes, error) {
	list, e := l.getinfo(query{list: true, mode: ^Mode(0) &^ (1 << 58), mrMode: ^3})
	if e != nil {
		if e.Errno == ErrNoData {
			return nil, nil
		}
		return nil, hinted(e, "")
	}
	defer C.xb_ofi_freeinfo(l.table, list)
	var out []Attributes
	for _, i := range interfaces(list) {
		out = append(out, i.Attributes)
	}
	return out, nil
}

// errClosed is returned by calls on a closed endpoint.
var errClosed = errors.New("fabric: endpoint is closed")
