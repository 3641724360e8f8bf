/* What a lane's thread does: wait, transfer, receive. */
#define _GNU_SOURCE
#include "lane.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>

/* Where a target's lane stands within its armed iterations. */
enum { ARM_NONE, ARM_FIRST, ARM_WAIT, ARM_NEXT, ARM_ACK };

/* The clock is looked at once in this many empty polls: a read of it costs about
 * as much as a poll of shared memory. */
#define CLOCK_EVERY 16
/* A wait polls as fast as it can this often; it then pauses the core between two
 * polls and, in yield mode, gives it away once in so many. Lanes that share cores
 * with each other do so from the start. */
#define PATIENT_AFTER 64
#define YIELD_EVERY 8
/* In yield mode a lone lane's transfer also rests after an empty poll, since
 * polling takes locks and, on a shared core, time from whoever does the work. Not
 * for longer than this part of the transfer so far, by which it may end late, nor than this
 * part of the time that the operations in flight last, which must not run out. */
#define REST_OF_TRANSFER 256
#define REST_OF_FLIGHT 64
#define REST_MOST_NS 20000
#define REST_LEAST_NS 1000
#define REST_PAUSES 32 /* between two looks at the clock, under a microsecond */
/* Posts between two polls, so that completions do not pile up unread. */
#define POLL_EVERY 64
/* An idle lane's queues are still polled this often: handshakes wait for it. */
#define IDLE_NS 1000000

