#!/usr/bin/env bash
# Fetches vLLM's own P/D proxy for comparison runs and prints its path. It is a test file of vLLM, in no wheel; the
# source distribution on PyPI carries it, so pip downloads that (29 MB) and one file is taken out. Never committed.
#
#   scripts/e2e/toyproxy.sh         # needs the environment of setup.sh 0.15
#
# Run it with either environment's Python:
#   build/e2e/0.15/bin/python "$(scripts/e2e/toyproxy.sh)" --port 8192 --host 127.0.0.1 \
#       --prefiller-hosts 127.0.0.1 --prefiller-ports 8100 --decoder-hosts 127.0.0.1 --decoder-ports 8200
set -euo pipefail
cd "$(dirname "$0")/../.."
root=${XFERBENCH_E2E:-build/e2e}
root=$(cd "$root" && pwd)
# 0.15.1 has no source distribution; 0.16.0 is the next release, and the two-leg protocol did not change in it.
version=0.16.0
member=vllm-$version/tests/v1/kv_connector/nixl_integration/toy_proxy_server.py
out=$root/toyproxy
if [ ! -s "$out/toy_proxy_server.py" ]; then
	python=$root/0.15/bin/python
	[ -x "$python" ] || { echo "toyproxy.sh: no environment at $python: run scripts/e2e/setup.sh 0.15" >&2; exit 1; }
	rm -rf "$out"
	mkdir -p "$out/sdist"
	# pip reads a source distribution's metadata by running its setup.py, which imports torch and these build packages;
	# the two variables keep it from building anything and from renaming the version.
	"$root/bootstrap/bin/uv" pip install --quiet --python "$python" --target "$out/buildtools" \
		--no-deps pip setuptools_scm vcs_versioning packaging setuptools_rust semantic_version >&2
	VLLM_VERSION_OVERRIDE=$version VLLM_TARGET_DEVICE=empty PYTHONPATH=$out/buildtools timeout 600 nice -n 10 \
		"$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation \
		--dest "$out/sdist" "vllm==$version" >&2
	tar -xzf "$out/sdist/vllm-$version.tar.gz" -C "$out" --strip-components=5 "$member"
	rm -rf "$out/sdist" "$out/buildtools"
fi
echo "$out/toy_proxy_server.py"
