package xfer

import (
	"fmt"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/engine"
	"github.com/xferbench/xferbench/internal/testenv"
	"github.com/xferbench/xferbench/ucx"
)

func needUCX(t *testing.T) *ucx.Library {
	t.Helper()
	lib, err := ucx.Load("")
	testenv.Need(t, "ucx", err)
	return lib
}

func ucxConfig(provider string, streams int) Config {
	return Config{Provider: provider, Streams: streams, Depth: 64, Poll: engine.Yield, Timeout: 10 * time.Second, Device: -1}
}

func TestUCXTransfers(t *testing.T) {
	needUCX(t)
	for _, provider := range []string{"ucx:tcp", "ucx:shm", "ucx"} {
		for _, streams := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s/%d", provider, streams), func(t *testing.T) {
				p := runPair(t, ucxConfig(provider, streams), engine.Read, engine.Write, engine.Send)
				t.Logf("%+v", p.ep.Info())
			})
		}
	}
}
