#define _GNU_SOURCE
#include "ucp.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void xb_ucx_lane_fail(struct xb_ucx_lane *l, const char *what, ucs_status_t status)
{
	if (l->failed)
		return; /* the first failure is the cause of the others */
	l->failed = 1;
	l->failed_call = what;
	l->failed_status = status;
	snprintf(l->err, sizeof(l->err), "%s: %s", what, l->u->status_string(status));
}

static void on_peer_failure(void *arg, ucp_ep_h ep, ucs_status_t status)
{
	(void)ep;
	xb_ucx_lane_fail(arg, "UCX endpoint", status);
}

struct xb_ucx_lane *xb_ucx_lane_new(const struct xb_ucp *u, ucp_context_h context, ucs_status_t *status)
{
	/* One thread at a time owns the lane, though not always the same. */
	ucp_worker_params_t params = {
		.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
		.thread_mode = UCS_THREAD_MODE_SERIALIZED,
	};
	struct xb_ucx_lane *l = calloc(1, sizeof(*l));
	sigset_t all, old;

	if (!l) {
		*status = UCS_ERR_NO_MEMORY;
		return NULL;
	}
	l->u = u;
	for (int i = 0; i < XB_UCX_ARMED; i++)
		l->armed[i].lane = l;
	sigfillset(&all); /* the worker may start UCX's own thread */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	*status = u->worker_create(context, &params, &l->worker);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (*status != UCS_OK) {
		free(l);
		return NULL;
	}
	return l;
}

ucs_status_t xb_ucx_lane_address(struct xb_ucx_lane *l, ucp_address_t **address, size_t *n)
{
	return l->u->worker_get_address(l->worker, address, n);
}

void xb_ucx_release_address(struct xb_ucx_lane *l, ucp_address_t *address)
{
	l->u->worker_release_address(l->worker, address);
}

void xb_ucx_lane_memory(struct xb_ucx_lane *l, ucp_mem_h memh, uint64_t base, int memory_type,
			const struct xb_ucx_cuda *cuda)
{
	l->base = (unsigned char *)(uintptr_t)base;
	l->cuda = *cuda;
	xb_ucx_lane_prepare(l, memh, memory_type);
}

void xb_ucx_lane_labels(struct xb_ucx_lane *l, uint32_t label, uint32_t remote_label)
{
	l->label = label;
	l->remote_label = remote_label;
}

ucs_status_t xb_ucx_lane_connect(struct xb_ucx_lane *l, const void *address, const void *rkey, uint64_t remote_base,
				 int peer_errors, const char **what)
{
	ucp_ep_params_t params = {
		.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
			      UCP_EP_PARAM_FIELD_ERR_HANDLER,
		.address = address,
		.err_mode = peer_errors ? UCP_ERR_HANDLING_MODE_PEER : UCP_ERR_HANDLING_MODE_NONE,
		.err_handler = { .cb = on_peer_failure, .arg = l },
	};
	ucs_status_t status;

	l->peer_errors = peer_errors;
	l->remote_base = remote_base;
	*what = "ucp_ep_create";
	status = l->u->ep_create(l->worker, &params, &l->ep);
	if (status != UCS_OK) {
		l->ep = NULL;
		return status;
	}
	*what = "ucp_ep_rkey_unpack";
	return l->u->ep_rkey_unpack(l->ep, rkey, &l->rkey);
}

