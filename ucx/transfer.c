#include "ucp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_done(void *request, ucs_status_t status, void *arg)
{
	struct xb_ucx_lane *l = arg;

	l->u->request_free(request);
	l->pending--;
	l->completed++;
	if (status != UCS_OK)
		xb_ucx_lane_fail(l, "a UCX operation ended", status);
}

static void on_flushed(void *request, ucs_status_t status, void *arg)
{
	struct xb_ucx_lane *l = arg;

	l->u->request_free(request);
	l->pending--;
	l->flushed = 1;
	if (status != UCS_OK)
		xb_ucx_lane_fail(l, "ucp_ep_flush_nbx", status);
}

static void on_ack(void *request, ucs_status_t status, const ucp_tag_recv_info_t *info, void *arg)
{
	struct xb_ucx_lane *l = arg;

	(void)info;
	l->ack_pending = 0;
	l->ack_request = NULL;
	l->u->request_free(request);
	l->pending--;
	if (status != UCS_OK && status != UCS_ERR_CANCELED)
		xb_ucx_lane_fail(l, "receiving the target's acknowledgement", status);
}

static void on_ack_sent(void *request, ucs_status_t status, void *arg)
{
	struct xb_ucx_lane *l = arg;

	l->u->request_free(request);
	l->pending--;
	if (status != UCS_OK)
		xb_ucx_lane_fail(l, "sending an acknowledgement", status);
}

static void on_received(void *request, ucs_status_t status, const ucp_tag_recv_info_t *info, void *arg)
{
	struct xb_ucx_recv *r = arg;
	struct xb_ucx_lane *l = r->armed->lane;

	(void)info;
	r->request = NULL;
	r->ended = 1;
	l->u->request_free(request);
	l->pending--;
	if (status == UCS_OK)
		r->armed->arrived++;
	else if (status != UCS_ERR_CANCELED)
		xb_ucx_lane_fail(l, "a UCX receive ended", status);
}

void xb_ucx_lane_prepare(struct xb_ucx_lane *l, ucp_mem_h memh, int memory_type)
{
	const ucp_request_param_t data = {
		.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMH |
				UCP_OP_ATTR_FIELD_MEMORY_TYPE,
		.cb.send = on_done,
		.user_data = l,
		.memory_type = (ucs_memory_type_t)memory_type,
		.memh = memh,
	};
	const ucp_request_param_t word = {
		.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
				UCP_OP_ATTR_FIELD_MEMORY_TYPE,
		.user_data = l,
		.memory_type = UCS_MEMORY_TYPE_HOST,
	};

	l->rma = l->send = l->recv = data;
	l->rma.op_attr_mask |= UCP_OP_ATTR_FLAG_MULTI_SEND; /* as NIXL: many at once, bandwidth over latency */
	l->recv.cb.recv = on_received;
	l->ack_send = l->ack_recv = l->flush_param = word;
	l->ack_send.cb.send = on_ack_sent;
	l->ack_recv.cb.recv = on_ack;
	l->flush_param.op_attr_mask &= ~(uint32_t)UCP_OP_ATTR_FIELD_MEMORY_TYPE;
	l->flush_param.cb.send = on_flushed;
}

/* Counts what a post came back with. */
static int started(struct xb_ucx_lane *l, ucs_status_ptr_t r, const char *call)
{
	if (r == NULL) {
		l->completed++; /* complete already: UCX calls nothing back */
		return XB_OK;
	}
	if (UCS_PTR_IS_PTR(r)) {
		l->pending++;
		return XB_OK;
	}
	if (UCS_PTR_STATUS(r) == UCS_ERR_NO_RESOURCE)
		return XB_AGAIN;
	xb_ucx_lane_fail(l, call, UCS_PTR_STATUS(r));
	return XB_FAIL;
}

/* Whether messages cannot be numbered. */
static int too_many(struct xb_ucx_lane *l, uint64_t n)
{
	if (n < ACK_INDEX)
		return 0;
	l->failed_call = NULL;
	snprintf(l->err, sizeof(l->err), "a SEND of more than %u messages cannot be numbered", ACK_INDEX - 1);
	l->failed = 1;
	return 1;
}

