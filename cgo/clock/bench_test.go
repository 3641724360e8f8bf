package clock

import (
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/clock/clocktest"
)

// By how much the clock that Go reads around a call out of Go is more than the clock
// inside the call: what a ceiling whose clock is in Go reads too much. While the call
// lasts the Go scheduler takes its processor away, so that the return waits for one;
// "busy" has as many goroutines that want it.
func BenchmarkAroundACall(b *testing.B) {
	for _, busy := range []bool{false, true} {
		name := "idle"
		if busy {
			name = "busy"
		}
		b.Run(name, func(b *testing.B) {
			var stop atomic.Bool
			var turns atomic.Int64
			defer stop.Store(true)
			for range runtime.GOMAXPROCS(0) {
				if busy {
					go func() {
						for !stop.Load() {
							turns.Add(1)
						}
					}()
				}
			}
			for _, d := range []time.Duration{time.Microsecond, 100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond} {
				b.Run(d.String(), func(b *testing.B) {
					over := make([]int64, 0, b.N)
					for b.Loop() {
						begin := Now()
						inside := clocktest.Work(int64(d))
						over = append(over, Now()-begin-inside)
					}
					slices.Sort(over)
					b.ReportMetric(float64(over[len(over)/2]), "p50-ns")
					b.ReportMetric(float64(over[len(over)*99/100]), "p99-ns")
					b.ReportMetric(0, "ns/op")
				})
			}
		})
	}
}
