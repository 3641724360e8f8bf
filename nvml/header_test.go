//go:build gonvml

package nvml

// The tests take nvml.h out of this module. No build sets the tag; the import
// keeps the module in go.mod, at a version.
import _ "github.com/NVIDIA/go-nvml/pkg/nvml"
