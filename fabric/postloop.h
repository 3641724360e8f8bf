#ifndef XFERBENCH_FABRIC_POSTLOOP_H
#define XFERBENCH_FABRIC_POSTLOOP_H

#include "ofi.h"

/* Runs iters WRITEs of pieces, landing by count, and fills the time of each to
 * post all, ns. No group may hold e. 0, or -1 when a call failed or 10 s passed. */
int xb_ofi_post_alone(struct xb_ofi_ep *e, const struct xb_piece *pieces, uint64_t n, uint32_t iters, int64_t *post_ns);

#endif
