/* What every file of the emulated EFA device shares: the export mark, messages, and the few definitions of newer
 * rdma-core releases that the code needs when it is compiled against older headers. */
#ifndef EFAEMU_EMU_H
#define EFAEMU_EMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <infiniband/efadv.h>
#include <infiniband/verbs.h>

/* Everything is hidden but the entry points that stand in front of libibverbs and libefa. */
#define EMU_EXPORT __attribute__((visibility("default")))

#define emu_container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

/* The device's bits and sizes. rdma-core 44 (Debian 12) lacks the later ones, so all have names of their own here;
 * the values are the ABI of efadv.h. */
enum emu_device_cap {
	EMU_CAP_RDMA_READ = 1 << 0,
	EMU_CAP_RNR_RETRY = 1 << 1,
	EMU_CAP_CQ_WITH_SGID = 1 << 2,
	EMU_CAP_RDMA_WRITE = 1 << 3,
	EMU_CAP_UNSOLICITED_WRITE_RECV = 1 << 4,
};

enum {
	EMU_QP_FLAGS_UNSOLICITED_WRITE_RECV = 1 << 0,
	EMU_WC_EX_WITH_SGID = 1 << 0,
	EMU_WC_EX_WITH_IS_UNSOLICITED = 1 << 1,
};

/* struct efadv_qp_init_attr as rdma-core 56 lays it out; older callers pass the same bytes with the new fields zero. */
struct emu_efadv_qp_init_attr {
	uint64_t comp_mask;
	uint32_t driver_qp_type;
	uint16_t flags;
	uint8_t sl;
	uint8_t reserved[1];
};

/* struct efadv_cq as rdma-core 56 lays it out. The library allocates it, so a longer one serves older callers too. */
struct emu_efadv_cq {
	uint64_t comp_mask;
	int (*wc_read_sgid)(struct efadv_cq *efadv_cq, union ibv_gid *sgid);
	bool (*wc_is_unsolicited)(struct efadv_cq *efadv_cq);
};

/* Completion status words of the EFA device, as libfabric prints them (vendor_err). */
enum emu_status {
	EMU_OK = 0,
	EMU_FLUSHED = 1,
	EMU_QP_INTERNAL_ERROR = 2,
	EMU_UNSUPPORTED_OP = 3,
	EMU_INVALID_AH = 4,
	EMU_INVALID_LKEY = 5,
	EMU_BAD_LENGTH = 6,
	EMU_REMOTE_BAD_ADDRESS = 7,
	EMU_REMOTE_ABORT = 8,
	EMU_REMOTE_BAD_DEST_QPN = 9,
	EMU_REMOTE_RNR = 10,
	EMU_REMOTE_BAD_LENGTH = 11,
	EMU_REMOTE_BAD_STATUS = 12,
	EMU_UNRESP_REMOTE = 13,
	EMU_REMOTE_UNKNOWN_PEER = 14,
	EMU_UNREACH_REMOTE = 15,
	EMU_STATUS_LAST = EMU_UNREACH_REMOTE,
};

enum {
	EMU_MTU = 8928,        /* bytes of one packet's payload, and so of one send */
	EMU_MAX_SEND_SGE = 2,
	EMU_MAX_RECV_SGE = 3,
	EMU_INLINE_SIZE = 32,  /* bytes */
	EMU_MAX_RECV_WR = 32768,
	EMU_RNR_INFINITE = 7,  /* rnr_retry value: never give up */
};

/* emu_warn prints one line on stderr; emu_debug does so only under XFERBENCH_EFAEMU_DEBUG. */
void emu_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void emu_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