static int lane_begin(void *p, int op, uint64_t n)
{
	struct xb_ucx_lane *l = p;
	ucs_status_ptr_t r;

	if (l->failed)
		return XB_FAIL;
	l->completed = 0;
	l->flushed = op != XB_WRITE;
	if (op != XB_SEND)
		return XB_OK;
	if (too_many(l, n))
		return XB_FAIL;
	l->begun++;
	l->ack_pending = 1;
	r = l->u->tag_recv_nbx(l->worker, &l->ack_word, sizeof(l->ack_word), TAG(l->label, l->begun, ACK_INDEX), UINT64_MAX,
			       &l->ack_recv);
	if (UCS_PTR_IS_ERR(r)) {
		l->ack_pending = 0;
		xb_ucx_lane_fail(l, "ucp_tag_recv_nbx", UCS_PTR_STATUS(r));
		return XB_FAIL;
	}
	if (r == NULL) {
		l->ack_pending = 0;
		return XB_OK;
	}
	l->pending++;
	if (l->ack_pending) /* else the callback ran within the call */
		l->ack_request = r;
	return XB_OK;
}

static ucs_status_ptr_t start(struct xb_ucx_lane *l, int op, const struct xb_piece *q, uint64_t index)
{
	void *local = l->base + q->local;

	if (op == XB_READ)
		return l->u->get_nbx(l->ep, local, q->len, l->remote_base + q->remote, l->rkey, &l->rma);
	if (op == XB_WRITE)
		return l->u->put_nbx(l->ep, local, q->len, l->remote_base + q->remote, l->rkey, &l->rma);
	return l->u->tag_send_nbx(l->ep, local, q->len, TAG(l->remote_label, l->begun, index), &l->send);
}

static int lane_post(void *p, int op, const struct xb_piece *pieces, uint64_t index, uint32_t n)
{
	static const char *const calls[] = {
		[XB_READ] = "ucp_get_nbx", [XB_WRITE] = "ucp_put_nbx", [XB_SEND] = "ucp_tag_send_nbx"
	};
	struct xb_ucx_lane *l = p;

	for (uint32_t i = 0; i < n; i++) {
		const struct xb_piece *q = &pieces[i];
		int rc;

		if (l->failed)
			return XB_FAIL;
		rc = started(l, start(l, op, q, index + i), calls[op]);
		if (rc != XB_OK)
			return rc == XB_AGAIN ? (int)i : rc;
	}
	return (int)n;
}

/* Progress that ends no operation is not idleness: the loop rests after a
 * poll without completions, so that one goes on while UCX has something to do. */
#define PROGRESS_MOST 16

static void progress(struct xb_ucx_lane *l)
{
	for (int i = 0; i < PROGRESS_MOST && l->u->worker_progress(l->worker) && !l->completed; i++)
		;
}

static int lane_poll(void *p)
{
	struct xb_ucx_lane *l = p;
	uint64_t done;

	if (l->failed)
		return XB_FAIL;
	if (l->cuda.set_current && !l->cuda_bound) {
		l->cuda.set_current(l->cuda.ctx);
		l->cuda_bound = 1;
	}
	progress(l);
	if (atomic_load_explicit(&l->info_state, memory_order_relaxed) == XB_UCX_INFO_WANTED) {
		int wanted = XB_UCX_INFO_WANTED;

		free(l->info);
		l->info = xb_ucx_lane_print(l);
		atomic_compare_exchange_strong(&l->info_state, &wanted, XB_UCX_INFO_READY);
	}
	if (l->failed)
		return XB_FAIL;
	done = l->completed;
	l->completed = 0;
	return (int)done;
}

static int lane_flush(void *p, int op)
{
	struct xb_ucx_lane *l = p;
	ucs_status_ptr_t r;

	if (l->failed)
		return XB_FAIL;
	if (op != XB_WRITE)
		return XB_OK;
	r = l->u->ep_flush_nbx(l->ep, &l->flush_param);
	if (UCS_PTR_IS_ERR(r)) {
		xb_ucx_lane_fail(l, "ucp_ep_flush_nbx", UCS_PTR_STATUS(r));
		return XB_FAIL;
	}
	l->flushed = r == NULL;
	l->pending += r != NULL;
	return XB_OK;
}

