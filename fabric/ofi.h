/*
 * What package fabric asks of libfabric. The library is loaded at run time; what
 * it exports is called through struct xb_ofi_lib, the rest is static inline in
 * its headers and goes through the objects' own tables.
 */
#ifndef XFERBENCH_FABRIC_OFI_H
#define XFERBENCH_FABRIC_OFI_H

#include <stddef.h>
#include <stdint.h>

#include <rdma/fabric.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>

#include "../cgo/loop/loop.h"

/* Symbols of the loaded library, default versions. */
struct xb_ofi_lib {
	void *getinfo, *freeinfo, *dupinfo, *fabric, *version, *strerror;
};

/* A failed call: err is a positive FI_E* code, words the library's own. */
struct xb_ofi_error {
	const char *call;
	int err;
	char words[384];
};

/* How WRITE is known to have landed. */
enum xb_ofi_landing {
	XB_OFI_LANDING_DC,    /* FI_DELIVERY_COMPLETE on each write */
	XB_OFI_LANDING_COUNT, /* the target counts remote CQ data and says so */
};

/* How SEND's messages find their place at the target. */
enum xb_ofi_sends {
	XB_OFI_SENDS_TAGGED = 1, /* the tag names the piece */
	XB_OFI_SENDS_SLOTS = 2,  /* CQ data names it; copied from receive slots */
};

/* What to ask fi_getinfo for. NULL and 0 leave a field open. */
struct xb_ofi_request {
	const char *provider, *fabric, *node;
	uint64_t caps, mode, op_flags;
	uint32_t version; /* API version */
	int mr_mode;
	int manual;   /* FI_PROGRESS_MANUAL: no progress threads of the provider's own */
	int any_type; /* all endpoint types and no capabilities: for listing */
};

/* The parts of a fi_info that Go reads; strings are cut to fit. */
struct xb_ofi_view {
	char provider[64], fabric[64], domain[64];
	uint32_t provider_version;
	uint64_t max_msg;
	int mr_mode, endpoint_type, manual_progress;
	size_t tx_size, rx_size, cq_data_size;
	/* The NIC, where the provider tells. */
	int has_nic, link_up;
	char device[64], device_id[32], driver[64], firmware[64], network[32];
	char pci[16];
	uint64_t link_bits, mtu;
};

uint32_t xb_ofi_version(const struct xb_ofi_lib *lib);
const char *xb_ofi_strerror(const struct xb_ofi_lib *lib, int err);
/* Wraps fi_getinfo; *out is freed with xb_ofi_freeinfo. 0 or a positive code. */
int xb_ofi_getinfo(const struct xb_ofi_lib *lib, const struct xb_ofi_request *req, struct fi_info **out,
		   struct xb_ofi_error *error);
void xb_ofi_freeinfo(const struct xb_ofi_lib *lib, struct fi_info *info);
struct fi_info *xb_ofi_next(const struct fi_info *info);
void xb_ofi_describe(const struct fi_info *info, struct xb_ofi_view *view);

/* How to open an endpoint. */
struct xb_ofi_open {
	uint32_t depth; /* operations in flight at most */
	uint32_t queue; /* completions that a queue holds, more for a larger depth */
	uint32_t rnr_retries; /* efa: sendings to a peer that is not ready; 0: its own number */
	int initiator;
	int acked;   /* operations that the target acknowledges will be run */
	int landing; /* of WRITE */
	int sends;   /* of SEND, 0: none will be run */
	int rma;     /* READ or WRITE will be run */
	int efa;     /* the provider is efa: set its options */
	int no_shm;  /* forbid efa its shortcut over shared memory */
};

/* What an open endpoint can do. */
struct xb_ofi_limits {
	uint64_t max_rma, max_msg, inject; /* inject: the longest message that is injected */
	int emulated_read, emulated_write; /* 1, 0, or -1: the library cannot say */
	int no_shm;                        /* 1: shared memory was forbidden, 0: not, -1: cannot be */
};

struct xb_ofi_ep;

/* The table that the measuring loop calls. */
extern const struct xb_ops xb_ofi_ops;

/* Opens fabric, domain, queues, address vector and endpoint, and enables it. */
struct xb_ofi_ep *xb_ofi_open(const struct xb_ofi_lib *lib, const struct fi_info *info, const struct xb_ofi_open *how,
			      struct xb_ofi_limits *limits, struct xb_ofi_error *error);
/* Polls until no posted operation is in flight, for ns at most; returns how many
 * still are. For a lane that no thread runs any more. */
uint32_t xb_ofi_drain(struct xb_ofi_ep *e, int64_t ns);
/* Closes all and frees e. Every close is tried; the first failure is kept. */
int xb_ofi_close(struct xb_ofi_ep *e, struct xb_ofi_error *error);
/* The endpoint's address; *len is the room in and the length out. */
int xb_ofi_name(struct xb_ofi_ep *e, void *name, size_t *len, struct xb_ofi_error *error);
/* Registers the region, with the library's control memory beside it. */
int xb_ofi_register(struct xb_ofi_ep *e, uint64_t addr, uint64_t len, int cuda, int device, struct xb_ofi_error *error);
/* What the peer adds offsets to, and the key. */
void xb_ofi_remote(const struct xb_ofi_ep *e, uint64_t *base, uint64_t *key);
/* mine and theirs are the secrets that label what each side receives; wide: both
 * sides have 8 bytes of CQ data. */
int xb_ofi_connect(struct xb_ofi_ep *e, const void *name, uint64_t base, uint64_t key, uint64_t mine, uint64_t theirs,
		   int wide, struct xb_ofi_error *error);

/* For a lane that no group runs, operations one by one. Each returns 1 once it is
 * posted, 0 when the queue is full or not connected yet, or XB_FAIL. */
int xb_ofi_post(struct xb_ofi_ep *e, int op, const struct xb_piece *piece, uint32_t tag);
int xb_ofi_recv(struct xb_ofi_ep *e, uint64_t offset, uint64_t len, uint32_t tag);
/* Drives the queues: how many posted operations completed, or XB_FAIL; and how many
 * messages came. */
int xb_ofi_poll(struct xb_ofi_ep *e, uint32_t *received);
/* The last failure of one of these, or of the table. */
void xb_ofi_failure(const struct xb_ofi_ep *e, struct xb_ofi_error *error);

#endif
