package providers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/cuda"
	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/transport"
	"github.com/xferbench/xferbench/nvml"
	"github.com/xferbench/xferbench/ucx"
)

// Names are the providers that are probed, in the order of the table.
func Names() []string {
	return []string{"efa", "efa-direct", "tcp", "net", "tcp;ofi_rxm", "shm", "sockets", "verbs",
		"ucx", "ucx:tcp", "ucx:shm", "ucx:rc", "ucx:srd", "ucx:cuda_ipc", "socket", "memcpy"}
}

// libraryPrefix marks the names of probes of libraries.
const libraryPrefix = "library:"

var libraryNames = []string{"libfabric", "UCX", "libcuda", "NVML"}

// ErrUnknown is matched by the error of a name that no probe has.
var ErrUnknown = errors.New("no such probe")

// Libraries are the files to load instead of the loader's.
type Libraries struct{ Fabric, UCP string }

// answer is what a probe's process prints.
type answer struct {
	Row     *Row       `json:"row,omitempty"`
	Library *Library   `json:"library,omitempty"`
	GPUs    []host.GPU `json:"gpus,omitempty"`
}

// probe runs the probe name in this process, which may crash or hang in it.
func probe(ctx context.Context, name string, libs Libraries) (answer, error) {
	begin := time.Now()
	if lib, ok := strings.CutPrefix(name, libraryPrefix); ok {
		return probeLibrary(lib, libs)
	}
	if err := transport.CheckConfig(transport.Config{Provider: name}); err != nil {
		return answer{}, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	row := Row{Provider: name, API: apiOf(name), Outcome: Absent}
	err := open(ctx, &row, libs)
	if err != nil {
		row.Why, row.Next = words(err)
	} else {
		row.Outcome = Runs
	}
	row.TookNs = time.Since(begin).Nanoseconds()
	return answer{Row: &row}, nil
}

func apiOf(name string) string {
	switch api, _, _ := strings.Cut(name, ":"); api {
	case "socket", "memcpy", "ucx":
		return api
	}
	return "libfabric"
}

// words takes an error apart: why, and the next step where the library's
// binding knows one.
func words(err error) (why, next string) {
	var f *fabric.Error
	var u *ucx.Error
	switch {
	case errors.As(err, &f):
		c := *f
		c.Hint, c.Provider = "", ""
		return c.Error(), f.Hint
	case errors.As(err, &u):
		c := *u
		c.Hint = ""
		return c.Error(), u.Hint
	}
	why = strings.TrimPrefix(err.Error(), transport.ErrUnavailable.Error()+": ")
	return strings.TrimPrefix(why, transport.ErrUnsupported.Error()+": "), ""
}

// notEvery begins the note of a provider that does not take all operations.
const notEvery = "not every operation: "

// tries are the sets of operations that a provider is opened with: the first
// that it takes is the answer.
var tries = [][]loop.Op{{loop.Read, loop.Write, loop.Send}, {loop.Read, loop.Write}, {loop.Send}}

// open opens the provider as a run would, with a small registered region, and
// fills the row.
func open(ctx context.Context, row *Row, libs Libraries) error {
	cfg := transport.Config{Provider: row.Provider, Role: transport.Initiator, Bind: []string{host.Loopback()}, Rails: 1, Streams: 1, SameHost: true,
		Device: -1, Timeout: 5 * time.Second, Library: libs.Fabric, Options: map[string]string{}}
	switch row.API {
	case "libfabric":
		// As the default of a raw run, so that an efa row says what that does.
		cfg.Options[transport.FabricShared] = "off"
	case "ucx":
		cfg.Library = libs.UCP
	}
	var first error
	for _, ops := range tries {
		cfg.Ops = ops
		info, err := openWith(ctx, cfg)
		if err == nil {
			describe(row, info, ops)
			if first != nil {
				why, next := words(first)
				row.Notes = append(row.Notes, notEvery+why)
				row.Next = next
			}
			return detail(row, libs)
		}
		first = cmp.Or(first, err)
		if !errors.Is(err, transport.ErrUnsupported) {
			return first
		}
	}
	return first
}

// openWith opens, registers and closes; what the endpoint said in between is
// the answer.
func openWith(ctx context.Context, cfg transport.Config) (info transport.Info, err error) {
	ep, err := transport.Open(ctx, cfg)
	if err != nil {
		return info, err
	}
	buf, err := mem.New(mem.Host, 0, 1<<20)
	if err != nil {
		return info, errors.Join(err, ep.Close())
	}
	defer func() {
		closed := ep.Close()
		if !errors.Is(closed, transport.ErrNotClosed) { // it may still write to buf
			closed = errors.Join(closed, buf.Free())
		}
		err = errors.Join(err, closed)
	}()
	if err := ep.Register(buf); err != nil {
		return info, err
	}
	if apiOf(cfg.Provider) == "ucx" {
		// UCX chooses its transports for an endpoint: one to itself shows them.
		address, err := ep.Address()
		if err != nil {
			return info, err
		}
		if err := ep.Connect(ctx, address); err != nil {
			return info, err
		}
	}
	return ep.Info(), nil
}

func describe(row *Row, info transport.Info, ops []loop.Op) {
	row.Library, row.Version, row.Fabric, row.Carrier = info.Library, info.Version, info.Fabric, info.Provider
	row.Landing, row.Emulated, row.Protocol = info.Landing, info.Simulated, info.Protocol
	for _, n := range info.Notes {
		// Some begin with the provider's name, as the row does.
		row.Notes = append(row.Notes, strings.TrimPrefix(n, row.Provider+": "))
	}
	for _, op := range ops {
		row.Ops = append(row.Ops, op.String())
	}
	for op := range row.Landing {
		if !slices.Contains(row.Ops, op) {
			delete(row.Landing, op)
		}
	}
	for _, d := range info.Devices {
		row.Devices = append(row.Devices, record.NIC{Name: d.Name, Firmware: d.Firmware, PCI: d.PCI, NUMA: d.NUMA, LinkBits: d.LinkBits})
	}
	row.RMA = rma(row, info)
}

// rma says what makes READ and WRITE.
func rma(row *Row, info transport.Info) string {
	if !slices.Contains(row.Ops, "read") {
		return "none"
	}
	of := func(op string) string {
		switch p := info.Protocol[op]; {
		case slices.Contains(info.Emulated, op):
			return "emulated"
		case strings.HasPrefix(p, "device"):
			return "device"
		case row.API == "ucx" || strings.HasPrefix(row.Carrier, "verbs"):
			return hardware(info)
		case row.Carrier == "efa":
			return "unknown"
		case row.API == "memcpy":
			return "copy"
		}
		return "software"
	}
	read, write := of("read"), of("write")
	if read == write {
		return read
	}
	return "read " + read + ", write " + write
}

// hardware tells RDMA devices from sockets and shared memory.
func hardware(info transport.Info) string {
	if strings.HasPrefix(info.Provider, "verbs") {
		return "device"
	}
	for _, d := range info.Devices {
		t, _, _ := strings.Cut(d.Name, "/")
		if strings.HasPrefix(t, "rc") || strings.HasPrefix(t, "dc") || strings.HasPrefix(t, "srd") || strings.HasPrefix(t, "cuda_ipc") {
			return "device"
		}
	}
	return "software"
}

// detail adds what an open endpoint does not say: all NICs, and GPU memory.
func detail(row *Row, libs Libraries) error {
	gpu := len(host.Root("").GPUsOnBus()) > 0
	switch row.API {
	case "libfabric":
		return fabricDetail(row, libs, gpu)
	case "ucx":
		if !gpu {
			return nil
		}
		lib, err := ucx.Load(libs.UCP)
		if err != nil {
			return err
		}
		_, tls, _ := strings.Cut(row.Provider, ":")
		c, err := lib.Open(ucx.Config{TLS: tls})
		if err != nil {
			return err
		}
		row.GPUMemory = "no"
		if c.Supports(ucx.CUDAMemory) {
			row.GPUMemory = "yes"
		} else {
			row.GPUMemoryWhy = "these transports of UCX cannot reach CUDA memory; add cuda_copy, as in ucx:tcp,cuda_copy, or use a UCX built with CUDA"
		}
		return c.Close()
	}
	return nil
}

func fabricDetail(row *Row, libs Libraries, gpu bool) error {
	lib, err := fabric.Load(libs.Fabric)
	if err != nil {
		return err
	}
	want := fabric.Want{Provider: row.Provider, NoShared: true}
	for _, o := range row.Ops {
		op, err := loop.ParseOp(o)
		if err != nil {
			return err
		}
		want.Ops = append(want.Ops, op)
	}
	found, err := lib.Find(want)
	if err != nil {
		return err
	}
	defer found.Free()
	row.Devices = devices(found.Interfaces)
	if row.Carrier == "efa" {
		ep, err := found.Open(found.Interfaces[0], fabric.EndpointConfig{Initiator: true, Depth: 16})
		if err != nil {
			return err
		}
		row.SharedOff = ep.Limits().SharedForbidden || os.Getenv("FI_EFA_ENABLE_SHM_TRANSFER") == "0"
		if err := ep.Close(); err != nil {
			return err
		}
	}
	if gpu {
		want.CUDA = true
		row.GPUMemory = "yes"
		if f, err := lib.Find(want); err != nil {
			row.GPUMemory = "no"
			why, next := words(err)
			row.GPUMemoryWhy = strings.Join(slices.DeleteFunc([]string{why, next}, func(s string) bool { return s == "" }), "; ")
		} else {
			f.Free()
		}
	}
	return nil
}

// devices lists the NICs of interfaces once each, the loopback last.
func devices(all []fabric.Interface) []record.NIC {
	var out []record.NIC
	seen := map[string]bool{}
	for _, i := range all {
		n := transport.FabricNIC(i.Attributes)
		if seen[n.Name] {
			continue
		}
		seen[n.Name] = true
		out = append(out, n)
	}
	slices.SortStableFunc(out, func(a, b record.NIC) int {
		return cmp.Compare(boolInt(a.Name == "lo"), boolInt(b.Name == "lo"))
	})
	return out
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// probeLibrary loads a library and says which file that was.
func probeLibrary(name string, libs Libraries) (answer, error) {
	l := Library{Name: name, Outcome: Runs}
	var gpus []host.GPU
	var err error
	switch name {
	case "libfabric":
		var lib *fabric.Library
		if lib, err = fabric.Load(libs.Fabric); err == nil {
			l.Path, l.Version = lib.Path(), lib.Version().String()
		}
	case "UCX":
		var lib *ucx.Library
		if lib, err = ucx.Load(libs.UCP); err == nil {
			l.Path, l.Version = lib.Path(), lib.Version()
		}
	case "libcuda":
		var d *cuda.Driver
		if d, err = cuda.Load(""); err == nil {
			l.Path, l.Version = d.Path(), d.Version().String()
			gpus, err = host.CUDAGPUs(d)
		}
	case "NVML":
		var lib *nvml.Library
		if lib, err = nvml.New(""); err == nil {
			l.Path = lib.Path()
			l.Version, gpus, err = host.NVMLGPUs(lib)
			err = errors.Join(err, lib.Close())
		}
	default:
		return answer{}, fmt.Errorf("%w: library %q", ErrUnknown, name)
	}
	if err != nil {
		l.Outcome = Absent
		l.Why, l.Next = libraryWords(err)
	}
	return answer{Library: &l, GPUs: gpus}, nil
}

// libraryWords is why a library is absent, and the next step.
func libraryWords(err error) (why, next string) {
	why, next = words(err)
	var c *cuda.LoadError
	var n *nvml.LoadError
	switch {
	case errors.As(err, &c):
		why, next = c.Err.Error(), "install the NVIDIA driver, or use --memory host"
	case errors.As(err, &n):
		why, next = n.Err.Error(), "it comes with the NVIDIA driver"
	}
	var refused *cuda.Error
	var lost *nvml.Error
	if errors.As(err, &refused) || errors.As(err, &lost) {
		next = "see whether nvidia-smi works"
	}
	return strings.ReplaceAll(why, "\n", "; "), next
}

// landing is a row's landing in words, operations with the same proof together.
func landing(m map[string]string) string {
	by := map[string][]string{}
	for _, op := range []string{"read", "write", "send"} {
		if p := m[op]; p != "" {
			by[p] = append(by[p], op)
		}
	}
	var parts []string
	for _, p := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, strings.Join(by[p], ",")+" "+p)
	}
	return strings.Join(parts, ", ")
}
