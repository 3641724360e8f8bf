package loop_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/loop/looptest"
	"github.com/xferbench/xferbench/internal/testenv/proc"
)

// Time in which the whole process was stopped is not a peer's, nor a library's.
func TestStoppedWhileWaiting(t *testing.T) {
	const (
		role    = "XFERBENCH_TEST_WAITS"
		begun   = "begun\n"
		timeout = 2 * time.Second
	)
	waits := map[string]struct {
		b    looptest.Behaviour
		call func(context.Context, *loop.Group, []*loop.Plan) error
	}{
		"for a completion": {looptest.Behaviour{NeverCompletes: true}, func(ctx context.Context, g *loop.Group, p []*loop.Plan) error {
			_, err := g.Transfer(ctx, loop.Read, p, 1, 1)
			return err
		}},
		"for the library": {looptest.Behaviour{HangsAt: 1, PollsPerDone: 10}, func(ctx context.Context, g *loop.Group, p []*loop.Plan) error {
			_, err := g.Transfer(ctx, loop.Read, p, 1, 1)
			return err
		}},
		"for an arrival": {looptest.Behaviour{NeverArrives: true}, func(ctx context.Context, g *loop.Group, p []*loop.Plan) error {
			if err := g.Arm(ctx, loop.Send, p, 1); err != nil {
				return err
			}
			_, err := g.Settle(ctx)
			return err
		}},
	}
	if w, child := waits[os.Getenv(role)]; child {
		g, plans, _ := group(t, timeout, 1, w.b)
		fmt.Print(begun)
		if err := w.call(context.Background(), g, plans); !errors.Is(err, loop.ErrTimeout) {
			fmt.Println("ended with", err)
		}
		os.Exit(0) // a lane that hangs cannot be freed
	}
	for name := range waits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run", "^TestStoppedWhileWaiting$")
			cmd.Env = append(os.Environ(), role+"="+name)
			p := proc.Start(t, cmd, time.Minute)
			p.Until("it waits", func() bool { return strings.Contains(p.Out.String(), begun) })
			time.Sleep(timeout / 20) // until it is in the call
			p.Signal(syscall.SIGSTOP)
			time.Sleep(timeout + timeout/2)
			p.Signal(syscall.SIGCONT)
			start := time.Now()
			if c := p.Code(); c != 0 || p.Out.String() != begun {
				t.Errorf("exit code %d\n%s%s", c, p.Out.String(), p.Errs.String())
			}
			// Of 2 s it had waited no time to speak of, and the gap counts 0.5 s.
			if d := time.Since(start); d < timeout/4 {
				t.Errorf("given up %v after it ran again", d)
			}
		})
	}
}
