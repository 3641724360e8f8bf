package clock

import (
	"testing"
	"time"
)

func TestNowAdvances(t *testing.T) {
	a := Now()
	time.Sleep(2 * time.Millisecond)
	if d := Now() - a; d < int64(2*time.Millisecond) {
		t.Errorf("clock advanced by %d ns over a sleep of 2 ms", d)
	}
}
