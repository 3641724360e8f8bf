package providers

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/record"
)

// Versions of libfabric that matter to EFA.
var (
	deviceWrite = fabric.Version{Major: 1, Minor: 18} // device RDMA write
	wanted      = fabric.Version{Major: 1, Minor: 22} // unsolicited write receive, limits of pieces
)

// aws is nil off EC2 where there is no EFA either.
func aws(o Options, r Report) *AWS {
	devices := o.Root.EFADevices()
	instance := o.Root.InstanceType()
	if instance == "" && len(devices) == 0 {
		return nil
	}
	t, known := host.LookupEFA(instance)
	a := &AWS{Instance: instance, Known: known, Attached: append([]record.NIC{}, devices...)}
	if known {
		a.Generation, a.Interfaces, a.LineBits = t.Generation, t.Interfaces, t.LineBits
		a.TableRead, a.TableWrite, a.TableGPU = string(t.Read), string(t.Write), string(t.GPUDirect)
		a.Sources = host.EFASources
	}
	version, loaded := libfabricVersion(r)
	a.EmulatedRMA = emulatedRMA(r.Row("efa"), t, known, version, loaded)
	a.OneHostShared = oneHost(r.Row("efa"), version, loaded)
	a.Checks = append(a.Checks, instanceCheck(a), attachedCheck(a, o.Root))
	if len(a.Attached) > 0 || a.Interfaces > 0 {
		a.Checks = append(a.Checks, libfabricCheck(version, loaded), rmaCheck(a), oneHostCheck(a))
		a.Checks = append(a.Checks, gpuCheck(a, len(o.Root.GPUsOnBus())), Check{Name: "security group", State: Info,
			Value: "cannot be seen from here",
			Next:  "EFA traffic needs a rule for all traffic from and to the group itself, both instances in one subnet, best in one cluster placement group"})
	}
	return a
}

func libfabricVersion(r Report) (fabric.Version, bool) {
	l := r.library("libfabric")
	if l == nil || l.Version == "" {
		return fabric.Version{}, false
	}
	major, minor, _ := strings.Cut(l.Version, ".")
	x, err := strconv.Atoi(major)
	y, err2 := strconv.Atoi(minor)
	return fabric.Version{Major: x, Minor: y}, err == nil && err2 == nil
}

// emulatedRMA is which RMA libfabric's efa makes of messages: by the probe if it
// ran, else by the instance type and the library.
func emulatedRMA(efa *Row, t host.EFAType, known bool, v fabric.Version, loaded bool) string {
	if efa != nil && efa.Outcome == Runs && efa.RMA != "unknown" {
		switch efa.RMA {
		case "device":
			return "none"
		case "emulated":
			return "read, write"
		}
		var ops []string
		for _, op := range []string{"read", "write"} {
			if strings.Contains(efa.RMA, op+" emulated") {
				ops = append(ops, op)
			}
		}
		return strings.Join(ops, ", ")
	}
	read, write := t.Read, t.Write
	if loaded && v.Less(deviceWrite) {
		write = host.No
	}
	switch {
	case !known || read == host.Unsure || write == host.Unsure:
		return "unknown"
	case read == host.No && write == host.No:
		return "read, write"
	case write == host.No:
		return "write"
	}
	return "none"
}

// oneHost is whether two processes on this host would meet in shared memory
// instead of the NIC.
func oneHost(efa *Row, v fabric.Version, loaded bool) string {
	switch {
	case efa != nil && efa.Outcome == Runs && efa.SharedOff:
		return "no"
	case loaded && v.Less(deviceWrite):
		return "yes"
	case !loaded || efa == nil || efa.Outcome != Runs:
		return "unknown"
	}
	return "yes"
}

