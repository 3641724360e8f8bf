/* Address handles. */
#ifndef EFAEMU_AH_H
#define EFAEMU_AH_H

#include "emu.h"

struct emu_ah {
	struct ibv_ah ah; /* first: the two pointers are the same */
	union ibv_gid gid;
	uint16_t ahn;
};

static inline struct emu_ah *emu_ah(struct ibv_ah *ah)
{
	return emu_container_of(ah, struct emu_ah, ah);
}

#endif
