#define _GNU_SOURCE /* process_vm_readv(2) */
#include "rdma.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "counters.h"

bool emu_sge_ok(uint32_t dev, const struct ibv_sge *sge, uint32_t access)
{
	return !sge->length || registry_mr_allows(getpid(), dev, sge->lkey, sge->addr, sge->length, access);
}

/* copy moves the bytes. process_vm_readv(2) may stop early at a page it cannot reach; the next call tells why. */
static enum emu_status copy(pid_t pid, bool read, const struct ibv_sge *sge, uint64_t remote_addr)
{
	for (uint64_t done = 0; done < sge->length;) {
		struct iovec local = { (void *)(uintptr_t)(sge->addr + done), sge->length - done };
		struct iovec remote = { (void *)(uintptr_t)(remote_addr + done), sge->length - done };
		ssize_t n = read ? process_vm_readv(pid, &local, 1, &remote, 1, 0)
				 : process_vm_writev(pid, &local, 1, &remote, 1, 0);
		if (n > 0) {
			done += (uint64_t)n;
			continue;
		}
		if (errno == ESRCH)
			return EMU_UNRESP_REMOTE;
		emu_warn("memory of process %d: %s%s", (int)pid, strerror(errno),
			 errno == EPERM || errno == ENOSYS ? " (allow process_vm_readv: same user, no seccomp filter on it)" : "");
		return EMU_REMOTE_BAD_ADDRESS;
	}
	return EMU_OK;
}

static void count(const struct emu_qp *qp, const struct registry_peer *peer, bool read, uint64_t length)
{
	if (read) {
		counters_add(qp->dev, COUNTER_RDMA_READ_BYTES, length);
		counters_add(peer->dev, COUNTER_RDMA_READ_RESP_BYTES, length);
		counters_payload(peer->dev, qp->dev, length);
	} else {
		counters_add(qp->dev, COUNTER_RDMA_WRITE_BYTES, length);
		counters_add(peer->dev, COUNTER_RDMA_WRITE_RECV_BYTES, length);
		counters_payload(qp->dev, peer->dev, length);
	}
}

enum emu_status emu_rdma(const struct emu_qp *qp, const struct emu_send_wr *wr, const struct registry_peer *peer)
{
	const struct ibv_sge *sge = &wr->sge[0];
	bool read = wr->opcode == IBV_WR_RDMA_READ;
	uint32_t caps = emu_config()->profile->caps;
	union ibv_gid self;

	if (!(caps & (read ? EMU_CAP_RDMA_READ : EMU_CAP_RDMA_WRITE)))
		return EMU_UNSUPPORTED_OP;
	if (sge->length > emu_config()->max_rdma_size)
		return EMU_BAD_LENGTH;
	if (!emu_sge_ok(qp->dev, sge, read ? IBV_ACCESS_LOCAL_WRITE : 0))
		return EMU_INVALID_LKEY;
	/* The responder's device must know the requester: it must have an address handle for it. */
	registry_gid(qp->dev, &self);
	if (registry_ah_find(peer->pid, peer->dev, &self) == REGISTRY_AH_UNKNOWN)
		return EMU_REMOTE_UNKNOWN_PEER;
	if (!registry_mr_allows(peer->pid, peer->dev, wr->rkey, wr->remote_addr, sge->length,
				read ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_WRITE)) {
		emu_debug("qp %u: key %#x of process %d does not cover %u bytes at %#llx", qp->qp.qp_num, wr->rkey,
			  (int)peer->pid, sge->length, (unsigned long long)wr->remote_addr);
		return EMU_REMOTE_BAD_ADDRESS;
	}
	enum emu_status status = copy(peer->pid, read, sge, wr->remote_addr);
	if (!status)
		count(qp, peer, read, sge->length);
	return status;
}
