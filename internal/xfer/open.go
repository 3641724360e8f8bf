package xfer

import (
	"context"
	"fmt"
	"strings"
)

// openers are the APIs that are not libfabric, by the word before a colon in
// the provider's name. Every other provider is libfabric's.
var openers = map[string]func(context.Context, Config) (Endpoint, error){}

// Open opens the endpoint of c.Provider on this side. A host that cannot run
// it gives an error that matches [ErrUnavailable]; there is no fallback.
func Open(ctx context.Context, c Config) (Endpoint, error) {
	api, _, _ := strings.Cut(c.Provider, ":")
	if open := openers[api]; open != nil {
		return open(ctx, c)
	}
	return nil, fmt.Errorf("provider %q: %w", c.Provider, ErrUnavailable)
}
