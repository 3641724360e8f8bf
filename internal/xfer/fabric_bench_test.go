package xfer

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/xferbench/xferbench/cgo/engine"
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
		cfg.Poll = engine.Spin
	}
	p, err := startPair(b, cfg, int(size)*count)
	if err != nil {
		b.Fatal(err)
	}
	op := cfg.Ops[0]
	lanes := make([][]engine.Piece, 1)
	for i := range uint64(count) {
		lanes[0] = append(lanes[0], engine.Piece{Local: i * size, Remote: i * size, Len: size})
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
	slices.SortFunc(ss, func(x, y engine.Sample) int { return int(x.Total() - y.Total()) })
	mid := ss[len(ss)/2]
	b.ReportMetric(float64(mid.Total().Nanoseconds()), "median-ns")
	b.ReportMetric(float64(mid.Bytes)/float64(mid.Total().Nanoseconds()), "GB/s")
	b.ReportMetric(float64(mid.Post().Nanoseconds())/float64(mid.Ops), "post-ns/op")
}

// BenchmarkFabricTune is what the defaults of depth and chunk are chosen by: one
// transfer of 64 MiB, cut and queued differently.
func BenchmarkFabricTune(b *testing.B) {
	needFabric(b)
	const size = 64 << 20
	for _, provider := range []string{"tcp", "tcp;ofi_rxm", "shm"} {
		for _, op := range []engine.Op{engine.Read, engine.Write} {
			for _, chunk := range []uint64{64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, size} {
				for _, depth := range []int{4, 16, 64, 256} {
					if chunk*uint64(depth)/4 >= size && depth > 4 {
						continue // no more in flight than with less
					}
					b.Run(fmt.Sprintf("%s/%v/chunk %dk/depth %d", provider, op, chunk>>10, depth), func(b *testing.B) {
						cfg := fabricConfig(provider, op)
						cfg.Depth = depth
						benchFabric(b, cfg, chunk, int(size/chunk))
					})
				}
			}
		}
	}
}
