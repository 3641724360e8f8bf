#include "qp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "device.h"
#include "post.h"
#include "registry.h"
#include "wire.h"

void emu_qp_release_slot(struct emu_qp *qp)
{
	__atomic_fetch_sub(&qp->slots_in_use, 1, __ATOMIC_RELEASE);
}

/* check_attr refuses what the real driver refuses, so that a caller's mistake shows here as it would there. */
static int check_attr(const struct ibv_qp_init_attr_ex *attr, uint32_t efa_flags)
{
	uint32_t caps = emu_config()->profile->caps;
	uint64_t ops = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
	if (caps & EMU_CAP_RDMA_READ)
		ops |= IBV_QP_EX_WITH_RDMA_READ;
	if (caps & EMU_CAP_RDMA_WRITE)
		ops |= IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM;
	uint32_t flags = caps & EMU_CAP_UNSOLICITED_WRITE_RECV ? EMU_QP_FLAGS_UNSOLICITED_WRITE_RECV : 0;

	if (attr->qp_type != IBV_QPT_DRIVER) {
		emu_debug("only SRD queue pairs are emulated, not type %d", attr->qp_type);
		return EOPNOTSUPP;
	}
	if (attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS && attr->send_ops_flags & ~ops)
		return EOPNOTSUPP;
	if (efa_flags & ~flags)
		return EOPNOTSUPP;
	if (!attr->pd || !attr->send_cq || !attr->recv_cq || attr->srq)
		return EINVAL;
	if (attr->cap.max_send_wr > emu_config()->sq_depth || attr->cap.max_recv_wr > EMU_MAX_RECV_WR ||
	    attr->cap.max_send_sge > EMU_MAX_SEND_SGE || attr->cap.max_recv_sge > EMU_MAX_RECV_SGE ||
	    attr->cap.max_inline_data > EMU_INLINE_SIZE)
		return EINVAL;
	return 0;
}

/* release frees qp and what it holds; fields not reached yet are zero, the socket -1. */
static void release(struct emu_qp *qp)
{
	for (struct emu_send_wr *wr = qp->flight_head; wr; wr = wr->next)
		if (wr->recv_taken) /* set aside for a packet that will not be sent */
			registry_recv_post(wr->dqpn, 1);
	if (qp->fd >= 0)
		emu_wire_close(qp->fd, qp->qp.qp_num);
	if (qp->qp.qp_num)
		registry_qp_remove(qp->qp.qp_num);
	pthread_mutex_destroy(&qp->wr_lock);
	pthread_mutex_destroy(&qp->sq_lock);
	pthread_mutex_destroy(&qp->rq_lock);
	pthread_mutex_destroy(&qp->qp.mutex);
	pthread_cond_destroy(&qp->qp.cond);
	free(qp->pool);
	free(qp->recvs);
	free(qp);
}

static bool init_queues(struct emu_qp *qp, const struct ibv_qp_cap *cap)
{
	qp->sq_depth = cap->max_send_wr ? cap->max_send_wr : 1;
	qp->rq_depth = cap->max_recv_wr ? cap->max_recv_wr : 1;
	qp->pool = calloc(qp->sq_depth, sizeof(*qp->pool));
	qp->recvs = calloc(qp->rq_depth, sizeof(*qp->recvs));
	if (!qp->pool || !qp->recvs) {
		errno = ENOMEM;
		return false;
	}
	for (uint32_t i = 0; i < qp->sq_depth; i++) {
		qp->pool[i].next = qp->free_list;
		qp->free_list = &qp->pool[i];
	}
	qp->build_tail = &qp->build_head;
	qp->flight_tail = &qp->flight_head;
	return true;
}

static struct ibv_qp *create(struct ibv_context *ctx, const struct ibv_qp_init_attr_ex *attr, uint32_t efa_flags)
{
	int err = check_attr(attr, efa_flags);
	if (err) {
		errno = err;
		return NULL;
	}
	struct emu_qp *qp = calloc(1, sizeof(*qp));
	if (!qp)
		return NULL;

	qp->fd = -1;
	qp->dev = emu_context(ctx)->dev;
	qp->unsolicited = efa_flags & EMU_QP_FLAGS_UNSOLICITED_WRITE_RECV;
	qp->rnr_retry = EMU_RNR_INFINITE;
	pthread_mutex_init(&qp->wr_lock, NULL);
	pthread_mutex_init(&qp->sq_lock, NULL);
	pthread_mutex_init(&qp->rq_lock, NULL);
	pthread_mutex_init(&qp->qp.mutex, NULL);
	pthread_cond_init(&qp->qp.cond, NULL);
	qp->qp.context = ctx;
	qp->qp.qp_context = attr->qp_context;
	qp->qp.pd = attr->pd;
	qp->qp.send_cq = attr->send_cq;
	qp->qp.recv_cq = attr->recv_cq;
	qp->qp.state = IBV_QPS_RESET;
	qp->qp.qp_type = attr->qp_type;
	emu_fill_wr_builder(&qp->ex);

