#include "engine.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "counters.h"
#include "random.h"
#include "rdma.h"
#include "registry.h"
#include "wire.h"

enum {
	RNR_TIMER_NS = 100000,   /* a send waits rnr_retry times this long for a receive */
	RECEIVES_PER_POLL = 64,  /* so that a flood of packets cannot keep a poll from returning */
};

/* What became of a request when it was tried. */
enum outcome {
	COMPLETED,
	BLOCKED, /* by the receiver: try again at the next poll */
};

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t total_length(const struct emu_send_wr *wr)
{
	uint64_t length = 0;
	for (uint32_t i = 0; i < wr->num_sge; i++)
		length += wr->sge[i].length;
	return length;
}

/* device_failed tells whether this operation meets the configured failure. */
static bool device_failed(uint32_t dev)
{
	static uint64_t done[EMU_MAX_DEVICES];
	const struct emu_config *cfg = emu_config();

	if (!cfg->fail_after || (cfg->fail_device != EMU_MAX_DEVICES && cfg->fail_device != dev))
		return false;
	return __atomic_fetch_add(&done[dev], 1, __ATOMIC_RELAXED) >= cfg->fail_after;
}

/* recv_ready sets a receive of the peer aside for wr. Out of receives, or if the RNR knob says so, wr waits; how long
 * is the queue pair's rnr_retry. */
static bool recv_ready(struct emu_qp *qp, struct emu_send_wr *wr)
{
	uint64_t every = emu_config()->rnr_every;

	if (wr->recv_taken)
		return true;
	if (every && !wr->failed_rnr && ++qp->sends % every == 0) {
		wr->failed_rnr = true;
		wr->rnr_deadline_ns = 1; /* long past: retries are over at once, unless they are endless */
		return false;
	}
	wr->recv_taken = registry_recv_take(wr->dqpn);
	if (!wr->recv_taken && !wr->rnr_deadline_ns)
		wr->rnr_deadline_ns = now_ns() + (uint64_t)qp->rnr_retry * RNR_TIMER_NS;
	return wr->recv_taken;
}

/* transmit puts wr's packet on the wire. */
static enum outcome transmit(struct emu_qp *qp, struct emu_send_wr *wr, const struct registry_peer *peer,
			     const struct emu_packet_header *header, const struct iovec *payload, uint32_t num,
			     enum emu_status *status)
{
	if (!header->unsolicited && !recv_ready(qp, wr)) {
		/* A killed process posts no more receives; its queue pair stays in the registry. */
		if (!emu_wire_alive(wr->dqpn)) {
			*status = EMU_UNRESP_REMOTE;
			return COMPLETED;
		}
		if (qp->rnr_retry == EMU_RNR_INFINITE || now_ns() < wr->rnr_deadline_ns)
			return BLOCKED;
		*status = EMU_REMOTE_RNR;
		return COMPLETED;
	}
	int err = emu_wire_send(qp->fd, wr->dqpn, header, payload, num);
	if (err == EAGAIN)
		return BLOCKED;
	if (err) {
		emu_debug("qp %u to qp %u: %s", qp->qp.qp_num, wr->dqpn, strerror(err));
		*status = EMU_UNRESP_REMOTE; /* its process died without closing the queue pair */
	} else if (header->kind == EMU_PACKET_SEND) {
		counters_payload(qp->dev, peer->dev, header->length);
	}
	return COMPLETED;
}

static struct emu_packet_header make_header(const struct emu_qp *qp, const struct emu_send_wr *wr, enum emu_packet_kind kind)
{
	struct emu_packet_header header = {
		.src_qpn = qp->qp.qp_num,
		.length = (uint32_t)total_length(wr),
		.imm = wr->imm,
		.kind = (uint8_t)kind,
		.has_imm = wr->opcode == IBV_WR_SEND_WITH_IMM || wr->opcode == IBV_WR_RDMA_WRITE_WITH_IMM,
	};
	registry_gid(qp->dev, &header.sgid);
	return header;
}

static enum outcome try_send(struct emu_qp *qp, struct emu_send_wr *wr, const struct registry_peer *peer,
			     enum emu_status *status)
{
	struct iovec payload[EMU_MAX_SEND_SGE];

