package remote

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Host is where a process runs. The zero Host is this one; any other is reached
// through the user's own ssh.
type Host struct {
	Target string // [user@]host, as the user's ssh takes it; "": this host
	Port   string // "" for ssh's own choice
	// SSH is how to start ssh, in the shell's words; "": ssh.
	SSH string
	// Ask lets ssh ask for a password: it then stays in the terminal's
	// foreground. Without, ssh asks nothing (BatchMode).
	Ask bool
	// Connect bounds how long ssh may take to connect; 0: 10 s.
	Connect time.Duration
}

// ParseHost reads ssh://[user@]host[:port]; "" and "local" are this host.
func ParseHost(s string) (Host, error) {
	if s == "" || s == "local" {
		return Host{}, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "ssh" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return Host{}, fmt.Errorf("%q: want ssh://[user@]host[:port]", s)
	}
	if _, has := u.User.Password(); has {
		return Host{}, errors.New("a password does not belong into a URL; ssh asks for it, or uses your keys")
	}
	t := u.Hostname()
	if n := u.User.Username(); n != "" {
		t = n + "@" + t
	}
	// ssh would take it for an option.
	if strings.HasPrefix(t, "-") || strings.HasPrefix(u.Hostname(), "-") {
		return Host{}, fmt.Errorf("%q: neither host nor user can begin with a dash", s)
	}
	return Host{Target: t, Port: u.Port()}, nil
}

// String is the host in an error's words.
func (h Host) String() string {
	switch {
	case h.here():
		return "this host"
	case h.Port == "":
		return h.Target
	}
	return net.JoinHostPort(h.Target, h.Port)
}

func (h Host) here() bool { return h.Target == "" }

// ssh is what hands the words to the target's login shell. A host that can be
// asked is in this process's group and deaf to Ctrl-C: this process ends it in
// order.
func (h Host) ssh(words []string) (*exec.Cmd, error) {
	command := h.SSH
	if command == "" {
		command = "ssh"
	}
	// Where the words are more than a program and its arguments, the shell says
	// what is wrong.
	if name, _, _ := strings.Cut(strings.TrimSpace(command), " "); !strings.ContainsAny(name, "=$`'\"(){}~*?;|&<>\\") {
		if _, err := exec.LookPath(name); err != nil {
			return nil, fmt.Errorf("starting ssh: %w; install an ssh client", err)
		}
	}
	script := "exec " + command + ` "$@"`
	if h.Ask {
		script = `trap "" INT; ` + script
	}
	return exec.Command("sh", append([]string{"-c", script, "ssh"}, h.arguments(words)...)...), nil
}

// arguments are those of ssh.
func (h Host) arguments(words []string) []string {
	connect := h.Connect
	if connect <= 0 {
		connect = 10 * time.Second
	}
	args := []string{"-T", "-o", "ConnectTimeout=" + strconv.Itoa(int(math.Ceil(connect.Seconds()))),
		"-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"}
	if !h.Ask {
		args = append(args, "-o", "BatchMode=yes")
	}
	if h.Port != "" {
		args = append(args, "-p", h.Port)
	}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return append(args, "--", h.Target, "exec "+strings.Join(quoted, " "))
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
