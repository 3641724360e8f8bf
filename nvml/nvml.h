/* NVML's functions, found at run time, and the few structures that they fill:
 * the ABI of libnvidia-ml.so.1 since driver 450. */
#ifndef XB_NVML_H
#define XB_NVML_H

#include <stdint.h>

struct xb_nvml {
	void *init, *shutdown, *error_string;
	void *driver_version, *nvml_version, *cuda_version;
	void *count, *handle, *name, *uuid, *pci, *memory;
	/* These may be missing. */
	void *compute, *max_clock, *pcie_gen, *pcie_width, *pcie_max_gen, *pcie_max_width;
	void *link_state, *link_version, *link_remote;
};

/* nvmlPciInfo_t */
struct xb_nvml_pci {
	char legacy[16];
	unsigned domain, bus, device, id, subsystem;
	char bus_id[32];
};

/* nvmlMemory_t */
struct xb_nvml_memory {
	unsigned long long total, free, used;
};

enum { XB_NVML_LINKS = 36 }; /* NVML_NVLINK_MAX_LINKS */

struct xb_nvml_gpu {
	char name[96], uuid[96];
	struct xb_nvml_pci pci;
	unsigned long long memory;
	int major, minor;
	unsigned gen, width, max_gen, max_width, max_sm_clock;
	unsigned link_up[XB_NVML_LINKS], link_version[XB_NVML_LINKS];
	struct xb_nvml_pci link_remote[XB_NVML_LINKS];
};

/* Each returns nvmlReturn_t and the name of the call that gave it. */
int xb_nvml_init(const struct xb_nvml *n, const char **call);
int xb_nvml_close(const struct xb_nvml *n, const char **call);
int xb_nvml_system(const struct xb_nvml *n, char driver[80], char library[80], int *cuda, const char **call);
int xb_nvml_count(const struct xb_nvml *n, unsigned *count, const char **call);
int xb_nvml_gpu(const struct xb_nvml *n, unsigned index, struct xb_nvml_gpu *out, const char **call);
const char *xb_nvml_words(const struct xb_nvml *n, int code);

#endif
