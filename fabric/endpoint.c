/* Opening, connecting and closing one endpoint. */
#define _GNU_SOURCE
#include "ep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int xb_ofi_fail(const struct xb_ofi_lib *lib, struct xb_ofi_error *error, const char *call, int rc)
{
	if (rc < 0)
		rc = -rc;
	error->call = call;
	error->err = rc;
	snprintf(error->words, sizeof(error->words), "%s", xb_ofi_strerror(lib, rc));
	return rc;
}

static int open_cq(struct xb_ofi_ep *e, struct fid_cq **cq)
{
	struct {
		struct fi_cq_attr attr;
		char pad[XB_OFI_PAD];
	} a;
	size_t size = e->how.queue;
	int rc = 0;

	if (size < e->how.depth + XB_OFI_ACKS)
		size = e->how.depth + XB_OFI_ACKS;
	for (; size >= 128; size /= 2) {
		memset(&a, 0, sizeof(a));
		a.attr.size = size;
		a.attr.format = FI_CQ_FORMAT_DATA;
		a.attr.wait_obj = FI_WAIT_NONE;
		rc = fi_cq_open(e->domain, &a.attr, cq, NULL);
		if (rc != -FI_EINVAL && rc != -FI_ENOMEM)
			break;
	}
	return rc;
}

/* efa ends the process when a packet of its own fails, such as a handshake with
 * a peer that died, unless it has an event queue to tell it to. */
static int open_eq(struct xb_ofi_ep *e)
{
	struct {
		struct fi_eq_attr attr;
		char pad[XB_OFI_PAD];
	} a;

	memset(&a, 0, sizeof(a));
	a.attr.wait_obj = FI_WAIT_NONE;
	return fi_eq_open(e->fabric, &a.attr, &e->eq, NULL);
}

static int open_av(struct xb_ofi_ep *e)
{
	struct {
		struct fi_av_attr attr;
		char pad[XB_OFI_PAD];
	} a;
	int rc;

	memset(&a, 0, sizeof(a));
	a.attr.type = FI_AV_TABLE;
	a.attr.count = 1;
	rc = fi_av_open(e->domain, &a.attr, &e->av, NULL);
	if (rc) {
		a.attr.type = FI_AV_MAP;
		rc = fi_av_open(e->domain, &a.attr, &e->av, NULL);
	}
	return rc;
}

/* Options that EFA wants before fi_enable. A library that does not know one keeps
 * its own default. */
static void set_efa(struct xb_ofi_ep *e, struct xb_ofi_limits *limits)
{
	size_t retries = e->how.rnr_retries;
	bool no = false;

	if (retries)
		fi_setopt(&e->ep->fid, FI_OPT_ENDPOINT, XB_OPT_EFA_RNR_RETRY, &retries, sizeof(retries));
	if (e->how.no_shm)
		limits->no_shm = fi_setopt(&e->ep->fid, FI_OPT_ENDPOINT, XB_OPT_SHARED_MEMORY_PERMITTED, &no,
					   sizeof(no)) == 0
					 ? 1
					 : -1;
}

static int get_bool(struct xb_ofi_ep *e, int option)
{
	bool value = false;
	size_t len = sizeof(value);

	return fi_getopt(&e->ep->fid, FI_OPT_ENDPOINT, option, &value, &len) == 0 ? value : -1;
}

static uint64_t get_size(struct xb_ofi_ep *e, int option, uint64_t otherwise)
{
	size_t value = 0, len = sizeof(value);

	if (fi_getopt(&e->ep->fid, FI_OPT_ENDPOINT, option, &value, &len) || len != sizeof(value) || value == 0)
		return otherwise;
	return value < otherwise ? value : otherwise;
}

static void get_limits(struct xb_ofi_ep *e, struct xb_ofi_limits *limits)
{
	uint64_t max = e->info->ep_attr->max_msg_size;

	limits->max_rma = limits->max_msg = max;
	limits->emulated_read = limits->emulated_write = -1;
	/* fi_info's size is that of messages where efa-direct lacks RMA, and of RMA
	 * where it has it: only the endpoint itself knows both. */
	limits->max_rma = get_size(e, XB_OPT_MAX_RMA_SIZE, max);
	limits->max_msg = get_size(e, XB_OPT_MAX_MSG_SIZE, max);
	if (e->how.sends == XB_OFI_SENDS_TAGGED)
		limits->max_msg = get_size(e, XB_OPT_MAX_TAGGED_SIZE, max);
	if (e->how.efa && e->how.rma) {
		limits->emulated_read = get_bool(e, XB_OPT_EFA_EMULATED_READ);
		limits->emulated_write = get_bool(e, XB_OPT_EFA_EMULATED_WRITE);
	}
}

#define TRY(call, expr)                                                                                                \
	do {                                                                                                           \
		int try_rc = (expr);                                                                                   \
		if (try_rc)                                                                                            \
			return xb_ofi_fail(e->lib, error, call, try_rc);                                               \
	} while (0)

