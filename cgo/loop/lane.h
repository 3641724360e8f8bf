/* Internal to package loop: what a lane's thread and its group share. */
#ifndef XFERBENCH_LANE_H
#define XFERBENCH_LANE_H

#include "group.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { CMD_NONE, CMD_TRANSFER, CMD_ARM };

/* For how long a wait has seen nothing move. One look counts a part of the timeout
 * at most: in a longer gap this process was stopped or had no processor, and nothing
 * could have moved. */
struct patience {
	int64_t last; /* 0: not yet looked */
	int64_t spent;
};

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
	uint32_t seen_turn;    /* by who waits for the lane */
	struct patience seen;  /* since it last moved */
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

static inline int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

enum { LOOKS_AT_LEAST = 4 };

/* Counts a look at time t; non-zero once nothing has moved for limit. */
static inline int out_of_patience(struct patience *p, int64_t t, int64_t limit)
{
	if (p->last)
		p->spent += least(t - p->last, limit / LOOKS_AT_LEAST + 1);
	p->last = t;
	return p->spent > limit;
}

static inline void after(struct timespec *t, long ns)
{
	t->tv_nsec += ns;
	if (t->tv_nsec >= 1000000000) {
		t->tv_nsec -= 1000000000;
		t->tv_sec++;
	}
}

/* Waits for a signal for ns at most, with the group's mutex held. */
static inline void wait_ns(struct xb_group *g, pthread_cond_t *c, long ns)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	after(&t, ns);
	pthread_cond_timedwait(c, &g->mu, &t);
}

/* A lane's thread, until the group quits. */
void *xb_lane_main(void *lane);

#endif
