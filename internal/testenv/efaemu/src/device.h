/* The device list and open devices. */
#ifndef EFAEMU_DEVICE_H
#define EFAEMU_DEVICE_H

#include "emu.h"

/* An open device. Several may be open on one device; addresses, keys and counters belong to the device. */
struct emu_context {
	uint32_t dev;
	struct verbs_context verbs;
};

static inline struct emu_context *emu_context(struct ibv_context *ctx)
{
	return emu_container_of(ctx, struct emu_context, verbs.context);
}

/* emu_device_name writes the device's name: rdmap0s6, rdmap0s7, … */
void emu_device_name(uint32_t dev, char *out, size_t size);

#endif
