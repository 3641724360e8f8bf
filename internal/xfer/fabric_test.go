package xfer

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/engine"
	"github.com/xferbench/xferbench/fabric"
	"github.com/xferbench/xferbench/internal/testenv"
)

// needFabric skips where there is no libfabric.
func needFabric(t testing.TB) *fabric.Library {
	t.Helper()
	lib, err := fabric.Load("")
	testenv.Need(t, "libfabric", err)
	return lib
}

func fabricConfig(provider string, ops ...engine.Op) Config {
	return Config{Provider: provider, Ops: ops, Bind: "127.0.0.1", Streams: 1, Poll: engine.Yield,
		Timeout: 10 * time.Second, SameHost: true, Device: -1}
}

var everyOp = []engine.Op{engine.Read, engine.Write, engine.Send}

// Every provider that needs no hardware moves every shape, by every operation
// and either proof of landing, and each byte is looked at.
func TestFabricPair(t *testing.T) {
	needFabric(t)
	for _, provider := range []string{"tcp", "tcp;ofi_rxm", "shm", "sockets"} {
		for _, landing := range []string{"dc", "count"} {
			for _, streams := range []int{1, 2} {
				t.Run(fmt.Sprintf("%s/%s/streams %d", provider, landing, streams), func(t *testing.T) {
					cfg := fabricConfig(provider, everyOp...)
					cfg.Streams = streams
					cfg.Options = map[string]string{FabricLanding: landing}
					ops := everyOp
					if landing == "count" {
						ops = []engine.Op{engine.Write}
					}
					p := runPair(t, cfg, ops...)
					want := map[string]string{"dc": "delivery-complete", "count": "remote-cq-count"}[landing]
					if got := p.ep.Info().Landing["write"]; got != want {
						t.Errorf("landing of write is %q, want %q", got, want)
					}
					if err := p.ep.Fault(); err != nil {
						t.Errorf("fault after the transfers: %v", err)
					}
				})
			}
		}
	}
}

func TestFabricUnavailable(t *testing.T) {
	needFabric(t)
	for name, want := range map[string]error{"efa": ErrUnavailable, "efa-direct": ErrUnavailable, "fabric:nonesuch": ErrUnavailable} {
		t.Run(name, func(t *testing.T) {
			ep, err := Open(t.Context(), fabricConfig(name, engine.Read))
			if ep != nil {
				ep.Close()
				testenv.Declare(t, "this host has "+name)
			}
			if !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
			t.Log(err)
		})
	}
}
