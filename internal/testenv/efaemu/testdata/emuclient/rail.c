#include <stdlib.h>
#include <string.h>

#include "client.h"

struct fi_info *find_rails(void)
{
	struct fi_info *hints = lf.dupinfo(NULL), *info;
	bool direct = !strcmp(options.fabric, "efa-direct");

	if (!hints)
		fail("fi_dupinfo: out of memory");
	hints->caps = FI_MSG | FI_SEND | FI_RECV;
	if (options.op != OP_SEND)
		hints->caps |= FI_RMA | FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE;
	hints->mode = FI_CONTEXT | (direct ? FI_CONTEXT2 : 0);
	hints->ep_attr->type = FI_EP_RDM;
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	hints->domain_attr->threading = FI_THREAD_DOMAIN;
	hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
	hints->tx_attr->op_flags = FI_DELIVERY_COMPLETE;
	hints->fabric_attr->prov_name = strdup("efa");
	hints->fabric_attr->name = strdup(options.fabric);
	/* From API 1.18 on libfabric uses the device's RDMA wherever there is any. */
	uint32_t version = lf.version() < FI_VERSION(1, 18) ? lf.version() : FI_VERSION(1, 18);
	check(lf.getinfo(version, NULL, NULL, 0, hints, &info));
	lf.freeinfo(hints);
	return info;
}

static void register_memory(struct rail *rail, void *addr, size_t length, uint64_t key, struct fid_mr **mr)
{
	struct iovec iov = { addr, length };
	/* Room for the fields that newer libraries know. */
	union {
		struct fi_mr_attr attr;
		uint8_t pad[512];
	} a = { 0 };
	a.attr.mr_iov = &iov;
	a.attr.iov_count = 1;
	a.attr.access = FI_SEND | FI_RECV;
	if (options.op != OP_SEND)
		a.attr.access |= FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE;
	a.attr.requested_key = key;
	check(fi_mr_regattr(rail->domain, &a.attr, 0, mr));
}

void rail_open(struct rail *rail, struct fi_info *info, size_t index)
{
	rail->info = info;
	check(lf.fabric(info->fabric_attr, &rail->fabric, NULL));
	check(fi_domain(rail->fabric, info, &rail->domain, NULL));

	struct fi_eq_attr eq = { .wait_obj = FI_WAIT_NONE };
	check(fi_eq_open(rail->fabric, &eq, &rail->eq, NULL));
	struct fi_cq_attr cq = { .format = FI_CQ_FORMAT_DATA, .wait_obj = FI_WAIT_NONE, .size = 8192 };
	check(fi_cq_open(rail->domain, &cq, &rail->tx_cq, NULL));
	check(fi_cq_open(rail->domain, &cq, &rail->rx_cq, NULL));
	struct fi_av_attr av = { .type = FI_AV_TABLE, .count = 4 };
	check(fi_av_open(rail->domain, &av, &rail->av, NULL));
	check(fi_endpoint(rail->domain, info, &rail->ep, NULL));
	check(fi_ep_bind(rail->ep, &rail->eq->fid, 0));
	check(fi_ep_bind(rail->ep, &rail->av->fid, 0));
	check(fi_ep_bind(rail->ep, &rail->tx_cq->fid, FI_TRANSMIT));
	check(fi_ep_bind(rail->ep, &rail->rx_cq->fid, FI_RECV));
	check(fi_enable(rail->ep));
	register_memory(rail, buffer, options.size, 1, &rail->mr);

	size_t length = sizeof(rail->local.name);
	check(fi_getname(&rail->ep->fid, rail->local.name, &length));
	rail->local.length = length;
	rail->local.base = (uint64_t)(uintptr_t)buffer; /* FI_MR_VIRT_ADDR */
	rail->local.key = fi_mr_key(rail->mr);

	rail->first = index;
	rail->step = options.rails;
	size_t all = (options.size + options.chunk - 1) / options.chunk;
	rail->chunks = all > index ? (all - index + options.rails - 1) / options.rails : 0;
	rail->contexts = calloc(rail->chunks + 1, sizeof(*rail->contexts));
	rail->seen = calloc(all + 1, 1);
	if (!rail->contexts || !rail->seen)
		fail("out of memory");
	if (options.op == OP_SEND && options.target) {
		rail->recv_contexts = calloc(rail->chunks + 1, sizeof(*rail->recv_contexts));
		rail->recv_buffer = calloc(rail->chunks + 1, options.chunk);
		if (!rail->recv_contexts || !rail->recv_buffer)
			fail("out of memory");
		register_memory(rail, rail->recv_buffer, (rail->chunks + 1) * options.chunk, 2, &rail->recv_mr);
	}
}

void rail_connect(struct rail *rail)
{
	int n = fi_av_insert(rail->av, rail->remote.name, 1, &rail->peer, 0, NULL);
	if (n != 1)
		fail("fi_av_insert: %d", n);
}

void rail_close(struct rail *rail)
{
	check(fi_close(&rail->ep->fid));
	check(fi_close(&rail->mr->fid));
	if (rail->recv_mr)
		check(fi_close(&rail->recv_mr->fid));
	check(fi_close(&rail->av->fid));
	check(fi_close(&rail->tx_cq->fid));
	check(fi_close(&rail->rx_cq->fid));
	check(fi_close(&rail->domain->fid));
	check(fi_close(&rail->eq->fid));
	check(fi_close(&rail->fabric->fid));
	free(rail->contexts);
	free(rail->seen);
	free(rail->recv_contexts);
	free(rail->recv_buffer);
}
