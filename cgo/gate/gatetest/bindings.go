// Package gatetest calls what a library would, for the tests of package gate, which
// cannot use cgo themselves.
package gatetest

/*
#include <netinet/in.h>
#include <sys/shm.h>
#include <sys/socket.h>
*/
import "C"

import (
	"fmt"
	"unsafe"
)

// Listen makes fd a listening socket.
func Listen(fd int) error {
	if rc, err := C.listen(C.int(fd), 16); rc != 0 {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// Bind binds fd to port 0 of 127.0.0.1.
func Bind(fd int) error {
	a := C.struct_sockaddr_in{sin_family: C.AF_INET}
	*(*[4]byte)(unsafe.Pointer(&a.sin_addr)) = [4]byte{127, 0, 0, 1}
	if rc, err := C.bind(C.int(fd), (*C.struct_sockaddr)(unsafe.Pointer(&a)), C.sizeof_struct_sockaddr_in); rc != 0 {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// Segment makes a System V segment of mode, reads its mode back and removes it.
func Segment(mode int) (int, error) {
	id, err := C.shmget(C.IPC_PRIVATE, 4096, C.int(C.IPC_CREAT|mode))
	if id < 0 {
		return 0, fmt.Errorf("shmget: %w", err)
	}
	var d C.struct_shmid_ds
	rc, err := C.shmctl(id, C.IPC_STAT, &d)
	if rc2, err := C.shmctl(id, C.IPC_RMID, nil); rc2 < 0 {
		return 0, fmt.Errorf("shmctl: %w", err)
	}
	if rc < 0 {
		return 0, fmt.Errorf("shmctl: %w", err)
	}
	return int(d.shm_perm.mode & 0o777), nil
}
