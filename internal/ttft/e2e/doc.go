// Package e2e holds the tests of `xferbench ttft` and `xferbench proxy` against
// real vLLM engines. They have the build tag e2e and need what
// scripts/e2e/setup.sh installs: run them with `make e2e` (docs/e2e.md).
package e2e
