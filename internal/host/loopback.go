package host

import (
	"net"
	"sync"
)

// Loopback is the IP address at which processes of this host reach each other:
// 127.0.0.1, or ::1 where this host, or its network namespace, has only that.
var Loopback = sync.OnceValue(func() string {
	for _, a := range []string{"127.0.0.1", "::1"} {
		// Binding a datagram socket sends nothing.
		c, err := net.ListenPacket("udp", net.JoinHostPort(a, "0"))
		if err != nil {
			continue
		}
		if c.Close() == nil {
			return a
		}
	}
	return "127.0.0.1" // whose error says what is wrong
})
