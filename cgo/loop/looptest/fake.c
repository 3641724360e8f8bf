#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int begin(void *p, int op, uint64_t n)
{
	struct fake *f = p;

	(void)op;
	(void)n;
	f->begins++;
	f->landed = 0;
	f->begun = now();
	return XB_OK;
}

static int post(void *p, int op, const struct xb_piece *pieces, uint64_t index, uint32_t n)
{
	struct fake *f = p;

	(void)op;
	(void)pieces;
	(void)index;
	for (uint32_t i = 0; i < n; i++) {
		f->asked++;
		if (f->refuse_every && f->asked % f->refuse_every == 0)
			return (int)i;
		if (++f->posts == f->fail_at) {
			snprintf(f->error, sizeof(f->error), "post %llu failed", (unsigned long long)f->posts);
			return XB_FAIL;
		}
		if (++f->outstanding > f->most)
			f->most = f->outstanding;
	}
	return (int)n;
}

static int poll(void *p)
{
	struct fake *f = p;

	if (++f->polls == f->fail_poll_at) {
		snprintf(f->error, sizeof(f->error), "poll failed");
		return XB_FAIL;
	}
	while (f->polls == f->hangs_at)
		pause();
	if (f->completes_after && now() - f->begun < f->completes_after)
		return 0;
	if (f->never_completes || !f->outstanding || ++f->ready < f->polls_per_done)
		return 0;
	f->ready = 0;
	f->outstanding--;
	return 1;
}

static int flush(void *p, int op)
{
	struct fake *f = p;

	(void)op;
	f->flushes++;
	if (f->flushes % 2)
		return XB_AGAIN; /* each flush is refused once */
	f->landed = !f->never_lands;
	return XB_OK;
}

static int landed(void *p, int op)
{
	(void)op;
	return ((struct fake *)p)->landed;
}

static int arm(void *p, int op, const struct xb_piece *pieces, uint64_t n)
{
	(void)op;
	(void)pieces;
	(void)n;
	((struct fake *)p)->armed++;
	return XB_OK;
}

static int arrived(void *p) { return !((struct fake *)p)->never_arrives; }

static int ack(void *p)
{
	((struct fake *)p)->acked++;
	return XB_OK;
}

static const char *error(void *p) { return ((struct fake *)p)->error; }

const struct xb_ops fake_ops = { begin, post, poll, flush, landed, arm, arrived, ack, error };

struct fake *fake_new(void) { return calloc(1, sizeof(struct fake)); }
