package transport

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/xferbench/xferbench/cgo/loop"
	"github.com/xferbench/xferbench/internal/fault"
	"github.com/xferbench/xferbench/internal/kv"
)

// What a transport, a plan and a batch may ask for. They hold for a command
// line and, through [Served], for what comes over the control channel.
const (
	// MaxLanes bounds streams × rails: each has a thread and queues of its own.
	MaxLanes = 1024
	// MaxDepth bounds the operations in flight of a lane, maxInFlight those of
	// all lanes: a library keeps a request for each.
	MaxDepth    = 1 << 16
	maxInFlight = 1 << 22
	// MaxIterations bounds the transfers of a batch.
	MaxIterations = 1 << 16
	// MaxPieces bounds the operations of a transfer, 24 bytes each.
	MaxPieces = 1 << 24
	// MinTimeout and MaxTimeout bound a wait without progress.
	MinTimeout, MaxTimeout = 100 * time.Millisecond, time.Hour

	maxChunk    = 1 << 40 // bytes
	maxDevice   = 1023    // CUDA ordinal
	maxBind     = 64
	maxOptions  = 64
	maxProvider = 256 // bytes of a name, of an option's key and of its value
)

// ErrRefused is matched by the errors of a request that a side does not take,
// whatever its host has.
var ErrRefused = fault.New(fault.Usage, "refused")

// ErrGone is matched by the errors of a request for what is not there any more.
var ErrGone = errors.New("gone")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

// checkLimits holds c to the limits above. Zero values mean the provider's best.
func checkLimits(c Config) error {
	switch {
	case len(c.Provider) > maxProvider:
		return fmt.Errorf("a name of %d bytes; it may have %d", len(c.Provider), maxProvider)
	case c.Role != Initiator && c.Role != Target:
		return fmt.Errorf("role %d: want %d or %d", c.Role, Initiator, Target)
	case c.Poll != loop.Spin && c.Poll != loop.Yield:
		return fmt.Errorf("poll %d: want %d or %d", c.Poll, loop.Spin, loop.Yield)
	case c.Timeout != 0 && (c.Timeout < MinTimeout || c.Timeout > MaxTimeout):
		return fmt.Errorf("timeout %v: want %v to %v", c.Timeout, MinTimeout, MaxTimeout)
	case c.Device < -1 || c.Device > maxDevice:
		return fmt.Errorf("device %d: want -1 to %d", c.Device, maxDevice)
	}
	return cmp.Or(checkLanes(c), checkAddresses("local addresses", c.Bind, maxBind),
		checkAddresses("addresses of the peer", c.Peers, maxPeers), checkOptions(c))
}

func checkLanes(c Config) error {
	lanes := max(c.Streams, 1) * max(c.Rails, 1)
	switch {
	case c.Streams < 0 || c.Rails < 0 || c.Streams > MaxLanes || c.Rails > MaxLanes || lanes > MaxLanes:
		return fmt.Errorf("%d streams on each of %d rails: want at most %d lanes in all", cmp.Or(c.Streams, 1), cmp.Or(c.Rails, 1), MaxLanes)
	case c.Depth < 0 || c.Depth > MaxDepth || c.Depth*lanes > maxInFlight:
		return fmt.Errorf("depth %d of %d lanes: want at most %d for one and %d for all", c.Depth, lanes, MaxDepth, maxInFlight)
	case c.Chunk > maxChunk:
		return fmt.Errorf("chunk %d: want at most %d bytes", c.Chunk, uint64(maxChunk))
	}
	return nil
}

func checkOptions(c Config) error {
	if len(c.Options) > maxOptions {
		return fmt.Errorf("%d options: want at most %d", len(c.Options), maxOptions)
	}
	for k, v := range c.Options {
		if len(k) > maxProvider || len(v) > maxProvider {
			return fmt.Errorf("option %.40q: key and value may have %d bytes each", k, maxProvider)
		}
	}
	for i, op := range c.Ops {
		if !knownOp(op) || slices.Contains(c.Ops[:i], op) {
			return fmt.Errorf("operation %v: want read, write and send, each once at most", op)
		}
	}
	return nil
}

func checkAddresses(what string, addresses []string, most int) error {
	if len(addresses) > most {
		return fmt.Errorf("%d %s: want at most %d", len(addresses), what, most)
	}
	if slices.ContainsFunc(addresses, func(a string) bool { return net.ParseIP(a) == nil }) {
		return fmt.Errorf("%s %.100q: want IP addresses", what, strings.Join(addresses, ","))
	}
	return nil
}

func knownOp(op loop.Op) bool { return op == loop.Read || op == loop.Write || op == loop.Send }

// CheckPlan is the most operations that a transfer over lanes in pieces of at
// most chunk bytes (0: whole descriptors) can take, or the error of too many.
func CheckPlan(t *kv.Transfer, lanes int, chunk uint64) (int, error) {
	return checkPieces(uint64(t.Bytes), t.Count(), lanes, chunk)
}