	if (!init_queues(qp, &attr->cap))
		goto fail;
	qp->qp.qp_num = registry_qp_add(qp->dev, qp->unsolicited);
	if (!qp->qp.qp_num) {
		errno = ENOMEM;
		goto fail;
	}
	qp->qp.handle = qp->qp.qp_num;
	qp->rng = emu_config()->shuffle + qp->qp.qp_num;
	qp->fd = emu_wire_open(qp->qp.qp_num);
	if (qp->fd < 0)
		goto fail;
	if (!emu_cq_attach(emu_cq(attr->send_cq), qp)) {
		errno = ENOMEM;
		goto fail;
	}
	if (attr->recv_cq != attr->send_cq && !emu_cq_attach(emu_cq(attr->recv_cq), qp)) {
		emu_cq_detach(emu_cq(attr->send_cq), qp);
		errno = ENOMEM;
		goto fail;
	}
	return &qp->qp;

fail:
	err = errno;
	release(qp);
	errno = err;
	return NULL;
}

struct ibv_qp *emu_create_qp_ex(struct ibv_context *ctx, struct ibv_qp_init_attr_ex *attr)
{
	(void)ctx;
	(void)attr;
	/* Without efadv's attributes this asks for an unreliable datagram queue pair. */
	errno = EOPNOTSUPP;
	return NULL;
}

EMU_EXPORT struct ibv_qp *efadv_create_qp_ex(struct ibv_context *ctx, struct ibv_qp_init_attr_ex *attr,
					     struct efadv_qp_init_attr *efa, uint32_t size)
{
	struct emu_efadv_qp_init_attr full = { 0 };
	memcpy(&full, efa, size < sizeof(full) ? size : sizeof(full));
	if (full.driver_qp_type != EFADV_QP_DRIVER_TYPE_SRD) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	return create(ctx, attr, full.flags);
}

EMU_EXPORT struct ibv_qp *efadv_create_driver_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr, uint32_t type)
{
	struct ibv_qp_init_attr_ex full = { .qp_type = IBV_QPT_DRIVER, .comp_mask = IBV_QP_INIT_ATTR_PD, .pd = pd };
	if (type != EFADV_QP_DRIVER_TYPE_SRD) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	full.qp_context = attr->qp_context;
	full.send_cq = attr->send_cq;
	full.recv_cq = attr->recv_cq;
	full.srq = attr->srq;
	full.cap = attr->cap;
	full.sq_sig_all = attr->sq_sig_all;
	return create(pd->context, &full, 0);
}

EMU_EXPORT struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	(void)pd;
	(void)attr;
	errno = EOPNOTSUPP; /* no unreliable datagrams */
	return NULL;
}

EMU_EXPORT struct ibv_qp_ex *ibv_qp_to_qp_ex(struct ibv_qp *qp)
{
	return &emu_qp(qp)->ex;
}

EMU_EXPORT int ibv_modify_qp(struct ibv_qp *ibqp, struct ibv_qp_attr *attr, int mask)
{
	struct emu_qp *qp = emu_qp(ibqp);

	if (mask & IBV_QP_RNR_RETRY) {
		if (attr->rnr_retry > EMU_RNR_INFINITE)
			return EINVAL;
		qp->rnr_retry = attr->rnr_retry;
	}
	if (mask & IBV_QP_QKEY)
		registry_qp_set_qkey(ibqp->qp_num, attr->qkey);
	if (mask & IBV_QP_STATE)
		ibqp->state = attr->qp_state;
	return 0;
}

EMU_EXPORT int ibv_query_qp(struct ibv_qp *ibqp, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init)
{
	(void)mask;
	const struct emu_qp *qp = emu_qp(ibqp);
	struct ibv_qp_cap cap = {
		.max_send_wr = qp->sq_depth,
		.max_recv_wr = qp->rq_depth,
		.max_send_sge = EMU_MAX_SEND_SGE,
		.max_recv_sge = EMU_MAX_RECV_SGE,
		.max_inline_data = EMU_INLINE_SIZE,
	};
	*attr = (struct ibv_qp_attr){ .qp_state = ibqp->state, .port_num = 1, .cap = cap, .rnr_retry = qp->rnr_retry };
	*init = (struct ibv_qp_init_attr){
		.qp_context = ibqp->qp_context, .send_cq = ibqp->send_cq, .recv_cq = ibqp->recv_cq, .cap = cap,
		.qp_type = ibqp->qp_type, .sq_sig_all = 1,
	};
	return 0;
}

EMU_EXPORT int ibv_destroy_qp(struct ibv_qp *ibqp)
{
	struct emu_qp *qp = emu_qp(ibqp);

	emu_cq_detach(emu_cq(ibqp->send_cq), qp);
	if (ibqp->recv_cq != ibqp->send_cq)
		emu_cq_detach(emu_cq(ibqp->recv_cq), qp);
	release(qp);
	return 0;
}

/* No block of a transfer is promised to land in order. */
EMU_EXPORT int ibv_query_qp_data_in_order(struct ibv_qp *qp, enum ibv_wr_opcode op, uint32_t flags)
{
	(void)qp;
	(void)op;
	(void)flags;
	return 0;
}
