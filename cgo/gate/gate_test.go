package gate

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/xferbench/xferbench/cgo/gate/gatetest"
)

// patience is how long a connection that must not come may take to come: the kernel
// drops its packets, so nothing answers.
const patience = 300 * time.Millisecond

// listener is a TCP socket on loopback that listens as a library's does.
func listener(t *testing.T) (fd int, address string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := gatetest.Bind(fd); err != nil {
		t.Fatal(err)
	}
	if err := gatetest.Listen(fd); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	in := sa.(*unix.SockaddrInet4)
	return fd, netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)).String()
}

// reaches connects from an address of loopback.
func reaches(t *testing.T, from, to string) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", to)
	if err == nil {
		t.Cleanup(func() { c.Close() })
		return c
	}
	if ne := net.Error(nil); !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("connecting from %s: %v, want a timeout", from, err)
	}
	return nil
}

func admit(t *testing.T, peers ...string) (withdraw func()) {
	t.Helper()
	var as []netip.Addr
	for _, p := range peers {
		as = append(as, netip.MustParseAddr(p))
	}
	w, err := Admit(as)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w)
	return w
}

func TestAdmit(t *testing.T) {
	withdraw := admit(t, "127.0.0.2", "::1")
	_, at := listener(t)
	if reaches(t, "127.0.0.3", at) != nil {
		t.Error("a stranger has connected")
	}
	if reaches(t, "127.0.0.2", at) == nil {
		t.Error("the peer cannot connect")
	}
	again := admit(t, "127.0.0.3")
	_, both := listener(t)
	if reaches(t, "127.0.0.3", both) == nil || reaches(t, "127.0.0.2", both) == nil {
		t.Error("one of two peers cannot connect")
	}
	withdraw()
	withdraw() // once counts
	if _, at := listener(t); reaches(t, "127.0.0.2", at) != nil || reaches(t, "127.0.0.3", at) == nil {
		t.Error("a withdrawn peer is admitted, or the other is not")
	}
	again()
	if _, at := listener(t); reaches(t, "127.0.0.4", at) == nil {
		t.Error("without an admission, listen is not libc's")
	}
	if err := Refused(); err != nil {
		t.Error(err)
	}
}

// Nobody at all is admitted by an empty list.
func TestAdmitNobody(t *testing.T) {
	admit(t)
	if _, at := listener(t); reaches(t, "127.0.0.1", at) != nil {
		t.Error("somebody has connected")
	}
}

func TestTooManyPeers(t *testing.T) {
	var many []netip.Addr
	for i := range MaxPeers + 1 {
		many = append(many, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	if _, err := Admit(many); err == nil {
		t.Error("admitted")
	}
	if w, err := Admit(many[:MaxPeers]); err != nil {
		t.Error(err)
	} else {
		listener(t) // the kernel takes the filter
		w()
	}
	if err := Refused(); err != nil {
		t.Error(err)
	}
}

func TestSeal(t *testing.T) {
	admit(t, "127.0.0.2")
	fd, at := listener(t)
	c := reaches(t, "127.0.0.2", at)
	if c == nil {
		t.Fatal("the peer cannot connect")
	}
	accepted, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(accepted)
	// One that is closed, whose descriptor is another socket's by now.
	gone, _ := listener(t)
	unix.Close(gone)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for range 2 {
		if err := Seal(); err != nil {
			t.Fatal(err)
		}
	}
	if reaches(t, "127.0.0.2", at) != nil {
		t.Error("the peer has connected to a sealed socket")
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err == nil {
		t.Error("the seal was taken off")
	}
	// The connection that exists goes on.
	if _, err := c.Write([]byte{7}); err != nil {
		t.Error(err)
	}
	var b [1]byte
	if n, err := unix.Read(accepted, b[:]); n != 1 || err != nil || b[0] != 7 {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if reaches(t, "127.0.0.3", other.Addr().String()) == nil {
		t.Error("a socket of somebody else was sealed")
	}
	if _, at := listener(t); reaches(t, "127.0.0.2", at) == nil {
		t.Error("a socket that was opened after the seal takes nobody")
	}
}

func TestDatagrams(t *testing.T) {
	admit(t, "127.0.0.2")
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := gatetest.Bind(fd); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*unix.SockaddrInet4).Port}
	for _, from := range []string{"127.0.0.3", "127.0.0.2"} {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(from)); err != nil {
			t.Fatal(err)
		}
	}
	b := make([]byte, 100)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil || string(b[:n]) != "127.0.0.2" {
		t.Errorf("received %q, %v; want the peer's alone", b[:n], err)
	}
	if n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("received %q, %v besides", b[:n], err)
	}
}

func TestSegments(t *testing.T) {
	if mode, err := gatetest.Segment(0o660); err != nil || mode != 0o660 {
		t.Errorf("without an admission the mode is %o, %v", mode, err)
	}
	admit(t, "127.0.0.1")
	if mode, err := gatetest.Segment(0o660); err != nil || mode != 0o600 {
		t.Errorf("the mode is %o, %v; want 600", mode, err)
	}
}

// The program, on packets of both kinds, by an interpreter that is not the kernel's.
func TestFilter(t *testing.T) {
	packet := func(from string) []byte {
		a := netip.MustParseAddr(from)
		p := make([]byte, 60)
		if a.Is4() {
			p[0] = 0x45
			copy(p[12:], a.AsSlice())
		} else {
			p[0] = 0x6f
			copy(p[8:], a.AsSlice())
		}
		return p
	}
	peers := []string{"10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2", "255.255.255.255"}
	for n := range len(peers) + 1 {
		var as []netip.Addr
		for _, p := range peers[:n] {
			as = append(as, netip.MustParseAddr(p))
		}
		var program []bpf.Instruction
		for _, i := range filter(as) {
			if i.K >= netOff && i.K != keep {
				i.K -= netOff // the interpreter's packets begin with the network header
			}
			program = append(program, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K}.Disassemble())
		}
		vm, err := bpf.NewVM(program)
		if err != nil {
			t.Fatal(err)
		}
		for i, from := range append(peers, "10.0.0.3", "fd00::3", "fd00::1:0:0:1", "0.0.0.0", "::") {
			kept, err := vm.Run(packet(from))
			if err != nil {
				t.Fatal(err)
			}
			if (kept != 0) != (i < n) {
				t.Errorf("%d peers: a packet from %s is kept: %v", n, from, kept != 0)
			}
		}
		if kept, err := vm.Run(append([]byte{0x15}, make([]byte, 60)...)); err != nil || kept != 0 {
			t.Errorf("a packet of neither kind is kept: %d, %v", kept, err)
		}
	}
}
