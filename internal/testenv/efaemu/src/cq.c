#include "cq.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "engine.h"
#include "qp.h"
#include "random.h"
#include "registry.h"

/* The verbs status that the EFA driver gives for each device status. */
static enum ibv_wc_status verbs_status(enum emu_status status)
{
	switch (status) {
	case EMU_OK:
		return IBV_WC_SUCCESS;
	case EMU_FLUSHED:
		return IBV_WC_WR_FLUSH_ERR;
	case EMU_QP_INTERNAL_ERROR:
	case EMU_UNSUPPORTED_OP:
	case EMU_INVALID_AH:
		return IBV_WC_LOC_QP_OP_ERR;
	case EMU_INVALID_LKEY:
		return IBV_WC_LOC_PROT_ERR;
	case EMU_BAD_LENGTH:
		return IBV_WC_LOC_LEN_ERR;
	case EMU_REMOTE_BAD_ADDRESS:
		return IBV_WC_REM_ACCESS_ERR;
	case EMU_REMOTE_ABORT:
		return IBV_WC_REM_ABORT_ERR;
	case EMU_REMOTE_BAD_DEST_QPN:
		return IBV_WC_REM_INV_RD_REQ_ERR;
	case EMU_REMOTE_RNR:
		return IBV_WC_RNR_RETRY_EXC_ERR;
	case EMU_REMOTE_BAD_LENGTH:
		return IBV_WC_REM_INV_REQ_ERR;
	case EMU_REMOTE_BAD_STATUS:
		return IBV_WC_BAD_RESP_ERR;
	case EMU_UNRESP_REMOTE:
	case EMU_UNREACH_REMOTE:
		return IBV_WC_RESP_TIMEOUT_ERR;
	case EMU_REMOTE_UNKNOWN_PEER:
		return IBV_WC_REM_OP_ERR;
	}
	return IBV_WC_GENERAL_ERR;
}

/* grow doubles the ring. Called under cq->lock. */
static void grow(struct emu_cq *cq)
{
	struct emu_cqe *ring = malloc(2 * cq->capacity * sizeof(*ring));
	if (!ring) {
		emu_warn("completion queue: out of memory for %u entries", 2 * cq->capacity);
		abort(); /* a lost completion would hang the user of the queue */
	}
	for (uint32_t i = 0; i < cq->count; i++)
		ring[i] = cq->ring[(cq->head + i) % cq->capacity];
	free(cq->ring);
	cq->ring = ring;
	cq->head = 0;
	cq->capacity *= 2;
}

void emu_cq_push(struct emu_cq *cq, const struct emu_cqe *cqe)
{
	pthread_mutex_lock(&cq->lock);
	if (cq->count == cq->capacity)
		grow(cq);
	cq->ring[(cq->head + cq->count++) % cq->capacity] = *cqe;
	pthread_mutex_unlock(&cq->lock);
}

/* pop takes the oldest completion, or any one if completions are to be shuffled. */
static bool pop(struct emu_cq *cq, struct emu_cqe *out)
{
	pthread_mutex_lock(&cq->lock);
	bool found = cq->count > 0;
	if (found) {
		struct emu_cqe *oldest = &cq->ring[cq->head];
		if (emu_config()->shuffle) {
			uint32_t pick = (uint32_t)(emu_random(&cq->rng) % cq->count);
			struct emu_cqe *picked = &cq->ring[(cq->head + pick) % cq->capacity];
			struct emu_cqe taken = *picked;
			*picked = *oldest;
			*oldest = taken;
		}
		*out = *oldest;
		cq->head = (cq->head + 1) % cq->capacity;
		cq->count--;
	}
	pthread_mutex_unlock(&cq->lock);
	return found;
}

bool emu_cq_attach(struct emu_cq *cq, struct emu_qp *qp)
{
	pthread_mutex_lock(&cq->poll_lock);
	struct emu_qp **qps = realloc(cq->qps, (cq->num_qps + 1) * sizeof(*qps));
	if (qps) {
		cq->qps = qps;
		cq->qps[cq->num_qps++] = qp;
	}
	pthread_mutex_unlock(&cq->poll_lock);
	return qps != NULL;
}

