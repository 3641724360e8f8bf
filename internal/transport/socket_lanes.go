package transport

import (
	"context"
	"sync"

	"github.com/xferbench/xferbench/cgo/loop"
)

// meeting lets lanes start each iteration together, as the loop's do.
type meeting struct {
	mu      sync.Mutex
	all     sync.Cond
	lanes   int
	arrived int
	broken  bool
}

func newMeeting(lanes int) *meeting {
	m := &meeting{lanes: lanes}
	m.all.L = &m.mu
	return m
}

// meet waits until every lane stands before iteration i; false once a lane
// failed.
func (m *meeting) meet(i int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.arrived++
	if m.arrived == m.lanes*(i+1) {
		m.all.Broadcast()
	}
	for m.arrived < m.lanes*(i+1) && !m.broken {
		m.all.Wait()
	}
	return !m.broken
}

func (m *meeting) breakUp() {
	m.mu.Lock()
	m.broken = true
	m.all.Broadcast()
	m.mu.Unlock()
}

// runLanes runs iters iterations on all lanes, one goroutine a lane, and
// merges their samples: the first begin, the last of everything else. The first
// error, or the end of ctx, calls abort, which must make once return on every
// lane. It returns the samples of the iterations that all lanes completed.
// Nothing is allocated while iterations run.
func runLanes(ctx context.Context, lanes, iters int, once func(lane int, s *loop.Sample) error, abort func()) ([]loop.Sample, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	samples := make([]loop.Sample, lanes*iters)
	complete := make([]int, lanes)
	var first error
	var failed sync.Once
	m := newMeeting(lanes)
	fail := func(err error) {
		failed.Do(func() {
			first = err
			m.breakUp()
			abort()
		})
	}
	stop := context.AfterFunc(ctx, func() { fail(context.Cause(ctx)) })
	run := func(lane int) {
		for i := range iters {
			if !m.meet(i) {
				return
			}
			if err := once(lane, &samples[lane*iters+i]); err != nil {
				fail(err)
				return
			}
			complete[lane] = i + 1
		}
	}
	var others sync.WaitGroup
	for lane := 1; lane < lanes; lane++ {
		others.Go(func() { run(lane) })
	}
	run(0)
	others.Wait()
	if stop() {
		failed.Do(func() {}) // nothing fails any more: first may be read
	} else {
		fail(context.Cause(ctx)) // returns once the cancellation has been noted
	}
	n := iters
	for _, c := range complete {
		n = min(n, c)
	}
	out := make([]loop.Sample, n)
	for i := range out {
		out[i] = samples[i]
		for lane := 1; lane < lanes; lane++ {
			out[i].Join(samples[lane*iters+i])
		}
	}
	if n == iters {
		return out, nil // cancelled, if at all, after the last
	}
	return out, first
}
