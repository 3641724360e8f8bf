/*
 * The measuring loop, shared by every native transport.
 *
 * A transport gives the loop one or more lanes: an endpoint with its own
 * queues, reached through a table of functions. Each lane is owned by one
 * thread from connect time to close; that thread alone calls the table.
 * Between transfers it keeps the lane's queues moving, since providers with
 * manual progress answer handshakes and remote reads only when they are polled.
 */
#ifndef XFERBENCH_ENGINE_H
#define XFERBENCH_ENGINE_H

#include <stddef.h>
#include <stdint.h>

enum xb_op { XB_READ = 1, XB_WRITE = 2, XB_SEND = 3 };

enum {
	XB_OK = 0,
	XB_AGAIN = -1, /* the queue is full or not connected yet: poll, try again */
	XB_FAIL = -2,  /* error() has the words */
};

/* One operation: byte offsets from the two regions' bases, and bytes. */
struct xb_piece {
	uint64_t local, remote, len;
};

/*
 * What a transport implements. lane is its own endpoint object. Nothing here
 * blocks. All return XB_OK, XB_AGAIN or XB_FAIL unless said otherwise.
 */
struct xb_ops {
	/* An iteration of n operations starts: forget the last one's counts. */
	int (*begin)(void *lane, int op, uint64_t n);
	/* Post n pieces, n > 0; index is the first one's place within the iteration, whose
	 * pieces are one array that stays until its end.
	 * Returns how many were posted, fewer than n once the queue is full or not
	 * connected yet (poll, try again), or XB_FAIL. */
	int (*post)(void *lane, int op, const struct xb_piece *pieces, uint64_t index, uint32_t n);
	/* Drive both queues. Returns how many posted operations of the current
	 * iteration completed locally in this call (>= 0), or XB_FAIL. */
	int (*poll)(void *lane);
	/* After the last local completion: start what proves that the data landed
	 * (a flush, or nothing). */
	int (*flush)(void *lane, int op);
	/* 1 once the data is known to have landed, 0 before, or XB_FAIL. */
	int (*landed)(void *lane, int op);
	/* Target: be ready to receive n pieces of one iteration (post receives,
	 * or expect n counted writes). Several may be armed, oldest first. */
	int (*arm)(void *lane, int op, const struct xb_piece *pieces, uint64_t n);
	/* Target: 1 once all of the oldest armed iteration has arrived, else 0. */
	int (*arrived)(void *lane);
	/* Target: tell the initiator so; the oldest armed iteration is over. */
	int (*ack)(void *lane);
	/* Words of the last XB_FAIL, owned by the lane. */
	const char *(*error)(void *lane);
};

/* Times of one iteration on one lane, CLOCK_MONOTONIC_RAW, ns. */
struct xb_sample {
	int64_t begin_ns;  /* before the first post */
	int64_t posted_ns; /* after the last post */
	int64_t local_ns;  /* last local completion seen */
	int64_t done_ns;   /* landing proven */
	uint64_t bytes, ops;
	uint64_t eagain; /* posts refused and tried again */
	uint64_t polls;
};

#endif
