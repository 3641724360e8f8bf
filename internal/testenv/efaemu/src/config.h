/* The emulator's settings, read once from the environment. README.md documents each variable. */
#ifndef EFAEMU_CONFIG_H
#define EFAEMU_CONFIG_H

#include <limits.h>

#include "emu.h"

enum {
	EMU_MAX_DEVICES = 16,
	EMU_MAX_HOST = 0x7fff, /* that can be configured; processes count on from there */
};

/* What one generation of the device can do. */
struct emu_profile {
	const char *name;
	uint32_t part_id;
	uint32_t caps;          /* enum emu_device_cap */
	uint32_t max_rdma_size; /* bytes, 0 without RDMA */
};

struct emu_config {
	const struct emu_profile *profile;
	char dir[PATH_MAX];     /* the shared folder: registry and packet sockets */
	char sysfs[PATH_MAX];   /* the scratch sysfs tree */
	uint32_t devices;
	uint32_t sq_depth;      /* work requests of a send queue */
	uint32_t max_rdma_size; /* bytes */
	uint32_t network;       /* tells this scratch folder's addresses from those of others */
	uint32_t host;          /* fixed host number, 0: one of its own for each process */
	uint64_t shuffle;       /* seed, 0: everything in posted order */
	uint64_t rnr_every;     /* every n-th send finds no receive, 0: never */
	uint64_t fail_after;    /* operations that a device completes before it fails, 0: never */
	uint32_t fail_device;   /* which device fails; EMU_MAX_DEVICES: all */
	enum emu_status fail_status;
	bool debug;
};

/* emu_config returns the settings, or NULL if the environment does not configure a device; the reason is printed
 * once. The result is valid for the life of the process. */
const struct emu_config *emu_config(void);

#endif
