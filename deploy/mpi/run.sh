#!/usr/bin/env bash
# Starts the two sides of a measurement through Open MPI's mpirun; MPI itself
# carries none of the data.
#
#   deploy/mpi/run.sh node1,node2 --provider efa --size 438MB
#
# Run it in a folder on a file system that both hosts see, with xferbench on
# their PATH (or XFERBENCH=/path/to/it). node1 measures, node2 serves.
set -euo pipefail

(($# > 0)) || {
	echo "usage: deploy/mpi/run.sh HOST,HOST [xferbench flags]" >&2
	exit 2
}
hosts=$1
shift
(($# > 0)) || set -- --provider efa --size 438MB
deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

umask 077
XFERBENCH_JOB=$(mktemp -d "$PWD/xferbench.XXXXXX")
export XFERBENCH_JOB
trap 'rm -rf "$XFERBENCH_JOB"' EXIT
head -c 32 /dev/urandom | base64 >"$XFERBENCH_JOB/secret"

# MPIRUN_FLAGS is for what a site needs, such as --allow-run-as-root.
# shellcheck disable=SC2086 # a list of flags
mpirun ${MPIRUN_FLAGS:-} --host "$hosts" -np 2 --map-by ppr:1:node \
	-x XFERBENCH_JOB -x XFERBENCH -x XFERBENCH_LISTEN bash "$deploy/rank.sh" "$@"
