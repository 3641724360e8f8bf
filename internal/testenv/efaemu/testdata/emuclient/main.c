/* emuclient: moves a buffer between two processes over libfabric's efa provider and verifies every byte.
 *
 *   emuclient -r initiator|target [-f efa|efa-direct] [-s SIZE] [-c CHUNK] [-n RAILS] [-t] [-T SECONDS] [-k] OP...
 *
 * OP is read, write, writedata or send; each is a transfer on endpoints of its own. -t runs every rail in a thread; -k
 * makes the target kill itself once connected. Descriptor 3 is a stream socket to the peer. Prints a line of name=value
 * words for each transfer. Exit status: 0 all bytes right,
 * 1 a call failed, 2 usage, 3 a completion in error (its numbers are printed), 4 wrong data. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"

enum { CONTROL_FD = 3, MAX_RAILS = 64 };

static const char *const op_names[] = { "read", "write", "writedata", "send" };

struct options options = { .fabric = "efa", .size = 1 << 20, .chunk = 65536, .rails = 1, .timeout_s = 60 };
uint8_t *buffer;

void fail(const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	fprintf(stderr, "emuclient %s: ", options.target ? "target" : "initiator");
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

long check_result(long result, const char *call)
{
	if (result < 0)
		fail("%s: %ld (%s)", call, result, lf.strerror((int)-result));
	return result;
}

static void parse(int argc, char **argv)
{
	int opt;

	while ((opt = getopt(argc, argv, "r:f:s:c:n:T:tk")) != -1) {
		switch (opt) {
		case 'r': options.target = !strcmp(optarg, "target"); break;
		case 'f': options.fabric = optarg; break;
		case 's': options.size = strtoull(optarg, NULL, 0); break;
		case 'c': options.chunk = strtoull(optarg, NULL, 0); break;
		case 'n': options.rails = strtoull(optarg, NULL, 0); break;
		case 'T': options.timeout_s = (unsigned int)strtoul(optarg, NULL, 0); break;
		case 't': options.threads = true; break;
		case 'k': options.die = true; break;
		default: exit(2);
		}
	}
	if (!options.size || !options.chunk || !options.rails || options.rails > MAX_RAILS || optind == argc) {
		fprintf(stderr, "emuclient: bad arguments\n");
		exit(2);
	}
}

static enum op parse_op(const char *name)
{
	for (int op = OP_READ; op <= OP_SEND; op++)
		if (!strcmp(name, op_names[op]))
			return (enum op)op;
	fprintf(stderr, "emuclient: no operation %s\n", name);
	exit(2);
}

static void control_send(const void *data, size_t size)
{
	if (send(CONTROL_FD, data, size, MSG_NOSIGNAL) != (ssize_t)size)
		fail("control channel: %s", strerror(errno));
}

static void control_receive(void *data, size_t size)
{
	if (recv(CONTROL_FD, data, size, MSG_WAITALL) != (ssize_t)size)
		fail("control channel: the peer is gone");
}

/* await receives one word from the peer, and drives the rails until it comes: the efa provider moves nothing by
 * itself. */
static uint64_t await(struct rail *rails)
{
	uint64_t word;
	for (;;) {
		ssize_t n = recv(CONTROL_FD, &word, sizeof(word), MSG_DONTWAIT | MSG_PEEK);
		if (n == (ssize_t)sizeof(word))
			break;
		if (n == 0 || (n < 0 && errno != EAGAIN))
			fail("control channel: the peer is gone");
		for (size_t i = 0; i < options.rails; i++)
			rail_progress(&rails[i]);
		sched_yield(); /* the peer may need this core */
	}
	control_receive(&word, sizeof(word));
	return word;
}

/* The byte that belongs at offset i: depends on every part of the offset, so that no exchanged chunk looks right. */
static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 7 + i / 4096 * 13 + i / 65537 * 31 + 1);
}

static void fill(void)
{
	bool source = (options.op == OP_READ) == options.target;
	if (posix_memalign((void **)&buffer, 4096, options.size))
		fail("out of memory");
	for (size_t i = 0; i < options.size; i++)
		buffer[i] = source ? pattern(i) : (uint8_t)~pattern(i);
}

static uint64_t wrong_bytes(void)
{
	uint64_t wrong = 0;
	for (size_t i = 0; i < options.size; i++)
		wrong += buffer[i] != pattern(i);
	return wrong;
}

static void *run_thread(void *rail)
{
	rail_run(rail);
	return NULL;
}

