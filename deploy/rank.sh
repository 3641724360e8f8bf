#!/usr/bin/env bash
# One rank of two, started by srun or mpirun: rank 1 serves, rank 0 measures
# against it. The flags are those of xferbench:
#
#   rank.sh --provider efa --size 438MB
#
# The ranks meet in XFERBENCH_JOB, a folder on a file system that both hosts
# see, which holds the file "secret" (deploy/slurm, deploy/mpi make it).
set -euo pipefail

job=${XFERBENCH_JOB:?names the shared folder of this job; see deploy/slurm or deploy/mpi}
rank=${SLURM_PROCID:-${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-}}}
xferbench=${XFERBENCH:-xferbench}
# The address of the control channel; with port 0 the system chooses one.
listen=${XFERBENCH_LISTEN:-0.0.0.0:0}

# servedAt prints where rank 1 serves, once it has said so: the last word of
# the line that serve prints for the other side, read only when it is whole.
servedAt() {
	local line
	while IFS= read -r line; do
		[[ $line != xferbench\ * ]] || echo "${line##* }"
	done <"$job/serve.out"
}

case $rank in
1)
	# What started the ranks ends this one when rank 0 fails before it connects.
	exec "$xferbench" serve --once --secret-file "$job/secret" --listen "$listen" >"$job/serve.out"
	;;
0)
	deadline=$((SECONDS + 120))
	until [[ -f $job/serve.out ]] && peer=$(servedAt) && [[ -n $peer ]]; do
		if ((SECONDS >= deadline)); then
			echo "rank.sh: rank 1 has not said within 120 s where it serves; is $job on a file system that both hosts see?" >&2
			exit 3
		fi
		sleep 0.2
	done
	exec "$xferbench" --secret-file "$job/secret" "$@" "$peer"
	;;
*)
	echo "rank.sh: rank '$rank' is neither 0 nor 1; start it through srun or mpirun with two ranks, one a host" >&2
	exit 2
	;;
esac
