package fabric_test

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/fabric"
)

// Where no libfabric is installed the examples do not run; the tests say so.
func TestMain(m *testing.M) {
	flag.Parse()
	if _, err := fabric.Load(""); err != nil {
		if err := flag.Set("test.skip", "^Example"); err != nil {
			log.Fatal(err)
		}
	}
	os.Exit(m.Run())
}

// Two endpoints of one process over loopback TCP: one writes into the other's
// memory.
func Example() {
	lib, err := fabric.Load("")
	if err != nil {
		log.Fatal(err)
	}
	// Any libfabric has this provider; newer ones have "tcp" for the same.
	found, err := lib.Find(fabric.Hints{Provider: "tcp;ofi_rxm", Source: "127.0.0.1"})
	if err != nil {
		log.Fatal(err)
	}
	defer found.Free()

	// Go memory may be registered while it is pinned.
	var pinner runtime.Pinner
	defer pinner.Unpin()
	memory := [2][]byte{make([]byte, 4096), make([]byte, 4096)}
	var eps [2]*fabric.Endpoint
	var addresses [2]fabric.Address
	for i := range eps {
		eps[i], err = found.Open(found.Interfaces[0], fabric.EndpointConfig{Initiator: i == 0, Depth: 16})
		if err != nil {
			log.Fatal(err)
		}
		defer eps[i].Close()
		if err := eps[i].Register(loop.Pinned(&pinner, memory[i])); err != nil {
			log.Fatal(err)
		}
		if addresses[i], err = eps[i].Address(); err != nil {
			log.Fatal(err)
		}
	}
	// Between two hosts the addresses go over a channel of the caller's own.
	for i, e := range eps {
		if err := e.Connect(addresses[1-i]); err != nil {
			log.Fatal(err)
		}
	}

	copy(memory[0], "a KV cache")
	piece := loop.Piece{Local: 0, Remote: 100, Len: 10}
	posted, done := false, 0
	for deadline := time.Now().Add(10 * time.Second); done == 0 && time.Now().Before(deadline); {
		if !posted {
			// The first operations find the connection not made yet.
			err := eps[0].Write(piece)
			if err != nil && !errors.Is(err, fabric.ErrAgain) {
				log.Fatal(err)
			}
			posted = err == nil
		}
		for _, e := range eps { // both sides progress
			n, _, err := e.Poll()
			if err != nil {
				log.Fatal(err)
			}
			done += n
		}
	}
	fmt.Printf("%d WRITE completed: %s\n", done, memory[1][100:110])
	fmt.Println("outside:", errors.Is(eps[0].Read(loop.Piece{Remote: 4090, Len: 10}), loop.ErrOutside))
	// Output:
	// 1 WRITE completed: a KV cache
	// outside: true
}

// What errors tell.
func ExampleError() {
	lib, err := fabric.Load("")
	if err != nil {
		log.Fatal(err)
	}
	_, err = lib.Find(fabric.Hints{Provider: "nonesuch"})
	fmt.Println(errors.Is(err, fabric.ErrUnavailable), errors.Is(err, fabric.ErrNoData))
	var e *fabric.Error
	if errors.As(err, &e) {
		fmt.Printf("%s: %v\n", e.Call, e.Errno)
	}
	// Output:
	// true true
	// fi_getinfo: No data available
}
