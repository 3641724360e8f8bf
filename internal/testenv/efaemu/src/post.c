#include "post.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "ah.h"
#include "engine.h"
#include "qp.h"
#include "registry.h"

/* take_slot claims a send queue slot and a request to fill. NULL: the queue is full. Slots are counted apart from the
 * requests because a slot stays taken until its completion has been read. */
static struct emu_send_wr *take_slot(struct emu_qp *qp)
{
	uint32_t used = __atomic_fetch_add(&qp->slots_in_use, 1, __ATOMIC_ACQUIRE);
	if (used >= qp->sq_depth) {
		emu_qp_release_slot(qp);
		return NULL;
	}
	pthread_mutex_lock(&qp->sq_lock);
	struct emu_send_wr *wr = qp->free_list; /* never empty: no more requests in use than slots */
	qp->free_list = wr->next;
	pthread_mutex_unlock(&qp->sq_lock);
	memset(wr, 0, sizeof(*wr));
	return wr;
}

/* begin appends an empty request to those being built; NULL after an error. Called under wr_lock. */
static struct emu_send_wr *begin(struct emu_qp *qp, uint64_t wr_id, enum ibv_wr_opcode opcode)
{
	if (qp->build_error)
		return NULL;
	if (qp->qp.state != IBV_QPS_RTS && qp->qp.state != IBV_QPS_SQD) {
		qp->build_error = EINVAL;
		return NULL;
	}
	struct emu_send_wr *wr = take_slot(qp);
	if (!wr) {
		qp->build_error = ENOMEM;
		return NULL;
	}
	wr->wr_id = wr_id;
	wr->opcode = opcode;
	*qp->build_tail = wr;
	qp->build_tail = &wr->next;
	qp->build_cur = wr;
	qp->build_count++;
	return wr;
}

static void build_reset(struct emu_qp *qp)
{
	qp->build_head = NULL;
	qp->build_tail = &qp->build_head;
	qp->build_cur = NULL;
	qp->build_count = 0;
	qp->build_error = 0;
}

/* roll_back gives the requests being built and their slots back. Called under wr_lock. */
static void roll_back(struct emu_qp *qp)
{
	pthread_mutex_lock(&qp->sq_lock);
	for (struct emu_send_wr *wr = qp->build_head, *next; wr; wr = next) {
		next = wr->next;
		wr->next = qp->free_list;
		qp->free_list = wr;
	}
	pthread_mutex_unlock(&qp->sq_lock);
	__atomic_fetch_sub(&qp->slots_in_use, qp->build_count, __ATOMIC_RELEASE);
	build_reset(qp);
}

/* finish hands what was built to the device, or takes it back if any part was wrong. Called under wr_lock. */
static int finish(struct emu_qp *qp)
{
	int err = qp->build_error;
	if (err) {
		roll_back(qp);
		return err;
	}
	struct emu_send_wr *head = qp->build_head;
	build_reset(qp);
	if (head)
		emu_engine_submit(qp, head);
	return 0;
}

static bool is_rdma(enum ibv_wr_opcode opcode)
{
	return opcode == IBV_WR_RDMA_READ || opcode == IBV_WR_RDMA_WRITE || opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
}

static void set_sges(struct emu_qp *qp, size_t num, const struct ibv_sge *list)
{
	struct emu_send_wr *wr = qp->build_cur;
	if (qp->build_error)
		return;
	if (num > (is_rdma(wr->opcode) ? 1 : EMU_MAX_SEND_SGE)) {
		qp->build_error = EINVAL;
		return;
	}
	memcpy(wr->sge, list, num * sizeof(*list));
	wr->num_sge = (uint32_t)num;
}

static void set_inline(struct emu_qp *qp, size_t num, const struct ibv_data_buf *list)
{
	struct emu_send_wr *wr = qp->build_cur;
	size_t length = 0;

	if (qp->build_error)
		return;
	for (size_t i = 0; i < num; i++) {
		if (list[i].length > EMU_INLINE_SIZE - length || is_rdma(wr->opcode)) {
			qp->build_error = EINVAL;
			return;
		}
		memcpy(wr->data + length, list[i].addr, list[i].length);
		length += list[i].length;
	}
	wr->is_inline = true;
	wr->sge[0] = (struct ibv_sge){ .addr = (uint64_t)(uintptr_t)wr->data, .length = (uint32_t)length };
	wr->num_sge = 1;
}

static void set_dest(struct emu_qp *qp, struct ibv_ah *ah, uint32_t qpn, uint32_t qkey)
{
	if (qp->build_error)
		return;
	qp->build_cur->dgid = emu_ah(ah)->gid;
	qp->build_cur->dqpn = qpn;
	qp->build_cur->dqkey = qkey;
}

/* ---- the builder ---- */

static void wr_start(struct ibv_qp_ex *ex)
{
	pthread_mutex_lock(&emu_qp_ex(ex)->wr_lock);
	build_reset(emu_qp_ex(ex));
}

static int wr_complete(struct ibv_qp_ex *ex)
{
	int err = finish(emu_qp_ex(ex));
	pthread_mutex_unlock(&emu_qp_ex(ex)->wr_lock);
	return err;
}

static void wr_abort(struct ibv_qp_ex *ex)
{
	roll_back(emu_qp_ex(ex));
	pthread_mutex_unlock(&emu_qp_ex(ex)->wr_lock);
}

static void begin_rdma(struct ibv_qp_ex *ex, enum ibv_wr_opcode opcode, uint32_t rkey, uint64_t addr, __be32 imm)
{
	struct emu_send_wr *wr = begin(emu_qp_ex(ex), ex->wr_id, opcode);
	if (!wr)
		return;
	wr->rkey = rkey;
	wr->remote_addr = addr;
	wr->imm = imm;
}

