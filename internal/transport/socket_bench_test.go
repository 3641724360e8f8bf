package transport

import (
	"context"
	"runtime"
	"testing"

	"github.com/xferbench/xferbench/cgo/loop"
)

// What one transfer over loopback costs, kernel TCP and UCX, both sides in
// processes of their own.
func BenchmarkPair(b *testing.B) {
	const n = 64 << 20
	for _, provider := range []string{"socket", "ucx:tcp"} {
		for _, op := range []loop.Op{loop.Read, loop.Write} {
			for _, c := range []struct {
				name                string
				len, pieces, stride uint64
			}{
				{"8", 8, 1, 0},
				{"16KiBx64", 16 << 10, 64, 16 << 10},
				{"16KiBx4096", 16 << 10, 4096, 16 << 10},
				{"1MiBx64", 1 << 20, 64, 1 << 20},
				{"64MiBx1", 64 << 20, 1, 0},
				// As ucx_perftest works: over one piece of memory again and again.
				{"same16KiBx4096", 16 << 10, 4096, 0},
				{"same1MiBx64", 1 << 20, 64, 0},
			} {
				b.Run(provider+"/"+op.String()+"/"+c.name, func(b *testing.B) {
					cfg := ucxConfig(provider, 1)
					cfg.Depth = 64 // as ucx_perftest -O 64
					if runtime.NumCPU() >= 4 {
						cfg.Poll = loop.Spin
					}
					p, err := startPair(b, cfg, n)
					if err != nil {
						b.Fatal(err)
					}
					var lane []loop.Piece
					for i := range c.pieces {
						lane = append(lane, loop.Piece{Local: i * c.stride, Remote: i * c.stride, Len: c.len})
					}
					lanes := [][]loop.Piece{lane}
					p.run(op, lanes, 2, 1)
					plans, err := newPlans(lanes)
					p.must(err)
					defer freeAll(plans)
					p.ask(pairRequest{Do: "arm", Op: op, Plans: lanes, Iters: b.N})
					b.SetBytes(int64(c.len * c.pieces))
					b.ResetTimer()
					ss, err := p.ep.Transfer(context.Background(), op, plans, b.N)
					b.StopTimer()
					p.must(err)
					p.ask(pairRequest{Do: "settle"})
					var ns int64
					for _, s := range ss {
						ns += int64(s.Total())
					}
					b.ReportMetric(float64(c.len*c.pieces)*float64(len(ss))/float64(ns), "GB/s")
				})
			}
		}
	}
}
