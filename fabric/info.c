/* fi_getinfo and what it returns. */
#define _GNU_SOURCE
#include "ofi.h"

#include <rdma/fi_errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint32_t xb_ofi_version(const struct xb_ofi_lib *lib) { return ((uint32_t(*)(void))lib->version)(); }

const char *xb_ofi_strerror(const struct xb_ofi_lib *lib, int err)
{
	return ((const char *(*)(int))lib->strerror)(err);
}

void xb_ofi_freeinfo(const struct xb_ofi_lib *lib, struct fi_info *info)
{
	if (info)
		((void (*)(struct fi_info *))lib->freeinfo)(info);
}

/* The hints' parts are the library's own, since a newer one has longer structs. */
static int fill_hints(struct fi_info *hints, const struct xb_ofi_request *req)
{
	if (req->provider && !(hints->fabric_attr->prov_name = strdup(req->provider)))
		return FI_ENOMEM;
	if (req->fabric && !(hints->fabric_attr->name = strdup(req->fabric)))
		return FI_ENOMEM;
	hints->mode = req->mode;
	hints->domain_attr->mr_mode = req->mr_mode;
	if (req->any_type)
		return 0;
	hints->caps = req->caps;
	hints->ep_attr->type = FI_EP_RDM;
	hints->tx_attr->op_flags = req->op_flags;
	hints->domain_attr->threading = FI_THREAD_DOMAIN;
	if (req->manual)
		hints->domain_attr->data_progress = FI_PROGRESS_MANUAL;
	hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
	hints->domain_attr->av_type = FI_AV_UNSPEC;
	return 0;
}

int xb_ofi_getinfo(const struct xb_ofi_lib *lib, const struct xb_ofi_request *req, struct fi_info **out,
		   struct xb_ofi_error *error)
{
	struct fi_info *hints = ((struct fi_info * (*)(const struct fi_info *)) lib->dupinfo)(NULL);
	int rc;

	*out = NULL;
	memset(error, 0, sizeof(*error));
	error->call = "fi_getinfo";
	if (!hints || fill_hints(hints, req)) {
		rc = FI_ENOMEM;
	} else {
		int (*getinfo)(uint32_t, const char *, const char *, uint64_t, const struct fi_info *,
			       struct fi_info **) = lib->getinfo;

		rc = -getinfo(req->version, req->node, NULL, req->node ? FI_SOURCE : 0, hints, out);
	}
	xb_ofi_freeinfo(lib, hints);
	if (rc) {
		error->err = rc;
		snprintf(error->words, sizeof(error->words), "%s", xb_ofi_strerror(lib, rc));
	}
	return rc;
}

struct fi_info *xb_ofi_next(const struct fi_info *info) { return info->next; }

static void copy(char *to, size_t room, const char *from) { snprintf(to, room, "%s", from ? from : ""); }

static void describe_nic(const struct fid_nic *nic, struct xb_ofi_view *v)
{
	v->has_nic = 1;
	if (nic->device_attr) {
		copy(v->device, sizeof(v->device), nic->device_attr->name);
		copy(v->device_id, sizeof(v->device_id), nic->device_attr->device_id);
		copy(v->driver, sizeof(v->driver), nic->device_attr->driver);
		copy(v->firmware, sizeof(v->firmware), nic->device_attr->firmware);
	}
	if (nic->bus_attr && nic->bus_attr->bus_type == FI_BUS_PCI) {
		const struct fi_pci_attr *p = &nic->bus_attr->attr.pci;

		snprintf(v->pci, sizeof(v->pci), "%04x:%02x:%02x.%x", p->domain_id, p->bus_id, p->device_id & 0x1f,
			 p->function_id & 7);
	}
	if (nic->link_attr) {
		v->link_up = nic->link_attr->state == FI_LINK_UP;
		v->link_bits = nic->link_attr->speed;
		v->mtu = nic->link_attr->mtu;
		copy(v->network, sizeof(v->network), nic->link_attr->network_type);
	}
}

void xb_ofi_describe(const struct fi_info *info, struct xb_ofi_view *v)
{
	memset(v, 0, sizeof(*v));
	copy(v->provider, sizeof(v->provider), info->fabric_attr->prov_name);
	copy(v->fabric, sizeof(v->fabric), info->fabric_attr->name);
	v->provider_version = info->fabric_attr->prov_version;
	copy(v->domain, sizeof(v->domain), info->domain_attr->name);
	v->mr_mode = info->domain_attr->mr_mode;
	v->manual_progress = info->domain_attr->data_progress == FI_PROGRESS_MANUAL;
	v->cq_data_size = info->domain_attr->cq_data_size;
	v->endpoint_type = info->ep_attr->type;
	v->max_msg = info->ep_attr->max_msg_size;
	v->tx_size = info->tx_attr->size;
	v->rx_size = info->rx_attr->size;
	if (info->nic)
		describe_nic(info->nic, v);
}
