package launch

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// libraries are the files' names by NIXL backend.
var libraries = map[string]string{"UCX": "libucp.so", "LIBFABRIC": "libfabric.so"}

// loaded is the file of a backend's library that a process group of this host has
// mapped; "" where none has, several are, or it cannot be seen.
func loaded(group int, backend string) (path string) {
	name := libraries[backend]
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || name == "" {
		return ""
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if g, err := syscall.Getpgid(pid); err != nil || g != group {
			continue
		}
		maps, err := os.ReadFile(filepath.Join(dir, "maps"))
		if err != nil {
			continue // it has ended, or is not ours to look at
		}
		for _, file := range mapped(maps, name) {
			if path != "" && path != file {
				return ""
			}
			path = file
		}
	}
	return path
}

// mapped are the files of a library in the text of /proc/PID/maps: "libucp.so.0",
// and as wheels carry them "libucp-6a5a94c3.so.0.0.0".
func mapped(maps []byte, name string) (files []string) {
	stem, _, _ := strings.Cut(name, ".so")
	for s := bufio.NewScanner(bytes.NewReader(maps)); s.Scan(); {
		_, file, has := strings.Cut(s.Text(), "/")
		base := filepath.Base(file)
		if has && strings.Contains(base, ".so") && (strings.HasPrefix(base, name) || strings.HasPrefix(base, stem+"-")) {
			files = append(files, "/"+file)
		}
	}
	return files
}