static void pause_core(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static void relax(const struct xb_group *g, uint32_t empty)
{
	if (empty < PATIENT_AFTER && g->n == 1)
		return;
	if (g->poll_mode == XB_YIELD && empty % YIELD_EVERY == 0)
		sched_yield();
	else
		pause_core();
}

static int poll_lane(struct lane *l)
{
	atomic_fetch_add_explicit(&l->turn, 1, memory_order_relaxed);
	return l->ops->poll(l->impl);
}

static int fail(struct lane *l, int rc, const char *what)
{
	snprintf(l->err, sizeof(l->err), "%s", what);
	return rc;
}

static int fail_op(struct lane *l) { return fail(l, EIO, l->ops->error(l->impl)); }

/* How far a transfer is, and how long it has waited since it last moved. */
struct wait {
	int64_t begun; /* 0: nothing to rest in */
	int64_t rest;
	struct patience since;
	uint64_t posted, done;
	uint32_t empty;
};

static void moved(struct wait *w)
{
	w->since = (struct patience){ 0 };
	w->empty = 0;
}

static int64_t rest_at(const struct wait *w, int64_t t)
{
	int64_t run = t - w->begun, flying = (int64_t)(w->posted - w->done), done = (int64_t)w->done;
	int64_t part = run / REST_OF_TRANSFER;

	if (done > flying && flying > 0)
		part = least(part, run / done * flying / REST_OF_FLIGHT);
	return part < REST_LEAST_NS ? 0 : least(part, REST_MOST_NS);
}

static void rest(const struct wait *w)
{
	for (int64_t until = now() + w->rest; now() < until;)
		for (int i = 0; i < REST_PAUSES; i++)
			pause_core();
}

/* Called on each poll that moved nothing; an errno ends the wait. what is being
 * waited for, or NULL when the wait ends with that of another lane. */
static int idle(struct lane *l, struct wait *w, const char *what)
{
	struct xb_group *g = l->g;

	if (w->empty++ % CLOCK_EVERY == 0) {
		int64_t t = now();

		if (atomic_load_explicit(&g->stop, memory_order_relaxed))
			return fail(l, ECANCELED, "stopped");
		if (atomic_load_explicit(&g->failed, memory_order_relaxed))
			return fail(l, ECANCELED, "another lane failed");
		if (out_of_patience(&w->since, t, g->timeout_ns) && what)
			return fail(l, ETIMEDOUT, what);
		if (w->begun && g->poll_mode == XB_YIELD && g->n == 1)
			w->rest = rest_at(w, t);
	}
	relax(g, w->empty);
	if (w->rest)
		rest(w);
	return 0;
}

/* Waits, polling, until every lane stands at the start of iteration i. */
static int meet(struct lane *l, uint32_t i)
{
	struct xb_group *g = l->g;
	struct wait w = { 0 };
	uint64_t all = (uint64_t)g->n * (i + 1);
	int rc;

	if (g->n == 1)
		return 0;
	atomic_fetch_add(&g->barrier, 1);
	while (atomic_load(&g->barrier) < all) {
		if (poll_lane(l) == XB_FAIL)
			return fail_op(l);
		if ((rc = idle(l, &w, NULL)))
			return rc;
	}
	return 0;
}

static int post_all(struct lane *l, struct xb_sample *s, struct wait *w)
{
	struct xb_group *g = l->g;
	int rc;

	while (w->posted < l->n) {
		uint64_t room = g->depth - (w->posted - w->done), want = l->n - w->posted;
		int full = room == 0;

		if (want > POLL_EVERY)
			want = POLL_EVERY;
		if (want > room)
			want = room;
		if (!full) {
			rc = l->ops->post(l->impl, g->op, &l->pieces[w->posted], w->posted, (uint32_t)want);
			if (rc < 0)
				return fail_op(l);
			w->posted += (uint64_t)rc;
			full = (uint64_t)rc < want;
			s->eagain += (uint64_t)full;
		}
		if (w->posted == l->n)
			break;
		rc = poll_lane(l);
		s->polls++;
		if (rc == XB_FAIL)
			return fail_op(l);
		w->done += (uint64_t)rc;
		if (rc > 0 || !full)
			moved(w);
		else if ((rc = idle(l, w, "no operation could be posted or completed")))
			return rc;
	}
	s->ops = w->posted;
	s->bytes = l->bytes;
	return 0;
}

static int transfer_once(struct lane *l, struct xb_sample *s)
{
	struct xb_group *g = l->g;
	struct wait w = { 0 };
	int rc;

	if (l->ops->begin(l->impl, g->op, l->n) != XB_OK)
		return fail_op(l);
	w.begun = s->begin_ns = now();
	if ((rc = post_all(l, s, &w)))
		return rc;
	s->posted_ns = now();
	moved(&w);
	while (w.done < l->n) {
		rc = poll_lane(l);
		s->polls++;
		if (rc == XB_FAIL)
			return fail_op(l);
		w.done += (uint64_t)rc;
		if (rc > 0)
			moved(&w);
		else if ((rc = idle(l, &w, "no operation completed")))
			return rc;
	}
	s->local_ns = now();
	while ((rc = l->ops->flush(l->impl, g->op)) == XB_AGAIN) {
		if (poll_lane(l) == XB_FAIL)
			return fail_op(l);
		if ((rc = idle(l, &w, "the flush could not be posted")))
			return rc;
	}
	if (rc == XB_FAIL)
		return fail_op(l);
	while ((rc = l->ops->landed(l->impl, g->op)) == 0) {
		s->polls++;
		if (poll_lane(l) == XB_FAIL)
			return fail_op(l);
		if (l->ops->landed(l->impl, g->op) == 0 &&
		    (rc = idle(l, &w, "the data was not confirmed to have landed")))
			return rc;
	}
	if (rc == XB_FAIL)
		return fail_op(l);
	s->done_ns = now();
	return 0;
}

static void transfer(struct lane *l)
{
	struct xb_group *g = l->g;
	struct xb_sample *out = g->out + (size_t)l->index * g->iters;

	l->rc = 0;
	for (uint32_t i = 0; i < g->iters; i++) {
		/* A lane that never waits would see a stop nowhere else. */
		if (atomic_load_explicit(&g->stop, memory_order_relaxed))
			l->rc = fail(l, ECANCELED, "stopped");
		if (l->rc || (l->rc = meet(l, i)) || (l->rc = transfer_once(l, &out[i]))) {
			atomic_store(&g->failed, 1);
			return;
		}
		atomic_store(&l->complete, i + 1);
	}
}

static void tell(struct xb_group *g)
{
	pthread_mutex_lock(&g->mu);
	pthread_cond_broadcast(&g->finished);
	pthread_mutex_unlock(&g->mu);
}

/* Drives a target's armed iterations as far as they go. The next iteration is
 * armed before the last one is acknowledged: the initiator goes on at once. */
static int step_armed(struct lane *l)
{
	struct xb_group *g = l->g;

	for (;;) {
		int was = l->arm, rc = XB_OK;

		switch (was) {
		case ARM_FIRST:
		case ARM_NEXT:
			if (was == ARM_NEXT && l->armed == g->iters) {
				l->arm = ARM_ACK;
				break;
			}
			if ((rc = l->ops->arm(l->impl, g->op, l->pieces, l->n)) == XB_OK) {
				l->armed++;
				l->arm = was == ARM_FIRST ? ARM_WAIT : ARM_ACK;
			}
			break;
		case ARM_WAIT:
			if ((rc = l->ops->arrived(l->impl)) == 1)
				l->arm = ARM_NEXT;
			break;
		case ARM_ACK:
			if ((rc = l->ops->ack(l->impl)) == XB_OK) {
				l->acked++;
				atomic_store(&l->complete, l->acked);
				l->arm = l->acked == g->iters ? ARM_NONE : ARM_WAIT;
			}
			break;
		}
		if (rc == XB_FAIL)
			return fail_op(l);
		if (l->arm == was)
			return 0;
		l->empty = 0;
		if (l->arm == ARM_NONE) {
			tell(g);
			return 0;
		}
	}
}

static int progress(struct lane *l)
{
	int rc = poll_lane(l);

	if (rc == XB_FAIL)
		return fail_op(l);
	return l->arm == ARM_NONE ? 0 : step_armed(l);
}

static void arm(struct lane *l)
{
	struct wait w = { 0 };

	l->rc = 0;
	l->armed = l->acked = 0;
	atomic_store(&l->complete, 0);
	l->arm = l->g->iters ? ARM_FIRST : ARM_NONE;
	while (l->arm == ARM_FIRST && !l->rc) {
		if ((l->rc = progress(l)) == 0 && l->arm == ARM_FIRST)
			l->rc = idle(l, &w, "receives could not be posted");
	}
	if (l->rc)
		l->arm = ARM_NONE;
}

static void finish(struct lane *l)
{
	struct xb_group *g = l->g;

	pthread_mutex_lock(&g->mu);
	if (--g->running == 0)
		pthread_cond_broadcast(&g->finished);
	pthread_mutex_unlock(&g->mu);
}

/* Sleeps until the next command or the next time an idle queue wants a poll. */
static void sleep_idle(struct lane *l, uint64_t seen)
{
	struct xb_group *g = l->g;

	pthread_mutex_lock(&g->mu);
	if (atomic_load(&g->seq) == seen && !atomic_load(&g->quit) && !atomic_load(&g->hot))
		wait_ns(g, &g->command, IDLE_NS);
	pthread_mutex_unlock(&g->mu);
}

void *xb_lane_main(void *arg)
{
	struct lane *l = arg;
	struct xb_group *g = l->g;
	uint64_t seen = 0;

	while (!atomic_load(&g->quit)) {
		uint64_t s = atomic_load(&g->seq);
		int rc;

		if (s != seen) {
			seen = s;
			if ((l->rc = atomic_load(&l->dead)))
				atomic_store(&g->failed, 1);
			else if (g->cmd == CMD_TRANSFER)
				transfer(l);
			else if (g->cmd == CMD_ARM)
				arm(l);
			finish(l);
			continue;
		}
		if (!atomic_load(&l->dead) && (rc = progress(l))) {
			l->arm = ARM_NONE;
			atomic_store(&l->dead, rc);
			tell(g);
		}
		if (!atomic_load(&l->dead) && (l->arm != ARM_NONE || atomic_load(&g->hot)))
			relax(g, ++l->empty);
		else
			sleep_idle(l, seen);
	}
	return NULL;
}
