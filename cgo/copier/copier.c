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

	(void)op;
	(void)n;
	l->done = 0;
	if (l->cuda && !l->bound) {
		if ((rc = l->cuda->set_current(l->ctx)))
			return fail(l, "cuCtxSetCurrent", rc);
		l->bound = 1;
	}
	return XB_OK;
}

static int post(void *p, int op, const struct xb_piece *pieces, uint64_t index, uint32_t n)
{
	struct xb_copier *l = p;
	uint64_t bytes = 0;
	uint32_t i;

	(void)index;
	for (i = 0; i < n && bytes < XB_COPIER_MOST; i++) {
		uint64_t dst = l->dst + (op == XB_READ ? pieces[i].local : pieces[i].remote);
		uint64_t src = l->src + (op == XB_READ ? pieces[i].remote : pieces[i].local);
		int rc;

		if (!l->cuda) {
			memcpy((void *)(uintptr_t)dst, (const void *)(uintptr_t)src, pieces[i].len);
			bytes += pieces[i].len;
		} else if ((rc = l->cuda->on_device_async(dst, src, pieces[i].len, l->stream))) {
			return fail(l, "cuMemcpyDtoDAsync_v2", rc);
		}
	}
	l->done += i;
	return (int)i;
}

static int poll(void *p)
{
	struct xb_copier *l = p;
	int rc, done = (int)l->done;

	if (l->cuda && done) {
		rc = l->cuda->stream_query(l->stream);
		if (rc == XB_CUDA_NOT_READY)
			return 0;
		if (rc)
			return fail(l, "cuStreamQuery", rc);
	}
	l->done = 0;
	return done;
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
