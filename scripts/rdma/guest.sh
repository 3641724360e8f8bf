#!/usr/bin/env bash
# What `make test-rdma` runs in the guest: first the libraries' own programs on
# rxe0, so that a fault of the device is not taken for one of xferbench; then
# xferbench, two processes, every operation, each byte verified.
set -euo pipefail

address=192.0.2.1
# rdma_rxe allows 32,767 entries in a completion queue; ofi_rxm asks for some
# 100 for each peer that may come, 256 of them unless told otherwise.
export FI_UNIVERSE_SIZE=4
# UCX connects with datagrams, and those answer on the link-local address alone:
# from the IPv4 one its datagram transport drops what this one device sends itself.
export UCX_IB_GID_INDEX=0

step() {
	echo
	echo "guest: $*"
}

# pair runs a server and its client, the same program with more arguments, and
# needs both to succeed.
pair() {
	local arguments=$1 server status=0
	shift
	timeout 60 "$@" >/tmp/server 2>&1 &
	server=$!
	sleep 1
	# shellcheck disable=SC2086 # a list of words
	timeout 60 "$@" $arguments || status=$?
	wait "$server" || status=$?
	((status == 0)) || {
		cat /tmp/server
		echo "guest: failed with status $status: $*" >&2
		return 1
	}
}

step "verbs;ofi_rxm, libfabric's own fi_pingpong"
pair "$address" fi_pingpong -p 'verbs;ofi_rxm' -e rdm -I 10
step "rc, UCX's own ucx_perftest"
UCX_TLS=rc pair "$address -t ucp_get -s 1000000 -n 5" ucx_perftest

[[ -x /xferbench ]] || {
	echo "guest: no bin/xferbench was there to bring along; run make build first" >&2
	exit 1
}
for provider in verbs ucx:rc; do
	step "xferbench over $provider"
	record=/tmp/${provider//[^a-z]/-}.jsonl
	# The console is a terminal; through a pipe there is no progress line.
	/xferbench --provider "$provider" --op read,write,send --size 1MB --budget 10s --timeout 30s \
		--no-ceiling --record "$record" 2>&1 | cat
	for op in read write send; do
		grep -q '"type":"condition".*"op":"'"$op"'"' "$record" || {
			echo "guest: the record has no condition for $op" >&2
			exit 1
		}
	done
	grep -q '"type":"end".*"status":"ok"' "$record" || {
		echo "guest: the record does not end with status ok" >&2
		tail -n 1 "$record" >&2
		exit 1
	}
done
