/* A test client for the emulated device: one rail is one endpoint with a domain, queues and a registration of its
 * own. */
#ifndef EMUCLIENT_CLIENT_H
#define EMUCLIENT_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_ext.h>
#include <rdma/fi_rma.h>

#include "lf.h"

enum op { OP_READ, OP_WRITE, OP_WRITEDATA, OP_SEND };

struct options {
	bool target;
	bool threads; /* a thread for each rail */
	enum op op;
	const char *fabric; /* "efa" or "efa-direct" */
	size_t size;        /* bytes of the whole transfer */
	size_t chunk;       /* bytes of one operation */
	size_t rails;
	unsigned int timeout_s;
	bool die; /* the target kills itself once connected */
};

/* What an endpoint's peer must know; sent as it is, both ends are one program. */
struct address {
	uint64_t base;
	uint64_t key;
	uint64_t length;
	uint8_t name[64];
};

struct rail {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_eq *eq; /* errors that belong to no operation: without one, the provider ends the process instead */
	struct fid_cq *tx_cq;
	struct fid_cq *rx_cq;
	struct fid_av *av;
	struct fid_ep *ep;
	struct fid_mr *mr;
	fi_addr_t peer;
	struct address local, remote;

	/* The transfer: chunks first, first+step, … of the buffer. */
	size_t first, step, chunks;
	size_t posted, done;
	size_t events;              /* remote writes or messages that arrived */
	uint8_t *seen;              /* [chunk]: its event arrived */
	struct fi_context2 *contexts; /* [chunk] */
	struct fi_context2 *recv_contexts;
	uint8_t *recv_buffer;       /* [chunk][options.chunk]: messages, before they are put in place */
	struct fid_mr *recv_mr;
	uint64_t eagain;
	bool out_of_order; /* a completion overtook an earlier one */
};

extern struct options options;
extern uint8_t *buffer; /* the transfer's memory, options.size bytes */

/* fail prints and ends the process with status 1; check does so if a libfabric call returned an error. */
void fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
#define check(call) check_result((call), #call)
long check_result(long result, const char *call);

/* rail.c */
struct fi_info *find_rails(void);
void rail_open(struct rail *rail, struct fi_info *info, size_t index);
void rail_connect(struct rail *rail);
void rail_close(struct rail *rail);

/* transfer.c */
size_t chunk_length(size_t index);
void rail_post_receives(struct rail *rail);
void rail_run(struct rail *rail);      /* the initiator's part */
void rail_progress(struct rail *rail); /* polls both queues once */

#endif
