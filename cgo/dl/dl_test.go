package dl

import (
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/dl/dltest"
	"github.com/xferbench/xferbench/internal/testenv"
)

func TestOpenSaysWhatTheLoaderSaid(t *testing.T) {
	_, err := Open(Local, "libxferbench-a.so.9", "libxferbench-b.so.9")
	if err == nil {
		t.Fatal("Open of two absent libraries succeeded")
	}
	for _, want := range []string{"libxferbench-a.so.9", "libxferbench-b.so.9", "cannot open shared object file"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not contain %q", err, want)
		}
	}
}

func TestSymbols(t *testing.T) {
	lib, err := Open(Local, "libm.so.6")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(lib.Path(), "/libm.so.6") {
		t.Errorf("Path() = %q, want the mapped file", lib.Path())
	}
	var cos, none, absent unsafe.Pointer
	err = lib.Symbols(map[string]*unsafe.Pointer{"cos": &cos, "xb_none?": &none, "xb_absent": &absent})
	if err == nil || !strings.Contains(err.Error(), "xb_absent") || strings.Contains(err.Error(), "xb_none") {
		t.Errorf("Symbols: %v, want an error that names xb_absent alone", err)
	}
	if cos == nil || none != nil || absent != nil {
		t.Errorf("cos %v, none %v, absent %v", cos, none, absent)
	}
}

// fatal are the signals that libinfinipath and libucs take over when loaded.
var fatal = []syscall.Signal{syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGABRT, syscall.SIGFPE, syscall.SIGINT, syscall.SIGTERM}

type action struct {
	handler uintptr
	flags   int
}

func actions(t *testing.T) map[syscall.Signal]action {
	t.Helper()
	m := map[syscall.Signal]action{}
	for _, s := range fatal {
		h, f, err := SignalHandler(int(s))
		if err != nil {
			t.Fatal(err)
		}
		m[s] = action{h, f}
	}
	return m
}

// The libraries' handlers must be gone after Open, Ctrl-C must reach Go, and a
// nil dereference must be a recoverable panic.
func TestOpenKeepsSignalActions(t *testing.T) {
	for need, lib := range map[string]string{"libfabric": "libfabric.so.1", "ucx": "libucp.so.0"} {
		t.Run(lib, func(t *testing.T) {
			before := actions(t)
			_, err := Open(Global, lib)
			testenv.Need(t, need, err)
			for s, a := range actions(t) {
				if a != before[s] {
					t.Errorf("%v: action is %#x flags %#x after loading %s, was %#x flags %#x",
						s, a.handler, a.flags, lib, before[s].handler, before[s].flags)
				}
			}
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGTERM)
			defer signal.Stop(c)
			if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			select {
			case <-c:
			case <-time.After(10 * time.Second):
				t.Error("SIGTERM did not reach Go")
			}
			if err := nilDereference(); err == nil {
				t.Error("a nil dereference was not a recoverable panic")
			}
		})
	}
}

func nilDereference() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("recovered")
		}
	}()
	var p *int
	return errors.New(string(rune(*p)))
}

func TestGuardedPutsActionsBack(t *testing.T) {
	before := actions(t)
	err := Guarded(func() error {
		dltest.Ignore(syscall.SIGFPE)
		h, _, err := SignalHandler(int(syscall.SIGFPE))
		if h != 1 {
			t.Errorf("the action did not change inside: %#x", h)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for s, a := range actions(t) {
		if a != before[s] {
			t.Errorf("%v: action %v after Guarded, was %v", s, a, before[s])
		}
	}
}
