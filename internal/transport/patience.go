package transport

import "time"

// Patience is for how long a wait has seen nothing move; the zero value has just
// begun. It is the loop's of the same name (cgo/loop/lane.h), for waits in Go.
//
// One look counts a part of the limit at most: in a longer gap this process was
// stopped, or its runtime waited while the kernel held its memory lock, and
// nothing could have reached it. That time is not the other side's.
type Patience struct {
	last  time.Time // zero: not yet looked
	spent time.Duration
}

// Looks is how many looks a wait takes within its limit, one each limit/Looks.
const Looks = 5

// Begin begins anew: something moved at now.
func (p *Patience) Begin(now time.Time) { *p = Patience{last: now} }

// Look counts a look at now and returns the sum: beyond limit the wait is over.
func (p *Patience) Look(now time.Time, limit time.Duration) time.Duration {
	if !p.last.IsZero() {
		p.spent += min(now.Sub(p.last), limit/(Looks-1)+1)
	}
	p.last = now
	return p.spent
}
