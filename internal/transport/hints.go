package transport

import (
	"errors"

	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/ucx"
)

// The bindings' hints in the words of this program's flags.
var (
	fabricHints = map[fabric.Hint]fabric.Hint{
		fabric.HintLoad:      "install it (Debian: apt install libfabric1; on EC2 the EFA installer), or name one with --libfabric",
		fabric.HintOther:     "this is not a libfabric; name one with --libfabric",
		fabric.HintLanding:   "use --op read or send",
		fabric.HintGPUDirect: "GPUDirect needs a libfabric built with CUDA and dmabuf or nv_peer_mem in the kernel; or use --memory cuda-host",
	}
	ucxHints = map[ucx.Hint]ucx.Hint{
		ucx.HintLoad: "install UCX (Debian: libucx0) or name a build with --libucp",
		ucx.HintCUDA: "use a UCX built with CUDA (--libucp, such as the one in the nixl wheel) and name cuda_copy among the transports: ucx:tcp,cuda_copy",
		ucx.HintCopy: "name cuda_copy among the transports: ucx:tcp,cuda_copy",
	}
)

// Flagged puts the next step of the binding's error in err, if there is one, into
// the words of this program's flags, in place, and returns err. It comes before
// fmt.Errorf, which keeps the words that it found.
func Flagged(err error) error {
	var f *fabric.Error
	if errors.As(err, &f) {
		if h, ok := fabricHints[f.Hint]; ok {
			f.Hint = h
		}
	}
	var u *ucx.Error
	if errors.As(err, &u) {
		if h, ok := ucxHints[u.Hint]; ok {
			u.Hint = h
		}
	}
	return err
}
