#!/usr/bin/env bash
# Prints what CHANGELOG.md says of a release, and fails where it says nothing:
#
#   scripts/notes.sh v0.1.0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
(($# == 1)) || {
	echo "usage: scripts/notes.sh TAG" >&2
	exit 2
}
notes=$(awk -v head="## [${1#v}]" '/^## / { on = index($0, head) == 1; next } on' CHANGELOG.md)
[[ $notes == *[![:space:]]* ]] || {
	echo "notes: CHANGELOG.md has no section [${1#v}], or an empty one; move what is under Unreleased there" >&2
	exit 1
}
echo "$notes"
