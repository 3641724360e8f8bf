#define _GNU_SOURCE
#include "group.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CMD_NONE, CMD_TRANSFER, CMD_ARM };
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
/* In yield mode a lone lane's transfer also rests after an empty poll, since polling takes
 * locks and, on a shared core, time from whoever does the work. Not for longer
 * than this part of the transfer so far, by which it may end late, nor than this
 * part of the time that the operations in flight last, which must not run out. */
#define REST_OF_TRANSFER 256
#define REST_OF_FLIGHT 64
#define REST_MOST_NS 20000
#define REST_LEAST_NS 1000
#define REST_PAUSES 32 /* between two looks at the clock, under a microsecond */
/* Posts between two polls, so that completions do not pile up unread. */
#define POLL_EVERY 64
/* Who waits for armed iterations looks whether any arrived this often: waking
 * up oftener would take a core from a lane. */
#define LOOK_NS 100000000
/* After a stop a lane has this long at most to come back from its library. */
#define STOP_NS 2000000000ll
/* An idle lane's queues are still polled this often: handshakes wait for it. */
#define IDLE_NS 1000000

struct lane {
	struct xb_group *g;
	int index;
	void *impl;
	const struct xb_ops *ops;
	pthread_t thread;
	const struct xb_piece *pieces;
	uint64_t n, bytes;
	int rc; /* of the command in hand, an errno */
	int arm;
	uint32_t armed, acked;
	uint32_t empty; /* polls since an armed iteration last moved */
	_Atomic uint32_t complete;
	_Atomic uint32_t turn; /* counts polls: one that stands still is inside the library */
	uint32_t seen_turn;    /* by who waits for the lane, and when it last moved */
	int64_t seen_ns;
	_Atomic int dead; /* failed while progressing: an errno, never polled again */
	char err[512];
};

struct xb_group {
	int n, started, poll_mode;
	int64_t timeout_ns;
	struct lane *lanes;
	pthread_mutex_t mu;
	pthread_cond_t command, finished;
	_Atomic uint64_t seq; /* commands given */
	_Atomic int stop, hot, quit, failed;
	_Atomic uint64_t barrier;
	int running; /* lanes that have yet to end the command in hand */
	int stuck;   /* a lane does not come back: nothing of the group can be freed */
	int cmd, op;
	uint32_t iters, depth;
	struct xb_sample *out;
};

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

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
	int64_t since, rest;
	uint64_t posted, done;
	uint32_t empty;
};

