#!/usr/bin/env bash
# Prints the folder for what is fetched once and kept between checkouts:
# XFERBENCH_CACHE, or xferbench/ in the user's cache folder.
set -euo pipefail
echo "${XFERBENCH_CACHE:-${XDG_CACHE_HOME:-${HOME:?scripts/cache.sh: HOME is not set}/.cache}/xferbench}"
