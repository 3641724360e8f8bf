// Package efaemu gives tests an EFA network device where there is none.
//
// libfabric's own, unmodified efa provider runs on a user-space stand-in for
// its verbs device: a C library (src/) that is preloaded into the process in
// front of libibverbs and libefa. [Build] compiles it, [Setup] makes the
// scratch folder that it works in and returns the environment to start
// processes with. All processes with the environment of one Setup call are on
// one network.
//
// It emulates what the device does, not how fast: no figure measured on it says
// anything about EFA. Its firmware version, [FirmwareVersion], tells it from a
// real device. README.md describes the knobs and what is not emulated.
package efaemu

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strconv"
)

// FirmwareVersion is what the emulated device reports as its firmware
// (fi_info->nic->device_attr->firmware); no real device has it.
const FirmwareVersion = "0.0.0.0"

// A Profile is a generation of the device.
type Profile string

// The generations, named by an instance type that has them.
const (
	P5  Profile = "p5"  // device 0xefa2: RDMA read and write, unsolicited write-receive
	P4d Profile = "p4d" // device 0xefa1: RDMA read only
	G5  Profile = "g5"  // device 0xefa0: no RDMA
)

// partID returns the PCI device id.
func (p Profile) partID() (uint32, error) {
	switch p {
	case P5:
		return 0xefa2, nil
	case P4d:
		return 0xefa1, nil
	case G5:
		return 0xefa0, nil
	}
	return 0, fmt.Errorf("efaemu: profile %q: want %q, %q or %q", p, P5, P4d, G5)
}

// MaxDevices is how many devices can be emulated.
const MaxDevices = 16

// AllDevices as [Options.FailDevice] makes every device fail.
const AllDevices = -1

// Options are the emulator's knobs. The zero value of each is the device as it
// should be.
type Options struct {
	// Library is the path of the compiled emulator, as [Build] returns it. If
	// it is empty, Setup compiles it.
	Library string
	// Profile is the device's generation; empty means [P5].
	Profile Profile
	// Devices is how many there are; 0 means 1.
	Devices int
	// SendQueue is the depth of a send queue in work requests, 2 to 4096; 0
	// means 4096. A small one makes libfabric answer -FI_EAGAIN in bursts.
	SendQueue int
	// Shuffle, if not 0, seeds a generator by which work is carried out,
	// lands, arrives and completes in random order.
	Shuffle uint64
	// MaxRDMASize is the longest RDMA read or write in bytes; 0 means the
	// profile's (1 GiB).
	MaxRDMASize int
	// RNREvery makes every n-th send find no receive posted.
	RNREvery int
	// FailAfter is the number of operations of one process after which a
	// device fails: all later ones complete in error.
	FailAfter int
	// FailDevice is the index of the device that FailAfter is about, or
	// [AllDevices].
	FailDevice int
	// FailStatus is the device's status word for those completions (1 to 15,
	// enum emu_status in src/emu.h); 0 means 13, unresponsive remote.
	FailStatus int
	// SameHost gives all processes one host's address, so that libfabric
	// treats them as local peers and uses shared memory instead of the device,
	// as it does on real instances.
	SameHost bool
	// Debug prints each failed operation on stderr.
	Debug bool
}

// Setup makes the emulator's scratch folder dir, which must not exist or be
// empty, and returns the variables (NAME=value) to add to the environment of
// each process that is to see the devices. The processes keep all their state
// in dir; remove it after the last one has ended.
//
// libfabric reads the device's PCI address and driver from the sysfs tree in
// dir (SYSFS_PATH). Whoever reads device attributes or hw_counters under
// /sys/class/infiniband must look in $SYSFS_PATH/class/infiniband, too.
func Setup(dir string, opt Options) (env []string, err error) {
	if opt.Profile == "" {
		opt.Profile = P5
	}
	if opt.Devices == 0 {
		opt.Devices = 1
	}
	if err := opt.check(); err != nil {
		return nil, err
	}
	if opt.Library == "" {
		if opt.Library, err = compile(); err != nil {
			return nil, err
		}
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("efaemu: %w", err)
	}
	if len(dir) > maxDir {
		return nil, fmt.Errorf("efaemu: folder %s: longer than the %d bytes that libibverbs has room for", dir, maxDir)
	}
	sysfs, shared := filepath.Join(dir, "sys"), filepath.Join(dir, "net")
	if err := os.MkdirAll(shared, 0o700); err != nil {
		return nil, fmt.Errorf("efaemu: %w", err)
	}
	if err := writeSysfs(sysfs, opt); err != nil {
		return nil, fmt.Errorf("efaemu: scratch sysfs tree: %w", err)
	}
	return append(opt.environment(sysfs, shared), fmt.Sprintf("XFERBENCH_EFAEMU_NETWORK=%d", networkID(dir))), nil
}

