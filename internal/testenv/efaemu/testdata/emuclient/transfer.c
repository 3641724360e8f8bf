#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

size_t chunk_length(size_t index)
{
	size_t left = options.size - index * options.chunk;
	return left < options.chunk ? left : options.chunk;
}

/* The chunk of the buffer that is the rail's n-th. */
static size_t chunk_index(const struct rail *rail, size_t n)
{
	return rail->first + n * rail->step;
}

/* error_exit reports an error that the device or the provider raised, in numbers and in its words. */
static void error_exit(struct rail *rail, const char *queue, int err, int prov_errno, const char *words)
{
	printf("%s_error=%d prov_errno=%d domain=%s\n", queue, err, prov_errno, rail->info->nic->device_attr->name);
	fflush(stdout);
	fprintf(stderr, "emuclient: %s error %d (%s): %s\n", queue, err, lf.strerror(err), words);
	exit(3);
}

static void cq_error(struct rail *rail, struct fid_cq *cq)
{
	union {
		struct fi_cq_err_entry entry;
		uint8_t pad[256]; /* fields of newer libraries */
	} e = { 0 };
	check(fi_cq_readerr(cq, &e.entry, 0));
	error_exit(rail, "cq", e.entry.err, e.entry.prov_errno,
		   fi_cq_strerror(cq, e.entry.prov_errno, e.entry.err_data, NULL, 0));
}

static void check_eq(struct rail *rail)
{
	struct fi_eq_err_entry e = { 0 };
	uint32_t event;

	if (fi_eq_read(rail->eq, &event, &e, sizeof(e), 0) != -FI_EAVAIL)
		return;
	check(fi_eq_readerr(rail->eq, &e, 0));
	error_exit(rail, "eq", e.err, e.prov_errno, "raised on the event queue");
}

static ssize_t read_cq(struct rail *rail, struct fid_cq *cq, struct fi_cq_data_entry *entries, size_t count)
{
	ssize_t n = fi_cq_read(cq, entries, count);
	if (n == -FI_EAGAIN)
		return 0;
	if (n == -FI_EAVAIL)
		cq_error(rail, cq);
	return check_result(n, "fi_cq_read");
}

/* arrived takes note of one remote write or message; its datum says which chunk it is. */
static void arrived(struct rail *rail, const struct fi_cq_data_entry *e)
{
	size_t index = e->data;

	if (!(e->flags & FI_REMOTE_CQ_DATA))
		fail("event without its datum: flags %#llx", (unsigned long long)e->flags);
	if (index * options.chunk >= options.size || index % rail->step != rail->first)
		fail("event for chunk %zu, which is not this rail's", index);
	if (rail->seen[index]++)
		fail("chunk %zu arrived twice", index);
	rail->events++;
	if (options.op == OP_SEND) {
		size_t slot = (size_t)((struct fi_context2 *)e->op_context - rail->recv_contexts);
		if (e->len != chunk_length(index))
			fail("chunk %zu: %zu bytes arrived, want %zu", index, e->len, chunk_length(index));
		memcpy(buffer + index * options.chunk, rail->recv_buffer + slot * options.chunk, e->len);
	}
}

void rail_progress(struct rail *rail)
{
	struct fi_cq_data_entry entries[16];

	check_eq(rail);
	ssize_t n = read_cq(rail, rail->tx_cq, entries, 16);
	for (ssize_t i = 0; i < n; i++) {
		size_t index = (size_t)((struct fi_context2 *)entries[i].op_context - rail->contexts);
		if (index >= rail->posted)
			fail("completion with an unknown context");
		rail->out_of_order |= index != rail->done;
		rail->done++;
	}
	n = read_cq(rail, rail->rx_cq, entries, 16);
	for (ssize_t i = 0; i < n; i++)
		arrived(rail, &entries[i]);
}

void rail_post_receives(struct rail *rail)
{
	for (size_t i = 0; i < rail->chunks; i++) {
		ssize_t r = fi_recv(rail->ep, rail->recv_buffer + i * options.chunk, options.chunk,
				    fi_mr_desc(rail->recv_mr), FI_ADDR_UNSPEC, &rail->recv_contexts[i]);
		if (r == -FI_EAGAIN) {
			rail_progress(rail);
			i--;
			continue;
		}
		check_result(r, "fi_recv");
	}
}

static ssize_t post(struct rail *rail, size_t n)
{
	size_t index = chunk_index(rail, n), length = chunk_length(index);
	uint8_t *local = buffer + index * options.chunk;
	uint64_t remote = rail->remote.base + index * options.chunk;
	void *desc = fi_mr_desc(rail->mr), *context = &rail->contexts[n];

	switch (options.op) {
	case OP_READ:
		return fi_read(rail->ep, local, length, desc, rail->peer, remote, rail->remote.key, context);
	case OP_WRITE:
		return fi_write(rail->ep, local, length, desc, rail->peer, remote, rail->remote.key, context);
	case OP_WRITEDATA:
		return fi_writedata(rail->ep, local, length, desc, index, rail->peer, remote, rail->remote.key, context);
	case OP_SEND:
		return fi_senddata(rail->ep, local, length, desc, index, rail->peer, context);
	}
	return -FI_EINVAL;
}

void rail_run(struct rail *rail)
{
	while (rail->done < rail->chunks) {
		while (rail->posted < rail->chunks) {
			ssize_t r = post(rail, rail->posted);
			if (r == -FI_EAGAIN) {
				rail->eagain++;
				break;
			}
			check_result(r, "posting");
			rail->posted++;
		}
		rail_progress(rail);
		sched_yield();
	}
}
