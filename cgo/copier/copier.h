/* Internal to package copier: a lane of the measuring loop whose two regions are in
 * this process, so that an operation is one copy. */
#ifndef XFERBENCH_COPIER_H
#define XFERBENCH_COPIER_H

#include "../../cuda/cuda.h"
#include "../loop/loop.h"

/* How many bytes of host memory one poll copies before the loop may look around: a
 * piece that is longer is one copy all the same. */
#define XB_COPIER_MOST ((uint64_t)1 << 30)

struct xb_copier {
	uint64_t local, remote; /* addresses of the regions, of the device where cuda is set */
	const struct xb_piece *next; /* of those that were posted and have not ended */
	uint64_t posted;
	int op;
	const struct xb_cuda *cuda;
	void *ctx, *stream;
	int bound; /* ctx is the thread's */
	char err[256];
};

extern const struct xb_ops xb_copier_ops;

#endif
