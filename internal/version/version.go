// Package version says which build this is.
package version

// Version and Commit are set by the linker (make build); a plain go build has
// the defaults.
var (
	Version = "0.1.0-dev"
	Commit  = "unknown"
)

// String is "VERSION (COMMIT)".
func String() string { return Version + " (" + Commit + ")" }
