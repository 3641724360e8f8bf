/* Enumerating, opening and describing the devices. Stands in for libibverbs' and libefa's functions of those names. */
#include "device.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "cq.h"
#include "post.h"
#include "qp.h"
#include "registry.h"

enum { FIRST_PCI_SLOT = 6 }; /* rdmap0s6: the slot of the first EFA of most instance types */

static struct ibv_device devices[EMU_MAX_DEVICES];
static pthread_once_t devices_once = PTHREAD_ONCE_INIT;

void emu_device_name(uint32_t dev, char *out, size_t size)
{
	snprintf(out, size, "rdmap0s%u", FIRST_PCI_SLOT + dev);
}

static void fill_devices(void)
{
	const struct emu_config *cfg = emu_config();

	for (uint32_t i = 0; i < cfg->devices; i++) {
		struct ibv_device *d = &devices[i];
		char name[32];

		/* What libibverbs reports for an EFA device: neither InfiniBand nor Ethernet. */
		d->node_type = IBV_NODE_UNSPECIFIED;
		d->transport_type = IBV_TRANSPORT_UNSPECIFIED;
		emu_device_name(i, name, sizeof(name));
		snprintf(d->name, sizeof(d->name), "%s", name);
		snprintf(d->dev_name, sizeof(d->dev_name), "uverbs%u", i);
		/* libfabric reads the driver's name and the PCI address under ibdev_path. Both fields hold 256
		 * bytes; a longer scratch path would name nothing, so say so. */
		snprintf(d->dev_path, sizeof(d->dev_path), "%.200s/class/infiniband_verbs/uverbs%u", cfg->sysfs, i);
		snprintf(d->ibdev_path, sizeof(d->ibdev_path), "%.200s/class/infiniband/%s", cfg->sysfs, name);
		if (strlen(cfg->sysfs) > 200)
			emu_warn("SYSFS_PATH is longer than 200 bytes: libfabric will not find the device");
	}
}

EMU_EXPORT struct ibv_device **ibv_get_device_list(int *num)
{
	uint32_t count = 0;
	if (emu_config() && registry_attach()) {
		pthread_once(&devices_once, fill_devices);
		count = emu_config()->devices;
	}

	struct ibv_device **list = calloc(count + 1, sizeof(*list));
	if (!list)
		return NULL;
	for (uint32_t i = 0; i < count; i++)
		list[i] = &devices[i];
	if (num)
		*num = (int)count;
	return list;
}

EMU_EXPORT void ibv_free_device_list(struct ibv_device **list)
{
	free(list);
}

EMU_EXPORT const char *ibv_get_device_name(struct ibv_device *device)
{
	return device->name;
}

EMU_EXPORT __be64 ibv_get_device_guid(struct ibv_device *device)
{
	union ibv_gid gid;
	registry_gid((uint32_t)(device - devices), &gid);
	return gid.global.interface_id;
}

EMU_EXPORT int ibv_get_device_index(struct ibv_device *device)
{
	return (int)(device - devices);
}

static int query_port(struct ibv_context *ctx, uint8_t port, struct ibv_port_attr *attr, size_t size)
{
	(void)ctx;
	if (port != 1)
		return EINVAL;
	struct ibv_port_attr full = {
		.state = IBV_PORT_ACTIVE,
		.max_mtu = IBV_MTU_4096,
		.active_mtu = IBV_MTU_4096,
		.gid_tbl_len = 1,
		.max_msg_sz = EMU_MTU,
		.pkey_tbl_len = 1,
		.active_width = 2,  /* 4 lanes … */
		.active_speed = 32, /* … of 25 Gbit/s */
		.phys_state = 5,    /* link up */
		.link_layer = IBV_LINK_LAYER_UNSPECIFIED,
	};
	memset(attr, 0, size);
	memcpy(attr, &full, size < sizeof(full) ? size : sizeof(full));
	return 0;
}

static int query_device_ex(struct ibv_context *ctx, const struct ibv_query_device_ex_input *input,
			   struct ibv_device_attr_ex *attr, size_t size)
{
	(void)input;
	if (size < sizeof(attr->orig_attr))
		return EINVAL;
	memset(attr, 0, size);
	return ibv_query_device(ctx, &attr->orig_attr);
}

static int req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
	(void)cq;
	(void)solicited_only;
	return EOPNOTSUPP; /* no completion channels: ibv_create_comp_channel fails too */
}

