/* Memory: registration, and the control memory beside the caller's region. */
#define _GNU_SOURCE
#include "ep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

/* Receive slots of a target whose messages cannot be placed by tag. */
#define PIECE_SLOTS 512

static void *zeroed(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static uint32_t at_most(size_t n, uint32_t limit) { return n > limit || n == 0 ? limit : (uint32_t)n; }

int xb_ofi_alloc(struct xb_ofi_ep *e, struct xb_ofi_error *error)
{
	uint32_t room = at_most(e->info->rx_attr->size, 4096), ntx = e->how.depth + XB_OFI_ACKS, receives = 0;
	char *slots;

	if (e->how.initiator)
		e->slots = e->how.acked ? at_most(room, XB_OFI_ACKS) : 0;
	else if (e->how.sends == XB_OFI_SENDS_SLOTS)
		e->slots = at_most(room, PIECE_SLOTS);
	if (e->how.sends == XB_OFI_SENDS_TAGGED)
		receives = e->how.initiator ? at_most(room, XB_OFI_RECVS) : room;
	e->rx_room = e->slots + receives;
	e->control_len = XB_OFI_ACKS * XB_OFI_ACK_ROOM + (size_t)e->slots * e->slot_bytes;
	e->control = zeroed(e->control_len);
	e->tx_ops = calloc(ntx, sizeof(*e->tx_ops));
	e->rx_ops = calloc((size_t)e->rx_room + 1, sizeof(*e->rx_ops));
	if (!e->control || !e->tx_ops || !e->rx_ops)
		return xb_ofi_fail(e->lib, error, "calloc", FI_ENOMEM);
	for (uint32_t i = 0; i < ntx; i++) {
		struct xb_ofi_op *o = &e->tx_ops[i], **list = i < XB_OFI_ACKS ? &e->free_ack : &e->free_tx;

		o->kind = i < XB_OFI_ACKS ? KIND_ACK : KIND_PIECE;
		o->slot = i < XB_OFI_ACKS ? e->control + i * XB_OFI_ACK_ROOM : NULL;
		o->next = *list;
		*list = o;
	}
	slots = e->control + XB_OFI_ACKS * XB_OFI_ACK_ROOM;
	for (uint32_t i = 0; i < e->rx_room; i++) {
		struct xb_ofi_op *o = &e->rx_ops[i], **list = i < e->slots ? &e->free_slot : &e->free_rx;

		o->kind = i < e->slots ? KIND_SLOT : KIND_RECV;
		o->slot = i < e->slots ? slots + (size_t)i * e->slot_bytes : NULL;
		o->next = *list;
		*list = o;
	}
	e->slots_due = e->slots;
	return 0;
}

void xb_ofi_free(struct xb_ofi_ep *e)
{
	if (e->control)
		munmap(e->control, e->control_len);
	free(e->tx_ops);
	free(e->rx_ops);
}

/* Keys that a provider may find taken are drawn again that often. */
#define KEY_TRIES 16

/*
 * A key that nobody can guess: over IP it is all that a stranger lacks to read
 * the region. As many bits as the provider takes.
 */
static int random_key(const struct fi_info *info, uint64_t *key)
{
	size_t bytes = info->domain_attr->mr_key_size;

	if (getrandom(key, sizeof(*key), 0) != sizeof(*key))
		return -FI_EIO;
	if (bytes && bytes < sizeof(*key))
		*key &= ((uint64_t)1 << bytes * 8) - 1;
	return 0;
}

static int reg(struct xb_ofi_ep *e, void *addr, size_t len, int cuda, int device, struct fid_mr **mr, void **desc,
	       struct xb_ofi_error *error)
{
	struct iovec iov = { addr, len };
	/* A newer library reads a longer struct than the headers may know. */
	struct {
		struct fi_mr_attr attr;
		char pad[XB_OFI_PAD];
	} a;
	int mode = e->info->domain_attr->mr_mode, rc = 0;

	memset(&a, 0, sizeof(a));
	a.attr.mr_iov = &iov;
	a.attr.iov_count = 1;
	a.attr.access = FI_SEND | FI_RECV;
	if (e->how.rma)
		a.attr.access |= FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE;
	if (cuda) {
		a.attr.iface = FI_HMEM_CUDA;
		a.attr.device.cuda = device;
	}
	/* The requested key is ignored under FI_MR_PROV_KEY: the device's card makes it. */
	for (int i = 0; i < KEY_TRIES; i++) {
		if ((rc = random_key(e->info, &a.attr.requested_key)))
			return xb_ofi_fail(e->lib, error, "getrandom", rc);
		rc = fi_mr_regattr(e->domain, &a.attr, 0, mr);
		if (rc != -FI_ENOKEY && rc != -FI_EKEYREJECTED)
			break;
	}
	if (rc)
		return xb_ofi_fail(e->lib, error, "fi_mr_regattr", rc);
	if (mode & FI_MR_ENDPOINT) {
		if ((rc = fi_mr_bind(*mr, &e->ep->fid, 0)))
			return xb_ofi_fail(e->lib, error, "fi_mr_bind", rc);
		if ((rc = fi_mr_enable(*mr)))
			return xb_ofi_fail(e->lib, error, "fi_mr_enable", rc);
	}
	*desc = fi_mr_desc(*mr);
	return 0;
}

int xb_ofi_register(struct xb_ofi_ep *e, uint64_t addr, uint64_t len, int cuda, int device, struct xb_ofi_error *error)
{
	int rc;

	memset(error, 0, sizeof(*error));
	rc = reg(e, (void *)(uintptr_t)addr, len, cuda, device, &e->mr, &e->desc, error);
	if (rc)
		return rc;
	e->base = addr;
	if (e->info->domain_attr->mr_mode & FI_MR_LOCAL)
		return reg(e, e->control, e->control_len, 0, 0, &e->control_mr, &e->control_desc, error);
	return 0;
}

void xb_ofi_remote(const struct xb_ofi_ep *e, uint64_t *base, uint64_t *key)
{
	*base = e->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR ? e->base : 0;
	*key = fi_mr_key(e->mr);
}
