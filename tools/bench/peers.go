package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/xferbench/xferbench/internal/remote"
)

// freePort is a port that nothing listened on a moment ago.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// pair runs a server until it is ready and a client against it, and returns the
// client's output. The server ends with its one client, or is killed.
func pair(ctx context.Context, env []string, ready string, server, client []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	s, err := remote.Start(ctx, remote.Host{}, remote.Command{Argv: server, Env: env, Stream: true})
	if err != nil {
		return nil, err
	}
	defer func() {
		// A server that served ends by itself; the rest has no use for one.
		t := time.AfterFunc(2*time.Second, cancel)
		<-s.Done()
		t.Stop()
	}()
	r := bufio.NewReader(s.Stdout)
	if ready != "" {
		for line := ""; !strings.Contains(line, ready); {
			if line, err = r.ReadString('\n'); err != nil {
				return nil, fmt.Errorf("%s did not say %q: %w: %s", server[0], ready, err, s.Words())
			}
		}
	} else {
		time.Sleep(300 * time.Millisecond) // it says nothing when it is ready
	}
	go io.Copy(io.Discard, r)
	var out bytes.Buffer
	c, err := remote.Start(ctx, remote.Host{}, remote.Command{Argv: client, Env: env, Stdout: &out})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.Wait(), context.Cause(ctx)); err != nil {
		return nil, fmt.Errorf("%s: %w: %s%s", strings.Join(client, " "), err, out.Bytes(), c.Said())
	}
	return out.Bytes(), nil
}

// iperf3 is the received rate in GB/s of streams connections that send for a
// second.
func iperf3(streams int) figure {
	return func(ctx context.Context) (float64, error) {
		port, err := freePort()
		if err != nil {
			return 0, err
		}
		out, err := pair(ctx, nil, "Server listening",
			[]string{"iperf3", "-s", "-1", "-p", port, "-B", "127.0.0.1", "--forceflush"},
			[]string{"iperf3", "-c", "127.0.0.1", "-p", port, "-P", strconv.Itoa(streams), "-t", "1", "-J"})
		if err != nil {
			return 0, err
		}
		var doc struct {
			End struct {
				Received struct {
					Bits float64 `json:"bits_per_second"`
				} `json:"sum_received"`
			} `json:"end"`
		}
		if err := json.Unmarshal(out, &doc); err != nil {
			return 0, err
		}
		if doc.End.Received.Bits == 0 {
			return 0, errors.New("iperf3 received nothing")
		}
		return doc.End.Received.Bits / 8e9, nil
	}
}

// perftest is one run of ucx_perftest, after a warm-up that it leaves out: mean
// latency in µs and rate in GB/s, both over the whole test with its final flush.
// Its MB are 2^20.
func perftest(tls, test string, size, iters, warm, outstanding int) func(context.Context) (us, gbs float64, err error) {
	return func(ctx context.Context) (float64, float64, error) {
		port, err := freePort()
		if err != nil {
			return 0, 0, err
		}
		env := []string{"UCX_TLS=" + tls, "UCX_NET_DEVICES=lo"}
		out, err := pair(ctx, env, "", []string{"ucx_perftest", "-p", port},
			[]string{"ucx_perftest", "127.0.0.1", "-p", port, "-t", test, "-s", strconv.Itoa(size), "-n", strconv.Itoa(iters),
				"-w", strconv.Itoa(warm), "-O", strconv.Itoa(outstanding), "-f", "-v"})
		if err != nil {
			return 0, 0, err
		}
		// iterations,50.0_percentile_lat,avg_lat,overall_lat,avg_bw,overall_bw,avg_mr,overall_mr
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		f := strings.Split(lines[len(lines)-1], ",")
		if len(f) < 6 {
			return 0, 0, fmt.Errorf("ucx_perftest said %q", out)
		}
		us, err1 := strconv.ParseFloat(f[3], 64)
		mib, err2 := strconv.ParseFloat(f[5], 64)
		return us, mib * (1 << 20) / 1e9, errors.Join(err1, err2)
	}
}

func ucxRate(tls, test string, size, iters, warm, outstanding int) figure {
	f := perftest(tls, test, size, iters, warm, outstanding)
	return func(ctx context.Context) (float64, error) { _, r, err := f(ctx); return r, err }
}

func ucxLatency(tls, test string, size, iters int) figure {
	f := perftest(tls, test, size, iters, iters/10, 1)
	return func(ctx context.Context) (float64, error) { us, _, err := f(ctx); return us, err }
}

// pingpong is the time in µs of half a round trip of fi_pingpong.
func pingpong(provider string, size, iters int) figure {
	return func(ctx context.Context) (float64, error) {
		port, err := freePort()
		if err != nil {
			return 0, err
		}
		common := []string{"-p", provider, "-e", "rdm", "-I", strconv.Itoa(iters), "-S", strconv.Itoa(size)}
		out, err := pair(ctx, []string{"FI_TCP_IFACE=lo"}, "",
			append([]string{"fi_pingpong", "-B", port}, common...),
			append(append([]string{"fi_pingpong", "-P", port}, common...), "127.0.0.1"))
		if err != nil {
			return 0, err
		}
		// bytes #sent #ack total time MB/sec usec/xfer Mxfers/sec
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		f := strings.Fields(lines[len(lines)-1])
		if len(f) != 8 {
			return 0, fmt.Errorf("fi_pingpong said %q", out)
		}
		return strconv.ParseFloat(f[6], 64)
	}
}
