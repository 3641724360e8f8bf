package transport

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/xferbench/xferbench/cgo/mem"
)

// opensWide is an endpoint whose library listens where it was not told to.
type opensWide struct {
	Endpoint
	network, address string
	closers          []interface{ Close() error }
}

func (e *opensWide) Info() Info               { return Info{} }
func (e *opensWide) Lanes() int               { return 1 }
func (e *opensWide) Address() ([]byte, error) { return nil, nil }
func (e *opensWide) Register(*mem.Buffer) error {
	if e.network == "udp" {
		c, err := net.ListenPacket(e.network, e.address)
		e.closers = append(e.closers, c)
		return err
	}
	l, err := net.Listen(e.network, e.address)
	e.closers = append(e.closers, l)
	return err
}
func (e *opensWide) Close() error {
	var errs []error
	for _, c := range e.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// A library that listens on more than the peer's way does not get as far as its
// address being told; UCX may where the user said so.
func TestListensOnOtherAddresses(t *testing.T) {
	for _, tt := range []struct {
		name, provider, network, address string
		options                          map[string]string
		bad, note                        bool
	}{
		{"loopback", "tcp", "tcp", "127.0.0.1:0", nil, false, false},
		{"any address", "tcp", "tcp", "0.0.0.0:0", nil, true, false},
		{"any IPv6 address", "tcp", "tcp", "[::]:0", nil, true, false},
		{"datagrams", "fabric:udp;ofi_rxd", "udp", "0.0.0.0:0", nil, true, false},
		{"ucx", "ucx", "tcp", "0.0.0.0:0", nil, true, false},
		{"ucx, chosen", "ucx", "tcp", "0.0.0.0:0", map[string]string{"NET_DEVICES": "all"}, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Contains(tt.address, "::") {
				if c, err := net.ListenPacket("udp", "[::1]:0"); err == nil {
					c.Close()
				} else {
					tt.address = "0.0.0.0:0"
				}
			}
			ctx := context.Background()
			s := &Side{open: func(context.Context, Config) (Endpoint, error) {
				return &opensWide{network: tt.network, address: tt.address}, nil
			}}
			defer s.Close()
			if _, err := s.Memory(ctx, MemoryRequest{Kind: mem.Host, Bytes: 4096}); err != nil {
				t.Fatal(err)
			}
			cfg := Config{Provider: tt.provider, Bind: []string{"127.0.0.1"}, Options: tt.options}
			if _, err := s.Open(ctx, OpenRequest{0, cfg}); err != nil {
				t.Fatal(err)
			}
			rep, err := s.Register(ctx, RegisterRequest{})
			if tt.bad {
				if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "127.0.0.1") {
					t.Errorf("the error is %v, want ErrUnavailable that names the peer's way", err)
				}
				return
			}
			if err != nil || (len(rep.Notes) == 1) != tt.note {
				t.Errorf("notes %v, error %v; want a note: %v", rep.Notes, err, tt.note)
			}
		})
	}
}
