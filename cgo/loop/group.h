/* Internal to package loop: lanes that transfer together. */
#ifndef XFERBENCH_GROUP_H
#define XFERBENCH_GROUP_H

#include "loop.h"

enum { XB_SPIN = 0, XB_YIELD = 1 };

struct xb_group;

struct xb_group *xb_group_new(int n, int poll_mode, int64_t timeout_ns);
void xb_group_set(struct xb_group *g, int i, void *impl, const void *ops);
/* Starts one thread a lane; 0 or an errno. */
int xb_group_start(struct xb_group *g);
/* Ends the threads and frees g; the lanes' own objects stay the caller's. An
 * errno if a thread does not come back from its library: then g, the lanes, the
 * plans and their memory must stay until the process ends. */
int xb_group_free(struct xb_group *g);

/* Whether a lane did not come back: the group can do no more. */
int xb_group_stuck(const struct xb_group *g);
void xb_group_plan(struct xb_group *g, int i, const struct xb_piece *pieces, uint64_t n);
void xb_group_stop(struct xb_group *g, int stop);
void xb_group_hot(struct xb_group *g, int hot);

/*
 * Runs iters iterations on all lanes together, depth operations in flight on
 * each, and fills out[lane * iters + iteration]. Returns 0, or the errno of the
 * first lane that failed (ETIMEDOUT, ECANCELED, EIO), with its words in err and
 * the number of whole iterations in *complete.
 */
int xb_group_transfer(struct xb_group *g, int op, uint32_t iters, uint32_t depth,
		      struct xb_sample *out, uint32_t *complete, char *err, size_t errlen);
/* Target: arms all lanes for iters iterations and returns when they are ready. */
int xb_group_arm(struct xb_group *g, int op, uint32_t iters, char *err, size_t errlen);
/* Target: waits until all armed iterations arrived and were acknowledged. */
int xb_group_settle(struct xb_group *g, uint32_t *arrived, char *err, size_t errlen);
/* Words of a lane that failed while only progressing, or 0. */
int xb_group_fault(struct xb_group *g, char *err, size_t errlen);

#endif
