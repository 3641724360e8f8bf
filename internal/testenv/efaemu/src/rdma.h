/* Reading and writing another process's memory, checked as the device checks it. */
#ifndef EFAEMU_RDMA_H
#define EFAEMU_RDMA_H

#include <sys/uio.h>

#include "qp.h"
#include "registry.h"

/* emu_sge_ok tells whether this process's device dev has sge registered with access. */
bool emu_sge_ok(uint32_t dev, const struct ibv_sge *sge, uint32_t access);

static inline struct iovec emu_sge_iovec(const struct ibv_sge *sge)
{
	return (struct iovec){ .iov_base = (void *)(uintptr_t)sge->addr, .iov_len = sge->length };
}

/* emu_rdma carries out the data part of an RDMA read or write and counts it. */
enum emu_status emu_rdma(const struct emu_qp *qp, const struct emu_send_wr *wr, const struct registry_peer *peer);

#endif
