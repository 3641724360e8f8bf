package wait

import (
	"context"
	"errors"
	"testing"
	"time"
)

// The bounds are wide, because the machine may be busy: what is tested is that
// a wait is never short, and that a cancelled one ends long before its time.
func TestUntil(t *testing.T) {
	for _, d := range []time.Duration{-time.Second, 0, 300 * time.Microsecond, 5 * time.Millisecond} {
		begin := time.Now()
		if err := Until(context.Background(), begin.Add(d)); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(begin); got < d || got > d+5*time.Second {
			t.Errorf("waited %s for %s", got, d)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := Until(ctx, begin.Add(time.Hour)); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > time.Minute {
		t.Errorf("cancelled: %v after %s", err, time.Since(begin))
	}
	if err := Until(ctx, begin); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a time past with a context that is done: %v", err)
	}
}