static void initiate(struct rail *rails)
{
	pthread_t threads[MAX_RAILS];

	if (!options.threads) {
		for (size_t i = 0; i < options.rails; i++)
			rail_run(&rails[i]);
		return;
	}
	for (size_t i = 0; i < options.rails; i++)
		if (pthread_create(&threads[i], NULL, run_thread, &rails[i]))
			fail("pthread_create");
	for (size_t i = 0; i < options.rails; i++)
		pthread_join(threads[i], NULL);
}

static size_t total_events(const struct rail *rails)
{
	size_t events = 0;
	for (size_t i = 0; i < options.rails; i++)
		events += rails[i].events;
	return events;
}

static void await_events(struct rail *rails)
{
	size_t want = (options.size + options.chunk - 1) / options.chunk;
	if (options.op != OP_WRITEDATA && options.op != OP_SEND)
		return;
	while (total_events(rails) < want) {
		for (size_t i = 0; i < options.rails; i++)
			rail_progress(&rails[i]);
		sched_yield();
	}
}

/* emulated asks whether the provider replaces RDMA by messages; "?" where it cannot say. Option numbers: fi_ext.h. */
static const char *emulated(struct rail *rail, int which)
{
	bool value = false;
	size_t size = sizeof(value);
	if (fi_getopt(&rail->ep->fid, FI_OPT_ENDPOINT, -(0xefa << 16) + which, &value, &size))
		return "?";
	return value ? "yes" : "no";
}

static void report(struct rail *rails, uint64_t wrong)
{
	uint64_t eagain = 0;
	bool out_of_order = false;
	struct fid_nic *nic = rails[0].info->nic;

	for (size_t i = 0; i < options.rails; i++) {
		eagain += rails[i].eagain;
		out_of_order |= rails[i].out_of_order;
	}
	printf("op=%s wrong=%llu eagain=%llu events=%zu out_of_order=%d emulated_read=%s emulated_write=%s firmware=%s device=%s "
	       "pci_slot=%u domains=",
	       op_names[options.op], (unsigned long long)wrong, (unsigned long long)eagain, total_events(rails), out_of_order,
	       emulated(&rails[0], 1), emulated(&rails[0], 2), nic->device_attr->firmware, nic->device_attr->device_id,
	       nic->bus_attr->attr.pci.device_id);
	for (size_t i = 0; i < options.rails; i++)
		printf("%s%s", i ? "," : "", rails[i].info->nic->device_attr->name);
	putchar('\n');
}

/* transfer runs one operation over new endpoints and returns the number of wrong bytes. */
static uint64_t transfer(void)
{
	fill();
	struct fi_info *infos = find_rails(), *info = infos;
	struct rail *rails = calloc(options.rails, sizeof(*rails));
	uint64_t word = 0, wrong = 0;

	if (!rails)
		fail("out of memory");
	for (size_t i = 0; i < options.rails; i++) {
		rail_open(&rails[i], info, i);
		info = info->next ? info->next : infos; /* more rails than devices share them */
		control_send(&rails[i].local, sizeof(rails[i].local));
		control_receive(&rails[i].remote, sizeof(rails[i].remote));
		rail_connect(&rails[i]);
		if (options.op == OP_SEND && options.target)
			rail_post_receives(&rails[i]);
	}
	control_send(&word, sizeof(word)); /* connected */
	await(rails);

	if (options.die && options.target)
		raise(SIGKILL);
	if (options.target) {
		await(rails); /* the initiator has all its completions */
		await_events(rails);
		wrong = options.op == OP_READ ? 0 : wrong_bytes();
		control_send(&wrong, sizeof(wrong));
		await(rails); /* goodbye: until then the peer may need us to make progress */
	} else {
		initiate(rails);
		control_send(&word, sizeof(word));
		wrong = await(rails);
		if (options.op == OP_READ)
			wrong = wrong_bytes();
		control_send(&wrong, sizeof(wrong));
	}
	report(rails, wrong);
	for (size_t i = 0; i < options.rails; i++)
		rail_close(&rails[i]);
	lf.freeinfo(infos);
	free(rails);
	free(buffer);
	return wrong;
}

int main(int argc, char **argv)
{
	uint64_t wrong = 0;

	parse(argc, argv);
	alarm(options.timeout_s); /* the deadline of everything below */
	lf_load();
	for (int i = optind; i < argc; i++) {
		options.op = parse_op(argv[i]);
		wrong += transfer();
	}
	return wrong ? 4 : 0;
}
