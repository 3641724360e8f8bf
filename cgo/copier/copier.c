#include "copier.h"

#include <stdio.h>
#include <string.h>

static int fail(struct xb_copier *l, const char *call, int code)
{
	const char *name = NULL;

	if (l->cuda->error_name(code, &name) || !name)
		name = "unknown CUDA error";
	snprintf(l->err, sizeof(l->err), "%s: %s (%d)", call, name, code);
	return XB_FAIL;
}

static int begin(void *p, int op, uint64_t n)
{
	struct xb_copier *l = p;
	int rc;

	(void)n;
	l->posted = 0;
	l->op = op;
	if (l->cuda && !l->bound) {
		if ((rc = l->cuda->set_current(l->ctx)))
			return fail(l, "cuCtxSetCurrent", rc);
		l->bound = 1;
	}
	return XB_OK;
}

static uint64_t destination(const struct xb_copier *l, const struct xb_piece *q)
{
	return l->op == XB_READ ? l->local + q->local : l->remote + q->remote;
}

static uint64_t source(const struct xb_copier *l, const struct xb_piece *q)
{
	return l->op == XB_READ ? l->remote + q->remote : l->local + q->local;
}

/* A GPU begins at once; the CPU copies in poll. The pieces of one post follow those
 * of the last in memory. */
static int post(void *p, int op, const struct xb_piece *pieces, uint64_t index, uint32_t n)
{
	struct xb_copier *l = p;

	(void)op;
	(void)index;
	if (!l->posted)
		l->next = pieces;
	for (uint32_t i = 0; i < n && l->cuda; i++) {
		int rc = l->cuda->on_device_async(destination(l, &pieces[i]), source(l, &pieces[i]), pieces[i].len, l->stream);

		if (rc)
			return fail(l, "cuMemcpyDtoDAsync_v2", rc);
	}
	l->posted += n;
	return (int)n;
}

/* How many pieces the CPU has copied now. */
static uint64_t copy(struct xb_copier *l)
{
	uint64_t bytes = 0, i;

	for (i = 0; i < l->posted && bytes < XB_COPIER_MOST; i++, l->next++) {
		memcpy((void *)(uintptr_t)destination(l, l->next), (const void *)(uintptr_t)source(l, l->next), l->next->len);
		bytes += l->next->len;
	}
	return i;
}

static int poll(void *p)
{
	struct xb_copier *l = p;
	uint64_t done = l->posted;
	int rc;

	if (!done)
		return 0;
	if (!l->cuda) {
		done = copy(l);
	} else if ((rc = l->cuda->stream_query(l->stream))) {
		return rc == XB_CUDA_NOT_READY ? 0 : fail(l, "cuStreamQuery", rc);
	}
	l->posted -= done;
	return (int)done;
}

/* A copy that has ended has landed. */
static int flush(void *p, int op)
{
	(void)p;
	(void)op;
	return XB_OK;
}

static int landed(void *p, int op)
{
	(void)p;
	(void)op;
	return 1;
}

/* There is no other side that could be armed. */
static int arm(void *p, int op, const struct xb_piece *pieces, uint64_t n)
{
	(void)op;
	(void)pieces;
	(void)n;
	snprintf(((struct xb_copier *)p)->err, sizeof(((struct xb_copier *)p)->err), "a copy has no target");
	return XB_FAIL;
}

static int arrived(void *p)
{
	(void)p;
	return 0;
}

static int ack(void *p)
{
	(void)p;
	return XB_OK;
}

static const char *error(void *p) { return ((struct xb_copier *)p)->err; }

const struct xb_ops xb_copier_ops = { begin, post, poll, flush, landed, arm, arrived, ack, error };
