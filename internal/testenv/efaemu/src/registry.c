#include "registry.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"

#define REGISTRY_MAGIC 0x45464155u /* "EFAU" */

enum { MAX_QP = REGISTRY_MAX_QP, MAX_AH = 4096 };

/* pid 0 marks a free entry in all three tables. */
struct qp_entry {
	pid_t pid;
	uint32_t host;
	uint32_t dev;
	uint32_t qkey;
	uint32_t unsolicited;
	uint32_t recvs;
};

struct mr_entry {
	uint64_t addr;
	uint64_t length;
	pid_t pid;
	uint32_t key; /* kept when freed: the generation in its high half goes on from there */
	uint32_t dev;
	uint32_t access;
};

struct ah_entry {
	union ibv_gid gid;
	pid_t pid;
	uint32_t dev;
	uint32_t refs;
};

struct registry {
	uint32_t magic;
	uint32_t next_host;
	uint32_t next_qp;
	uint32_t next_mr;
	uint32_t used_mr; /* entries at and above this were never used: the sweep stops there */
	uint32_t used_ah;
	pthread_mutex_t lock;
	uint64_t counters[EMU_MAX_DEVICES][COUNTER_COUNT];
	struct qp_entry qp[MAX_QP]; /* [qpn]; 0 is not used */
	struct ah_entry ah[MAX_AH]; /* [ahn]; 0 is not used */
	struct mr_entry mr[REGISTRY_MAX_MR]; /* [key & 0xffff]; 0 is not used */
};

static struct registry *reg;
static uint32_t host;
static pthread_once_t attach_once = PTHREAD_ONCE_INIT;

void registry_lock(void)
{
	int err = pthread_mutex_lock(&reg->lock);
	if (err == EOWNERDEAD)
		/* Every entry is complete or free at any instant (pid is written last and cleared first). */
		err = pthread_mutex_consistent(&reg->lock);
	if (err) {
		emu_warn("registry lock: %s", strerror(err));
		abort();
	}
}

void registry_unlock(void)
{
	pthread_mutex_unlock(&reg->lock);
}

static bool registry_init(struct registry *r)
{
	pthread_mutexattr_t attr;
	bool ok = !pthread_mutexattr_init(&attr);
	ok = ok && !pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	ok = ok && !pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	ok = ok && !pthread_mutex_init(&r->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	r->used_mr = r->used_ah = 1;
	if (ok)
		r->magic = REGISTRY_MAGIC;
	return ok;
}

static bool is_dead(pid_t pid)
{
	/* An entry under our own number is left over from a dead process: we have made none yet. */
	return pid && (pid == getpid() || (kill(pid, 0) && errno == ESRCH));
}

static void sweep_dead(void)
{
	for (uint32_t i = 1; i < MAX_QP; i++)
		if (is_dead(reg->qp[i].pid))
			reg->qp[i].pid = 0;
	for (uint32_t i = 1; i < reg->used_ah; i++)
		if (is_dead(reg->ah[i].pid))
			reg->ah[i].pid = 0;
	for (uint32_t i = 1; i < reg->used_mr; i++)
		if (is_dead(reg->mr[i].pid))
			reg->mr[i].pid = 0;
}

/* map_file returns the shared file's mapping; the first process to come initialises it under the file's lock. */
static struct registry *map_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return NULL;

	struct registry *r = MAP_FAILED;
	if (!flock(fd, LOCK_EX) && !ftruncate(fd, sizeof(*r)))
		r = mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (r != MAP_FAILED && r->magic != REGISTRY_MAGIC && !registry_init(r)) {
		munmap(r, sizeof(*r));
		r = MAP_FAILED;
		errno = ENOTSUP;
	}
	int saved = errno;
	flock(fd, LOCK_UN); /* closing would not do: the mapping keeps the open file, and so its lock */
	close(fd);
	errno = saved;
	return r == MAP_FAILED ? NULL : r;
}

static void attach(void)
{
	const struct emu_config *cfg = emu_config();
	if (!cfg)
		return;

	char path[PATH_MAX + 16];
	snprintf(path, sizeof(path), "%s/registry", cfg->dir);
	struct registry *r = map_file(path);
	if (!r) {
		emu_warn("%s: %s", path, strerror(errno));
		return;
	}
	reg = r;

	registry_lock();
	sweep_dead();
	host = cfg->host ? cfg->host : EMU_MAX_HOST + 1 + reg->next_host++ % (EMU_MAX_HOST + 1);
	registry_unlock();

	/* Peers reach our memory with process_vm_readv(2), which Yama allows to declared tracers only. The call fails
	 * on kernels without Yama, where no permission is needed. */
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
}

bool registry_attach(void)
{
	pthread_once(&attach_once, attach);
	return reg != NULL;
}

/* GID layout: fe80::efa0:<device>:<network>:<host>, 16 bits each. */
void registry_gid(uint32_t dev, union ibv_gid *gid)
{
	memset(gid, 0, sizeof(*gid));
	gid->raw[0] = 0xfe;
	gid->raw[1] = 0x80;
	gid->raw[8] = 0xef;
	gid->raw[9] = 0xa0;
	gid->raw[11] = (uint8_t)dev;
	gid->raw[12] = (uint8_t)(emu_config()->network >> 8);
	gid->raw[13] = (uint8_t)emu_config()->network;
	gid->raw[14] = (uint8_t)(host >> 8);
	gid->raw[15] = (uint8_t)host;
}

static bool gid_names(const union ibv_gid *gid, uint32_t dev, uint32_t gid_host)
{
	uint32_t network = (uint32_t)gid->raw[12] << 8 | gid->raw[13];
	uint32_t named = (uint32_t)gid->raw[14] << 8 | gid->raw[15];
	return gid->raw[8] == 0xef && gid->raw[9] == 0xa0 && gid->raw[11] == dev && network == emu_config()->network &&
	       named == gid_host;
}

