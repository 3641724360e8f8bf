/* The posting loop without package loop: the same writes, polled as often,
 * straight from an array of contexts. A benchmark holds the loop's against it. */
#define _GNU_SOURCE
#include "postloop.h"

#include "../ep.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

#define POLL_EVERY 16
#define GIVE_UP_NS 10000000000

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int read_tx(struct xb_ofi_ep *e)
{
	struct fi_cq_data_entry entries[XB_OFI_CQ_BATCH];
	ssize_t n = fi_cq_read(e->tx_cq, entries, XB_OFI_CQ_BATCH);

	return n == -FI_EAGAIN ? 0 : (int)n;
}

static int once(struct xb_ofi_ep *e, const struct xb_ops *ops, const struct xb_piece *pieces, uint64_t n, struct fi_context2 *contexts,
		int64_t *post_ns)
{
	uint64_t label, i = 0, done = 0;
	int64_t begin, posted;
	ssize_t rc;
	int got;

	if (ops->begin(e, XB_WRITE, n) != XB_OK)
		return -1;
	label = e->out.data | (e->seq & 0xff) << 24;
	begin = now();
	while (i < n) {
		const struct xb_piece *p = &pieces[i];

		rc = fi_writedata(e->ep, (void *)(uintptr_t)(e->base + p->local), p->len, e->desc, label | i, e->peer,
				  e->remote_base + p->remote, e->remote_key, &contexts[i]);
		if (rc == 0) {
			i++;
			if (i % POLL_EVERY)
				continue;
		} else if (rc != -FI_EAGAIN || now() - begin > GIVE_UP_NS) {
			return -1;
		}
		if ((got = read_tx(e)) < 0)
			return -1;
		done += (uint64_t)got;
	}
	posted = now();
	while (done < n) {
		got = read_tx(e);
		if (got < 0 || now() - begin > GIVE_UP_NS)
			return -1;
		done += (uint64_t)got;
		if (got == 0)
			sched_yield();
	}
	while (!ops->landed(e, XB_WRITE)) {
		if (ops->poll(e) < 0 || now() - begin > GIVE_UP_NS)
			return -1;
		sched_yield();
	}
	*post_ns = posted - begin;
	return 0;
}

int xb_post_alone(void *lane, const struct xb_ops *ops, const struct xb_piece *pieces, uint64_t n, uint32_t iters,
		  int64_t *post_ns)
{
	struct fi_context2 *contexts = calloc(n, sizeof(*contexts));
	int rc = contexts ? 0 : -1;

	for (uint32_t i = 0; i < iters && !rc; i++)
		rc = once(lane, ops, pieces, n, contexts, &post_ns[i]);
	free(contexts);
	return rc;
}
