#ifndef XFERBENCH_FAKE_H
#define XFERBENCH_FAKE_H

#include "../loop.h"

/* A lane that moves nothing and does what it is told to. */
struct fake {
	/* What to do; set before the lane's thread starts. */
	uint64_t refuse_every;	 /* each n-th post is refused */
	uint64_t polls_per_done; /* a completion takes this many polls */
	uint64_t fail_at;	 /* XB_FAIL at this post of all, from 1 */
	uint64_t fail_poll_at;	 /* XB_FAIL at this poll of all, from 1 */
	int64_t completes_after; /* nothing completes for so many ns after begin */
	uint64_t hangs_at;	 /* this poll of all, from 1, never returns */
	int never_completes, never_lands, never_arrives;
	/* What happened. */
	uint64_t posts, polls, flushes, begins, armed, acked, most;
	uint64_t asked, outstanding, ready;
	int landed;
	int64_t begun;
	char error[64];
};

extern const struct xb_ops fake_ops;

struct fake *fake_new(void);

#endif
