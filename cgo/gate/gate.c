/*
 * listen, bind and shmget in place of libc's: the linker exports them, and the
 * libraries that are loaded at run time find them first. Go's own sockets are made
 * by system calls and do not pass here.
 */
#define _GNU_SOURCE
#include "gate.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Owner's bits alone remain of a shared segment's mode. */
#define OTHERS 077

/* A listening socket. Its cookie tells whether the descriptor is another's by now. */
struct door {
	int fd;
	uint64_t cookie;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sock_fprog policy;
static struct door *doors;
static size_t count, room;
static int refused;
static atomic_int active;

static int option(int fd, int name)
{
	int v = -1;
	socklen_t n = sizeof(v);

	return getsockopt(fd, SOL_SOCKET, name, &v, &n) ? -1 : v;
}

static uint64_t cookie(int fd)
{
	uint64_t v = 0;
	socklen_t n = sizeof(v);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &v, &n) ? 0 : v;
}

static int internet(int fd)
{
	int domain = option(fd, SO_DOMAIN);

	return domain == AF_INET || domain == AF_INET6;
}

/* Attaches the policy's filter. The library's errno stays as it was. */
static void guard(int fd)
{
	int before = errno;

	if (policy.filter && setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &policy, sizeof(policy)))
		refused = errno;
	errno = before;
}

/* Remembers a socket in the place of one that is closed by now, or a new one. */
static void remember(int fd)
{
	struct door *d = NULL;

	for (size_t i = 0; i < count && !d; i++) {
		if (doors[i].fd == fd || cookie(doors[i].fd) != doors[i].cookie)
			d = &doors[i];
	}
	if (!d && count == room) {
		size_t more = room ? room * 2 : 16;
		struct door *grown = realloc(doors, more * sizeof(*doors));

		if (!grown) {
			refused = ENOMEM;
			return;
		}
		doors = grown;
		room = more;
	}
	if (!d)
		d = &doors[count++];
	d->fd = fd;
	d->cookie = cookie(fd);
}

/* No moment passes between the filter and listening: nobody else gets in. */
int listen(int fd, int backlog)
{
	if (atomic_load(&active) && internet(fd)) {
		int before = errno;

		pthread_mutex_lock(&lock);
		guard(fd);
		remember(fd);
		pthread_mutex_unlock(&lock);
		errno = before;
	}
	return (int)syscall(SYS_listen, fd, backlog);
}

/* A datagram socket takes packets from bind on. */
int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	if (atomic_load(&active) && internet(fd) && option(fd, SO_TYPE) == SOCK_DGRAM) {
		pthread_mutex_lock(&lock);
		guard(fd);
		pthread_mutex_unlock(&lock);
	}
	return (int)syscall(SYS_bind, fd, address, length);
}

/* UCX's segments are for the group too (0660), and its receive queues lie in them. */
int shmget(key_t key, size_t size, int flags)
{
	return (int)syscall(SYS_shmget, key, size, atomic_load(&active) ? flags & ~OTHERS : flags);
}

int xb_gate_policy(const struct sock_filter *program, unsigned short length)
{
	struct sock_filter *copy = NULL;

	if (program && !(copy = malloc(length * sizeof(*copy))))
		return ENOMEM;
	if (copy)
		memcpy(copy, program, length * sizeof(*copy));
	pthread_mutex_lock(&lock);
	free(policy.filter);
	policy.filter = copy;
	policy.len = length;
	pthread_mutex_unlock(&lock);
	atomic_store(&active, copy != NULL);
	return 0;
}

int xb_gate_seal(void)
{
	struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog none = { 1, &nothing };
	int on = 1, rc = 0;

	pthread_mutex_lock(&lock);
	/*
	 * Neither shutdown nor close: UCX 1.18 aborts when its listener ends. It sees
	 * nothing of a filter.
	 */
	for (size_t i = 0; i < count; i++) {
		if (cookie(doors[i].fd) != doors[i].cookie)
			continue;
		if (option(doors[i].fd, SO_LOCK_FILTER) == 1)
			continue;
		if (setsockopt(doors[i].fd, SOL_SOCKET, SO_ATTACH_FILTER, &none, sizeof(none)) ||
		    setsockopt(doors[i].fd, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof(on)))
			rc = errno;
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

int xb_gate_refused(void)
{
	int e;

	pthread_mutex_lock(&lock);
	e = refused;
	pthread_mutex_unlock(&lock);
	return e;
}
