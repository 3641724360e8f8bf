package main

import (
	"context"
	"fmt"
	"strconv"
)

const (
	// window is how many operations both tools keep in flight where rates are
	// compared.
	window = 64
	kib    = 1 << 10
	mib    = 1 << 20
)

var (
	atLeast = func(x float64) bound { return bound{x, true} }
	atMost  = func(x float64) bound { return bound{x, false} }
)

// rows lists the table. Goals are those that the project holds itself to.
func rows(bin string) []row {
	var out []row
	for _, list := range [][]row{socketRows(bin), ucxRows(bin), fabricRows(bin), isolationRows(bin), tuneRows(bin), ownRows(bin)} {
		out = append(out, list...)
	}
	return out
}

// same makes xferbench do what iperf3 and ucx_perftest do: every operation over
// the same size bytes of memory on each side, n of them a transfer, and in the
// host's network as they do.
func same(provider, op string, size, n, depth, transfers int) []string {
	return []string{"-p", provider, "--op", op, "--reuse", "--no-namespace", "--shape", "contiguous", "--size", strconv.Itoa(size * n),
		"--chunk", strconv.Itoa(size), "--depth", strconv.Itoa(depth), "--iterations", strconv.Itoa(transfers)}
}

// distinct is the same with memory of its own for each operation.
func distinct(provider, op string, size, n, depth, transfers int) []string {
	args := same(provider, op, size, n, depth, transfers)
	return append(args[:4:4], args[5:]...)
}

func socketRows(bin string) []row {
	return []row{
		contest{work: "socket, 1 stream, one 128 KiB buffer", peer: "iperf3", unit: "GB/s", goal: atLeast(0.95),
			ours: rate(bin, same("socket", "write", 128*kib, 2048, 1, 20)...), theirs: iperf3(1)},
		contest{work: "socket, 1 stream, 256 MiB of memory", peer: "iperf3", unit: "GB/s",
			ours: rate(bin, distinct("socket", "write", 256*mib, 1, 1, 10)...), theirs: iperf3(1)},
	}
}

func ucxRows(bin string) (out []row) {
	// ucx_perftest flushes once, at its end; a transfer here is only over when
	// it is flushed, which takes as long as full socket buffers take to drain: a
	// single long transfer does so as rarely. Both have moved one transfer's bytes
	// before, which is what the sockets' buffers grow with.
	for _, op := range []struct{ ours, theirs string }{{"read", "ucp_get"}, {"write", "ucp_put_bw"}} {
		for _, s := range []struct {
			name                   string
			size, n, in, transfers int
		}{{"16 KiB", 16 * kib, 32768, window, 1}, {"1 MiB", mib, 256, window, 2}, {"64 MiB", 64 * mib, 1, 1, 8}} {
			out = append(out, contest{
				work: fmt.Sprintf("ucx:tcp %s, %s, %d in flight", op.ours, s.name, s.in), peer: op.theirs, unit: "GB/s", goal: atLeast(1),
				ours:   rate(bin, same("ucx:tcp", op.ours, s.size, s.n, s.in, s.transfers)...),
				theirs: ucxRate("tcp", op.theirs, s.size, s.n*s.transfers, s.n, s.in),
			})
		}
	}
	const n = 4000
	return append(out,
		contest{work: "ucx:tcp read, 8 B latency", peer: "ucp_get", unit: "µs", goal: atMost(1.05),
			ours: latency(bin, same("ucx:tcp", "read", 8, 1, 1, n)...), theirs: ucxLatency("tcp", "ucp_get", 8, n)},
		contest{work: "ucx:tcp write and flush, 8 B latency", peer: "ucp_put_lat x 2", unit: "µs", goal: atMost(1.05),
			ours: latency(bin, same("ucx:tcp", "write", 8, 1, 1, n)...), theirs: sum(ucxLatency("tcp", "ucp_put_lat", 8, n), 2, nil),
			note: "ucp_put_lat is half of a put there and one back; a flushed write is a put and its acknowledgement"})
}

func fabricRows(bin string) []row {
	small, large := pingpong("net", 64, 20000), pingpong("net", mib, 400)
	out := []row{
		contest{work: "tcp send and ack, 64 B", peer: "fi_pingpong x 2", unit: "µs", goal: atMost(1),
			ours: latency(bin, same("tcp", "send", 64, 1, 1, 20000)...), theirs: sum(small, 2, nil),
			note: "fi_pingpong's time is half a round trip; a send with its acknowledgement is a whole one"},
		contest{work: "tcp send and ack, 1 MiB", peer: "fi_pingpong + 64 B", unit: "µs", goal: atMost(1),
			ours: latency(bin, same("tcp", "send", mib, 1, 1, 400)...), theirs: sum(large, 1, small),
			note: "1 MiB there and a few bytes back: half a round trip of 1 MiB and half of one of 64 B"},
		contest{work: "tcp read, 1 MiB", peer: "fi_pingpong + 64 B", unit: "µs", goal: atMost(1),
			ours: latency(bin, same("tcp", "read", mib, 1, 1, 400)...), theirs: sum(large, 1, small)},
		contest{work: "tcp write, 1 MiB", peer: "fi_pingpong + 64 B", unit: "µs", goal: atMost(1),
			ours: latency(bin, same("tcp", "write", mib, 1, 1, 400)...), theirs: sum(large, 1, small)},
	}
	// fabtests' fi_rma_bw does this work and is not packaged; the rows stand
	// beside iperf3, which moves bytes over the same loopback.
	for _, op := range []string{"write", "read"} {
		for _, s := range []struct {
			name               string
			size, n, transfers int
		}{{"16 KiB", 16 * kib, 4096, 8}, {"1 MiB", mib, 64, 16}} {
			out = append(out, contest{
				work: fmt.Sprintf("tcp %s, %s, %d in flight", op, s.name, window), peer: "iperf3", unit: "GB/s",
				ours: rate(bin, same("tcp", op, s.size, s.n, window, s.transfers)...), theirs: iperf3(1),
			})
		}
	}
	return out
}

// isolationRows show what the namespace of a run within one host costs: the same
// run with and without it.
func isolationRows(bin string) (out []row) {
	for _, p := range []string{"tcp", "ucx:tcp", "shm", "socket"} {
		args := []string{"-p", p, "--size", strconv.Itoa(8 * mib), "--shape", "merged", "--iterations", "40"}
		out = append(out, contest{work: p + " read, 8 MiB, in a namespace", peer: "the host's network", unit: "GB/s",
			ours: rate(bin, args...), theirs: rate(bin, append(args, "--no-namespace")...)})
	}
	return out
}

// sum is a figure times a factor, and another once.
func sum(f figure, times float64, and figure) figure {
	return func(ctx context.Context) (float64, error) {
		x, err := f(ctx)
		if err != nil || and == nil {
			return times * x, err
		}
		y, err := and(ctx)
		return times*x + y, err
	}
}
