package xfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/fabric"
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
	case !slices.Contains(fabric.ProviderNames(), c.Provider):
		return fmt.Errorf("%q: want one of %s, socket, memcpy, ucx, ucx:TLS, or fabric:NAME for another of libfabric's; xferbench providers lists what this host can run",
			c.Provider, strings.Join(fabric.ProviderNames(), ", "))
	default:
		return fabricOptions(new(fabric.Want), c.Options)
	}
	return nil
}

// Open opens the endpoint of c.Provider on this side: "socket", "memcpy",
// "ucx" and "ucx:TLS" by name, every other as a provider of libfabric. A host
// that cannot run it gives an error that matches [ErrUnavailable]; there is no
// fallback.
func Open(ctx context.Context, c Config) (Endpoint, error) {
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
