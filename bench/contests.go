package main

import (
	"context"
	"fmt"
	"strconv"
)

// window is how many operations both tools keep in flight where rates are
// compared.
const window = 64

// contests lists the rows. Goals are those that the project holds itself to.
func contests(bin string) []contest {
	cs := []contest{{
		name: "socket, 1 stream", peer: "iperf3", unit: "GB/s", higher: true, goal: 0.95,
		ours:   rate(bin, "-p", "socket", "--op", "write", "--size", "256MiB", "--shape", "contiguous", "--iterations", "20"),
		theirs: iperf3(1),
	}}
	for _, op := range []struct{ ours, theirs string }{{"read", "ucp_get"}, {"write", "ucp_put_bw"}} {
		for _, s := range []struct {
			name              string
			size, n, in, reps int
		}{{"16 KiB", 16 << 10, 4096, window, 8}, {"1 MiB", 1 << 20, 256, window, 8}, {"64 MiB", 64 << 20, 4, 1, 8}} {
			cs = append(cs, contest{
				name: fmt.Sprintf("ucx:tcp %s, %s", op.ours, s.name), peer: op.theirs, unit: "GB/s", higher: true, goal: 1,
				ours: rate(bin, "-p", "ucx:tcp", "--op", op.ours, "--size", strconv.Itoa(s.size*s.n), "--shape", "contiguous",
					"--chunk", strconv.Itoa(s.size), "--depth", strconv.Itoa(s.in), "--iterations", strconv.Itoa(s.reps)),
				theirs: ucxRate("tcp", op.theirs, s.size, s.n*s.reps, s.in),
			})
		}
	}
	cs = append(cs, contest{
		name: "ucx:tcp read, 8 B latency", peer: "ucp_get", unit: "µs", goal: 1.05,
		ours:   latency(bin, "-p", "ucx:tcp", "--op", "read", "--size", "8", "--shape", "contiguous", "--iterations", "20000"),
		theirs: ucxLatency("tcp", "ucp_get", 8, 20000),
	}, contest{
		name: "tcp send and ack, 64 B", peer: "fi_pingpong x 2", unit: "µs", goal: 1,
		ours:   latency(bin, "-p", "tcp", "--op", "send", "--size", "64", "--shape", "contiguous", "--iterations", "20000"),
		theirs: twice(pingpong("net", 64, 20000)),
	}, contest{
		name: "tcp write, 1 MiB", peer: "fi_pingpong", unit: "µs", goal: 1,
		ours:   latency(bin, "-p", "tcp", "--op", "write", "--size", "1MiB", "--shape", "contiguous", "--iterations", "2000"),
		theirs: pingpong("net", 1<<20, 2000),
	}, contest{
		name: "tcp read, 1 MiB", peer: "fi_pingpong", unit: "µs", goal: 1,
		ours:   latency(bin, "-p", "tcp", "--op", "read", "--size", "1MiB", "--shape", "contiguous", "--iterations", "2000"),
		theirs: pingpong("net", 1<<20, 2000),
	})
	// fabtests' fi_rma_bw does this work and is not packaged; the rows stand
	// beside iperf3, which moves bytes over the same loopback.
	for _, op := range []string{"write", "read"} {
		for _, s := range []struct {
			name    string
			size, n int
		}{{"16 KiB", 16 << 10, 4096}, {"1 MiB", 1 << 20, 256}} {
			cs = append(cs, contest{
				name: fmt.Sprintf("tcp %s, window of 64 x %s", op, s.name), peer: "iperf3", unit: "GB/s", higher: true,
				ours: rate(bin, "-p", "tcp", "--op", op, "--size", strconv.Itoa(s.size*s.n), "--shape", "contiguous",
					"--chunk", strconv.Itoa(s.size), "--depth", strconv.Itoa(window), "--iterations", "10"),
				theirs: iperf3(1),
			})
		}
	}
	return cs
}

// twice turns half a round trip into a whole one.
func twice(f func(context.Context) (float64, error)) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		x, err := f(ctx)
		return 2 * x, err
	}
}
