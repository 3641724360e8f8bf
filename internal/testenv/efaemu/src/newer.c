/* Entry points that must not reach the real libraries with an emulated context: those that newer libfabric releases
 * and other users of libibverbs try, all of which accept a refusal. Names that the headers at hand do not declare are
 * declared here. */
#include <errno.h>
#include <string.h>

#include "emu.h"

struct efadv_mr_attr;
struct efadv_wq_attr;
struct efadv_cq_attr;
int efadv_query_mr(struct ibv_mr *mr, struct efadv_mr_attr *attr, uint32_t size);
int efadv_query_qp_wqs(struct ibv_qp *qp, struct efadv_wq_attr *sq, struct efadv_wq_attr *rq, uint32_t size);
int efadv_query_cq(struct ibv_cq *cq, struct efadv_cq_attr *attr, uint32_t size);

/* All validity bits zero: the interconnect of the memory is unknown. */
EMU_EXPORT int efadv_query_mr(struct ibv_mr *mr, struct efadv_mr_attr *attr, uint32_t size)
{
	(void)mr;
	memset(attr, 0, size);
	return 0;
}

/* There are no rings to map: libfabric >= 2.3 then posts and polls through the functions of the context. */
EMU_EXPORT int efadv_query_qp_wqs(struct ibv_qp *qp, struct efadv_wq_attr *sq, struct efadv_wq_attr *rq, uint32_t size)
{
	(void)qp;
	(void)sq;
	(void)rq;
	(void)size;
	return EOPNOTSUPP;
}

EMU_EXPORT int efadv_query_cq(struct ibv_cq *cq, struct efadv_cq_attr *attr, uint32_t size)
{
	(void)cq;
	(void)attr;
	(void)size;
	return EOPNOTSUPP;
}

EMU_EXPORT struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *ctx)
{
	(void)ctx;
	errno = EOPNOTSUPP; /* completions are polled for */
	return NULL;
}

EMU_EXPORT struct ibv_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd,
					    int access)
{
	(void)pd;
	(void)offset;
	(void)length;
	(void)iova;
	(void)fd;
	(void)access;
	errno = EOPNOTSUPP; /* no device memory */
	return NULL;
}

EMU_EXPORT int ibv_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr, size_t length, int access)
{
	(void)mr;
	(void)flags;
	(void)pd;
	(void)addr;
	(void)length;
	(void)access;
	errno = EOPNOTSUPP;
	return IBV_REREG_MR_ERR_INPUT;
}

EMU_EXPORT int ibv_resize_cq(struct ibv_cq *cq, int entries)
{
	(void)cq;
	(void)entries;
	return EOPNOTSUPP;
}

EMU_EXPORT struct ibv_srq *ibv_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *attr)
{
	(void)pd;
	(void)attr;
	errno = EOPNOTSUPP; /* the device has no shared receive queues */
	return NULL;
}

EMU_EXPORT int ibv_get_async_event(struct ibv_context *ctx, struct ibv_async_event *event)
{
	(void)ctx;
	(void)event;
	errno = EAGAIN; /* the device raises none */
	return -1;
}