// networkID numbers the network in dir, 1 to 65535: it is part of each device's
// address, so that the devices of two scratch folders have different ones.
func networkID(dir string) uint16 {
	h := fnv.New32a()
	h.Write([]byte(dir))
	sum := h.Sum32()
	return max(uint16(sum>>16)^uint16(sum), 1)
}

// CleanUp removes what killed processes on the network of dir left outside of
// it. The emulator leaves nothing; but libfabric 1.17's efa provider keeps a
// shared-memory file for each endpoint that it has not closed.
func CleanUp(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("efaemu: %w", err)
	}
	left, err := filepath.Glob(fmt.Sprintf("/dev/shm/fe80::efa0:*:%x:*", networkID(dir)))
	if err != nil {
		return fmt.Errorf("efaemu: %w", err)
	}
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// maxDir leaves room for the rest of the path in the 256 bytes of
// ibv_device.ibdev_path; src/device.c has the same limit for the tree.
const maxDir = 190

func (o Options) check() error {
	if _, err := o.Profile.partID(); err != nil {
		return err
	}
	var errs []error
	within := func(name string, value, low, high int) {
		if value < low || value > high {
			errs = append(errs, fmt.Errorf("efaemu: %s is %d, want %d to %d", name, value, low, high))
		}
	}
	within("Devices", o.Devices, 1, MaxDevices)
	if o.SendQueue != 0 {
		within("SendQueue", o.SendQueue, 2, 4096)
	}
	within("MaxRDMASize", o.MaxRDMASize, 0, 1<<30)
	within("RNREvery", o.RNREvery, 0, 1<<30)
	within("FailAfter", o.FailAfter, 0, 1<<30)
	within("FailDevice", o.FailDevice, AllDevices, o.Devices-1)
	within("FailStatus", o.FailStatus, 0, 15)
	return errors.Join(errs...)
}

func (o Options) environment(sysfs, shared string) []string {
	env := []string{
		"LD_PRELOAD=" + o.Library,
		"SYSFS_PATH=" + sysfs,
		"XFERBENCH_EFAEMU_DIR=" + shared,
		"XFERBENCH_EFAEMU_PROFILE=" + string(o.Profile),
		"XFERBENCH_EFAEMU_DEVICES=" + strconv.Itoa(o.Devices),
		// libfabric >= 2.3 writes to the device's queues itself unless told
		// not to; there are none in memory here.
		"FI_EFA_USE_DATA_PATH_DIRECT=0",
	}
	set := func(name string, value uint64) {
		if value != 0 {
			env = append(env, "XFERBENCH_EFAEMU_"+name+"="+strconv.FormatUint(value, 10))
		}
	}
	set("SQ_DEPTH", uint64(o.SendQueue))
	set("SHUFFLE", o.Shuffle)
	set("MAX_RDMA_SIZE", uint64(o.MaxRDMASize))
	set("RNR_EVERY", uint64(o.RNREvery))
	set("FAIL_AFTER", uint64(o.FailAfter))
	set("FAIL_STATUS", uint64(o.FailStatus))
	if o.FailAfter != 0 && o.FailDevice != AllDevices {
		env = append(env, "XFERBENCH_EFAEMU_FAIL_DEVICE="+strconv.Itoa(o.FailDevice))
	}
	if o.SameHost {
		set("HOST", 1)
	} else {
		// No shared memory: nothing of a killed process stays in /dev/shm.
		env = append(env, "FI_EFA_ENABLE_SHM_TRANSFER=0")
	}
	if o.Debug {
		set("DEBUG", 1)
	}
	return env
}
