/* A group of lanes: its threads' lives, and the commands that they are given. */
#define _GNU_SOURCE
#include "lane.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Who waits for armed iterations looks whether any arrived this often: waking
 * up oftener would take a core from a lane. */
#define LOOK_NS 100000000
/* After a stop a lane has this long at most to come back from its library. */
#define STOP_NS 2000000000ll

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
		rc = pthread_create(&g->lanes[g->started].thread, NULL, xb_lane_main,
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
		if (turn != l->seen_turn) {
			l->seen_turn = turn;
			l->seen = (struct patience){ 0 };
		}
		if (out_of_patience(&l->seen, t, limit))
			g->stuck = 1;
	}
	return g->stuck;
}

/* Ends a lane's thread; an errno if it does not come back from its library. */
static int join(struct lane *l)
{
	int64_t limit = least(l->g->timeout_ns, STOP_NS) + 1000000000;
	struct patience p = { 0 };
	struct timespec t;
	int rc;

	do {
		clock_gettime(CLOCK_REALTIME, &t);
		after(&t, LOOK_NS);
		rc = pthread_timedjoin_np(l->thread, NULL, &t);
	} while (rc == ETIMEDOUT && !out_of_patience(&p, now(), limit));
	return rc;
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

int xb_group_stuck(const struct xb_group *g) { return g->stuck; }

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
		g->lanes[i].seen = (struct patience){ 0 };
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
	struct patience p = { 0 };
	uint32_t last = 0;
	int rc = 0;

	pthread_mutex_lock(&g->mu);
	while (!rc && (*arrived = all_complete(g)) < g->iters) {
		if (*arrived != last) {
			last = *arrived;
			p = (struct patience){ 0 };
		}
		if (xb_group_fault(g, err, errlen)) {
			rc = EIO;
		} else if (atomic_load(&g->stop)) {
			snprintf(err, errlen, "stopped");
			rc = ECANCELED;
		} else if (out_of_patience(&p, now(), g->timeout_ns)) {
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
