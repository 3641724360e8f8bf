/* The table that the measuring loop calls: posting, polling, landing. */
#define _GNU_SOURCE
#include "ep.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* A piece's name on the wire, in CQ data or a tag: 8 bits of the transfer's
 * number and 24 of the piece's, which fits the 4 bytes of EFA's CQ data. Tags and
 * CQ data of 8 bytes begin with 32 bits that the receiver drew for this connection:
 * what others send is not taken for a piece. In 4 bytes (efa, verbs) there is no
 * room for them; there the device's own checks stand in front. */
#define LABEL_BITS 24
#define LABEL(seq, index) ((((uint64_t)(seq)&0xff) << LABEL_BITS) | (uint64_t)(index))

/* Keeps a failure for those who take it apart. */
static void keep(struct xb_ofi_ep *e, const char *call, int err, const char *words)
{
	e->failure.call = call;
	e->failure.err = err;
	snprintf(e->failure.words, sizeof(e->failure.words), "%s", words);
}

/* The same with the provider's own words and code. */
static void keep_provider(struct xb_ofi_ep *e, const char *call, int err, const char *words, int prov)
{
	char text[256];

	snprintf(text, sizeof(text), "%s, provider: %s (%d)", xb_ofi_strerror(e->lib, err), words ? words : "no words", prov);
	keep(e, call, err, text);
}

static int fail(struct xb_ofi_ep *e, const char *call, ssize_t rc)
{
	keep(e, call, (int)-rc, xb_ofi_strerror(e->lib, (int)-rc));
	snprintf(e->words, sizeof(e->words), "%s: %s (%d)", call, xb_ofi_strerror(e->lib, (int)-rc), (int)-rc);
	return XB_FAIL;
}

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int fail_words(struct xb_ofi_ep *e, const char *words)
{
	keep(e, NULL, 0, words);
	snprintf(e->words, sizeof(e->words), "%s", words);
	return XB_FAIL;
}

/* A queue holds an error: its entry has the provider's own words. */
static int fail_cq(struct xb_ofi_ep *e, struct fid_cq *cq)
{
	struct {
		struct fi_cq_err_entry entry;
		char pad[XB_OFI_PAD];
	} err;
	char room[128] = "";
	const char *words;
	ssize_t rc;
	int code;

	memset(&err, 0, sizeof(err));
	rc = fi_cq_readerr(cq, &err.entry, 0);
	if (rc < 0)
		return fail(e, "fi_cq_readerr", rc);
	if (cq == e->tx_cq && err.entry.op_context)
		e->tx_pending--; /* it ended; the endpoint does no more */
	/* Some providers give the code negated. */
	code = err.entry.err < 0 ? -err.entry.err : err.entry.err;
	words = fi_cq_strerror(cq, err.entry.prov_errno, err.entry.err_data, room, sizeof(room));
	snprintf(e->words, sizeof(e->words), "a %s failed: %s (%d), provider: %s (%d)",
		 cq == e->tx_cq ? "posted operation" : "receive", xb_ofi_strerror(e->lib, code), code,
		 words ? words : "no words", err.entry.prov_errno);
	keep_provider(e, "fi_cq_readerr", code, words, err.entry.prov_errno);
	return XB_FAIL;
}

/* An error that belongs to no operation, in the event queue. */
static int read_eq(struct xb_ofi_ep *e)
{
	struct {
		struct fi_eq_err_entry entry;
		char pad[XB_OFI_PAD];
	} err;
	char event[256], room[128] = "";
	uint32_t kind;
	const char *words;
	ssize_t rc = fi_eq_read(e->eq, &kind, event, sizeof(event), 0);
	int code;

	if (rc == -FI_EAGAIN || rc >= 0)
		return XB_OK;
	if (rc != -FI_EAVAIL)
		return fail(e, "fi_eq_read", rc);
	memset(&err, 0, sizeof(err));
	rc = fi_eq_readerr(e->eq, &err.entry, 0);
	if (rc < 0)
		return fail(e, "fi_eq_readerr", rc);
	code = err.entry.err < 0 ? -err.entry.err : err.entry.err;
	/* efa has words for its codes in the completion queue alone. */
	words = fi_cq_strerror(e->tx_cq, err.entry.prov_errno, NULL, room, sizeof(room));
	snprintf(e->words, sizeof(e->words), "the endpoint failed: %s (%d), provider: %s (%d)",
		 xb_ofi_strerror(e->lib, code), code, words ? words : "no words", err.entry.prov_errno);
	keep_provider(e, "fi_eq_readerr", code, words, err.entry.prov_errno);
	return XB_FAIL;
}

