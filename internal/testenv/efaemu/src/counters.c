#include "counters.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "device.h"
#include "registry.h"

/* File names, in the order of enum emu_counter. */
static const char *const names[COUNTER_COUNT] = {
	"tx_bytes",       "tx_pkts",           "rx_bytes",        "rx_pkts",          "rx_drops",
	"send_bytes",     "send_wrs",          "recv_bytes",      "recv_wrs",         "rdma_read_wrs",
	"rdma_read_bytes", "rdma_read_wr_err", "rdma_read_resp_bytes", "rdma_write_wrs", "rdma_write_bytes",
	"rdma_write_wr_err", "rdma_write_recv_bytes",
};

/* What this process last wrote, and the open files; both guarded by the registry's lock. */
static uint64_t written[EMU_MAX_DEVICES][COUNTER_COUNT];
static int files[EMU_MAX_DEVICES][COUNTER_COUNT]; /* 0: not opened yet, -1: cannot be opened */

void counters_add(uint32_t dev, enum emu_counter counter, uint64_t n)
{
	__atomic_fetch_add(&registry_counters(dev)[counter], n, __ATOMIC_RELAXED);
}

void counters_payload(uint32_t from, uint32_t to, uint64_t length)
{
	uint64_t packets = length ? (length + EMU_MTU - 1) / EMU_MTU : 1;

	counters_add(from, COUNTER_TX_BYTES, length);
	counters_add(from, COUNTER_TX_PKTS, packets);
	counters_add(to, COUNTER_RX_BYTES, length);
	counters_add(to, COUNTER_RX_PKTS, packets);
}

static int open_file(uint32_t dev, enum emu_counter counter)
{
	char path[PATH_MAX + 128], device[32];

	emu_device_name(dev, device, sizeof(device));
	snprintf(path, sizeof(path), "%s/class/infiniband/%s/ports/1/hw_counters/%s", emu_config()->sysfs, device,
		 names[counter]);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		emu_warn("%s: %s", path, strerror(errno));
	return fd;
}

/* write_file replaces the number in place. Counters only grow, so the new text covers the old one. */
static void write_file(uint32_t dev, enum emu_counter counter, uint64_t value)
{
	char text[24];
	int *fd = &files[dev][counter];

	if (!*fd)
		*fd = open_file(dev, counter);
	if (*fd < 0)
		return;
	int length = snprintf(text, sizeof(text), "%llu\n", (unsigned long long)value);
	if (pwrite(*fd, text, (size_t)length, 0) != length)
		emu_warn("hw_counters/%s: %s", names[counter], strerror(errno));
}

void counters_publish(void)
{
	for (uint32_t dev = 0; dev < emu_config()->devices; dev++) {
		for (int i = 0; i < COUNTER_COUNT; i++) {
			const uint64_t *shared = &registry_counters(dev)[i];
			if (__atomic_load_n(shared, __ATOMIC_RELAXED) ==
			    __atomic_load_n(&written[dev][i], __ATOMIC_RELAXED))
				continue;
			registry_lock();
			uint64_t value = __atomic_load_n(shared, __ATOMIC_RELAXED);
			write_file(dev, (enum emu_counter)i, value);
			__atomic_store_n(&written[dev][i], value, __ATOMIC_RELAXED);
			registry_unlock();
		}
	}
}
