#!/usr/bin/env bash
# What `make e2e` runs, after the build: real vLLM engines on loopback, their KV
# cache moved by UCX over tcp and the proof of it (docs/e2e.md). Sets up the
# environments, which takes no time when they are there.
#
#   scripts/e2e.sh [0.15|newest]...       default: both, one after the other
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

(($#)) || set -- 0.15 newest
if [[ -n ${XFERBENCH_E2E:-} ]]; then
	mkdir -p "$XFERBENCH_E2E"
	XFERBENCH_E2E=$(cd "$XFERBENCH_E2E" && pwd)
	export XFERBENCH_E2E
fi
# The toy proxy comes with the environment of 0.15.
scripts/e2e/setup.sh 0.15
for version; do
	scripts/e2e/setup.sh "$version"
done
scripts/e2e/toyproxy.sh >/dev/null

list=$(IFS=,; echo "$*")
# Each step has its own limit; this one is longer than all of them, and six
# times what two idle cores take. One package with -v: progress shows at once.
XFERBENCH_E2E_VERSIONS=$list scripts/go test -v -count=1 -tags e2e -timeout 160m -run '^TestEngines$' ./internal/ttft/e2e