static int acknowledged(const struct xb_ofi_ep *e, int op)
{
	return op == XB_SEND || (op == XB_WRITE && e->how.landing == XB_OFI_LANDING_COUNT);
}

static void push(struct xb_ofi_op **list, struct xb_ofi_op *o)
{
	o->next = *list;
	*list = o;
}

static int begin(void *lane, int op, uint64_t n)
{
	struct xb_ofi_ep *e = lane;

	e->batch++;
	e->injected = 0;
	/* A lane without a share in the transfer is not acknowledged. */
	if (!acknowledged(e, op) || n == 0)
		return XB_OK;
	if (n >> LABEL_BITS)
		return fail_words(e, "a transfer of more than 16777215 pieces cannot be numbered");
	e->seq++;
	return XB_OK;
}

static ssize_t write_dc(struct xb_ofi_ep *e, const struct xb_piece *p, void *local, void *context)
{
	struct iovec iov = { local, p->len };
	struct fi_rma_iov rma = { .addr = e->remote_base + p->remote, .len = p->len, .key = e->remote_key };
	struct fi_msg_rma msg = {
		.msg_iov = &iov,
		.desc = &e->desc,
		.iov_count = 1,
		.addr = e->peer,
		.rma_iov = &rma,
		.rma_iov_count = 1,
		.context = context,
	};

	return fi_writemsg(e->ep, &msg, FI_DELIVERY_COMPLETE | FI_COMPLETION);
}

/* The calls that a post can be. */
enum call { READ, WRITE_DC, WRITE_COUNTED, SEND_TAGGED, SEND_LABELLED };

static const char *const call_names[] = {
	[READ] = "fi_read",	   [WRITE_DC] = "fi_writemsg",	  [WRITE_COUNTED] = "fi_writedata",
	[SEND_TAGGED] = "fi_tsend", [SEND_LABELLED] = "fi_senddata",
};

static inline __attribute__((always_inline)) ssize_t post_one(struct xb_ofi_ep *e, enum call call,
							      const struct xb_piece *p, uint64_t label, void *context)
{
	void *local = (void *)(uintptr_t)(e->base + p->local);
	uint64_t remote = e->remote_base + p->remote;

	switch (call) {
	case READ:
		return fi_read(e->ep, local, p->len, e->desc, e->peer, remote, e->remote_key, context);
	case WRITE_DC:
		return write_dc(e, p, local, context);
	case WRITE_COUNTED:
		return fi_writedata(e->ep, local, p->len, e->desc, label, e->peer, remote, e->remote_key, context);
	case SEND_TAGGED:
		return fi_tsend(e->ep, local, p->len, e->desc, e->peer, label, context);
	default:
		return fi_senddata(e->ep, local, p->len, e->desc, label, e->peer, context);
	}
}

/* Inlined once for each call, so that the loop decides nothing. */
static inline __attribute__((always_inline)) int post_some(struct xb_ofi_ep *e, enum call call,
							   const struct xb_piece *pieces, uint64_t label, uint32_t n)
{
	struct xb_ofi_op *o = e->free_tx;
	uint32_t batch = e->batch, i;
	ssize_t rc = 0;

	for (i = 0; i < n && o; i++, o = o->next) {
		o->batch = batch;
		rc = post_one(e, call, &pieces[i], label + i, &o->context);
		if (__builtin_expect(rc != 0, 0))
			break;
	}
	e->free_tx = o;
	e->tx_pending += i;
	return rc == 0 || rc == -FI_EAGAIN ? (int)i : fail(e, call_names[call], rc);
}

/* Short messages are injected: their buffer is free again at once, and the
 * completion queue has nothing to say, whose reading is a system call over tcp. */