static int open_all(struct xb_ofi_ep *e, struct xb_ofi_limits *limits, struct xb_ofi_error *error)
{
	int (*fabric)(struct fi_fabric_attr *, struct fid_fabric **, void *) = e->lib->fabric;

	TRY("fi_fabric", fabric(e->info->fabric_attr, &e->fabric, NULL));
	TRY("fi_domain", fi_domain(e->fabric, e->info, &e->domain, NULL));
	/* Two queues: with one, the event of a remote write cannot be told from a
	 * local completion on every provider. */
	TRY("fi_cq_open", open_cq(e, &e->tx_cq));
	TRY("fi_cq_open", open_cq(e, &e->rx_cq));
	TRY("fi_av_open", open_av(e));
	TRY("fi_endpoint", fi_endpoint(e->domain, e->info, &e->ep, NULL));
	TRY("fi_ep_bind", fi_ep_bind(e->ep, &e->av->fid, 0));
	TRY("fi_ep_bind", fi_ep_bind(e->ep, &e->tx_cq->fid, FI_TRANSMIT));
	TRY("fi_ep_bind", fi_ep_bind(e->ep, &e->rx_cq->fid, FI_RECV));
	if (e->how.efa) {
		TRY("fi_eq_open", open_eq(e));
		TRY("fi_ep_bind", fi_ep_bind(e->ep, &e->eq->fid, 0));
		set_efa(e, limits);
	}
	TRY("fi_enable", fi_enable(e->ep));
	get_limits(e, limits);
	/* efa tells of an injected message's failure through no operation. */
	limits->inject = e->inject = e->how.efa ? 0 : e->info->tx_attr->inject_size;
	e->slot_bytes = e->how.sends == XB_OFI_SENDS_SLOTS && !e->how.initiator ? (uint32_t)limits->max_msg
										 : XB_OFI_ACK_ROOM;
	return xb_ofi_alloc(e, error);
}

struct xb_ofi_ep *xb_ofi_open(const struct xb_ofi_lib *lib, const struct fi_info *info, const struct xb_ofi_open *how,
			      struct xb_ofi_limits *limits, struct xb_ofi_error *error)
{
	struct xb_ofi_ep *e = calloc(1, sizeof(*e));
	struct xb_ofi_error ignored;

	memset(error, 0, sizeof(*error));
	memset(limits, 0, sizeof(*limits));
	if (!e) {
		xb_ofi_fail(lib, error, "calloc", FI_ENOMEM);
		return NULL;
	}
	e->lib = lib;
	e->how = *how;
	e->info = ((struct fi_info * (*)(const struct fi_info *)) lib->dupinfo)(info);
	if (!e->info) {
		xb_ofi_fail(lib, error, "fi_dupinfo", FI_ENOMEM);
		free(e);
		return NULL;
	}
	/* Delivery complete is asked for write by write: as a default it would also
	 * change what a read or a message costs. */
	e->info->tx_attr->op_flags = 0;
	if (open_all(e, limits, error)) {
		xb_ofi_close(e, &ignored);
		return NULL;
	}
	return e;
}

int xb_ofi_close(struct xb_ofi_ep *e, struct xb_ofi_error *error)
{
	struct {
		const char *call;
		struct fid *fid;
	} all[] = {
		{ "fi_close(endpoint)", e->ep ? &e->ep->fid : NULL },
		{ "fi_close(eq)", e->eq ? &e->eq->fid : NULL },
		{ "fi_close(mr)", e->mr ? &e->mr->fid : NULL },
		{ "fi_close(control mr)", e->control_mr ? &e->control_mr->fid : NULL },
		{ "fi_close(av)", e->av ? &e->av->fid : NULL },
		{ "fi_close(tx cq)", e->tx_cq ? &e->tx_cq->fid : NULL },
		{ "fi_close(rx cq)", e->rx_cq ? &e->rx_cq->fid : NULL },
		{ "fi_close(domain)", e->domain ? &e->domain->fid : NULL },
		{ "fi_close(fabric)", e->fabric ? &e->fabric->fid : NULL },
	};

	memset(error, 0, sizeof(*error));
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		int rc = all[i].fid ? fi_close(all[i].fid) : 0;

		if (rc && !error->err)
			xb_ofi_fail(e->lib, error, all[i].call, rc);
	}
	xb_ofi_freeinfo(e->lib, e->info);
	xb_ofi_free(e);
	free(e);
	return error->err;
}

int xb_ofi_name(struct xb_ofi_ep *e, void *name, size_t *len, struct xb_ofi_error *error)
{
	memset(error, 0, sizeof(*error));
	TRY("fi_getname", fi_getname(&e->ep->fid, name, len));
	return 0;
}

static struct xb_ofi_secret secret(const struct xb_ofi_ep *e, uint64_t number, int wide)
{
	uint64_t format = e->info->ep_attr->mem_tag_format;
	uint64_t usable = format ? ~0ull >> __builtin_clzll(format) : ~0ull;
	uint64_t high = number & ~0xffffffffull;

	return (struct xb_ofi_secret){ high & usable, wide ? high : 0, XB_OFI_MAGIC ^ number };
}

int xb_ofi_connect(struct xb_ofi_ep *e, const void *name, uint64_t base, uint64_t key, uint64_t mine, uint64_t theirs,
		   int wide, struct xb_ofi_error *error)
{
	int rc = fi_av_insert(e->av, name, 1, &e->peer, 0, NULL);

	memset(error, 0, sizeof(*error));
	if (rc != 1)
		return xb_ofi_fail(e->lib, error, "fi_av_insert", rc < 0 ? rc : FI_EINVAL);
	e->remote_base = base;
	e->remote_key = key;
	e->in = secret(e, mine, wide);
	e->out = secret(e, theirs, wide);
	return 0;
}
