// Package gate decides who reaches the sockets that native libraries listen on.
//
// Libraries for RDMA over TCP take whoever connects: over UCX such a connection can
// write anywhere in the process. They have no setting for who may. So this package
// puts functions of its own before libc's listen, bind and shmget; the linker exports
// them, and a library that is loaded at run time calls them.
//
// While addresses are admitted, a listening TCP socket and a bound UDP socket take
// packets from those only, from the first moment on, by a filter of the kernel
// (socket(7), SO_ATTACH_FILTER), which needs no right and which the library does not
// see; and System V segments are this user's only. [Seal] lets nobody in any more.
// Without an admission the calls are libc's.
//
// A filter holds for what goes over IP, between hosts. Users of an admitted host are
// admitted, and RDMA devices do not pass here.
package gate

/*
#include "gate.h"
*/
import "C"

import (
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxPeers is how many addresses a filter may have: its instructions count against
// net.core.optmem_max.
const MaxPeers = 128

var (
	mu       sync.Mutex
	admitted = map[netip.Addr]int{}
	open     int // admissions
)

// Admit lets peers reach the sockets that libraries open from now on, beside those
// of other admissions, until withdraw is called. Sockets that listen already stay as
// they are. An error leaves everything as it was.
func Admit(peers []netip.Addr) (withdraw func(), err error) {
	mu.Lock()
	defer mu.Unlock()
	if err := change(peers, 1); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() {
		mu.Lock()
		defer mu.Unlock()
		// A smaller filter than the one in force: if memory for it lacks, that one
		// stays.
		_ = change(peers, -1)
	}), nil
}

// change counts an admission of peers in or out and sets the policy.
func change(peers []netip.Addr, by int) error {
	next := maps.Clone(admitted)
	for _, p := range peers {
		p = p.Unmap().WithZone("")
		if next[p] += by; next[p] <= 0 {
			delete(next, p)
		}
	}
	if by > 0 && len(next) > MaxPeers {
		return fmt.Errorf("gate: %d addresses in all: want at most %d", len(next), MaxPeers)
	}
	var program []unix.SockFilter
	if open+by > 0 {
		program = filter(slices.SortedFunc(maps.Keys(next), netip.Addr.Compare))
	}
	if errno := C.xb_gate_policy((*C.struct_sock_filter)(unsafe.Pointer(unsafe.SliceData(program))), C.ushort(len(program))); errno != 0 {
		return fmt.Errorf("gate: %w", syscall.Errno(errno))
	}
	runtime.KeepAlive(program)
	admitted, open = next, open+by
	return nil
}

// Seal lets nothing in on the TCP sockets that libraries listen on, for ever:
// connections that exist go on. Sockets opened later take their peers as before. UDP
// sockets cannot be sealed.
func Seal() error {
	if errno := C.xb_gate_seal(); errno != 0 {
		return fmt.Errorf("closing the listening sockets of the libraries (SO_ATTACH_FILTER): %w", syscall.Errno(errno))
	}
	return nil
}

// Refused is the kernel's last refusal of a filter, if any: that socket takes
// everybody who reaches it.
func Refused() error {
	if errno := C.xb_gate_refused(); errno != 0 {
		return fmt.Errorf("this kernel refuses filters for listening sockets (SO_ATTACH_FILTER): %w", syscall.Errno(errno))
	}
	return nil
}

// Offsets from the packet's network header, whatever the socket: SKF_NET_OFF.
const (
	netOff   = 0x100000000 - 0x100000
	source4  = netOff + 12
	source6  = netOff + 8
	keep     = 0xffffffff
	version4 = 0x40
	version6 = 0x60
)

// filter is the classic BPF program that keeps packets whose source is one of peers.
// An IPv6 socket may take IPv4 packets, so both kinds are in each program.
func filter(peers []netip.Addr) []unix.SockFilter {
	word := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: k}
	}
	ret := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
	}
	// equal goes on when the loaded word is k, and skips n instructions when not.
	equal := func(k uint32, n uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: n}
	}
	four, six := []unix.SockFilter{word(source4)}, []unix.SockFilter{}
	for _, p := range peers {
		if p.Is4() {
			b := p.As4()
			four = append(four, equal(be32(b[:]), 1), ret(keep))
			continue
		}
		b := p.As16()
		for i := range 4 {
			six = append(six, word(uint32(source6+4*i)), equal(be32(b[4*i:]), uint8(2*(3-i)+1)))
		}
		six = append(six, ret(keep))
	}
	four, six = append(four, ret(0)), append(six, ret(0))
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: netOff},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf0},
		equal(version4, 1), // the next jump is for IPv4: conditional ones are short
		{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(six) + 3)},
		equal(version6, 1),
		{Code: unix.BPF_JMP | unix.BPF_JA, K: 1},
		ret(0),
	}
	return slices.Concat(program, six, four)
}

func be32(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}
