package host_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/testenv/hosttest"
)

func TestSocketsOfRecordedTree(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	root := hosttest.Tree(t, map[string]string{
		"proc/self/net/tcp": head +
			"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 101 1 0 100 0 0 10 0\n" +
			"   1: 0100007F:1F90 0200420A:D431 01 00000000:00000000 00:00000000 00000000     0        0 0 1 0 100 0 0 10 0\n" +
			"   2: 0100007F:1F91 0200420A:D432 08 00000000:00000000 00:00000000 00000000     0        0 102 1 0 100 0 0 10 0\n" +
			"   3: 0100007F:1F92 0200420A:D433 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0 100 0 0 10 0\n",
		"proc/self/net/tcp6": head +
			"   0: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 103 1 0 100 0 0 10 0\n" +
			"   1: 0000000000000000FFFF00000100007F:0050 0000000000000000FFFF00000100007F:0051 01 00000000:00000000 00:00000000 00000000     0        0 104 1 0 100 0 0 10 0\n",
		"proc/self/net/udp": head + "  12: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 105 2 0 0\n",
		"proc/self/fd/0":    "-> /dev/null",
		"proc/self/fd/7":    "-> socket:[101]",
		"proc/self/fd/8":    "-> socket:[102]",
		"proc/self/fd/9":    "-> socket:[105]",
	})
	got, err := root.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort
	want := []host.Socket{
		{"tcp", at("127.0.0.1:8080"), at("0.0.0.0:0"), host.Listening, 101, 7},
		{"tcp", at("127.0.0.1:8080"), at("10.66.0.2:54321"), host.Connected, 0, -1},
		{"tcp", at("127.0.0.1:8081"), at("10.66.0.2:54322"), host.Connected, 102, 8},
		{"tcp", at("127.0.0.1:8082"), at("10.66.0.2:54323"), host.Other, 0, -1},
		{"tcp", at("[::1]:22"), at("[::]:0"), host.Listening, 103, -1},
		{"tcp", at("127.0.0.1:80"), at("127.0.0.1:81"), host.Connected, 104, -1},
		{"udp", at("0.0.0.0:68"), at("0.0.0.0:0"), host.Listening, 105, 9},
	}
	if len(got) != len(want) {
		t.Fatalf("%d sockets: %v", len(got), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("socket %d is %+v, want %+v", i, got[i], want[i])
		}
	}
	for _, bad := range []string{"1: 2 3\n", "1: zz:1 0:0 0A a a a a a 1\n", "1: 0100007F:1 00000000:0 0A a a a a a x\n"} {
		if _, err := hosttest.Tree(t, map[string]string{"proc/self/net/tcp": bad, "proc/self/fd/0": "-> /dev/null"}).Sockets(); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// On this host: a listener, both ends of a connection before it is accepted, and a
// datagram socket.
func TestOwnSockets(t *testing.T) {
	l, err := net.Listen("tcp", net.JoinHostPort(host.Loopback(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", net.JoinHostPort(host.Loopback(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	port := netip.MustParseAddrPort(l.Addr().String())
	find := func(get func() ([]host.Socket, error), match func(host.Socket) bool) (host.Socket, bool) {
		t.Helper()
		ss, err := get()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range ss {
			if match(s) {
				return s, true
			}
		}
		return host.Socket{}, false
	}
	root := host.Root("")
	if s, ok := find(root.OwnSockets, func(s host.Socket) bool { return s.Net == "tcp" && s.Local == port }); !ok || s.State != host.Listening || s.FD < 0 {
		t.Errorf("the listener is %+v, %v", s, ok)
	}
	if s, ok := find(root.OwnSockets, func(s host.Socket) bool {
		return s.Net == "udp" && s.Local == netip.MustParseAddrPort(u.LocalAddr().String())
	}); !ok || s.State != host.Listening {
		t.Errorf("the datagram socket is %+v, %v", s, ok)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	from := netip.MustParseAddrPort(c.LocalAddr().String())
	if s, ok := find(root.OwnSockets, func(s host.Socket) bool { return s.Local == from }); !ok || s.State != host.Connected || s.Remote != port {
		t.Errorf("the connection is %+v, %v", s, ok)
	}
	if s, ok := find(root.Sockets, func(s host.Socket) bool { return s.Local == port && s.Remote == from }); !ok || s.State != host.Connected {
		t.Errorf("its other end is %+v, %v", s, ok)
	}
}
