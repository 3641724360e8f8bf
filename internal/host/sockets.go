package host

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// SocketState is what an Internet socket does.
type SocketState int

const (
	// Listening: a TCP socket takes connections, a UDP socket takes packets from
	// anybody.
	Listening SocketState = iota
	// Connected: data of one peer arrives.
	Connected
	// Other: neither, or over.
	Other
)

// Socket is an Internet socket. FD is this process's descriptor, -1 for a socket
// that it does not hold: another process's, or a connection that waits to be
// accepted.
type Socket struct {
	Net           string // "tcp" or "udp"
	Local, Remote netip.AddrPort
	State         SocketState
	Inode         uint64 // 0: nobody's yet
	FD            int
}

func (s Socket) String() string {
	if s.State == Connected {
		return fmt.Sprintf("%s %s from %s", s.Net, s.Local, s.Remote)
	}
	return fmt.Sprintf("%s %s", s.Net, s.Local)
}

// Sockets are all sockets of this process's network namespace.
// Wraps: proc_pid_net(5), proc_pid_fd(5).
func (r Root) Sockets() ([]Socket, error) {
	held, err := r.heldSockets()
	if err != nil {
		return nil, err
	}
	var out []Socket
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, err := os.ReadFile(r.path("/proc/self/net/" + name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		} else if err != nil {
			return nil, fmt.Errorf("the sockets of this process: %w", err)
		}
		for line := range strings.Lines(string(b)) {
			s, err := parseSocket(strings.TrimSuffix(name, "6"), line)
			if err != nil {
				return nil, fmt.Errorf("/proc/self/net/%s: %w", name, err)
			}
			if s == nil {
				continue
			}
			s.FD = -1
			if fd, ok := held[s.Inode]; ok && s.Inode != 0 {
				s.FD = fd
			}
			out = append(out, *s)
		}
	}
	return out, nil
}

// OwnSockets are those of Sockets that this process holds.
func (r Root) OwnSockets() ([]Socket, error) {
	all, err := r.Sockets()
	return slices.DeleteFunc(all, func(s Socket) bool { return s.FD < 0 }), err
}

// heldSockets maps the inodes of this process's sockets to a descriptor.
func (r Root) heldSockets() (map[uint64]int, error) {
	const dir = "/proc/self/fd"
	es, err := os.ReadDir(r.path(dir))
	if err != nil {
		return nil, fmt.Errorf("the descriptors of this process: %w", err)
	}
	out := map[uint64]int{}
	for _, e := range es {
		target, err := os.Readlink(r.path(dir + "/" + e.Name()))
		if err != nil {
			continue // closed since
		}
		number, ok := strings.CutPrefix(target, "socket:[")
		if !ok {
			continue
		}
		inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
		fd, ferr := strconv.Atoi(e.Name())
		if err == nil && ferr == nil {
			out[inode] = fd
		}
	}
	return out, nil
}

// States of proc_pid_net(5) that matter here.
const (
	tcpEstablished = 0x01
	tcpCloseWait   = 0x08
	tcpListen      = 0x0a
	udpUnconnected = 0x07
)

// parseSocket reads a line; nil for the heading.
func parseSocket(network, line string) (*Socket, error) {
	f := strings.Fields(line)
	if len(f) == 0 || f[0] == "sl" {
		return nil, nil
	}
	if len(f) < 10 {
		return nil, fmt.Errorf("a line of %d columns", len(f))
	}
	s := &Socket{Net: network, State: Other}
	state, err := strconv.ParseUint(f[3], 16, 8)
	if err == nil {
		s.Inode, err = strconv.ParseUint(f[9], 10, 64)
	}
	if err == nil {
		s.Local, err = parseEnd(f[1])
	}
	if err == nil {
		s.Remote, err = parseEnd(f[2])
	}
	if err != nil {
		return nil, err
	}
	switch {
	case network == "tcp" && state == tcpListen, network == "udp" && state == udpUnconnected:
		s.State = Listening
	case state == tcpEstablished, network == "tcp" && state == tcpCloseWait:
		s.State = Connected
	}
	return s, nil
}

// parseEnd reads "0100007F:1F90": words of 32 bits in the host's order (all hosts
// that this program is built for are little-endian), then the port. An IPv4
// address inside an IPv6 one is returned as IPv4.
func parseEnd(s string) (netip.AddrPort, error) {
	address, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for i := 0; i+4 <= len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	a, ok := netip.AddrFromSlice(b)
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil || !ok {
		return netip.AddrPort{}, fmt.Errorf("%q is not an address", s)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}
