package providers

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/record"
	"github.com/xferbench/xferbench/internal/units"
)

// hostChecks are what any transport depends on.
func hostChecks(o Options, r Report) []Check {
	rdma := slices.ContainsFunc(r.Host.NICs, func(n record.NIC) bool { return n.Kind == "rdma" }) || len(o.Root.EFAOnBus()) > 0 || len(o.Root.EFADevices()) > 0
	return []Check{
		memlockCheck(o.Root, rdma),
		hugePages(o.Root, rdma),
		verbsFiles(o.Root, rdma),
		modules(o.Root, rdma),
		gpuDirect(o.Root, rdma),
		ptrace(o.Root),
		environment(o.Environ),
	}
}

// lessIf is less where it matters, and Info where nothing here uses it.
func lessIf(matters bool, less State) State {
	if matters {
		return less
	}
	return Info
}

func memlockCheck(root host.Root, rdma bool) Check {
	c := Check{Name: "locked memory (ulimit -l)", State: OK, Value: "unlimited"}
	soft, ok := root.LockedMemory()
	switch {
	case !ok:
		c.State, c.Value = Warn, "cannot be read"
	case soft != ^uint64(0):
		c.Value = units.CompactBytes(int64(soft))
		c.State = lessIf(rdma, Warn)
		if rdma {
			c.Next = "RDMA registers all that it moves: ulimit -l unlimited, LimitMEMLOCK=infinity in the unit, docker --ulimit memlock=-1, or `* - memlock unlimited` in /etc/security/limits.d/"
		}
	}
	return c
}

func hugePages(root host.Root, rdma bool) Check {
	total, free := root.HugePages()
	c := Check{Name: "2 MiB huge pages", State: OK, Value: fmt.Sprintf("%d, %d free", total, free)}
	if total == 0 {
		c.Value = "none"
		c.State = lessIf(rdma, Warn)
		c.Next = "for --memory host-huge, and for efa's own queues: sysctl -w vm.nr_hugepages=5120 (in Kubernetes hugepages-2Mi: 5Gi or more)"
	}
	return c
}

func verbsFiles(root host.Root, rdma bool) Check {
	c := Check{Name: "/dev/infiniband", State: OK}
	names, denied := root.VerbsFiles()
	switch {
	case len(names) == 0:
		c.Value, c.State = "absent", lessIf(rdma, Fail)
		if rdma {
			c.Next = "load ib_uverbs; in a container, add the devices: vpc.amazonaws.com/efa in Kubernetes, docker --device=/dev/infiniband"
		}
	case len(denied) > 0:
		c.State = Fail
		var words []string
		for _, n := range names {
			var pe *fs.PathError
			if err := denied[n]; errors.As(err, &pe) {
				words = append(words, n+": "+pe.Err.Error())
			} else if err != nil {
				words = append(words, n+": "+err.Error())
			}
		}
		c.Value = strings.Join(words, ", ")
		c.Next = "let this user open them (group rdma, mode 0666), or add the devices to the container"
	case len(names) > 4:
		c.Value = fmt.Sprintf("%d files, all open", len(names))
	default:
		c.Value = strings.Join(names, ", ") + " open"
	}
	return c
}

// rdmaModules are what the kernel may need for RDMA.
var rdmaModules = []string{"ib_uverbs", "efa", "efa_nv_peermem", "nvidia_peermem", "gdrdrv"}

func modules(root host.Root, rdma bool) Check {
	c := Check{Name: "kernel modules", State: OK}
	var have, lack []string
	for _, m := range rdmaModules {
		if root.HasModule(m) {
			have = append(have, m)
		} else {
			lack = append(lack, m)
		}
	}
	c.Value = "none of " + strings.Join(lack, ", ")
	if len(have) > 0 {
		c.Value = strings.Join(have, ", ")
		if len(lack) > 0 {
			c.Value += "; not " + strings.Join(lack, ", ")
		}
	}
	efa := len(root.EFAOnBus()) > 0
	switch {
	case efa && !root.HasModule("efa"):
		c.State, c.Next = Fail, "modprobe efa; AWS's efa_installer.sh brings the module where the kernel has none"
	case rdma && !root.HasModule("ib_uverbs"):
		c.State, c.Next = Fail, "modprobe ib_uverbs"
	case !rdma:
		c.State = Info
	}
	return c
}

// dmabufKernel reports whether the kernel registers GPU memory by dma-buf,
// which verbs know since 5.12.
func dmabufKernel(release string) bool {
	major, rest, _ := strings.Cut(release, ".")
	minor := rest
	if i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		minor = rest[:i]
	}
	a, err := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	return err == nil && err2 == nil && (a > 5 || a == 5 && b >= 12)
}

// gpuDirect says whether NICs may reach GPU memory, as far as the kernel goes.
func gpuDirect(root host.Root, rdma bool) Check {
	c := Check{Name: "GPUDirect RDMA", State: Info}
	gpus := root.GPUsOnBus()
	peer := ""
	for _, m := range []string{"efa_nv_peermem", "nvidia_peermem"} {
		if root.HasModule(m) {
			peer = m
			break
		}
	}
	release := root.Inventory().Kernel
	switch {
	case len(gpus) == 0:
		c.Value = "no NVIDIA GPU on the PCI bus"
	case !rdma:
		c.Value = "no RDMA device"
		c.Next = "stage in host memory: --memory cuda-host"
	case awsWithout(root):
		c.Value = root.InstanceType() + " has none"
		c.Next = "stage in host memory: --memory cuda-host"
	case peer != "":
		c.State, c.Value = OK, "by module "+peer
	case dmabufKernel(release):
		c.State, c.Value = OK, "by dma-buf (kernel "+release+"), with NVIDIA's open kernel module"
	default:
		c.State, c.Value = Warn, "no peer-memory module, and kernel "+release+" has no dma-buf for verbs (5.12)"
		c.Next = "modprobe efa_nv_peermem (EFA) or nvidia_peermem; else --memory cuda-host"
	}
	return c
}

func awsWithout(root host.Root) bool {
	t, ok := host.LookupEFA(root.InstanceType())
	return ok && t.GPUDirect == host.No
}

func ptrace(root host.Root) Check {
	c := Check{Name: "yama ptrace_scope", State: OK, Value: strconv.Itoa(root.PtraceScope())}
	if root.PtraceScope() > 0 {
		c.State = Info
		c.Next = "shared memory by process_vm_readv (shm's CMA, UCX's cma) is refused between processes that are not parent and child, and bounces through a buffer: sysctl -w kernel.yama.ptrace_scope=0"
	}
	return c
}

// hiding are variables that keep transports out of sight.
var hiding = []string{"FI_PROVIDER", "FI_PROVIDER_PATH", "FI_EFA_IFACE", "FI_EFA_USE_DEVICE_RDMA", "FI_TCP_IFACE", "UCX_TLS", "UCX_NET_DEVICES"}

func environment(environ []string) Check {
	c := Check{Name: "environment", State: OK, Value: "no variable hides a transport"}
	var set []string
	for _, v := range hiding {
		if s := setting(environ, v); s != "" {
			set = append(set, v+"="+s)
		}
	}
	if len(set) > 0 {
		c.State, c.Value = Info, strings.Join(set, " ")
		c.Next = "these choose what libfabric and UCX offer; unset them to see all"
	}
	return c
}
