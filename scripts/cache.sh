#!/usr/bin/env bash
# Prints the folder for what is fetched once and kept between checkouts:
# XFERBENCH_CACHE, or xferbench/ in the user's cache folder. A relative
# XDG_CACHE_HOME is passed over, as its specification says.
set -euo pipefail
[[ ${XDG_CACHE_HOME:-} == /* ]] || unset XDG_CACHE_HOME
echo "${XFERBENCH_CACHE:-${XDG_CACHE_HOME:-${HOME:?scripts/cache.sh: HOME is not set}/.cache}/xferbench}"