void emu_cq_detach(struct emu_cq *cq, struct emu_qp *qp)
{
	pthread_mutex_lock(&cq->poll_lock);
	for (uint32_t i = 0; i < cq->num_qps; i++) {
		if (cq->qps[i] == qp) {
			cq->qps[i] = cq->qps[--cq->num_qps];
			break;
		}
	}
	pthread_mutex_lock(&cq->lock);
	uint32_t kept = 0;
	for (uint32_t i = 0; i < cq->count; i++) {
		struct emu_cqe *cqe = &cq->ring[(cq->head + i) % cq->capacity];
		if (cqe->qpn != qp->ex.qp_base.qp_num)
			cq->ring[(cq->head + kept++) % cq->capacity] = *cqe;
	}
	cq->count = kept;
	pthread_mutex_unlock(&cq->lock);
	pthread_mutex_unlock(&cq->poll_lock);
}

/* A send queue's slot is free again once its completion was read, not before: this is what makes a small queue full. */
static void retire_cur(struct emu_cq *cq)
{
	if (cq->has_cur && cq->cur.sq)
		emu_qp_release_slot(cq->cur.sq);
	cq->has_cur = false;
}

/* progress drives the queue pairs that complete here: the emulated device has no thread of its own. */
static void progress(struct emu_cq *cq)
{
	for (uint32_t i = 0; i < cq->num_qps; i++)
		emu_engine_progress(cq->qps[i]);
	counters_publish();
}

static int next_cqe(struct emu_cq *cq)
{
	if (!pop(cq, &cq->cur))
		return ENOENT;
	cq->has_cur = true;
	cq->ex.wr_id = cq->cur.wr_id;
	cq->ex.status = verbs_status(cq->cur.status);
	return 0;
}

static int start_poll(struct ibv_cq_ex *ex, struct ibv_poll_cq_attr *attr)
{
	struct emu_cq *cq = emu_cq(ibv_cq_ex_to_cq(ex));
	if (attr->comp_mask)
		return EINVAL;
	pthread_mutex_lock(&cq->poll_lock);
	progress(cq);
	int err = next_cqe(cq);
	if (err)
		pthread_mutex_unlock(&cq->poll_lock);
	return err;
}

static int next_poll(struct ibv_cq_ex *ex)
{
	struct emu_cq *cq = emu_cq(ibv_cq_ex_to_cq(ex));
	retire_cur(cq);
	return next_cqe(cq);
}

static void end_poll(struct ibv_cq_ex *ex)
{
	struct emu_cq *cq = emu_cq(ibv_cq_ex_to_cq(ex));
	retire_cur(cq);
	pthread_mutex_unlock(&cq->poll_lock);
}

int emu_poll_cq(struct ibv_cq *ibcq, int num, struct ibv_wc *wc)
{
	struct emu_cq *cq = emu_cq(ibcq);
	int n = 0;

	pthread_mutex_lock(&cq->poll_lock);
	progress(cq);
	for (; n < num && !next_cqe(cq); n++) {
		wc[n] = (struct ibv_wc){
			.wr_id = cq->cur.wr_id,
			.status = cq->ex.status,
			.opcode = cq->cur.opcode,
			.vendor_err = cq->cur.status,
			.byte_len = cq->cur.byte_len,
			.imm_data = cq->cur.imm,
			.qp_num = cq->cur.qpn,
			.src_qp = cq->cur.src_qpn,
			.wc_flags = cq->cur.has_imm ? IBV_WC_WITH_IMM : 0,
			.slid = cq->cur.ahn,
		};
		retire_cur(cq);
	}
	pthread_mutex_unlock(&cq->poll_lock);
	return n;
}

/* Readers of the current completion. */
#define CUR(ex) (&((struct emu_cq *)(ex))->cur)

static enum ibv_wc_opcode read_opcode(struct ibv_cq_ex *ex) { return CUR(ex)->opcode; }
static uint32_t read_vendor_err(struct ibv_cq_ex *ex) { return CUR(ex)->status; }
static uint32_t read_byte_len(struct ibv_cq_ex *ex) { return CUR(ex)->byte_len; }
static __be32 read_imm_data(struct ibv_cq_ex *ex) { return CUR(ex)->imm; }
static uint32_t read_qp_num(struct ibv_cq_ex *ex) { return CUR(ex)->qpn; }
static uint32_t read_src_qp(struct ibv_cq_ex *ex) { return CUR(ex)->src_qpn; }
static unsigned int read_wc_flags(struct ibv_cq_ex *ex) { return CUR(ex)->has_imm ? IBV_WC_WITH_IMM : 0; }
static uint32_t read_slid(struct ibv_cq_ex *ex) { return CUR(ex)->ahn; }

static uint8_t read_zero(struct ibv_cq_ex *ex)
{
	(void)ex;
	return 0;
}

