package transport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/xferbench/xferbench/cgo/mem"
)

// CheckConfig reports a provider, an option or a number that no host can run,
// before anything is opened.
func CheckConfig(c Config) error {
	if err := checkLimits(c); err != nil {
		return err
	}
	api, name, has := strings.Cut(c.Provider, ":")
	switch {
	case api == "ucx" && has && name == "":
		return errors.New(`"ucx:" names no transport: want ucx, or ucx: and a value of UCX_TLS such as ucx:tcp`)
	case api == "ucx" || c.Provider == "socket" || c.Provider == "memcpy" || api == "fabric" && name != "":
	case !slices.Contains(fabricNames(), c.Provider):
		return fmt.Errorf("%q: want one of %s, socket, memcpy, ucx, ucx:TLS, or fabric:NAME for another of libfabric's; xferbench providers lists what this host can run",
			c.Provider, strings.Join(fabricNames(), ", "))
	default:
		return fabricOptions(new(fabricWant), c.Options)
	}
	return nil
}

// Open opens the endpoint of c.Provider on this side: "socket", "memcpy",
// "ucx" and "ucx:TLS" by name, every other as a provider of libfabric. A host
// that cannot run it gives an error that matches [ErrUnavailable]; there is no
// fallback.
func Open(ctx context.Context, c Config) (Endpoint, error) {
	if err := mem.NeedFiles(files(c)); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, c.Provider, err)
	}
	ep, err := open(ctx, c)
	return ep, shortage(err)
}

func open(ctx context.Context, c Config) (Endpoint, error) {
	switch api, _, _ := strings.Cut(c.Provider, ":"); api {
	case "socket":
		return OpenSocket(ctx, c)
	case "memcpy":
		return OpenMemcpy(ctx, c)
	case "ucx":
		return OpenUCX(ctx, c)
	}
	return OpenFabric(ctx, c)
}

// files is about how many descriptors an endpoint of c takes: UCX 1.13 and
// libfabric's sockets crash for want of one. Counted with 1 and 9 streams; what
// a process needs once is in the margin.
func files(c Config) int {
	const margin = 8
	lanes := max(c.Streams, 1) * max(c.Rails, 1)
	api, name, _ := strings.Cut(c.Provider, ":")
	switch {
	case c.Provider == "memcpy", strings.HasSuffix(c.Provider, "shm") && api != "ucx":
		return margin
	case c.Provider == "socket":
		return margin + lanes
	case api == "ucx" && name != "" && !strings.ContainsAny(name, ",^"):
		return margin + 4*lanes
	case c.Provider == "sockets":
		return margin + 14*lanes
	}
	return margin + 9*lanes
}

// shortage gives an error of the operating system its kind, ErrUnavailable, and
// the next step: what this process or host has run out of. Others stay.
func shortage(err error) error {
	var errno syscall.Errno
	for _, kind := range []error{ErrUnavailable, ErrUnsupported, ErrTooLarge} {
		if errors.Is(err, kind) {
			return err
		}
	}
	if !errors.As(err, &errno) {
		return err
	}
	if what, next := mem.Shortage(errno, 0); what != "" {
		return fmt.Errorf("%w: %w: %s; %s", ErrUnavailable, err, what, next)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
