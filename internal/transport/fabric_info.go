package transport

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/internal/host"
)

// unlimited and more is longer than any buffer: no limit worth a word.
const unlimited = 1 << 60

// fabricDepth is how many operations a lane has in flight by default.
func fabricDepth(a fabric.Attributes) int {
	const most = 4096 // as NIXL's plugin, which posts until it is refused, on efa
	if a.TxSize > 0 {
		return min(a.TxSize, most)
	}
	return most
}

func (e *fabricEndpoint) Info() Info {
	a := e.rails[0].Attributes
	info := Info{
		Provider: a.Provider, API: "libfabric", Library: e.lib.Path(), Version: e.lib.Version().String(), Fabric: a.Fabric,
		Landing: map[string]string{}, Protocol: map[string]string{}, MaxPiece: map[string]uint64{},
		Streams: e.cfg.Streams, Rails: e.cfg.Rails, Depth: e.cfg.Depth, Chunk: e.cfg.Chunk,
		Poll: e.cfg.Poll.String(), Settings: fabricEnv(), Notes: slices.Clone(e.notes),
	}
	for _, r := range e.rails {
		n := FabricNIC(r.Attributes)
		info.Devices = append(info.Devices, n)
		info.Simulated = info.Simulated || standIn(r.Attributes)
	}
	for _, op := range e.cfg.Ops {
		e.describe(op, &info)
	}
	if a.Provider == "efa" && e.cfg.SameHost {
		info.Notes = append(info.Notes, e.sharedNote())
	}
	if info.Simulated {
		info.Notes = append(info.Notes, "the EFA device is emulated (firmware 0.0.0.0): these are no measurements of EFA")
	}
	return info
}

// standIn reports whether the device is an emulated EFA: nothing that is
// measured on it says anything about EFA.
func standIn(a fabric.Attributes) bool {
	return a.Provider == "efa" && a.NIC.Firmware == host.EmulatedEFA
}

// describe adds what proves op's landing and what the provider makes of it.
func (e *fabricEndpoint) describe(op loop.Op, info *Info) {
	word := op.String()
	if most := e.maxPiece(op); most < unlimited && (e.cfg.Chunk == 0 || most < e.cfg.Chunk) {
		info.MaxPiece[word] = most
	}
	switch {
	case op == loop.Read:
		info.Landing[word] = "local-completion"
	case op == loop.Write:
		info.Landing[word] = e.found.Hints().Landing.String()
	case e.found.Hints().Sends == fabric.Slots:
		info.Landing[word], info.Protocol[word] = "target-ack", "messages, copied from receive slots"
	default:
		info.Landing[word], info.Protocol[word] = "target-ack", "tagged messages"
		if most := e.limits.Inject; most > 0 {
			info.Protocol[word] += fmt.Sprintf(", injected up to %d B", most)
		}
	}
	if info.Provider != "efa" || op == loop.Send {
		return
	}
	switch l := e.limits; {
	case e.lib.Version().Less(fabric.Version{Major: 1, Minor: 18}):
		var emulated bool
		info.Protocol[word], emulated = oldEFA(op, e.lib.Version(), e.rails[0].NIC.DeviceID, os.Getenv("FI_EFA_USE_DEVICE_RDMA"))
		if emulated {
			info.Emulated = append(info.Emulated, word)
		}
	case !l.Known:
		info.Protocol[word] = fmt.Sprintf("libfabric %v cannot say", e.lib.Version())
	case op == loop.Read && l.EmulatedRead || op == loop.Write && l.EmulatedWrite:
		info.Protocol[word] = "emulated"
		info.Emulated = append(info.Emulated, word)
	default:
		info.Protocol[word] = "device RDMA"
	}
}

// oldEFA says what efa before 1.18, which cannot be asked, makes of RMA on a
// device; set is FI_EFA_USE_DEVICE_RDMA. (libfabric v1.17.0,
// prov/efa/src/rxr/rxr_env.c and rxr_rma.c.)
func oldEFA(op loop.Op, v fabric.Version, device, set string) (words string, emulated bool) {
	var rdma bool
	switch {
	case op == loop.Write:
		return fmt.Sprintf("emulated: libfabric %v has no device RDMA write", v), true
	case set != "":
		n, err := strconv.Atoi(set)
		rdma = err == nil && n != 0
	case device == "":
		return fmt.Sprintf("libfabric %v cannot say", v), false
	default:
		rdma = device != "0xefa0" && device != "0xefa1"
	}
	if !rdma {
		return fmt.Sprintf("emulated: libfabric %v reads by messages on device %s", v, device), true
	}
	return "device RDMA, by messages until the peers' handshake", false
}

// sharedNote says whether two endpoints of one host meet in the NIC.
func (e *fabricEndpoint) sharedNote() string {
	if e.found.want.noShared {
		return "efa's same-host shortcut over shared memory is off (efa-shm=on allows it)"
	}
	return "one-host efa goes over shm, not the NIC"
}
