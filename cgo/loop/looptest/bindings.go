// Package looptest is a lane for tests of the measuring loop: it moves
// nothing, refuses and fails as it is told to, and counts what it was asked.
package looptest

/*
#include <stdlib.h>
#include "fake.h"
*/
import "C"

import (
	"time"
	"unsafe"

	"github.com/xferbench/xferbench/cgo/loop"
)

// Behaviour is what a lane does; the zero value completes everything at once.
type Behaviour struct {
	RefuseEvery  uint64 // refuse each n-th post
	PollsPerDone uint64 // a completion takes this many polls
	FailAt       uint64 // fail at this post of all, from 1
	FailPollAt   uint64 // fail at this poll of all, from 1
	HangsAt      uint64 // this poll of all, from 1, never returns
	// CompletesAfter is how long after its begin a transfer's first operation ends.
	CompletesAfter time.Duration
	// NeverCompletes, NeverLands and NeverArrives make the loop wait for ever.
	NeverCompletes, NeverLands, NeverArrives bool
}

// Counts is what happened.
type Counts struct {
	Posts, Polls, Flushes, Begins, Armed, Acked uint64
	MostInFlight                                uint64
}

// Lane is one fake lane; its owner frees it after the group is closed.
type Lane struct{ f *C.struct_fake }

// New makes a lane.
func New(b Behaviour) *Lane {
	f := C.fake_new()
	f.refuse_every, f.polls_per_done = C.uint64_t(b.RefuseEvery), C.uint64_t(b.PollsPerDone)
	f.fail_at, f.fail_poll_at = C.uint64_t(b.FailAt), C.uint64_t(b.FailPollAt)
	f.hangs_at = C.uint64_t(b.HangsAt)
	f.completes_after = C.int64_t(b.CompletesAfter)
	f.never_completes, f.never_lands, f.never_arrives = btoi(b.NeverCompletes), btoi(b.NeverLands), btoi(b.NeverArrives)
	return &Lane{f}
}

func btoi(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// Region is how many bytes a lane's two regions have; there is no memory.
const Region = 1 << 40

// Lane is what a group takes.
func (l *Lane) Lane() loop.Lane {
	return loop.Lane{Impl: unsafe.Pointer(l.f), Ops: unsafe.Pointer(&C.fake_ops), Own: Region, Peer: Region}
}

// Counts may be read once the group is closed.
func (l *Lane) Counts() Counts {
	f := l.f
	return Counts{Posts: uint64(f.posts), Polls: uint64(f.polls), Flushes: uint64(f.flushes), Begins: uint64(f.begins),
		Armed: uint64(f.armed), Acked: uint64(f.acked), MostInFlight: uint64(f.most)}
}

// Free releases the lane.
func (l *Lane) Free() { C.free(unsafe.Pointer(l.f)) }