static int post_tagged(struct xb_ofi_ep *e, const struct xb_piece *p, uint64_t label, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		ssize_t rc;

		if (p[i].len > e->inject) {
			int posted = post_some(e, SEND_TAGGED, &p[i], label + i, 1);

			if (posted < 0)
				return posted;
			if (posted == 0)
				return (int)i;
			continue;
		}
		rc = fi_tinject(e->ep, (void *)(uintptr_t)(e->base + p[i].local), p[i].len, e->peer, label + i);
		if (rc == -FI_EAGAIN)
			return (int)i;
		if (rc)
			return fail(e, "fi_tinject", rc);
		e->injected++;
	}
	return (int)n;
}

static int post(void *lane, int op, const struct xb_piece *p, uint64_t index, uint32_t n)
{
	struct xb_ofi_ep *e = lane;
	uint64_t label = LABEL(e->seq, index);

	switch (op) {
	case XB_READ:
		return post_some(e, READ, p, label, n);
	case XB_WRITE:
		return e->how.landing == XB_OFI_LANDING_DC ? post_some(e, WRITE_DC, p, label, n)
							   : post_some(e, WRITE_COUNTED, p, e->out.data | label, n);
	default:
		return e->how.sends == XB_OFI_SENDS_TAGGED ? post_tagged(e, p, e->out.tag | label, n)
							   : post_some(e, SEND_LABELLED, p, e->out.data | label, n);
	}
}

/* How many pieces of the transfer in hand completed, or XB_FAIL. */
static int read_tx(struct xb_ofi_ep *e)
{
	struct fi_cq_data_entry entries[XB_OFI_CQ_BATCH];
	ssize_t n = fi_cq_read(e->tx_cq, entries, XB_OFI_CQ_BATCH);
	int done = 0;

	if (n == -FI_EAGAIN)
		return 0;
	if (n < 0)
		return n == -FI_EAVAIL ? fail_cq(e, e->tx_cq) : fail(e, "fi_cq_read", n);
	for (ssize_t i = 0; i < n; i++) {
		struct xb_ofi_op *o = entries[i].op_context;

		if (!o)
			continue;
		e->tx_pending--;
		if (o->kind == KIND_ACK) {
			push(&e->free_ack, o);
		} else {
			/* A piece of a transfer that was given up does not count. */
			done += o->batch == e->batch;
			push(&e->free_tx, o);
		}
	}
	return done;
}

/* A piece that CQ data names: the event of a remote write, or a message. */
static int arrived_label(struct xb_ofi_ep *e, uint64_t label, const char *slot)
{
	uint64_t index = label & ((1u << LABEL_BITS) - 1);
	const struct xb_piece *p;

	if (index >= e->armed.n || label != (e->in.data | LABEL(e->armed.seq, index)) ||
	    e->armed.arrived == e->armed.n)
		return fail_words(e, "data arrived that belongs to no transfer in hand");
	p = &e->armed.pieces[index];
	if (slot)
		memcpy((void *)(uintptr_t)(e->base + p->remote), slot, p->len);
	e->armed.arrived++;
	return XB_OK;
}

static int received(struct xb_ofi_ep *e, struct xb_ofi_op *o, uint64_t data)
{
	struct xb_ofi_ack ack;
	int rc = XB_OK;

	if (o->kind == KIND_RECV) {
		e->armed.arrived++;
		push(&e->free_rx, o);
		return XB_OK;
	}
	if (e->how.initiator) {
		memcpy(&ack, o->slot, sizeof(ack));
		if (ack.magic != e->in.magic || ack.seq > e->seq)
			return fail_words(e, "an acknowledgement arrived that belongs to no transfer");
		if (ack.seq > e->acked)
			e->acked = ack.seq;
	} else {
		rc = arrived_label(e, data, o->slot);
	}
	push(&e->free_slot, o);
	e->slots_due++;
	return rc;
}

