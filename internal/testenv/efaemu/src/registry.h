/* The fabric's shared state: one file in the scratch folder, mapped by every process that runs the emulator there. It
 * holds what a real network would know: which queue pairs exist and who owns them, which memory may be reached by
 * which key, which peers each device has an address handle for, and the traffic counters.
 *
 * One robust process-shared mutex guards it, held briefly; no other lock of the emulator is taken under it: a process killed while holding it does not stop the others. Entries of dead processes are
 * swept when the next process attaches. */
#ifndef EFAEMU_REGISTRY_H
#define EFAEMU_REGISTRY_H

#include <sys/types.h>

#include "counters.h"
#include "emu.h"

enum {
	REGISTRY_MAX_QP = 4096,
	REGISTRY_MAX_MR = 65536, /* the low 16 bits of a key */
	REGISTRY_AH_UNKNOWN = 0xffff,
};

/* A queue pair as its peers see it. */
struct registry_peer {
	pid_t pid;
	uint32_t dev;
	bool unsolicited; /* takes writes with immediate data without a posted receive */
};

/* registry_attach maps the shared file, once per process. False: the reason has been printed. */
bool registry_attach(void);

/* The address of device dev in this process. Processes count as separate hosts unless a host number is configured. */
void registry_gid(uint32_t dev, union ibv_gid *gid);

/* Queue pairs. Numbers are unique in the fabric and start at 1; 0 means that the table is full. */
uint32_t registry_qp_add(uint32_t dev, bool unsolicited);
void registry_qp_remove(uint32_t qpn);
void registry_qp_set_qkey(uint32_t qpn, uint32_t qkey);
/* registry_qp_find returns EMU_OK and fills peer, or the status a work request to that address completes with. */
enum emu_status registry_qp_find(const union ibv_gid *gid, uint32_t qpn, uint32_t qkey, struct registry_peer *peer);

/* Receives posted on a queue pair and not yet spoken for. A sender takes one before it sends; none left is "receiver
 * not ready". */
void registry_recv_post(uint32_t qpn, uint32_t count);
bool registry_recv_take(uint32_t qpn);

/* Memory registrations: the key serves as local and remote key. 0 means that the table is full. A key that was
 * deregistered does not come back for the next 65,535 registrations of its slot. */
uint32_t registry_mr_add(uint32_t dev, uint64_t addr, uint64_t length, uint32_t access);
void registry_mr_remove(uint32_t key);
/* registry_mr_allows tells whether pid's device dev registered [addr, addr+length) under key with all of access. */
bool registry_mr_allows(pid_t pid, uint32_t dev, uint32_t key, uint64_t addr, uint64_t length, uint32_t access);

/* Address handles: the number a device has for a peer's GID, counted by reference. 0: the table is full. */
uint16_t registry_ah_add(uint32_t dev, const union ibv_gid *gid);
void registry_ah_remove(uint16_t ahn);
/* registry_ah_find returns the handle pid's device dev has for gid, or REGISTRY_AH_UNKNOWN. */
uint16_t registry_ah_find(pid_t pid, uint32_t dev, const union ibv_gid *gid);

/* Counters (counters.c): the shared values, and the lock under which their files are rewritten. */
uint64_t *registry_counters(uint32_t dev);
void registry_lock(void);
void registry_unlock(void);

#endif