char *xb_ucx_lane_print(struct xb_ucx_lane *l)
{
	char *text = NULL;
	size_t n;
	FILE *f;

	if (!l->ep || l->failed || !(f = open_memstream(&text, &n)))
		return NULL;
	l->u->ep_print_info(l->ep, f);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

char *xb_ucx_lane_info(struct xb_ucx_lane *l, int64_t wait_ns)
{
	int64_t deadline = now() + wait_ns;
	char *text;

	atomic_store(&l->info_state, XB_UCX_INFO_WANTED);
	while (atomic_load(&l->info_state) != XB_UCX_INFO_READY) {
		int wanted = XB_UCX_INFO_WANTED;

		if (now() > deadline &&
		    atomic_compare_exchange_strong(&l->info_state, &wanted, XB_UCX_INFO_NONE))
			return NULL;
		nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
	}
	text = l->info;
	l->info = NULL;
	atomic_store(&l->info_state, XB_UCX_INFO_NONE);
	return text;
}

static void progress_until(struct xb_ucx_lane *l, int64_t deadline, int (*done)(struct xb_ucx_lane *, void *), void *arg)
{
	while (!done(l, arg) && now() < deadline)
		if (!l->u->worker_progress(l->worker))
			sched_yield();
}

static int request_done(struct xb_ucx_lane *l, void *request)
{
	return l->u->request_check_status(request) != UCS_INPROGRESS;
}

static int nothing_pending(struct xb_ucx_lane *l, void *arg)
{
	(void)arg;
	return l->pending == 0;
}

/* Waits for a request that has no callback; 1 when it ended in time. One that did
 * not is UCX's until it does. */
static int finish(struct xb_ucx_lane *l, ucs_status_ptr_t request, int64_t deadline)
{
	int ended;

	if (!UCS_PTR_IS_PTR(request))
		return 1;
	progress_until(l, deadline, request_done, request);
	ended = request_done(l, request);
	l->u->request_free(request);
	return ended;
}

static void cancel_receives(struct xb_ucx_lane *l)
{
	for (int i = 0; i < XB_UCX_ARMED; i++) {
		struct xb_ucx_armed *a = &l->armed[i];

		for (uint64_t j = 0; j < a->posted; j++)
			if (a->recv[j].request)
				l->u->request_cancel(l->worker, a->recv[j].request);
	}
	if (l->ack_pending && l->ack_request)
		l->u->request_cancel(l->worker, l->ack_request);
	xb_ucx_cancel(l);
}

/* What ends without the peer takes about a millisecond, and gets this much on a host
 * whose cores are busy, however late it is. */
#define ALONE_NS 200000000

/* Returns how many requests of its own UCX still has in hand. */
static int64_t close_endpoint(struct xb_ucx_lane *l, int64_t begun, int64_t deadline)
{
	ucp_request_param_t flush = { 0 }, close = { 0 };
	int flushed = 1, closed;

	/* What was sent last (an acknowledgement) leaves before the close does. Half
	 * of the time is for the close itself. */
	if (!l->failed)
		flushed = finish(l, l->u->ep_flush_nbx(l->ep, &flush), begun + (deadline - begun) / 2);
	/* Forcing ends what the peer will never answer, that flush too; UCX allows it
	 * only with error handling. Without it the close waits for a peer that polls,
	 * and the worker may go before that. */
	if (l->peer_errors) {
		close.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
		close.flags = UCP_EP_CLOSE_FLAG_FORCE;
	}
	if (l->peer_errors && deadline < now() + ALONE_NS)
		deadline = now() + ALONE_NS;
	closed = finish(l, l->u->ep_close_nbx(l->ep, &close), deadline);
	if (!l->peer_errors)
		return !flushed;
	/* A forced close is over before UCX has discarded the transports' endpoints
	 * below it. Destroying a worker that still does so aborts the process:
	 * "ucs_arbiter_group_is_empty(group)", "comp->count > 0". */
	return closed ? !finish(l, l->u->worker_flush_nbx(l->worker, &flush), deadline) : 1;
}

int64_t xb_ucx_lane_free(struct xb_ucx_lane *l, int64_t timeout_ns)
{
	int64_t begun = now(), deadline = begun + timeout_ns, left = 0;

	if (!l)
		return 0;
	cancel_receives(l);
	if (l->ep)
		left = close_endpoint(l, begun, deadline);
	progress_until(l, deadline, nothing_pending, NULL);
	if (left + l->pending)
		return left + l->pending;
	if (l->rkey)
		l->u->rkey_destroy(l->rkey);
	l->u->worker_destroy(l->worker);
	for (int i = 0; i < XB_UCX_ARMED; i++)
		free(l->armed[i].recv);
	free(l->info);
	free(l);
	return 0;
}