/* How many messages and events arrived, or XB_FAIL. */
static int read_rx(struct xb_ofi_ep *e)
{
	struct fi_cq_data_entry entries[XB_OFI_CQ_BATCH];
	ssize_t n = fi_cq_read(e->rx_cq, entries, XB_OFI_CQ_BATCH);
	int rc;

	if (n == -FI_EAGAIN)
		return 0;
	if (n < 0)
		return n == -FI_EAVAIL ? fail_cq(e, e->rx_cq) : fail(e, "fi_cq_read", n);
	for (ssize_t i = 0; i < n; i++) {
		struct xb_ofi_op *o = entries[i].op_context;

		/* Providers differ in the flags of a remote write's event (shm sets
		 * FI_REMOTE_CQ_DATA alone); a receive always says FI_RECV, and its
		 * context is one of ours. */
		if ((entries[i].flags & FI_RECV) && o >= e->rx_ops && o < e->rx_ops + e->rx_room)
			rc = received(e, o, entries[i].data);
		else if (entries[i].flags & FI_REMOTE_CQ_DATA)
			rc = arrived_label(e, entries[i].data, NULL);
		else
			rc = XB_OK;
		if (rc != XB_OK)
			return rc;
	}
	return (int)n;
}

/* Posts the receive slots that are free; a full queue leaves some for later. */
static int post_slots(struct xb_ofi_ep *e)
{
	while (e->slots_due) {
		struct xb_ofi_op *o = e->free_slot;
		ssize_t rc = fi_recv(e->ep, o->slot, e->slot_bytes, e->control_desc, FI_ADDR_UNSPEC, &o->context);

		if (rc == -FI_EAGAIN)
			return XB_OK;
		if (rc)
			return fail(e, "fi_recv", rc);
		e->free_slot = o->next;
		e->slots_due--;
	}
	return XB_OK;
}

/* Posts the receives of the armed transfer in the order of its pieces, which is
 * that of the sends: a queue shorter than the transfer moves along with it. */
static int post_receives(struct xb_ofi_ep *e)
{
	while (e->armed.posted < e->armed.n && e->free_rx) {
		struct xb_ofi_op *o = e->free_rx;
		const struct xb_piece *p = &e->armed.pieces[e->armed.posted];
		ssize_t rc = fi_trecv(e->ep, (void *)(uintptr_t)(e->base + p->remote), p->len, e->desc, FI_ADDR_UNSPEC,
				      e->in.tag | LABEL(e->armed.seq, e->armed.posted), 0, &o->context);

		if (rc == -FI_EAGAIN)
			return XB_OK;
		if (rc)
			return fail(e, "fi_trecv", rc);
		e->free_rx = o->next;
		e->armed.posted++;
	}
	return XB_OK;
}

static int progress(void *lane)
{
	struct xb_ofi_ep *e = lane;
	int look = ++e->turn % XB_OFI_LOOK_EVERY == 0, done = 0, arrived = 0, injected = (int)e->injected;

	e->injected = 0;
	if (injected && !look && !e->tx_pending)
		return injected;
	if (e->armed.sends && e->armed.posted < e->armed.n && post_receives(e) != XB_OK)
		return XB_FAIL;
	/* Reading either queue progresses the endpoint on most providers, at the cost
	 * of a system call on some: the one that expects nothing is read rarely. */
	if (e->tx_pending || look) {
		done = read_tx(e);
		if (done < 0)
			return done;
	}
	if (!e->how.initiator || !e->tx_pending || look) {
		arrived = read_rx(e);
		if (arrived < 0)
			return arrived;
	}
	if (look && e->eq && read_eq(e) != XB_OK)
		return XB_FAIL;
	/* What arrived is answered first, while enough slots are posted. */
	if (e->slots_due && (arrived == 0 || 2 * e->slots_due >= e->slots) && post_slots(e) != XB_OK)
		return XB_FAIL;
	return done + injected;
}

uint32_t xb_ofi_drain(struct xb_ofi_ep *e, int64_t ns)
{
	int64_t deadline = now() + ns;

	while (e->tx_pending && now() < deadline) {
		/* An operation that failed has ended too, and is no longer pending. */
		int done = read_tx(e);

		read_rx(e);
		if (done <= 0)
			sched_yield();
	}
	return e->tx_pending;
}

static int flush(void *lane, int op)
{
	(void)lane;
	(void)op;
	return XB_OK;
}

