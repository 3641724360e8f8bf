package fabric

import (
	"math/bits"
	"testing"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/testenv"
)

// A region's key cannot be guessed: another one for each region, of all the bits
// that the provider has.
func TestRegionKeysAreRandom(t *testing.T) {
	lib := need(t)
	for _, name := range []string{"tcp", "tcp;ofi_rxm", "net", "sockets", "udp;ofi_rxd", "shm"} {
		t.Run(name, func(t *testing.T) {
			found, err := lib.Find(Hints{Provider: name, Ops: []loop.Op{loop.Read}, Source: source(name)})
			testenv.Need(t, name, err)
			defer found.Free()
			seen := map[uint64]bool{}
			var all uint64
			const regions = 16
			for range regions {
				buf, err := mem.New(mem.Host, 0, 4096)
				if err != nil {
					t.Fatal(err)
				}
				e, err := found.Open(found.Interfaces[0], EndpointConfig{Depth: 1})
				if err != nil {
					t.Fatal(err)
				}
				if err := e.Register(loop.Region{Address: buf.Address(), Len: uint64(buf.Len())}); err != nil {
					t.Fatal(err)
				}
				a, err := e.Address()
				if err != nil {
					t.Fatal(err)
				}
				seen[a.Key] = true
				all |= a.Key
				if err := e.Close(); err != nil {
					t.Error(err)
				}
				if err := buf.Free(); err != nil {
					t.Error(err)
				}
			}
			// A random bit is 0 in all of 16 keys once in 65536.
			if len(seen) != regions || bits.OnesCount64(all) < 60 {
				t.Errorf("%d different keys of %d, with bits %#x", len(seen), regions, all)
			}
		})
	}
}
