/* The endpoint's insides, shared by this package's C files. */
#ifndef XFERBENCH_FABRIC_EP_H
#define XFERBENCH_FABRIC_EP_H

#include "compat.h"
#include "ofi.h"

#include <rdma/fi_cm.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <rdma/fi_tagged.h>

/* What a context was posted for. */
enum xb_ofi_kind {
	KIND_PIECE = 1, /* an initiator's operation */
	KIND_ACK,       /* a target's acknowledgement on its way out */
	KIND_RECV,      /* a tagged receive, straight into the region */
	KIND_SLOT,      /* a receive into control memory: an acknowledgement, or a piece to copy */
};

/* An operation of ours; its address is the operation's context. */
struct xb_ofi_op {
	struct fi_context2 context;
	struct xb_ofi_op *next; /* in a list of free ones */
	char *slot;             /* KIND_SLOT, KIND_ACK: its message */
	uint32_t batch;         /* KIND_PIECE: the transfer it belongs to */
	uint32_t kind;
};

/* What a target sends when all pieces of a transfer have arrived; magic is the
 * receiver's own. */
struct xb_ofi_ack {
	uint64_t magic, seq;
};
#define XB_OFI_MAGIC 0x786665726b6e6f77ull

enum {
	XB_OFI_ACKS = 4,        /* acknowledgements in flight at most, and receives for them */
	XB_OFI_ACK_ROOM = 64,   /* bytes of control memory for one */
	XB_OFI_RECVS = 64,      /* tagged receives of an initiator at most */
	XB_OFI_CQ_BATCH = 32,   /* completions a read takes at most */
	XB_OFI_LOOK_EVERY = 256, /* polls in which the queue that expects nothing is read once */
};

struct xb_ofi_ep {
	/* What the hot path reads comes first. */
	struct fid_ep *ep;
	struct fid_cq *tx_cq, *rx_cq;
	struct fid_eq *eq; /* efa only: what it cannot blame on an operation */
	fi_addr_t peer;
	uint64_t base, remote_base, remote_key;
	/* The random parts of labels: of what this side receives, and of what it sends. */
	struct xb_ofi_secret {
		uint64_t tag, data, magic;
	} in, out;
	void *desc, *control_desc;
	struct xb_ofi_op *free_tx, *free_rx, *free_ack, *free_slot;
	uint32_t batch;      /* counts transfers begun */
	uint32_t tx_pending; /* operations whose local completion is outstanding */
	uint32_t turn;       /* counts polls */
	uint32_t injected;   /* operations that completed as they were posted, not counted yet */
	size_t inject;       /* bytes of a message that may be injected */
	uint32_t slots_due;  /* receive slots that have yet to be posted */
	uint64_t seq;        /* initiator: transfers begun that the target acknowledges */
	uint64_t acked;      /* initiator: the last one that it did */
	struct {
		const struct xb_piece *pieces;
		uint64_t n, posted, arrived;
		uint64_t seq;     /* of this transfer */
		uint64_t told;    /* the last one acknowledged */
		int begun, sends; /* posting receives */
	} armed;
	struct xb_ofi_open how;

	const struct xb_ofi_lib *lib;
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_av *av;
	struct fid_mr *mr, *control_mr;
	struct xb_ofi_op *tx_ops, *rx_ops;
	uint32_t rx_room; /* of rx_ops: all receives at once */
	uint32_t slots, slot_bytes;
	char *control; /* acknowledgements to send, then receive slots */
	size_t control_len;
	char words[512];
	struct xb_ofi_error failure; /* the same, taken apart; no code: a failure of ours */
};

/* Notes a failed call; returns the positive code. */
int xb_ofi_fail(const struct xb_ofi_lib *lib, struct xb_ofi_error *error, const char *call, int rc);
/* region.c: memory, contexts and lists. */
int xb_ofi_alloc(struct xb_ofi_ep *e, struct xb_ofi_error *error);
void xb_ofi_free(struct xb_ofi_ep *e);

#endif
