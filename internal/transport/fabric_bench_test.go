package transport

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/xferbench/xferbench/cgo/loop"
)

// BenchmarkFabric reports the median transfer time and rate of one provider, op
// and window; it is what fi_pingpong and fi_rma_bw print for the same work.
func BenchmarkFabric(b *testing.B) {
	needFabric(b)
	for _, provider := range []string{"tcp", "tcp;ofi_rxm", "shm"} {
		for _, op := range everyOp {
			for _, w := range []struct {
				size  uint64
				count int
			}{{64, 1}, {1 << 20, 1}, {16 << 10, 64}, {1 << 20, 64}} {
				b.Run(fmt.Sprintf("%s/%v/%dx%d", provider, op, w.count, w.size), func(b *testing.B) {
					benchFabric(b, fabricConfig(provider, op), w.size, w.count)
				})
			}
		}
	}
}

// benchSpin, in the environment, makes both sides spin: for hosts with cores to
// spare.
const benchSpin = "XFERBENCH_BENCH_SPIN"

func benchFabric(b *testing.B, cfg Config, size uint64, count int) {
	if os.Getenv(benchSpin) != "" {
		cfg.Poll = loop.Spin
	}
	p, err := startPair(b, cfg, int(size)*count)
	if err != nil {
		b.Fatal(err)
	}
	op := cfg.Ops[0]
	lanes := make([][]loop.Piece, 1)
	for i := range uint64(count) {
		lanes[0] = append(lanes[0], loop.Piece{Local: i * size, Remote: i * size, Len: size})
	}
	plans, err := newPlans(lanes)
	p.must(err)
	defer freeAll(plans)
	const warm = 5
	iters := b.N + warm
	p.ask(pairRequest{Do: "arm", Op: op, Plans: lanes, Iters: iters})
	ss, err := p.ep.Transfer(b.Context(), op, plans, iters)
	p.must(err)
	p.ask(pairRequest{Do: "settle"})
	ss = ss[warm:]
	slices.SortFunc(ss, func(x, y loop.Sample) int { return int(x.Total() - y.Total()) })
	mid := ss[len(ss)/2]
	b.ReportMetric(float64(mid.Total().Nanoseconds()), "median-ns")
	b.ReportMetric(float64(mid.Bytes)/float64(mid.Total().Nanoseconds()), "GB/s")
	b.ReportMetric(float64(mid.Polls), "polls")
	b.ReportMetric(float64(mid.EAgain), "eagain")
	b.ReportMetric(float64(ss[0].Total().Nanoseconds()), "min-ns")
	b.ReportMetric(float64(mid.Post().Nanoseconds())/float64(mid.Ops), "post-ns/op")
}

// BenchmarkFabricTune is what the defaults of chunk and depth were chosen by: 64
// MiB cut differently, and 2,048 descriptors of a KV cache queued differently.
func BenchmarkFabricTune(b *testing.B) {
	needFabric(b)
	const size = 64 << 20
	for _, provider := range []string{"tcp", "tcp;ofi_rxm", "shm"} {
		for _, op := range []loop.Op{loop.Read, loop.Write} {
			for _, chunk := range []uint64{256 << 10, 1 << 20, 4 << 20, 16 << 20, size} {
				b.Run(fmt.Sprintf("%s/%v/chunk %dk", provider, op, chunk>>10), func(b *testing.B) {
					benchFabric(b, fabricConfig(provider, op), chunk, int(size/chunk))
				})
			}
			for _, depth := range []int{16, 64, 256, 1024, 4096} {
				b.Run(fmt.Sprintf("%s/%v/depth %d", provider, op, depth), func(b *testing.B) {
					cfg := fabricConfig(provider, op)
					cfg.Depth = depth
					benchFabric(b, cfg, 16<<10, 2048)
				})
			}
		}
	}
}

// BenchmarkFabricLanding compares what the two proofs of a WRITE cost.
func BenchmarkFabricLanding(b *testing.B) {
	needFabric(b)
	for _, provider := range []string{"tcp", "tcp;ofi_rxm", "shm"} {
		for _, w := range []struct {
			size  uint64
			count int
		}{{64, 1}, {16 << 10, 64}, {1 << 20, 64}} {
			for _, landing := range []string{"dc", "count"} {
				b.Run(fmt.Sprintf("%s/%dx%d/%s", provider, w.count, w.size, landing), func(b *testing.B) {
					cfg := fabricConfig(provider, loop.Write)
					cfg.Options = map[string]string{FabricLanding: landing}
					benchFabric(b, cfg, w.size, w.count)
				})
			}
		}
	}
}