static int landed(void *lane, int op)
{
	struct xb_ofi_ep *e = lane;

	return !acknowledged(e, op) || e->acked == e->seq;
}

static int arm(void *lane, int op, const struct xb_piece *pieces, uint64_t n)
{
	struct xb_ofi_ep *e = lane;
	int owed = e->armed.seq != e->armed.told;

	if (!e->armed.begun) {
		if (!acknowledged(e, op))
			return fail_words(e, "a target sees nothing of this operation");
		if (n >> LABEL_BITS)
			return fail_words(e, "a transfer of more than 16777215 pieces cannot be numbered");
		e->armed.pieces = pieces;
		e->armed.n = n;
		e->armed.posted = e->armed.arrived = 0;
		e->armed.seq += n > 0;
		e->armed.sends = op == XB_SEND && e->how.sends == XB_OFI_SENDS_TAGGED;
		e->armed.begun = 1;
	}
	/* While the last transfer's acknowledgement is owed, that goes first and the
	 * receives are posted by the next poll: their cost is this transfer's. */
	if (owed && e->armed.sends) {
		e->armed.begun = 0;
		return XB_OK;
	}
	if (e->armed.sends && post_receives(e) != XB_OK)
		return XB_FAIL;
	if (n > 0 && ((e->armed.sends && e->armed.posted == 0) || (e->slots && e->slots_due == e->slots)))
		return XB_AGAIN;
	e->armed.begun = 0;
	return XB_OK;
}

static int arrived(void *lane)
{
	struct xb_ofi_ep *e = lane;

	return e->armed.arrived == e->armed.n;
}

static int ack(void *lane)
{
	struct xb_ofi_ep *e = lane;
	struct xb_ofi_op *o = e->free_ack;
	struct xb_ofi_ack words = { e->out.magic, e->armed.told + 1 };
	ssize_t rc;

	if (e->armed.n == 0)
		return XB_OK;
	if (e->inject >= sizeof(words)) {
		rc = fi_inject(e->ep, &words, sizeof(words), e->peer);
		if (rc == -FI_EAGAIN)
			return XB_AGAIN;
		if (rc)
			return fail(e, "fi_inject", rc);
		e->armed.told++;
		return XB_OK;
	}
	if (!o)
		return XB_AGAIN;
	memcpy(o->slot, &words, sizeof(words));
	rc = fi_send(e->ep, o->slot, sizeof(words), e->control_desc, e->peer, &o->context);
	if (rc == -FI_EAGAIN)
		return XB_AGAIN;
	if (rc)
		return fail(e, "fi_send", rc);
	e->free_ack = o->next;
	e->tx_pending++;
	e->armed.told++;
	return XB_OK;
}

static const char *error(void *lane) { return ((struct xb_ofi_ep *)lane)->words; }

const struct xb_ops xb_ofi_ops = {
	.begin = begin,
	.post = post,
	.poll = progress,
	.flush = flush,
	.landed = landed,
	.arm = arm,
	.arrived = arrived,
	.ack = ack,
	.error = error,
};

int xb_ofi_post(struct xb_ofi_ep *e, int op, const struct xb_piece *piece, uint32_t tag)
{
	return post(e, op, piece, tag, 1);
}

int xb_ofi_recv(struct xb_ofi_ep *e, uint64_t offset, uint64_t len, uint32_t tag)
{
	struct xb_ofi_op *o = e->free_rx;
	ssize_t rc;

	if (!o)
		return 0;
	rc = fi_trecv(e->ep, (void *)(uintptr_t)(e->base + offset), len, e->desc, FI_ADDR_UNSPEC,
		      e->in.tag | LABEL(e->armed.seq, tag), 0, &o->context);
	if (rc == -FI_EAGAIN)
		return 0;
	if (rc)
		return fail(e, "fi_trecv", rc);
	e->free_rx = o->next;
	return 1;
}

int xb_ofi_poll(struct xb_ofi_ep *e, uint32_t *received)
{
	uint64_t before = e->armed.arrived;
	int completed = progress(e);

	*received = (uint32_t)(e->armed.arrived - before);
	return completed;
}

void xb_ofi_failure(const struct xb_ofi_ep *e, struct xb_ofi_error *error) { *error = e->failure; }