uint32_t registry_qp_add(uint32_t dev, bool unsolicited)
{
	uint32_t qpn = 0;

	registry_lock();
	for (uint32_t tried = 1; tried < MAX_QP && !qpn; tried++) {
		/* Go round the table, so that a number is not used again while a peer may still hold it. */
		reg->next_qp = reg->next_qp + 1 < MAX_QP ? reg->next_qp + 1 : 1;
		struct qp_entry *e = &reg->qp[reg->next_qp];
		if (e->pid)
			continue;
		*e = (struct qp_entry){ .host = host, .dev = dev, .unsolicited = unsolicited };
		__atomic_store_n(&e->pid, getpid(), __ATOMIC_RELEASE);
		qpn = reg->next_qp;
	}
	registry_unlock();
	return qpn;
}

void registry_qp_remove(uint32_t qpn)
{
	registry_lock();
	reg->qp[qpn].pid = 0;
	registry_unlock();
}

void registry_qp_set_qkey(uint32_t qpn, uint32_t qkey)
{
	registry_lock();
	reg->qp[qpn].qkey = qkey;
	registry_unlock();
}

enum emu_status registry_qp_find(const union ibv_gid *gid, uint32_t qpn, uint32_t qkey, struct registry_peer *peer)
{
	enum emu_status status = EMU_REMOTE_BAD_DEST_QPN;

	if (!qpn || qpn >= MAX_QP)
		return status;
	registry_lock();
	const struct qp_entry *e = &reg->qp[qpn];
	if (e->pid && gid_names(gid, e->dev, e->host) && e->qkey == qkey) {
		*peer = (struct registry_peer){ .pid = e->pid, .dev = e->dev, .unsolicited = e->unsolicited };
		status = EMU_OK;
	}
	registry_unlock();
	return status;
}

void registry_recv_post(uint32_t qpn, uint32_t count)
{
	registry_lock();
	reg->qp[qpn].recvs += count;
	registry_unlock();
}

bool registry_recv_take(uint32_t qpn)
{
	registry_lock();
	bool taken = reg->qp[qpn].recvs > 0;
	if (taken)
		reg->qp[qpn].recvs--;
	registry_unlock();
	return taken;
}

uint32_t registry_mr_add(uint32_t dev, uint64_t addr, uint64_t length, uint32_t access)
{
	uint32_t key = 0;

	registry_lock();
	for (uint32_t tried = 1; tried < REGISTRY_MAX_MR && !key; tried++) {
		reg->next_mr = reg->next_mr + 1 < REGISTRY_MAX_MR ? reg->next_mr + 1 : 1;
		struct mr_entry *e = &reg->mr[reg->next_mr];
		if (e->pid)
			continue;
		key = ((e->key >> 16) + 1) << 16 | reg->next_mr;
		*e = (struct mr_entry){ .addr = addr, .length = length, .key = key, .dev = dev, .access = access };
		__atomic_store_n(&e->pid, getpid(), __ATOMIC_RELEASE);
		if (reg->used_mr <= reg->next_mr)
			reg->used_mr = reg->next_mr + 1;
	}
	registry_unlock();
	return key;
}

void registry_mr_remove(uint32_t key)
{
	registry_lock();
	reg->mr[key & 0xffff].pid = 0;
	registry_unlock();
}

bool registry_mr_allows(pid_t pid, uint32_t dev, uint32_t key, uint64_t addr, uint64_t length, uint32_t access)
{
	registry_lock();
	const struct mr_entry *e = &reg->mr[key & 0xffff];
	bool ok = e->pid == pid && e->dev == dev && e->key == key && (e->access & access) == access &&
		  addr >= e->addr && length <= e->length && addr - e->addr <= e->length - length;
	registry_unlock();
	return ok;
}

static struct ah_entry *ah_lookup(pid_t pid, uint32_t dev, const union ibv_gid *gid)
{
	for (uint32_t i = 1; i < reg->used_ah; i++) {
		struct ah_entry *e = &reg->ah[i];
		if (e->pid == pid && e->dev == dev && !memcmp(&e->gid, gid, sizeof(*gid)))
			return e;
	}
	return NULL;
}

uint16_t registry_ah_add(uint32_t dev, const union ibv_gid *gid)
{
	registry_lock();
	struct ah_entry *e = ah_lookup(getpid(), dev, gid);
	for (uint32_t i = 1; i < MAX_AH && !e; i++) {
		if (reg->ah[i].pid)
			continue;
		e = &reg->ah[i];
		*e = (struct ah_entry){ .gid = *gid, .dev = dev };
		__atomic_store_n(&e->pid, getpid(), __ATOMIC_RELEASE);
		if (reg->used_ah <= i)
			reg->used_ah = i + 1;
	}
	if (e)
		e->refs++;
	registry_unlock();
	return e ? (uint16_t)(e - reg->ah) : 0;
}

void registry_ah_remove(uint16_t ahn)
{
	registry_lock();
	struct ah_entry *e = &reg->ah[ahn];
	if (!--e->refs)
		e->pid = 0;
	registry_unlock();
}

uint16_t registry_ah_find(pid_t pid, uint32_t dev, const union ibv_gid *gid)
{
	registry_lock();
	const struct ah_entry *e = ah_lookup(pid, dev, gid);
	uint16_t ahn = e ? (uint16_t)(e - reg->ah) : REGISTRY_AH_UNKNOWN;
	registry_unlock();
	return ahn;
}

uint64_t *registry_counters(uint32_t dev)
{
	return reg->counters[dev];
}
