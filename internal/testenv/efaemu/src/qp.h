/* Queue pairs: SRD, the device's reliable but unordered datagram service.
 *
 * Locks: wr_lock is held from wr_start to wr_complete (libfabric keeps it across calls under FI_MORE, and polls
 * meanwhile), so polling must not need it. sq_lock and rq_lock guard the work in flight and the posted receives. Order:
 * a queue's poll_lock, wr_lock, sq_lock or rq_lock, then leaf locks (the ring's, the registry's). */
#ifndef EFAEMU_QP_H
#define EFAEMU_QP_H

#include <pthread.h>

#include "cq.h"
#include "emu.h"

/* A work request on the send queue. */
struct emu_send_wr {
	struct emu_send_wr *next;
	uint64_t wr_id;
	enum ibv_wr_opcode opcode;
	union ibv_gid dgid;
	uint32_t dqpn;
	uint32_t dqkey;
	uint64_t remote_addr;
	uint32_t rkey;
	__be32 imm;
	uint32_t num_sge;
	struct ibv_sge sge[EMU_MAX_SEND_SGE];
	bool is_inline;  /* sge[0] then points into data */
	bool recv_taken; /* a receive of the peer is set aside for this one */
	bool data_done;  /* the RDMA part is over, its immediate is still to go */
	bool failed_rnr; /* already met "not ready" */
	uint64_t rnr_deadline_ns;
	uint8_t data[EMU_INLINE_SIZE];
};

/* A posted receive. */
struct emu_recv_wr {
	uint64_t wr_id;
	uint32_t num_sge;
	struct ibv_sge sge[EMU_MAX_RECV_SGE];
};

struct emu_qp {
	union {
		struct ibv_qp qp;
		struct ibv_qp_ex ex;
	}; /* first: libibverbs' pointers are ours */
	uint32_t dev;
	bool unsolicited;
	uint8_t rnr_retry;
	int fd; /* the packet socket */

	pthread_mutex_t wr_lock;
	struct emu_send_wr *build_head, **build_tail, *build_cur;
	uint32_t build_count;
	int build_error;

	pthread_mutex_t sq_lock;
	struct emu_send_wr *pool;      /* sq_depth requests … */
	struct emu_send_wr *free_list; /* … those not in use */
	struct emu_send_wr *flight_head, **flight_tail;
	uint64_t rng;
	uint64_t sends;         /* that needed a receive, for the RNR knob */
	uint32_t slots_in_use;  /* atomic: posted and completion not yet read */
	uint32_t sq_depth;

	pthread_mutex_t rq_lock;
	struct emu_recv_wr *recvs;
	uint32_t rq_depth, rq_head, rq_count;
};

static inline struct emu_qp *emu_qp(struct ibv_qp *qp)
{
	return (struct emu_qp *)qp;
}

static inline struct emu_qp *emu_qp_ex(struct ibv_qp_ex *ex)
{
	return (struct emu_qp *)ex;
}

/* emu_qp_release_slot frees one send queue slot. */
void emu_qp_release_slot(struct emu_qp *qp);

/* Entry of verbs_context. */
struct ibv_qp *emu_create_qp_ex(struct ibv_context *ctx, struct ibv_qp_init_attr_ex *attr);

#endif
