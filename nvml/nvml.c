#include "nvml.h"

#include <string.h>

typedef void *device;

/* CALL keeps the name of the call that failed. */
#define CALL(sym, fn, type, ...) (*call = (sym), ((int(*) type)n->fn)(__VA_ARGS__))

/* TRY is for what a device or an older library may not know: its value is then
 * left as it is. */
#define TRY(fn, type, ...)                                     \
	do {                                                   \
		if (n->fn)                                     \
			(void)((int(*) type)n->fn)(__VA_ARGS__); \
	} while (0)

enum { CLOCK_SM = 1 };

int xb_nvml_init(const struct xb_nvml *n, const char **call) { return CALL("nvmlInit_v2", init, (void)); }

int xb_nvml_close(const struct xb_nvml *n, const char **call) { return CALL("nvmlShutdown", shutdown, (void)); }

const char *xb_nvml_words(const struct xb_nvml *n, int code)
{
	return ((const char *(*)(int))n->error_string)(code);
}

int xb_nvml_system(const struct xb_nvml *n, char driver[80], char library[80], int *cuda, const char **call)
{
	int rc = CALL("nvmlSystemGetDriverVersion", driver_version, (char *, unsigned), driver, 80);

	if (!rc)
		rc = CALL("nvmlSystemGetNVMLVersion", nvml_version, (char *, unsigned), library, 80);
	if (!rc)
		rc = CALL("nvmlSystemGetCudaDriverVersion_v2", cuda_version, (int *), cuda);
	return rc;
}

int xb_nvml_count(const struct xb_nvml *n, unsigned *count, const char **call)
{
	return CALL("nvmlDeviceGetCount_v2", count, (unsigned *), count);
}

static int handle(const struct xb_nvml *n, unsigned index, device *d, const char **call)
{
	return CALL("nvmlDeviceGetHandleByIndex_v2", handle, (unsigned, device *), index, d);
}

static void links(const struct xb_nvml *n, device d, struct xb_nvml_gpu *out)
{
	for (unsigned i = 0; i < XB_NVML_LINKS; i++) {
		TRY(link_state, (device, unsigned, unsigned *), d, i, &out->link_up[i]);
		if (!out->link_up[i])
			continue;
		TRY(link_version, (device, unsigned, unsigned *), d, i, &out->link_version[i]);
		TRY(link_remote, (device, unsigned, struct xb_nvml_pci *), d, i, &out->link_remote[i]);
	}
}

int xb_nvml_gpu(const struct xb_nvml *n, unsigned index, struct xb_nvml_gpu *out, const char **call)
{
	struct xb_nvml_memory memory = { 0 };
	device d;
	int rc;

	memset(out, 0, sizeof(*out));
	rc = handle(n, index, &d, call);
	if (!rc)
		rc = CALL("nvmlDeviceGetName", name, (device, char *, unsigned), d, out->name, sizeof(out->name));
	if (!rc)
		rc = CALL("nvmlDeviceGetPciInfo_v3", pci, (device, struct xb_nvml_pci *), d, &out->pci);
	if (rc)
		return rc;
	TRY(uuid, (device, char *, unsigned), d, out->uuid, sizeof(out->uuid));
	TRY(memory, (device, struct xb_nvml_memory *), d, &memory);
	out->memory = memory.total;
	TRY(compute, (device, int *, int *), d, &out->major, &out->minor);
	TRY(pcie_gen, (device, unsigned *), d, &out->gen);
	TRY(pcie_width, (device, unsigned *), d, &out->width);
	TRY(pcie_max_gen, (device, unsigned *), d, &out->max_gen);
	TRY(pcie_max_width, (device, unsigned *), d, &out->max_width);
	TRY(max_clock, (device, int, unsigned *), d, CLOCK_SM, &out->max_sm_clock);
	links(n, d, out);
	return 0;
}
