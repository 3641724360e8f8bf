/* Operations one by one, through the calls that the measuring loop makes. */
#include "ucp.h"

#include <stdlib.h>

int xb_ucx_post(struct xb_ucx_lane *l, int op, const struct xb_piece *piece, uint32_t tag)
{
	return xb_ucx_ops.post(l, op, piece, tag, 1);
}

static void unlist(struct xb_ucx_direct *d)
{
	if (d->prev)
		d->prev->next = d->next;
	else
		d->lane->direct = d->next;
	if (d->next)
		d->next->prev = d->prev;
}

static void on_received(void *request, ucs_status_t status, const ucp_tag_recv_info_t *info, void *arg)
{
	struct xb_ucx_direct *d = arg;
	struct xb_ucx_lane *l = d->lane;

	(void)info;
	l->u->request_free(request);
	l->pending--;
	if (status == UCS_OK)
		l->received++;
	else if (status != UCS_ERR_CANCELED)
		xb_ucx_lane_fail(l, "ucp_tag_recv_nbx", status);
	d->ended = 1;
	if (d->listed) { /* else the callback ran within the call */
		unlist(d);
		free(d);
	}
}

int xb_ucx_recv(struct xb_ucx_lane *l, uint64_t offset, uint64_t len, uint32_t tag)
{
	ucp_request_param_t param = l->recv;
	struct xb_ucx_direct *d;
	ucs_status_ptr_t r;

	if (l->failed)
		return XB_FAIL;
	d = calloc(1, sizeof(*d));
	if (!d) {
		xb_ucx_lane_fail(l, "room for a receive", UCS_ERR_NO_MEMORY);
		return XB_FAIL;
	}
	d->lane = l;
	param.cb.recv = on_received;
	param.user_data = d;
	r = l->u->tag_recv_nbx(l->worker, l->base + offset, len, TAG(l->label, l->armed_seq, tag), UINT64_MAX, &param);
	if (UCS_PTR_IS_ERR(r)) {
		free(d);
		if (UCS_PTR_STATUS(r) == UCS_ERR_NO_RESOURCE)
			return 0;
		xb_ucx_lane_fail(l, "ucp_tag_recv_nbx", UCS_PTR_STATUS(r));
		return XB_FAIL;
	}
	if (!r) {
		l->received++;
		free(d);
		return 1;
	}
	l->pending++;
	if (d->ended) {
		free(d);
		return 1;
	}
	d->request = r;
	d->listed = 1;
	d->next = l->direct;
	if (d->next)
		d->next->prev = d;
	l->direct = d;
	return 1;
}

int xb_ucx_poll(struct xb_ucx_lane *l, uint64_t *received)
{
	int completed = xb_ucx_ops.poll(l);

	/* Some came within the call that posted their receive. */
	*received = l->received;
	l->received = 0;
	return completed;
}

int xb_ucx_flush(struct xb_ucx_lane *l) { return xb_ucx_ops.flush(l, XB_WRITE); }

int xb_ucx_flushed(struct xb_ucx_lane *l) { return xb_ucx_ops.landed(l, XB_WRITE); }

void xb_ucx_cancel(struct xb_ucx_lane *l)
{
	/* A receive that is cancelled may leave the list within the call. */
	for (struct xb_ucx_direct *d = l->direct, *next; d; d = next) {
		next = d->next;
		l->u->request_cancel(l->worker, d->request);
	}
}