static int read_sgid(struct efadv_cq *dv, union ibv_gid *sgid)
{
	const struct emu_cq *cq = emu_container_of((struct emu_efadv_cq *)dv, struct emu_cq, dv);
	if (cq->cur.ahn != REGISTRY_AH_UNKNOWN)
		return -ENOENT; /* the device names senders only that it has no handle for */
	*sgid = cq->cur.sgid;
	return 0;
}

static bool read_unsolicited(struct efadv_cq *dv)
{
	return emu_container_of((struct emu_efadv_cq *)dv, struct emu_cq, dv)->cur.unsolicited;
}

static struct emu_cq *create(struct ibv_context *ctx, uint32_t entries, uint64_t efa_flags)
{
	struct emu_cq *cq = calloc(1, sizeof(*cq));
	if (!cq)
		return NULL;
	cq->capacity = entries > 64 ? entries : 64;
	cq->ring = malloc(cq->capacity * sizeof(*cq->ring));
	if (!cq->ring) {
		free(cq);
		return NULL;
	}
	cq->rng = emu_config()->shuffle;
	pthread_mutex_init(&cq->poll_lock, NULL);
	pthread_mutex_init(&cq->lock, NULL);

	struct ibv_cq_ex *ex = &cq->ex;
	ex->context = ctx;
	ex->cqe = (int)cq->capacity;
	pthread_mutex_init(&ex->mutex, NULL);
	pthread_cond_init(&ex->cond, NULL);
	ex->start_poll = start_poll;
	ex->next_poll = next_poll;
	ex->end_poll = end_poll;
	ex->read_opcode = read_opcode;
	ex->read_vendor_err = read_vendor_err;
	ex->read_byte_len = read_byte_len;
	ex->read_imm_data = read_imm_data;
	ex->read_qp_num = read_qp_num;
	ex->read_src_qp = read_src_qp;
	ex->read_wc_flags = read_wc_flags;
	ex->read_slid = read_slid;
	ex->read_sl = read_zero;
	ex->read_dlid_path_bits = read_zero;
	if (efa_flags & EMU_WC_EX_WITH_SGID)
		cq->dv.wc_read_sgid = read_sgid;
	if (efa_flags & EMU_WC_EX_WITH_IS_UNSOLICITED)
		cq->dv.wc_is_unsolicited = read_unsolicited;
	return cq;
}

struct ibv_cq_ex *emu_create_cq_ex(struct ibv_context *ctx, struct ibv_cq_init_attr_ex *attr)
{
	return efadv_create_cq(ctx, attr, NULL, 0);
}

EMU_EXPORT struct ibv_cq_ex *efadv_create_cq(struct ibv_context *ctx, struct ibv_cq_init_attr_ex *attr,
					     struct efadv_cq_init_attr *efa, uint32_t size)
{
	uint64_t flags = efa && size >= sizeof(*efa) ? efa->wc_flags : 0;
	uint64_t supported = EMU_WC_EX_WITH_SGID;
	if (emu_config()->profile->caps & EMU_CAP_UNSOLICITED_WRITE_RECV)
		supported |= EMU_WC_EX_WITH_IS_UNSOLICITED;

	if (attr->channel || attr->comp_mask || attr->wc_flags & ~(uint64_t)IBV_WC_STANDARD_FLAGS || flags & ~supported) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	struct emu_cq *cq = create(ctx, attr->cqe, flags);
	return cq ? &cq->ex : NULL;
}

EMU_EXPORT struct ibv_cq *ibv_create_cq(struct ibv_context *ctx, int entries, void *cq_context,
					struct ibv_comp_channel *channel, int comp_vector)
{
	(void)comp_vector;
	if (channel) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	struct emu_cq *cq = create(ctx, (uint32_t)entries, 0);
	if (!cq)
		return NULL;
	cq->cq.cq_context = cq_context;
	return &cq->cq;
}

EMU_EXPORT struct efadv_cq *efadv_cq_from_ibv_cq_ex(struct ibv_cq_ex *ex)
{
	return (struct efadv_cq *)&emu_cq(ibv_cq_ex_to_cq(ex))->dv;
}

EMU_EXPORT int ibv_destroy_cq(struct ibv_cq *ibcq)
{
	struct emu_cq *cq = emu_cq(ibcq);
	if (cq->num_qps)
		return EBUSY;
	pthread_mutex_destroy(&cq->poll_lock);
	pthread_mutex_destroy(&cq->lock);
	pthread_mutex_destroy(&cq->ex.mutex);
	pthread_cond_destroy(&cq->ex.cond);
	free(cq->qps);
	free(cq->ring);
	free(cq);
	return 0;
}