static void moved(struct wait *w) { w->since = w->empty = 0; }

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

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
		if (w->since == 0)
			w->since = t;
		else if (what && t - w->since > g->timeout_ns)
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
		if ((l->rc = meet(l, i)) || (l->rc = transfer_once(l, &out[i]))) {
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

/* Waits for a signal for ns at most, with the group's mutex held. */
static void wait_ns(struct xb_group *g, pthread_cond_t *c, long ns)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += ns;
	if (t.tv_nsec >= 1000000000) {
		t.tv_nsec -= 1000000000;
		t.tv_sec++;
	}
	pthread_cond_timedwait(c, &g->mu, &t);
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

static void *lane_main(void *arg)
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

struct xb_group *xb_group_new(int n, int poll_mode, int64_t timeout_ns)
{
	struct xb_group *g = calloc(1, sizeof(*g));
	pthread_condattr_t ca;

	if (!g)
		return NULL;
	g->lanes = calloc((size_t)n, sizeof(*g->lanes));
	if (!g->lanes) {
		free(g);
		return NULL;
	}
	g->n = n;
	g->poll_mode = poll_mode;
	g->timeout_ns = timeout_ns;
	pthread_mutex_init(&g->mu, NULL);
	pthread_condattr_init(&ca);
	pthread_condattr_setclock(&ca, CLOCK_MONOTONIC);
	pthread_cond_init(&g->command, &ca);
	pthread_cond_init(&g->finished, &ca);
	pthread_condattr_destroy(&ca);
	return g;
}

void xb_group_set(struct xb_group *g, int i, void *impl, const void *ops)
{
	g->lanes[i].g = g;
	g->lanes[i].index = i;
	g->lanes[i].impl = impl;
	g->lanes[i].ops = ops;
}

void xb_group_plan(struct xb_group *g, int i, const struct xb_piece *pieces, uint64_t n)
{
	struct lane *l = &g->lanes[i];

	l->pieces = pieces;
	l->n = n;
	l->bytes = 0;
	for (uint64_t k = 0; k < n; k++)
		l->bytes += pieces[k].len;
}

int xb_group_start(struct xb_group *g)
{
	sigset_t all, old;
	int rc = 0;

	/* Signals are for Go's own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (; g->started < g->n && !rc; g->started += !rc)
		rc = pthread_create(&g->lanes[g->started].thread, NULL, lane_main,
				    &g->lanes[g->started]);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

/* Whether a lane has been inside its library for longer than it may. A process
 * that is killed inside a lock that it shares leaves it locked for ever (shm). */
static int stuck(struct xb_group *g)
{
	int64_t t = now(), limit = atomic_load(&g->stop) ? least(g->timeout_ns, STOP_NS) : g->timeout_ns;

	for (int i = 0; i < g->n; i++) {
		struct lane *l = &g->lanes[i];
		uint32_t turn = atomic_load_explicit(&l->turn, memory_order_relaxed);

		if (atomic_load(&l->dead))
			continue;
		if (turn != l->seen_turn || l->seen_ns == 0) {
			l->seen_turn = turn;
			l->seen_ns = t;
		} else if (t - l->seen_ns > limit) {
			g->stuck = 1;
		}
	}
	return g->stuck;
}

/* Ends a lane's thread; an errno if it does not come back from its library. */
static int join(struct lane *l)
{
	int64_t ns = least(l->g->timeout_ns, STOP_NS);
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += ns / 1000000000 + 1;
	return pthread_timedjoin_np(l->thread, NULL, &t);
}

int xb_group_free(struct xb_group *g)
{
	int rc = g->stuck ? EBUSY : 0;

	pthread_mutex_lock(&g->mu);
	atomic_store(&g->stop, 1);
	atomic_store(&g->quit, 1);
	pthread_cond_broadcast(&g->command);
	pthread_cond_broadcast(&g->finished);
	pthread_mutex_unlock(&g->mu);
	for (; g->started > 0 && !rc; g->started -= !rc)
		rc = join(&g->lanes[g->started - 1]);
	if (rc)
		return rc;
	pthread_cond_destroy(&g->command);
	pthread_cond_destroy(&g->finished);
	pthread_mutex_destroy(&g->mu);
	free(g->lanes);
	free(g);
	return 0;
}

void xb_group_stop(struct xb_group *g, int stop)
{
	pthread_mutex_lock(&g->mu);
	atomic_store(&g->stop, stop);
	pthread_cond_broadcast(&g->finished);
	pthread_mutex_unlock(&g->mu);
}

void xb_group_hot(struct xb_group *g, int hot)
{
	pthread_mutex_lock(&g->mu);
	atomic_store(&g->hot, hot);
	pthread_cond_broadcast(&g->command);
	pthread_mutex_unlock(&g->mu);
}

/* The first lane that failed for a reason of its own, else any that failed. */
static int result(struct xb_group *g, char *err, size_t errlen)
{
	struct lane *worst = NULL;

	for (int i = 0; i < g->n; i++) {
		struct lane *l = &g->lanes[i];

		if (l->rc && (!worst || (worst->rc == ECANCELED && l->rc != ECANCELED)))
			worst = l;
	}
	if (!worst)
		return 0;
	snprintf(err, errlen, "%s", worst->err);
	return worst->rc;
}

static int command(struct xb_group *g, int cmd, char *err, size_t errlen)
{
	int away;

	pthread_mutex_lock(&g->mu);
	g->cmd = cmd;
	g->running = g->n;
	atomic_store(&g->failed, 0);
	atomic_store(&g->barrier, 0);
	atomic_fetch_add(&g->seq, 1);
	for (int i = 0; i < g->n; i++)
		g->lanes[i].seen_ns = 0;
	pthread_cond_broadcast(&g->command);
	/* Each lane ends by its own deadline, unless it does not come back. */
	while (g->running && !stuck(g))
		wait_ns(g, &g->finished, least(LOOK_NS, g->timeout_ns));
	away = g->stuck;
	if (away)
		atomic_store(&g->failed, 1);
	pthread_mutex_unlock(&g->mu);
	if (!away)
		return result(g, err, errlen);
	snprintf(err, errlen, "the library does not return from a call: a lock that it shares with the peer may have died with it");
	return ETIMEDOUT;
}

static uint32_t all_complete(const struct xb_group *g)
{
	uint32_t n = g->iters;

	for (int i = 0; i < g->n; i++)
		if (atomic_load(&g->lanes[i].complete) < n)
			n = atomic_load(&g->lanes[i].complete);
	return n;
}

int xb_group_transfer(struct xb_group *g, int op, uint32_t iters, uint32_t depth,
		      struct xb_sample *out, uint32_t *complete, char *err, size_t errlen)
{
	int rc;

	memset(out, 0, (size_t)g->n * iters * sizeof(*out));
	g->op = op;
	g->iters = iters;
	g->depth = depth;
	g->out = out;
	for (int i = 0; i < g->n; i++)
		atomic_store(&g->lanes[i].complete, 0);
	rc = command(g, CMD_TRANSFER, err, errlen);
	*complete = all_complete(g);
	return rc;
}

int xb_group_arm(struct xb_group *g, int op, uint32_t iters, char *err, size_t errlen)
{
	g->op = op;
	g->iters = iters;
	return command(g, CMD_ARM, err, errlen);
}

int xb_group_settle(struct xb_group *g, uint32_t *arrived, char *err, size_t errlen)
{
	int64_t deadline = now() + g->timeout_ns;
	uint32_t last = 0;
	int rc = 0;

	pthread_mutex_lock(&g->mu);
	while (!rc && (*arrived = all_complete(g)) < g->iters) {
		if (*arrived != last) {
			last = *arrived;
			deadline = now() + g->timeout_ns;
		}
		if (xb_group_fault(g, err, errlen)) {
			rc = EIO;
		} else if (atomic_load(&g->stop)) {
			snprintf(err, errlen, "stopped");
			rc = ECANCELED;
		} else if (now() > deadline) {
			snprintf(err, errlen, "%u of %u iterations arrived", last, g->iters);
			rc = ETIMEDOUT;
		} else {
			wait_ns(g, &g->finished, least(LOOK_NS, g->timeout_ns));
		}
	}
	pthread_mutex_unlock(&g->mu);
	/* What arrived beyond the last transfer is a fault too. */
	return !rc && xb_group_fault(g, err, errlen) ? EIO : rc;
}

int xb_group_fault(struct xb_group *g, char *err, size_t errlen)
{
	for (int i = 0; i < g->n; i++) {
		int rc = atomic_load(&g->lanes[i].dead);

		if (rc) {
			snprintf(err, errlen, "%s", g->lanes[i].err);
			return rc;
		}
	}
	return 0;
}
