package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/xferbench/xferbench/internal/transport"
)

// Side is what an initiator works on.
type Side interface {
	transport.Peer
	Close() error
}

// worker is a side in a second process of this binary: a library that aborts
// (UCX does when a reply is due to an endpoint that has failed) takes that
// process down and not the server.
type worker struct {
	*Client
	child *Child
}

// startWorker starts the process, while ctx lasts; Close ends it. timeout is as
// for [Dial]; args are added to its serve command.
func startWorker(ctx context.Context, timeout time.Duration, args ...string) (*worker, error) {
	child, err := startLocal(ctx, timeout, sessionEnvironment(os.Environ()), args)
	if err != nil {
		return nil, err
	}
	// A session that is given up still closes its side in order.
	c, err := Dial(context.WithoutCancel(ctx), child.Address, child.Secret, timeout)
	if err != nil {
		return nil, child.abandon(err)
	}
	return &worker{c, child}, nil
}

// Close ends the process, and tells how one ended that did not end in order.
func (w *worker) Close() error {
	err := errors.Join(w.Client.Close(), w.child.Stop())
	if err != nil || w.child.err != nil {
		return errors.Join(err, fmt.Errorf("its last words: %s", w.child.Words()))
	}
	return nil
}