EMU_EXPORT struct ibv_context *ibv_open_device(struct ibv_device *device)
{
	struct emu_context *ctx = calloc(1, sizeof(*ctx));
	if (!ctx)
		return NULL;

	ctx->dev = (uint32_t)(device - devices);
	struct verbs_context *v = &ctx->verbs;
	v->sz = sizeof(*v);
	v->query_port = query_port;
	v->query_device_ex = query_device_ex;
	v->create_cq_ex = emu_create_cq_ex;
	v->create_qp_ex = emu_create_qp_ex;
	v->context.device = device;
	v->context.abi_compat = __VERBS_ABI_IS_EXTENDED;
	v->context.cmd_fd = v->context.async_fd = -1;
	v->context.num_comp_vectors = 1;
	v->context.ops.post_send = emu_post_send;
	v->context.ops.post_recv = emu_post_recv;
	v->context.ops.poll_cq = emu_poll_cq;
	v->context.ops.req_notify_cq = req_notify_cq;
	pthread_mutex_init(&v->context.mutex, NULL);
	return &v->context;
}

EMU_EXPORT int ibv_close_device(struct ibv_context *ibctx)
{
	struct emu_context *ctx = emu_context(ibctx);
	pthread_mutex_destroy(&ctx->verbs.context.mutex);
	free(ctx);
	return 0;
}

/* The limits are those that a p5 instance's device reports, where they do not follow from the registry. */
EMU_EXPORT int ibv_query_device(struct ibv_context *ctx, struct ibv_device_attr *attr)
{
	(void)ctx;
	const struct emu_config *cfg = emu_config();
	*attr = (struct ibv_device_attr){
		.fw_ver = "0.0.0.0", /* no real device has this: how users of the library tell that it is emulated */
		.max_mr_size = 96ull << 30,
		.page_size_cap = 0xfffff000,
		.vendor_id = 0x1d0f,
		.vendor_part_id = cfg->profile->part_id,
		.hw_ver = cfg->profile->part_id,
		/* libfabric sizes a table by this and indexes it by queue pair number. */
		.max_qp = REGISTRY_MAX_QP,
		.max_qp_wr = (int)cfg->sq_depth,
		.max_sge = EMU_MAX_SEND_SGE,
		.max_sge_rd = 1,
		.max_cq = 512,
		.max_cqe = 32768,
		.max_mr = REGISTRY_MAX_MR - 1,
		.max_pd = 256,
		.max_ah = 1024,
		.max_pkeys = 1,
		.phys_port_cnt = 1,
	};
	return 0;
}

EMU_EXPORT int efadv_query_device(struct ibv_context *ctx, struct efadv_device_attr *attr, uint32_t size)
{
	(void)ctx;
	const struct emu_config *cfg = emu_config();
	struct efadv_device_attr full = {
		.max_sq_wr = cfg->sq_depth,
		.max_rq_wr = EMU_MAX_RECV_WR,
		.max_sq_sge = EMU_MAX_SEND_SGE,
		.max_rq_sge = EMU_MAX_RECV_SGE,
		.inline_buf_size = EMU_INLINE_SIZE,
		.device_caps = cfg->profile->caps,
		.max_rdma_size = cfg->max_rdma_size,
	};
	memset(attr, 0, size);
	memcpy(attr, &full, size < sizeof(full) ? size : sizeof(full));
	return 0;
}

#undef ibv_query_port
EMU_EXPORT int ibv_query_port(struct ibv_context *ctx, uint8_t port, struct _compat_ibv_port_attr *attr)
{
	/* The function of this name serves callers of the shorter, older structure; new ones use the context's. */
	return query_port(ctx, port, (struct ibv_port_attr *)attr, offsetof(struct ibv_port_attr, port_cap_flags2));
}

EMU_EXPORT int ibv_query_gid(struct ibv_context *ctx, uint8_t port, int index, union ibv_gid *gid)
{
	if (port != 1 || index) {
		errno = EINVAL;
		return -1;
	}
	registry_gid(emu_context(ctx)->dev, gid);
	return 0;
}

EMU_EXPORT int ibv_query_pkey(struct ibv_context *ctx, uint8_t port, int index, __be16 *pkey)
{
	(void)ctx;
	if (port != 1 || index) {
		errno = EINVAL;
		return -1;
	}
	*pkey = 0xffff;
	return 0;
}

/* Nothing is pinned, so fork(2) needs no care. */
EMU_EXPORT int ibv_fork_init(void)
{
	return 0;
}

EMU_EXPORT enum ibv_fork_status ibv_is_fork_initialized(void)
{
	return IBV_FORK_UNNEEDED;
}
