package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/remote"
	"github.com/xferbench/xferbench/internal/transport"
)

// Task is the name of a worker's task: to serve one session, here or behind
// ssh.
const Task = "peer"

// task is what such a worker is told.
type task struct {
	// Listen is the address of its control channel: host:port.
	Listen string `json:"listen"`
	Libraries
	MaxMemory uint64   `json:"max_memory,omitempty"` // bytes; 0: no limit
	Bind      []string `json:"bind,omitempty"`
	// Confine is for the process of a session of another's serve; "": of the
	// user who started it.
	Confine  Confinement `json:"confine,omitempty"`
	Confined bool        `json:"confined,omitempty"` // it has become what it is to be
}

// listenSSH is the address that an ssh session came in on, with any port.
const listenSSH = "ssh:0"

// Listen opens a control channel's listener. Port 0 is any port, and the host
// "ssh" the address at which sshd took this session.
func Listen(where string) (net.Listener, error) {
	name, port, err := net.SplitHostPort(where)
	if err != nil {
		return nil, fmt.Errorf("%q: want host:port", where)
	}
	if name == "ssh" {
		// SSH_CONNECTION is client address, client port, server address, server port.
		c := strings.Fields(os.Getenv("SSH_CONNECTION"))
		if len(c) != 4 {
			return nil, fmt.Errorf("%s: this is no ssh session (SSH_CONNECTION is not set)", where)
		}
		name = c[2]
	}
	return net.Listen("tcp", net.JoinHostPort(name, port))
}

// Work is a worker's [Task].
func Work(ctx context.Context, spec json.RawMessage, tell func(any) error) error {
	var t task
	if err := json.Unmarshal(spec, &t); err != nil {
		return fmt.Errorf("the request: %w", err)
	}
	switch {
	case t.Confine != "" && !t.Confined:
		return becomeSession(t)
	case t.Confine != "":
		if err := confineSession(t.Confine); err != nil {
			return err
		}
	}
	secret, err := NewSecret()
	if err != nil {
		return err
	}
	l, err := Listen(t.Listen)
	if err != nil {
		return err
	}
	s := &Server{Secret: secret, MaxSessions: 1, MaxMemory: t.MaxMemory, Bind: t.Bind, Libfabric: t.Fabric, Libucp: t.UCP,
		// The initiator is who started this process.
		Trusted: t.Confine == ""}
	if err := tell(Line(l.Addr().String(), secret)); err != nil {
		return errors.Join(err, l.Close())
	}
	return s.Serve(ctx, l)
}

// becomeSession gives up what the process of a session does not need, and starts
// again with the rest of its task. It returns only an error.
func becomeSession(t task) error {
	t.Confined = true
	r, err := remote.NewRequest(Task, t)
	if err != nil {
		return err
	}
	line, err := r.Line()
	if err != nil {
		return err
	}
	return becomeConfined(t.Confine, []string{"xferbench", remote.WorkerCommand}, line, t.Fabric, t.UCP)
}

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
// for [Dial].
func startWorker(ctx context.Context, timeout time.Duration, t task) (*worker, error) {
	child, err := startLocal(ctx, timeout, sessionEnvironment(os.Environ()), t)
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
	if err != nil || w.child.Wait() != nil {
		return errors.Join(err, fmt.Errorf("its last words: %s", w.child.Words()))
	}
	return nil
}