static void wr_rdma_read(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t addr)
{
	begin_rdma(ex, IBV_WR_RDMA_READ, rkey, addr, 0);
}

static void wr_rdma_write(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t addr)
{
	begin_rdma(ex, IBV_WR_RDMA_WRITE, rkey, addr, 0);
}

static void wr_rdma_write_imm(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t addr, __be32 imm)
{
	begin_rdma(ex, IBV_WR_RDMA_WRITE_WITH_IMM, rkey, addr, imm);
}

static void wr_send(struct ibv_qp_ex *ex)
{
	begin(emu_qp_ex(ex), ex->wr_id, IBV_WR_SEND);
}

static void wr_send_imm(struct ibv_qp_ex *ex, __be32 imm)
{
	struct emu_send_wr *wr = begin(emu_qp_ex(ex), ex->wr_id, IBV_WR_SEND_WITH_IMM);
	if (wr)
		wr->imm = imm;
}

static void wr_set_sge(struct ibv_qp_ex *ex, uint32_t lkey, uint64_t addr, uint32_t length)
{
	struct ibv_sge sge = { .addr = addr, .length = length, .lkey = lkey };
	set_sges(emu_qp_ex(ex), 1, &sge);
}

static void wr_set_sge_list(struct ibv_qp_ex *ex, size_t num, const struct ibv_sge *list)
{
	set_sges(emu_qp_ex(ex), num, list);
}

static void wr_set_inline_data(struct ibv_qp_ex *ex, void *addr, size_t length)
{
	struct ibv_data_buf buf = { .addr = addr, .length = length };
	set_inline(emu_qp_ex(ex), 1, &buf);
}

static void wr_set_inline_data_list(struct ibv_qp_ex *ex, size_t num, const struct ibv_data_buf *list)
{
	set_inline(emu_qp_ex(ex), num, list);
}

static void wr_set_ud_addr(struct ibv_qp_ex *ex, struct ibv_ah *ah, uint32_t qpn, uint32_t qkey)
{
	set_dest(emu_qp_ex(ex), ah, qpn, qkey);
}

void emu_fill_wr_builder(struct ibv_qp_ex *ex)
{
	ex->wr_start = wr_start;
	ex->wr_complete = wr_complete;
	ex->wr_abort = wr_abort;
	ex->wr_rdma_read = wr_rdma_read;
	ex->wr_rdma_write = wr_rdma_write;
	ex->wr_rdma_write_imm = wr_rdma_write_imm;
	ex->wr_send = wr_send;
	ex->wr_send_imm = wr_send_imm;
	ex->wr_set_sge = wr_set_sge;
	ex->wr_set_sge_list = wr_set_sge_list;
	ex->wr_set_inline_data = wr_set_inline_data;
	ex->wr_set_inline_data_list = wr_set_inline_data_list;
	ex->wr_set_ud_addr = wr_set_ud_addr;
}

/* ---- the classic calls ---- */

int emu_post_send(struct ibv_qp *ibqp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct emu_qp *qp = emu_qp(ibqp);
	int err = 0;

	pthread_mutex_lock(&qp->wr_lock);
	for (; wr && !err; wr = wr->next) {
		*bad = wr;
		build_reset(qp);
		/* RDMA goes through the builder alone, as in the real driver. */
		if (wr->opcode != IBV_WR_SEND && wr->opcode != IBV_WR_SEND_WITH_IMM) {
			err = EINVAL;
			break;
		}
		struct emu_send_wr *built = begin(qp, wr->wr_id, wr->opcode);
		if (built)
			built->imm = wr->opcode == IBV_WR_SEND_WITH_IMM ? wr->imm_data : 0;
		if (wr->send_flags & IBV_SEND_INLINE) {
			struct ibv_data_buf bufs[EMU_MAX_SEND_SGE];
			int n = wr->num_sge < EMU_MAX_SEND_SGE ? wr->num_sge : EMU_MAX_SEND_SGE;
			for (int i = 0; i < n; i++)
				bufs[i] = (struct ibv_data_buf){ .addr = (void *)(uintptr_t)wr->sg_list[i].addr,
								 .length = wr->sg_list[i].length };
			set_inline(qp, (size_t)n, bufs);
		} else {
			set_sges(qp, (size_t)wr->num_sge, wr->sg_list);
		}
		set_dest(qp, wr->wr.ud.ah, wr->wr.ud.remote_qpn, wr->wr.ud.remote_qkey);
		err = finish(qp);
	}
	pthread_mutex_unlock(&qp->wr_lock);
	return err;
}

int emu_post_recv(struct ibv_qp *ibqp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct emu_qp *qp = emu_qp(ibqp);
	uint32_t posted = 0;
	int err = 0;

	pthread_mutex_lock(&qp->rq_lock);
	for (; wr && !err; wr = wr->next) {
		*bad = wr;
		if (ibqp->state == IBV_QPS_RESET || ibqp->state == IBV_QPS_ERR || wr->num_sge < 0 ||
		    wr->num_sge > EMU_MAX_RECV_SGE) {
			err = EINVAL;
		} else if (qp->rq_count == qp->rq_depth) {
			err = ENOMEM;
		} else {
			struct emu_recv_wr *slot = &qp->recvs[(qp->rq_head + qp->rq_count++) % qp->rq_depth];
			slot->wr_id = wr->wr_id;
			slot->num_sge = (uint32_t)wr->num_sge;
			memcpy(slot->sge, wr->sg_list, slot->num_sge * sizeof(*slot->sge));
			posted++;
		}
	}
	if (posted)
		registry_recv_post(ibqp->qp_num, posted);
	pthread_mutex_unlock(&qp->rq_lock);
	return err;
}
