package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/cgo/mem"
	"github.com/xferbench/xferbench/internal/host"
	"github.com/xferbench/xferbench/internal/testenv"
)

// A connection that the other side does not know is named, accepted or not, unless it
// goes away by itself.
func TestStrangers(t *testing.T) {
	s := &Side{before: map[uint64]bool{}}
	own, err := host.Root("").OwnSockets()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range own {
		s.before[o.Inode] = true
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx := context.Background()
	if err := s.strangers(ctx, nil, nil); err != nil {
		t.Errorf("without a connection: %v", err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	end := func(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }
	theirs := []Connection{{end(c.LocalAddr()), end(c.RemoteAddr())}}
	if err := s.strangers(ctx, theirs, nil); err != nil {
		t.Errorf("the peer's connection: %v", err)
	}
	waiting := s.strangers(ctx, nil, nil)
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"waits to be accepted": waiting, "is accepted": s.strangers(ctx, nil, nil)} {
		if !errors.Is(err, ErrStranger) || !strings.Contains(err.Error(), c.LocalAddr().String()) {
			t.Errorf("a stranger's connection that %s: %v", name, err)
		}
	}
	go func() {
		time.Sleep(5 * strangerStep)
		c.Close()
		a.Close()
	}()
	if err := s.strangers(ctx, nil, nil); err != nil {
		t.Errorf("a connection that ended meanwhile: %v", err)
	}
}

// Each side names all addresses from which its libraries may connect, its own first.
func TestSources(t *testing.T) {
	got, err := sources([]string{"127.0.0.1"}, false)
	if err != nil || got[0] != "127.0.0.1" || len(got) > maxPeers {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := sources([]string{"192.0.2.1"}, false); !errors.Is(err, ErrUnavailable) {
		t.Errorf("an address of no interface: %v", err)
	}
}

// Where the packets of a connection are dropped, opening a transport has an end too.
func TestDroppedPackets(t *testing.T) {
	for _, provider := range []string{"ucx:tcp", "tcp", "tcp;ofi_rxm"} {
		t.Run(provider, func(t *testing.T) {
			ctx := context.Background()
			withdraw, err := Admit(Config{Peers: []string{"127.0.0.99"}}) // nobody
			if err != nil {
				t.Fatal(err)
			}
			defer withdraw()
			var eps [2]Endpoint
			var addresses [2][]byte
			for i, role := range []Role{Initiator, Target} {
				ep, err := Open(ctx, Config{Provider: provider, Role: role, Bind: []string{"127.0.0.1"}, Ops: []loop.Op{loop.Read},
					Streams: 1, Rails: 1, Poll: loop.Yield, Timeout: time.Second, Device: -1})
				testenv.Need(t, provider, err)
				buf, err := mem.New(mem.Host, 0, 4096)
				if err != nil {
					t.Fatal(err)
				}
				if err := ep.Register(buf); err != nil {
					t.Fatal(err)
				}
				if addresses[i], err = ep.Address(); err != nil {
					t.Fatal(err)
				}
				eps[i] = ep
			}
			plan, err := loop.NewPlan([]loop.Piece{{Len: 4096}})
			if err != nil {
				t.Fatal(err)
			}
			var got error
			for i := range 2 {
				if err := eps[1-i].Connect(ctx, addresses[i]); got == nil {
					got = err
				}
			}
			if got == nil {
				_, got = eps[0].Transfer(ctx, loop.Read, []*loop.Plan{plan}, 1)
			}
			if got == nil {
				t.Error("a transfer came about")
			}
			t.Log(got)
			for _, ep := range eps {
				if err := ep.Close(); err != nil && !errors.Is(err, ErrNotClosed) {
					t.Error(err)
				}
			}
		})
	}
}