	if (total_length(wr) > EMU_MTU) {
		*status = EMU_BAD_LENGTH;
		return COMPLETED;
	}
	for (uint32_t i = 0; i < wr->num_sge; i++) {
		payload[i] = emu_sge_iovec(&wr->sge[i]);
		if (!wr->is_inline && !emu_sge_ok(qp->dev, &wr->sge[i], 0)) {
			*status = EMU_INVALID_LKEY;
			return COMPLETED;
		}
	}
	struct emu_packet_header header = make_header(qp, wr, EMU_PACKET_SEND);
	return transmit(qp, wr, peer, &header, payload, wr->num_sge, status);
}

static enum outcome try_rdma(struct emu_qp *qp, struct emu_send_wr *wr, const struct registry_peer *peer,
			     enum emu_status *status)
{
	if (!wr->data_done) {
		*status = emu_rdma(qp, wr, peer);
		wr->data_done = true;
		if (*status)
			return COMPLETED;
	}
	if (wr->opcode != IBV_WR_RDMA_WRITE_WITH_IMM)
		return COMPLETED;

	struct emu_packet_header header = make_header(qp, wr, EMU_PACKET_WRITE_IMM);
	/* Both ends must have asked for it; one alone falls back to a posted receive. */
	header.unsolicited = qp->unsolicited && peer->unsolicited;
	return transmit(qp, wr, peer, &header, NULL, 0, status);
}

static enum outcome try(struct emu_qp *qp, struct emu_send_wr *wr, enum emu_status *status)
{
	struct registry_peer peer;

	*status = registry_qp_find(&wr->dgid, wr->dqpn, wr->dqkey, &peer);
	if (*status)
		return COMPLETED;
	if (wr->opcode == IBV_WR_SEND || wr->opcode == IBV_WR_SEND_WITH_IMM)
		return try_send(qp, wr, &peer, status);
	return try_rdma(qp, wr, &peer, status);
}

static enum ibv_wc_opcode completion_opcode(enum ibv_wr_opcode opcode)
{
	/* rdma-core reports reads as sends, in every release so far; libfabric 1.17 knows nothing else. */
	return opcode == IBV_WR_RDMA_WRITE || opcode == IBV_WR_RDMA_WRITE_WITH_IMM ? IBV_WC_RDMA_WRITE : IBV_WC_SEND;
}

static void count_completion(const struct emu_qp *qp, const struct emu_send_wr *wr, enum emu_status status)
{
	uint64_t length = total_length(wr);

	switch (wr->opcode) {
	case IBV_WR_RDMA_READ:
		counters_add(qp->dev, COUNTER_RDMA_READ_WRS, 1);
		if (status)
			counters_add(qp->dev, COUNTER_RDMA_READ_WR_ERR, 1);
		break;
	case IBV_WR_RDMA_WRITE:
	case IBV_WR_RDMA_WRITE_WITH_IMM:
		counters_add(qp->dev, COUNTER_RDMA_WRITE_WRS, 1);
		if (status)
			counters_add(qp->dev, COUNTER_RDMA_WRITE_WR_ERR, 1);
		break;
	default:
		counters_add(qp->dev, COUNTER_SEND_WRS, 1);
		if (!status)
			counters_add(qp->dev, COUNTER_SEND_BYTES, length);
	}
}

/* complete ends wr and gives it back to the pool. Called under sq_lock. */
static void complete(struct emu_qp *qp, struct emu_send_wr *wr, enum emu_status status)
{
	struct emu_cqe cqe = {
		.wr_id = wr->wr_id,
		.status = status,
		.opcode = completion_opcode(wr->opcode),
		.qpn = qp->qp.qp_num,
		.sq = qp,
	};
	if (status)
		emu_debug("qp %u to qp %u: opcode %d completes with status %d", qp->qp.qp_num, wr->dqpn, wr->opcode, status);
	count_completion(qp, wr, status);
	wr->next = qp->free_list;
	qp->free_list = wr;
	emu_cq_push(emu_cq(qp->qp.send_cq), &cqe);
}

/* held_back tells whether shuffling leaves wr for a later poll. */
static bool held_back(struct emu_qp *qp)
{
	return emu_config()->shuffle && emu_random(&qp->rng) & 1;
}

