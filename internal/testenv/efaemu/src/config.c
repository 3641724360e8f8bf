#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREFIX "XFERBENCH_EFAEMU_"

/* Part numbers and abilities per generation: fi_efa(7) and the device's own PCI ids. */
static const struct emu_profile profiles[] = {
	{ "p5", 0xefa2,
	  EMU_CAP_RNR_RETRY | EMU_CAP_CQ_WITH_SGID | EMU_CAP_RDMA_READ | EMU_CAP_RDMA_WRITE | EMU_CAP_UNSOLICITED_WRITE_RECV,
	  1u << 30 },
	{ "p4d", 0xefa1, EMU_CAP_RNR_RETRY | EMU_CAP_CQ_WITH_SGID | EMU_CAP_RDMA_READ, 1u << 30 },
	{ "g5", 0xefa0, EMU_CAP_RNR_RETRY | EMU_CAP_CQ_WITH_SGID, 0 },
};

static struct emu_config config;
static bool config_ok;
static pthread_once_t config_once = PTHREAD_ONCE_INIT;

static void print_line(const char *fmt, va_list args)
{
	char line[512];
	vsnprintf(line, sizeof(line), fmt, args);
	/* one write, so that the lines of two processes do not mix */
	fprintf(stderr, "efaemu[%d]: %s\n", (int)getpid(), line);
}

void emu_warn(const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	print_line(fmt, args);
	va_end(args);
}

void emu_debug(const char *fmt, ...)
{
	if (!config.debug)
		return;
	va_list args;
	va_start(args, fmt);
	print_line(fmt, args);
	va_end(args);
}

/* read_number sets *out from the variable PREFIX name; *out keeps its default if the variable is unset or empty. */
static bool read_number(const char *name, uint64_t low, uint64_t high, uint64_t *out)
{
	char variable[64];
	snprintf(variable, sizeof(variable), PREFIX "%s", name);
	const char *text = getenv(variable);
	if (!text || !*text)
		return true;

	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 0);
	if (errno || *end || *text == '-' || value < low || value > high) {
		emu_warn("%s=%s: want a number from %llu to %llu", variable, text, (unsigned long long)low,
			 (unsigned long long)high);
		return false;
	}
	*out = value;
	return true;
}

static bool read_number32(const char *name, uint32_t low, uint32_t high, uint32_t *out)
{
	uint64_t value = *out;
	if (!read_number(name, low, high, &value))
		return false;
	*out = (uint32_t)value;
	return true;
}

static bool read_path(const char *variable, char out[PATH_MAX])
{
	const char *text = getenv(variable);
	if (!text || !*text) {
		emu_warn("%s is not set: no emulated device (efaemu.Setup sets it)", variable);
		return false;
	}
	if ((size_t)snprintf(out, PATH_MAX, "%s", text) >= PATH_MAX) {
		emu_warn("%s: path too long", variable);
		return false;
	}
	return true;
}

static bool read_profile(void)
{
	const char *text = getenv(PREFIX "PROFILE");
	if (!text || !*text)
		text = "p5";
	for (size_t i = 0; i < sizeof(profiles) / sizeof(*profiles); i++) {
		if (!strcmp(profiles[i].name, text)) {
			config.profile = &profiles[i];
			config.max_rdma_size = profiles[i].max_rdma_size;
			return true;
		}
	}
	emu_warn(PREFIX "PROFILE=%s: want p5, p4d or g5", text);
	return false;
}

static void config_load(void)
{
	uint32_t status = EMU_UNRESP_REMOTE;

	config.debug = getenv(PREFIX "DEBUG") != NULL;
	config.devices = 1;
	config.network = 1;
	config.sq_depth = 4096;
	config.fail_device = EMU_MAX_DEVICES;

	config_ok = read_path(PREFIX "DIR", config.dir) && read_path("SYSFS_PATH", config.sysfs) && read_profile() &&
		    read_number32("DEVICES", 1, EMU_MAX_DEVICES, &config.devices) &&
		    read_number32("SQ_DEPTH", 2, 4096, &config.sq_depth) &&
		    read_number32("MAX_RDMA_SIZE", 0, 1u << 30, &config.max_rdma_size) &&
		    read_number32("NETWORK", 1, UINT16_MAX, &config.network) &&
		    read_number32("HOST", 1, EMU_MAX_HOST, &config.host) &&
		    read_number("SHUFFLE", 0, UINT64_MAX, &config.shuffle) &&
		    read_number("RNR_EVERY", 0, UINT64_MAX, &config.rnr_every) &&
		    read_number("FAIL_AFTER", 0, UINT64_MAX, &config.fail_after) &&
		    read_number32("FAIL_DEVICE", 0, EMU_MAX_DEVICES, &config.fail_device) &&
		    read_number32("FAIL_STATUS", 1, EMU_STATUS_LAST, &status);
	config.fail_status = (enum emu_status)status;
}

const struct emu_config *emu_config(void)
{
	pthread_once(&config_once, config_load);
	return config_ok ? &config : NULL;
}
