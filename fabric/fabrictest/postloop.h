#ifndef XFERBENCH_FABRIC_POSTLOOP_H
#define XFERBENCH_FABRIC_POSTLOOP_H

#include "../../cgo/loop/loop.h"

/* Runs iters WRITEs of pieces, landing by count, and fills the time of each to
 * post all, ns. No group may hold the lane. 0, or -1 when a call failed or 10 s passed. */
int xb_post_alone(void *lane, const struct xb_ops *ops, const struct xb_piece *pieces, uint64_t n, uint32_t iters,
		  int64_t *post_ns);

#endif
