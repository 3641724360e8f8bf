package fault_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/xferbench/xferbench/internal/fault"
)

var (
	errPeer = fault.New(fault.Unavailable, "peer unavailable")
	errStop = fault.New(fault.Interrupted, "interrupted")
	errData = fault.New(fault.Data, "data check failed")
)

func TestKindOf(t *testing.T) {
	plain := errors.New("x")
	for name, tt := range map[string]struct {
		err  error
		want fault.Kind
		code int
	}{
		"none":                       {nil, fault.None, 0},
		"without a kind":             {fmt.Errorf("a: %w", plain), fault.Internal, 1},
		"usage":                      {fault.Usagef("--op %q", "x"), fault.Usage, 2},
		"a wrapped sentinel":         {fmt.Errorf("open: %w: %w", plain, errPeer), fault.Unavailable, 3},
		"data":                       {errData, fault.Data, 4},
		"threshold":                  {fault.Errorf(fault.Threshold, "slower"), fault.Threshold, 5},
		"too few":                    {fault.Errorf(fault.TooFew, "3 blocks"), fault.TooFew, 6},
		"the cause comes first":      {errors.Join(errData, errPeer), fault.Data, 4},
		"an interruption wins":       {errors.Join(errPeer, fmt.Errorf("%w: %w", errData, errStop)), fault.Interrupted, 130},
		"the outer kind is the kind": {&fault.Error{Kind: fault.Usage, Err: errPeer}, fault.Usage, 2},
		"no descriptors":             {fault.Usagef("--record: %w", syscall.EMFILE), fault.Unavailable, 3},
		"cancelled":                  {fmt.Errorf("get: %w", context.Canceled), fault.Interrupted, 130},
		"cancelled, with a cause":    {fmt.Errorf("%w: %w", errPeer, context.Canceled), fault.Unavailable, 3},
	} {
		if got := fault.KindOf(tt.err); got != tt.want || got.ExitCode() != tt.code || fault.OfExitCode(tt.code) != got {
			t.Errorf("%s: kind %v, exit code %d; want %v, %d", name, got, got.ExitCode(), tt.want, tt.code)
		}
	}
}

func TestText(t *testing.T) {
	e := &fault.Error{Kind: fault.Unavailable, Err: errors.New("fi_getinfo: no data available"), Hint: "load the driver"}
	if got := e.Error(); got != "fi_getinfo: no data available; load the driver" {
		t.Error(got)
	}
	if got := fault.Usagef("--op %q: want read", "x").Error(); got != `--op "x": want read` {
		t.Error(got)
	}
	if !errors.Is(fmt.Errorf("a: %w", errPeer), errPeer) || errors.Is(errPeer, errData) {
		t.Error("sentinels do not match as themselves only")
	}
}
