package providers

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xferbench/xferbench/internal/host"
)

// Options say what to probe and how.
type Options struct {
	Root  host.Root // where sysfs and procfs stand; "" is this host
	Probe Prober
	// Limit is how long one probe may take.
	Limit time.Duration
	// Environ is what a run would find in its environment, KEY=VALUE.
	Environ []string
	// Names are the providers; nil means [Names].
	Names []string
}

// Collect probes everything and reads the host. It loads no library itself. An
// error means that ctx ended.
func Collect(ctx context.Context, o Options) (Report, error) {
	if o.Names == nil {
		o.Names = Names()
	}
	names := make([]string, 0, len(libraryNames)+len(o.Names))
	for _, n := range libraryNames {
		names = append(names, libraryPrefix+n)
	}
	names = append(names, o.Names...)
	answers := make([]answer, len(names))
	// A few at a time: each is a process that loads libraries.
	slots := make(chan struct{}, min(4, max(1, runtime.NumCPU())))
	var wg sync.WaitGroup
	for i, n := range names {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if ctx.Err() == nil {
				answers[i] = run(ctx, o.Probe, n, o.Limit)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return Report{}, context.Cause(ctx)
	}
	r := Report{Schema: Schema, Host: o.Root.Inventory()}
	for _, a := range answers {
		if a.Library != nil {
			r.Libraries = append(r.Libraries, *a.Library)
			// NVML comes after libcuda, and knows more.
			if len(a.GPUs) > 0 {
				r.GPUs = nil
				for _, g := range a.GPUs {
					r.GPUs = append(r.GPUs, GPU{GPU: g})
				}
			}
		}
		if a.Row != nil {
			r.Rows = append(r.Rows, *a.Row)
		}
	}
	for i := range r.GPUs {
		r.Host.GPUs = append(r.Host.GPUs, r.GPUs[i].GPU.GPU)
	}
	near(o.Root, r.GPUs)
	r.Checks = hostChecks(o, r)
	r.AWS = aws(o, r)
	return r, nil
}

// near adds to each GPU the RDMA NICs that are nearest on the PCI bus, or the
// network interfaces where there are none.
func near(root host.Root, gpus []GPU) {
	kind := "net"
	nics := root.NICs()
	for _, n := range nics {
		if n.Kind == "rdma" && n.PCI != "" {
			kind = "rdma"
		}
	}
	for i := range gpus {
		var all []NearNIC
		for _, n := range nics {
			if n.Kind != kind || n.PCI == "" {
				continue
			}
			if p := root.PCIPath(gpus[i].PCI, n.PCI); p != host.Unknown {
				all = append(all, NearNIC{n.Name, string(p)})
			}
		}
		slices.SortStableFunc(all, func(a, b NearNIC) int {
			return cmp.Compare(host.Path(a.Path).Rank(), host.Path(b.Path).Rank())
		})
		for j, n := range all {
			if n.Path != all[0].Path {
				all = all[:j]
				break
			}
		}
		gpus[i].Nearest = all
	}
}

// setting is the value of an environment variable in environ.
func setting(environ []string, name string) string {
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}
