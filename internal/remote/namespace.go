package remote

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes are the ways to start a process, the best first and one that
// always works last: in namespaces of its own by this process's right, or by a
// user namespace in which it stays the same user; or as it is.
func attributes(namespace bool) []*syscall.SysProcAttr {
	var out []*syscall.SysProcAttr
	if namespace {
		const own = unix.CLONE_NEWNET | unix.CLONE_NEWIPC
		uid, gid := os.Geteuid(), os.Getegid()
		if uid == 0 {
			out = append(out, &syscall.SysProcAttr{Cloneflags: own})
		}
		out = append(out, &syscall.SysProcAttr{
			Cloneflags:  own | unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
			AmbientCaps: []uintptr{unix.CAP_NET_ADMIN}, // over its own namespace, for loopbackUp
		})
	}
	return append(out, &syscall.SysProcAttr{})
}

// loopbackUp gives a new network namespace 127.0.0.1 and ::1. Wraps:
// netdevice(7), SIOCSIFFLAGS.
func loopbackUp() (err error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(s)) }()
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, r); err != nil {
		return fmt.Errorf("lo: SIOCGIFFLAGS: %w", err)
	}
	r.SetUint16(r.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("lo: SIOCSIFFLAGS: %w", err)
	}
	return nil
}