/* run tries each request in flight from *link on, once. A packet that does not fit keeps later ones to the same queue
 * pair back in this round: they would not fit either. Called under sq_lock. */
static void run(struct emu_qp *qp, struct emu_send_wr **link)
{
	uint32_t blocked_qpn = 0;

	for (struct emu_send_wr *wr; (wr = *link);) {
		enum emu_status status = EMU_OK;
		bool skip = held_back(qp) || (blocked_qpn == wr->dqpn && wr->opcode != IBV_WR_RDMA_READ &&
					      wr->opcode != IBV_WR_RDMA_WRITE);
		if (skip || try(qp, wr, &status) == BLOCKED) {
			if (!skip)
				blocked_qpn = wr->dqpn;
			link = &wr->next;
			continue;
		}
		*link = wr->next;
		if (!*link)
			qp->flight_tail = link;
		complete(qp, wr, status);
	}
}

void emu_engine_submit(struct emu_qp *qp, struct emu_send_wr *head)
{
	pthread_mutex_lock(&qp->sq_lock);
	struct emu_send_wr **first = qp->flight_tail;
	for (struct emu_send_wr *wr = head, *next; wr; wr = next) {
		next = wr->next;
		wr->next = NULL;
		if (device_failed(qp->dev)) {
			complete(qp, wr, emu_config()->fail_status);
			continue;
		}
		*qp->flight_tail = wr;
		qp->flight_tail = &wr->next;
	}
	if (!emu_config()->shuffle) /* else it waits for a poll, so that later work can overtake it */
		run(qp, first);
	pthread_mutex_unlock(&qp->sq_lock);
}

/* receive takes in one packet; false: none, or no receive posted for it (its sender set one aside, so that lasts for
 * an instant only). Called under rq_lock. */
static bool receive(struct emu_qp *qp)
{
	struct emu_packet_header header;
	struct iovec payload[EMU_MAX_RECV_SGE];
	struct emu_recv_wr *recv = NULL;
	uint32_t num = 0;

	if (!emu_wire_peek(qp->fd, &header))
		return false;
	struct emu_cqe cqe = {
		.opcode = header.kind == EMU_PACKET_WRITE_IMM ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV,
		.byte_len = header.length,
		.qpn = qp->qp.qp_num,
		.src_qpn = header.src_qpn,
		.imm = header.imm,
		.has_imm = header.has_imm,
		.unsolicited = header.unsolicited,
		.sgid = header.sgid,
	};
	if (!header.unsolicited) {
		if (!qp->rq_count)
			return false;
		recv = &qp->recvs[qp->rq_head];
		qp->rq_head = (qp->rq_head + 1) % qp->rq_depth;
		qp->rq_count--;
		cqe.wr_id = recv->wr_id;
	}
	if (header.kind == EMU_PACKET_SEND) {
		for (; num < recv->num_sge; num++) {
			payload[num] = emu_sge_iovec(&recv->sge[num]);
			if (!emu_sge_ok(qp->dev, &recv->sge[num], IBV_ACCESS_LOCAL_WRITE))
				cqe.status = EMU_INVALID_LKEY;
		}
		if (cqe.status)
			num = 0; /* take the packet, store nothing */
	}
	if (!emu_wire_receive(qp->fd, &header, payload, num) && !cqe.status)
		cqe.status = EMU_REMOTE_BAD_LENGTH;
	if (header.kind == EMU_PACKET_SEND) {
		counters_add(qp->dev, COUNTER_RECV_WRS, 1);
		counters_add(qp->dev, COUNTER_RECV_BYTES, header.length);
	}
	cqe.ahn = registry_ah_find(getpid(), qp->dev, &header.sgid);
	emu_cq_push(emu_cq(qp->qp.recv_cq), &cqe);
	return true;
}

void emu_engine_progress(struct emu_qp *qp)
{
	pthread_mutex_lock(&qp->sq_lock);
	run(qp, &qp->flight_head);
	pthread_mutex_unlock(&qp->sq_lock);

	pthread_mutex_lock(&qp->rq_lock);
	for (int i = 0; i < RECEIVES_PER_POLL && receive(qp); i++)
		;
	pthread_mutex_unlock(&qp->rq_lock);
}
