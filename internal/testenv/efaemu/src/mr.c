/* Protection domains, memory registrations and address handles. Stands in for libibverbs' functions of those names. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "ah.h"
#include "config.h"
#include "device.h"
#include "registry.h"

EMU_EXPORT struct ibv_pd *ibv_alloc_pd(struct ibv_context *ctx)
{
	struct ibv_pd *pd = calloc(1, sizeof(*pd));
	if (pd)
		pd->context = ctx;
	return pd;
}

EMU_EXPORT int ibv_dealloc_pd(struct ibv_pd *pd)
{
	free(pd);
	return 0;
}

/* The accesses that the device of this profile can grant; the real driver refuses the others, too. */
static unsigned int supported_access(void)
{
	unsigned int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_OPTIONAL_RANGE;
	if (emu_config()->profile->caps & EMU_CAP_RDMA_READ)
		access |= IBV_ACCESS_REMOTE_READ;
	if (emu_config()->profile->caps & EMU_CAP_RDMA_WRITE)
		access |= IBV_ACCESS_REMOTE_WRITE;
	return access;
}

static struct ibv_mr *register_memory(struct ibv_pd *pd, void *addr, size_t length, unsigned int access)
{
	if (!length || access & ~supported_access()) {
		emu_debug("ibv_reg_mr: access %#x, the device grants %#x", access, supported_access());
		errno = length ? EOPNOTSUPP : EINVAL;
		return NULL;
	}
	struct ibv_mr *mr = calloc(1, sizeof(*mr));
	if (!mr)
		return NULL;
	uint32_t key = registry_mr_add(emu_context(pd->context)->dev, (uint64_t)(uintptr_t)addr, length,
				       access & ~(unsigned int)IBV_ACCESS_OPTIONAL_RANGE);
	if (!key) {
		free(mr);
		errno = ENOMEM;
		return NULL;
	}
	*mr = (struct ibv_mr){ .context = pd->context, .pd = pd, .addr = addr, .length = length, .handle = key, .lkey = key, .rkey = key };
	return mr;
}

#undef ibv_reg_mr
EMU_EXPORT struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	return register_memory(pd, addr, length, (unsigned int)access);
}

#undef ibv_reg_mr_iova
EMU_EXPORT struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, int access)
{
	if (iova != (uint64_t)(uintptr_t)addr) {
		errno = EOPNOTSUPP; /* memory is reached by its virtual address only */
		return NULL;
	}
	return register_memory(pd, addr, length, (unsigned int)access);
}

EMU_EXPORT struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
					   unsigned int access)
{
	return ibv_reg_mr_iova(pd, addr, length, iova, (int)access);
}

EMU_EXPORT int ibv_dereg_mr(struct ibv_mr *mr)
{
	registry_mr_remove(mr->lkey);
	free(mr);
	return 0;
}

EMU_EXPORT struct ibv_ah *ibv_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	if (!attr->is_global) {
		errno = EINVAL;
		return NULL;
	}
	struct emu_ah *ah = calloc(1, sizeof(*ah));
	if (!ah)
		return NULL;
	ah->gid = attr->grh.dgid;
	ah->ahn = registry_ah_add(emu_context(pd->context)->dev, &ah->gid);
	if (!ah->ahn) {
		free(ah);
		errno = ENOMEM;
		return NULL;
	}
	ah->ah.context = pd->context;
	ah->ah.pd = pd;
	ah->ah.handle = ah->ahn;
	return &ah->ah;
}

EMU_EXPORT int ibv_destroy_ah(struct ibv_ah *ibah)
{
	struct emu_ah *ah = emu_ah(ibah);
	registry_ah_remove(ah->ahn);
	free(ah);
	return 0;
}

EMU_EXPORT int efadv_query_ah(struct ibv_ah *ibah, struct efadv_ah_attr *attr, uint32_t size)
{
	if (size < sizeof(*attr))
		return EINVAL;
	*attr = (struct efadv_ah_attr){ .ahn = emu_ah(ibah)->ahn };
	return 0;
}
