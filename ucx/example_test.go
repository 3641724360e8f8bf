package ucx_test

import (
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/ucx"
)

// Where no UCX is installed the example does not run; the tests say so.
func TestMain(m *testing.M) {
	flag.Parse()
	if _, err := ucx.Load(""); err != nil {
		if err := flag.Set("test.skip", "^Example"); err != nil {
			log.Fatal(err)
		}
	}
	os.Exit(m.Run())
}

// Two workers of one process over TCP: one puts into the other's memory and
// flushes.
func Example() {
	lib, err := ucx.Load("")
	if err != nil {
		log.Fatal(err)
	}
	ctx, err := lib.Open(ucx.Config{
		Settings: []ucx.Setting{{Key: "TLS", Value: "tcp"}, {Key: "NET_DEVICES", Value: "lo"}},
		Shared:   true,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer ctx.Close()

	// Go memory may be registered while it is pinned.
	var pinner runtime.Pinner
	defer pinner.Unpin()
	memory := [2][]byte{make([]byte, 4096), make([]byte, 4096)}
	var workers [2]*ucx.Worker
	var addresses [2]ucx.Address
	for i := range workers {
		m, err := ctx.Register(loop.Pinned(&pinner, memory[i]))
		if err != nil {
			log.Fatal(err)
		}
		defer m.Close()
		if workers[i], err = ctx.NewWorker(m); err != nil {
			log.Fatal(err)
		}
		defer workers[i].Close()
		if addresses[i], err = workers[i].Address(); err != nil {
			log.Fatal(err)
		}
	}
	// Between two hosts the addresses go over a channel of the caller's own.
	for i, w := range workers {
		if err := w.Connect(addresses[1-i]); err != nil {
			log.Fatal(err)
		}
	}

	copy(memory[0], "a KV cache")
	if err := workers[0].Put(loop.Piece{Local: 0, Remote: 100, Len: 10}); err != nil {
		log.Fatal(err)
	}
	if err := workers[0].Flush(); err != nil {
		log.Fatal(err)
	}
	landed := false
	for deadline := time.Now().Add(10 * time.Second); !landed && time.Now().Before(deadline); {
		for _, w := range workers { // both sides progress
			if _, _, err := w.Progress(); err != nil {
				log.Fatal(err)
			}
		}
		if landed, err = workers[0].Flushed(); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Printf("landed %v: %s\n", landed, memory[1][100:110])
	// Output: landed true: a KV cache
}
