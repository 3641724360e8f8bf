/* Completion queues.
 *
 * Locks, as in the real driver: poll_lock is held from start_poll to end_poll, and the caller may post work, register
 * memory and create address handles meanwhile, so none of those takes it. `lock` guards the ring alone and nothing is
 * called under it. */
#ifndef EFAEMU_CQ_H
#define EFAEMU_CQ_H

#include <pthread.h>

#include "emu.h"

struct emu_qp;

/* One completion. */
struct emu_cqe {
	uint64_t wr_id;
	enum emu_status status;
	enum ibv_wc_opcode opcode;
	uint32_t byte_len; /* of a receive; 0 for sends, as the real driver reports it */
	uint32_t qpn;
	uint32_t src_qpn;
	__be32 imm;
	bool has_imm;
	bool unsolicited;
	uint16_t ahn; /* the sender's handle on this device, or REGISTRY_AH_UNKNOWN: then sgid names it */
	union ibv_gid sgid;
	struct emu_qp *sq; /* whose send queue slot this completion frees; NULL for receives */
};

struct emu_cq {
	union {
		struct ibv_cq cq;
		struct ibv_cq_ex ex;
	}; /* first: libibverbs' pointers are ours */
	struct emu_efadv_cq dv;

	pthread_mutex_t poll_lock;
	struct emu_qp **qps; /* the queue pairs that complete here; guarded by poll_lock */
	uint32_t num_qps;
	struct emu_cqe cur; /* the completion being read; guarded by poll_lock */
	bool has_cur;

	pthread_mutex_t lock;
	struct emu_cqe *ring;
	uint32_t capacity, head, count;
	uint64_t rng;
};

static inline struct emu_cq *emu_cq(struct ibv_cq *cq)
{
	return (struct emu_cq *)cq;
}

/* emu_cq_push adds a completion. The ring grows: the device emulated here never overruns a queue. */
void emu_cq_push(struct emu_cq *cq, const struct emu_cqe *cqe);

/* emu_cq_attach makes polls of cq drive qp; false: out of memory. */
bool emu_cq_attach(struct emu_cq *cq, struct emu_qp *qp);

/* emu_cq_detach ends that, after any poll in progress, and drops qp's completions that were not read. */
void emu_cq_detach(struct emu_cq *cq, struct emu_qp *qp);

/* Entries of verbs_context and ibv_context_ops. */
struct ibv_cq_ex *emu_create_cq_ex(struct ibv_context *ctx, struct ibv_cq_init_attr_ex *attr);
int emu_poll_cq(struct ibv_cq *cq, int num, struct ibv_wc *wc);

#endif
