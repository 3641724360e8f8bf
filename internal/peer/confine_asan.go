//go:build asan

package peer

// leakChecked: the address sanitizer looks for leaks, at the process's end and
// by ptrace.
const leakChecked = true
