package xfer

import (
	"context"
	"strings"
)

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