static int lane_landed(void *p, int op)
{
	struct xb_ucx_lane *l = p;

	if (l->failed)
		return XB_FAIL;
	return op == XB_SEND ? !l->ack_pending : l->flushed;
}

static int post_receives(struct xb_ucx_lane *l, struct xb_ucx_armed *a, const struct xb_piece *pieces)
{
	for (; a->posted < a->n; a->posted++) {
		const struct xb_piece *q = &pieces[a->posted];
		struct xb_ucx_recv *r = &a->recv[a->posted];
		ucp_request_param_t param = l->recv;
		ucs_status_ptr_t req;

		*r = (struct xb_ucx_recv){ .armed = a };
		param.user_data = r;
		req = l->u->tag_recv_nbx(l->worker, l->base + q->remote, q->len, TAG(l->label, a->seq, a->posted), UINT64_MAX,
					 &param);
		if (UCS_PTR_IS_ERR(req)) {
			if (UCS_PTR_STATUS(req) == UCS_ERR_NO_RESOURCE)
				return XB_AGAIN;
			xb_ucx_lane_fail(l, "ucp_tag_recv_nbx", UCS_PTR_STATUS(req));
			return XB_FAIL;
		}
		if (req == NULL) {
			a->arrived++;
			continue;
		}
		l->pending++;
		if (!r->ended) /* else the callback ran, and freed it, within the call */
			r->request = req;
	}
	l->armed_seq = a->seq;
	return XB_OK;
}

static int lane_arm(void *p, int op, const struct xb_piece *pieces, uint64_t n)
{
	struct xb_ucx_lane *l = p;
	uint32_t seq = l->armed_seq + 1;
	struct xb_ucx_armed *a = &l->armed[seq % XB_UCX_ARMED];

	if (l->failed)
		return XB_FAIL;
	if (op != XB_SEND) { /* one-sided: the target sees nothing arrive */
		snprintf(l->err, sizeof(l->err), "only SEND can be armed over UCX");
		l->failed = 1;
		return XB_FAIL;
	}
	if (too_many(l, n))
		return XB_FAIL;
	if (seq - l->acked_seq > XB_UCX_ARMED)
		return XB_AGAIN;
	if (a->seq != seq) {
		if (a->room < n) {
			free(a->recv);
			a->recv = calloc(n, sizeof(*a->recv));
			a->room = a->recv ? n : 0;
			if (!a->recv) {
				xb_ucx_lane_fail(l, "room for receives", UCS_ERR_NO_MEMORY);
				return XB_FAIL;
			}
		}
		a->seq = seq;
		a->n = n;
		a->posted = a->arrived = 0;
	}
	return post_receives(l, a, pieces);
}

static int lane_arrived(void *p)
{
	struct xb_ucx_lane *l = p;
	struct xb_ucx_armed *a = &l->armed[(l->acked_seq + 1) % XB_UCX_ARMED];

	if (l->failed)
		return XB_FAIL;
	return a->arrived == a->n;
}

static int lane_ack(void *p)
{
	struct xb_ucx_lane *l = p;
	static const uint64_t word = 1;
	ucs_status_ptr_t r;

	if (l->failed)
		return XB_FAIL;
	r = l->u->tag_send_nbx(l->ep, &word, sizeof(word), TAG(l->remote_label, l->acked_seq + 1, ACK_INDEX), &l->ack_send);
	if (UCS_PTR_IS_ERR(r)) {
		if (UCS_PTR_STATUS(r) == UCS_ERR_NO_RESOURCE)
			return XB_AGAIN;
		xb_ucx_lane_fail(l, "ucp_tag_send_nbx", UCS_PTR_STATUS(r));
		return XB_FAIL;
	}
	l->pending += r != NULL;
	l->acked_seq++;
	return XB_OK;
}

static const char *lane_error(void *p)
{
	const struct xb_ucx_lane *l = p;

	return l->err;
}

const struct xb_ops xb_ucx_ops = {
	.begin = lane_begin,
	.post = lane_post,
	.poll = lane_poll,
	.flush = lane_flush,
	.landed = lane_landed,
	.arm = lane_arm,
	.arrived = lane_arrived,
	.ack = lane_ack,
	.error = lane_error,
};