func instanceCheck(a *AWS) Check {
	c := Check{Name: "instance type", State: OK}
	switch {
	case a.Instance == "":
		c.State, c.Value = Info, "not an EC2 instance, or its DMI is hidden"
	case !a.Known:
		c.State, c.Value = Info, a.Instance+": not in the table of types with EFA"
		c.Next = "small sizes have no EFA; see aws ec2 describe-instance-types --filters Name=network-info.efa-supported,Values=true"
	default:
		g := ""
		if a.Generation > 0 {
			g = fmt.Sprintf("EFAv%d, ", a.Generation)
		}
		c.Value = fmt.Sprintf("%s: %s%s, %s; RDMA read %s, write %s", a.Instance, g, plural(a.Interfaces, "EFA interface"),
			rate(a.LineBits), a.TableRead, a.TableWrite)
	}
	return c
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func attachedCheck(a *AWS, root host.Root) Check {
	c := Check{Name: "EFA attached", State: OK}
	bus := root.EFAOnBus()
	switch {
	case len(a.Attached) == 0 && len(bus) > 0:
		c.State, c.Value = Fail, fmt.Sprintf("%s on the PCI bus (%s), without a driver", plural(len(bus), "EFA device"), bus[0].Address)
		c.Next = "modprobe efa, or run AWS's efa_installer.sh; in a container the host's driver counts"
	case len(a.Attached) == 0 && a.Interfaces > 0:
		c.State, c.Value = Fail, fmt.Sprintf("none, though %s takes %s", a.Instance, plural(a.Interfaces, "interface"))
		c.Next = "an EFA is a kind of network interface: launch with InterfaceType=efa (or efa-only) in the network interface, or attach one to the stopped instance; in Kubernetes ask for vpc.amazonaws.com/efa"
	case len(a.Attached) == 0:
		c.State, c.Value = Info, "none"
	default:
		d := a.Attached[0]
		var bits uint64
		for _, x := range a.Attached {
			bits += x.LinkBits
		}
		c.Value = d.Name
		if len(a.Attached) > 1 {
			c.Value += fmt.Sprintf(" and %d more", len(a.Attached)-1)
		}
		if d.DeviceID != "" {
			c.Value += ", device " + d.DeviceID
		}
		if bits > 0 {
			c.Value += ", " + rate(bits)
		}
		if d.Emulated {
			c.State = Info
			c.Value += ", emulated device"
			c.Next = "firmware 0.0.0.0 is the stand-in of internal/testenv/efaemu: nothing measured on it says anything about EFA"
		} else if a.Interfaces > len(a.Attached) {
			c.State = Warn
			c.Next = fmt.Sprintf("%s takes %d: attach the others for its full line rate", a.Instance, a.Interfaces)
		}
	}
	return c
}

func libfabricCheck(v fabric.Version, loaded bool) Check {
	const next = "load AWS's: --libfabric /opt/amazon/efa/lib64/libfabric.so.1 (lib on Debian and Ubuntu), from efa_installer.sh"
	c := Check{Name: "libfabric for EFA", State: OK, Value: v.String()}
	switch {
	case !loaded:
		c.State, c.Value, c.Next = Fail, "not loaded", next
	case v.Less(deviceWrite):
		c.State, c.Value = Warn, v.String()+" is too old: it has no RDMA write, and emulates it on any device"
		c.Next = "want 1.22 or 2.x; " + next
	case v.Less(wanted):
		c.State, c.Value = Warn, v.String()+" is older than the 1.22 that EFA figures should come from"
		c.Next = next
	}
	return c
}

func rmaCheck(a *AWS) Check {
	c := Check{Name: "RMA on EFA", State: OK}
	switch a.EmulatedRMA {
	case "none":
		c.Value = "read and write by the device"
	case "unknown":
		c.State, c.Value = Info, "not known for this type; the efa row tells once it runs"
	default:
		c.State = Warn
		c.Value = a.EmulatedRMA + " emulated: messages of about 8.9 kB that both CPUs copy"
		c.Next = "rows say so; an engine on this host pays the same"
		if a.EmulatedRMA == "write" {
			c.Next = "read is the device's, and vLLM's NixlConnector reads; compare writes with that in mind"
		}
	}
	return c
}

func oneHostCheck(a *AWS) Check {
	c := Check{Name: "one-host run", State: OK}
	switch a.OneHostShared {
	case "no":
		c.Value = "through the NIC: shared memory is forbidden"
	case "yes":
		c.State, c.Value = Warn, "may go over shared memory instead of the NIC"
		c.Next = "this libfabric has no option against it: run two hosts, set FI_EFA_ENABLE_SHM_TRANSFER=0, or load a newer one"
	default:
		c.State, c.Value = Info, "not known before efa runs"
	}
	return c
}

func gpuCheck(a *AWS, gpus int) Check {
	c := Check{Name: "GPUDirect on EFA", State: OK, Value: a.TableGPU}
	switch {
	case gpus == 0:
		c.State, c.Value = Info, "no NVIDIA GPU"
	case a.TableGPU == string(host.No):
		c.State, c.Value = Warn, "no: GPU memory is copied through the host"
		c.Next = "--memory cuda-host measures the staging that this type needs"
	case a.TableGPU == string(host.Yes):
		c.Value = "yes for this type; see GPUDirect RDMA above for the kernel's side"
	default:
		c.State, c.Value = Info, "not told for this type"
	}
	return c
}
