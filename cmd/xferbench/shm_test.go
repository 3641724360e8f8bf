package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shmOf lists the files in /dev/shm that libfabric made in processes pids.
func shmOf(t *testing.T, pids ...int) []string {
	t.Helper()
	es, err := os.ReadDir("/dev/shm")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range es {
		for _, pid := range pids {
			if strings.HasPrefix(e.Name(), fmt.Sprintf("%d:", pid)) {
				out = append(out, e.Name())
			}
		}
	}
	return out
}

// Whoever is killed, and when: the side that is left removes what both had in
// /dev/shm, and when none is, the next run does.
func TestKilledLeavesNoSharedMemory(t *testing.T) {
	const moments = 8 // make soak has more
	args := func(line string) []string {
		return []string{"--provider", "shm", "--size", "1MB", "--shape", "contiguous", "--no-ceiling", "--blocks", "1000000", "--budget", "0",
			"--timeout", timeout.String(), "--no-record", line}
	}
	for _, who := range []string{"initiator", "target", "both"} {
		t.Run(who, func(t *testing.T) {
			s, line := serve(t)
			s.measureShm(args(line)) // how long a run takes to measure, with warm caches
			span := s.measureShm(args(line))
			for i := range moments {
				r := xferbench(t, args(line)...)
				time.Sleep(time.Duration(rand.Int64N(int64(span) * 3 / 2)))
				me := r.initiator()
				pids := append(s.children(), me)
				if who != "target" {
					kill(t, syscall.SIGKILL, me)
				}
				for _, pid := range s.children() {
					if who != "initiator" {
						kill(t, syscall.SIGKILL, pid)
					}
				}
				if who == "target" && len(pids) == 1 {
					kill(t, syscall.SIGKILL, me) // there was no target yet
				}
				<-r.Done
				if who == "both" {
					pids = append(pids, s.free(line))
				} else {
					s.free("") // no other run may do it
				}
				if left := shmOf(t, pids...); len(left) > 0 {
					t.Errorf("kill %d: left in /dev/shm: %v", i, left)
				}
			}
			s.Signal(syscall.SIGTERM)
			s.exits(130)
		})
	}
}

// measureShm runs a command until it has files of both sides, ends it, and
// returns how long they took.
func (p *proc) measureShm(args []string) time.Duration {
	p.t.Helper()
	begun := time.Now()
	r := xferbench(p.t, args...)
	r.Until("both sides have files", func() bool {
		kids := p.children()
		return len(kids) > 0 && len(shmOf(p.t, r.initiator())) > 0 && len(shmOf(p.t, kids...)) > 0
	})
	took := time.Since(begun)
	r.Signal(syscall.SIGINT)
	r.exits(130)
	p.free("")
	return took
}

// free waits until a server is free; with its line it proves so by a run, whose
// process it returns.
func (p *proc) free(line string) int {
	p.t.Helper()
	p.Until("the session is over", func() bool { return len(p.children()) == 0 })
	if line == "" {
		return 0
	}
	// A measuring process whose keeper was killed at once may still come.
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		r := xferbench(p.t, "--provider", "socket", "--size", "64KiB", "--shape", "contiguous", "--no-ceiling", "--blocks", "1", "--no-record", line)
		<-r.Done
		if strings.Contains(r.Errs.String(), "busy with another session") && time.Now().Before(end) {
			continue
		}
		r.exits(0)
		return r.Cmd.Process.Pid
	}
}

// initiator is the process of a run that measures, or its keeper while there is
// none.
func (p *proc) initiator() int {
	p.t.Helper()
	if kids := p.children(); len(kids) > 0 {
		return kids[0]
	}
	return p.Cmd.Process.Pid
}
