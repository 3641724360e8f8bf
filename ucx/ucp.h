/* Internal to package ucx: UCP reached through a table filled at run time. */
#ifndef XFERBENCH_UCP_H
#define XFERBENCH_UCP_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
/* UCX 1.18's own headers compare signs. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
#include <ucp/api/ucp.h>
#include <uct/api/uct.h>
#pragma GCC diagnostic pop

#include "../cgo/loop/loop.h"

/* libucs installs no header for these on all versions; their shape is the same
 * from 1.13 to 1.22, but for the filter that 1.19 added at the end. */
typedef int xb_ucs_log_func(const char *file, unsigned line, const char *function, int level,
			    const void *component, const char *message, va_list ap);
typedef void xb_ucs_print_opts(FILE *stream, const char *prefix, int flags, void *list, const char *filter);

struct xb_ucp {
	__typeof__(ucp_init_version) *init_version;
	__typeof__(ucp_cleanup) *cleanup;
	__typeof__(ucp_get_version_string) *get_version_string;
	__typeof__(ucp_config_read) *config_read;
	__typeof__(ucp_config_modify) *config_modify;
	__typeof__(ucp_config_release) *config_release;
	__typeof__(ucp_context_query) *context_query;
	__typeof__(ucp_mem_map) *mem_map;
	__typeof__(ucp_mem_unmap) *mem_unmap;
	__typeof__(ucp_mem_query) *mem_query;
	__typeof__(ucp_rkey_pack) *rkey_pack;
	__typeof__(ucp_rkey_buffer_release) *rkey_buffer_release;
	__typeof__(ucp_worker_create) *worker_create;
	__typeof__(ucp_worker_destroy) *worker_destroy;
	__typeof__(ucp_worker_progress) *worker_progress;
	__typeof__(ucp_worker_flush_nbx) *worker_flush_nbx;
	__typeof__(ucp_worker_get_address) *worker_get_address;
	__typeof__(ucp_worker_release_address) *worker_release_address;
	__typeof__(ucp_ep_create) *ep_create;
	__typeof__(ucp_ep_close_nbx) *ep_close_nbx;
	__typeof__(ucp_ep_flush_nbx) *ep_flush_nbx;
	__typeof__(ucp_ep_print_info) *ep_print_info;
	__typeof__(ucp_ep_rkey_unpack) *ep_rkey_unpack;
	__typeof__(ucp_rkey_destroy) *rkey_destroy;
	__typeof__(ucp_put_nbx) *put_nbx;
	__typeof__(ucp_get_nbx) *get_nbx;
	__typeof__(ucp_tag_send_nbx) *tag_send_nbx;
	__typeof__(ucp_tag_recv_nbx) *tag_recv_nbx;
	__typeof__(ucp_request_free) *request_free;
	__typeof__(ucp_request_cancel) *request_cancel;
	__typeof__(ucp_request_check_status) *request_check_status;
	__typeof__(ucs_status_string) *status_string;
	__typeof__(uct_query_components) *query_components;
	__typeof__(uct_release_component_list) *release_components;
	/* May be missing. */
	void (*log_push_handler)(xb_ucs_log_func *);
	void (*log_flush)(void);
	xb_ucs_print_opts *print_all_opts;
	void *global_list;
};

enum { XB_UCX_ERR = 512 };

/* --- context.c --- */

/* Keeps UCX's log lines for xb_ucx_log_take instead of printing them; echo
 * also prints them to standard error, since the user asked for them. */
void xb_ucx_log_capture(const struct xb_ucp *u, int echo);
/* UCX's tables of protocols bypass its log handlers. Makes the file that takes
 * them, in memory, and writes its path for UCX_LOG_FILE; -1 and errno if not. */
int xb_ucx_tables_open(char *path, size_t n);
/* All tables so far; the caller frees the text. */
char *xb_ucx_tables_read(const struct xb_ucp *u);
/* Moves the lines kept so far to out, newest last, and forgets them. */
void xb_ucx_log_take(char *out, size_t n);
/* All settings that this build of UCX knows, as it prints them; the caller
 * frees the text. NULL when the build cannot say. */
char *xb_ucx_known_settings(const struct xb_ucp *u);
const char *xb_ucx_version(const struct xb_ucp *u);
const char *xb_ucx_status(const struct xb_ucp *u, ucs_status_t status);
ucs_status_t xb_ucx_config_read(const struct xb_ucp *u, ucp_config_t **config);
ucs_status_t xb_ucx_config_modify(const struct xb_ucp *u, ucp_config_t *config, const char *key, const char *value);
void xb_ucx_config_release(const struct xb_ucp *u, ucp_config_t *config);
void xb_ucx_cleanup(const struct xb_ucp *u, ucp_context_h context);
/* Applies config, which is released whatever happens, and makes a context. */
ucs_status_t xb_ucx_init(const struct xb_ucp *u, ucp_config_t *config, const char *name, int shared, ucp_context_h *out);
uint64_t xb_ucx_memory_types(const struct xb_ucp *u, ucp_context_h context);

/* CUDA's current context belongs to a thread; UCX copies device memory only on
 * a thread that has one. The functions are the driver's, NULL without it. */
struct xb_ucx_cuda {
	int (*set_current)(void *ctx);
	void *ctx;
};

ucs_status_t xb_ucx_mem_map(const struct xb_ucp *u, ucp_context_h context, const struct xb_ucx_cuda *cuda,
			    uint64_t address, uint64_t length, int memory_type, ucp_mem_h *memh, int *got_type);

ucs_status_t xb_ucx_mem_unmap(const struct xb_ucp *u, ucp_context_h context, ucp_mem_h memh);
ucs_status_t xb_ucx_rkey_pack(const struct xb_ucp *u, ucp_context_h context, ucp_mem_h memh, void **key, size_t *n);
void xb_ucx_rkey_buffer_release(const struct xb_ucp *u, void *key);

/* --- endpoint.c, transfer.c --- */

struct xb_ucx_lane;

struct xb_ucx_recv {
	struct xb_ucx_armed *armed;
	void *request; /* UCX's, while it is in hand */
	int ended;
};

/* A receive that was posted by itself, in its lane's list. */
struct xb_ucx_direct {
	struct xb_ucx_lane *lane;
	struct xb_ucx_direct *prev, *next;
	void *request; /* UCX's */
	int listed, ended;
};

/* One armed iteration of a target. */
struct xb_ucx_armed {
	struct xb_ucx_lane *lane;
	struct xb_ucx_recv *recv;
	uint64_t room, n, posted, arrived;
	uint32_t seq;
};

/* The loop arms one iteration ahead of the one that it waits for. */
enum { XB_UCX_ARMED = 2 };

struct xb_ucx_lane {
	const struct xb_ucp *u;
	ucp_worker_h worker;
	ucp_ep_h ep;
	ucp_rkey_h rkey;
	unsigned char *base;
	uint64_t remote_base;
	uint32_t label, remote_label; /* of what this side, and the peer, receives */
	ucp_request_param_t rma, send, recv, ack_send, ack_recv, flush_param;

	int64_t pending;    /* requests that UCX has in hand, receives and flushes too */
	uint64_t completed; /* in this iteration, not yet returned by poll */
	int flushed, ack_pending;
	uint32_t begun; /* SEND iterations begun by this side */
	uint64_t ack_word;
	void *ack_request;

	struct xb_ucx_armed armed[XB_UCX_ARMED];
	uint32_t armed_seq, acked_seq;

	struct xb_ucx_cuda cuda;
	int cuda_bound;
	int failed, peer_errors;
	char err[XB_UCX_ERR];
	const char *failed_call; /* the same, taken apart; NULL: a failure of ours */
	ucs_status_t failed_status;

	struct xb_ucx_direct *direct; /* receives posted one by one */
	uint64_t received;	      /* of these, not yet returned by xb_ucx_poll */

	_Atomic int info_state; /* enum xb_ucx_info */
	char *info;
};

/* A message's tag: 32 bits that its receiver drew for this connection, so that a
 * stranger's matches nothing, 6 of its iteration (two are in hand at most) and 26 of
 * its place in it. The acknowledgement's place is one that no piece has. */
#define PLACE_BITS 26
#define TAG(label, seq, index) \
	((uint64_t)(label) << 32 | ((uint32_t)(seq) << PLACE_BITS) | (uint32_t)(index))
#define ACK_INDEX ((1u << PLACE_BITS) - 1)

enum xb_ucx_info { XB_UCX_INFO_NONE, XB_UCX_INFO_WANTED, XB_UCX_INFO_READY };

extern const struct xb_ops xb_ucx_ops;

struct xb_ucx_lane *xb_ucx_lane_new(const struct xb_ucp *u, ucp_context_h context, ucs_status_t *status);
ucs_status_t xb_ucx_lane_address(struct xb_ucx_lane *l, ucp_address_t **address, size_t *n);
void xb_ucx_release_address(struct xb_ucx_lane *l, ucp_address_t *address);
void xb_ucx_lane_memory(struct xb_ucx_lane *l, ucp_mem_h memh, uint64_t base, int memory_type,
			const struct xb_ucx_cuda *cuda);
/* The random part of the tags of what this side, and the peer, receives. */
void xb_ucx_lane_labels(struct xb_ucx_lane *l, uint32_t label, uint32_t remote_label);
/* Makes the endpoint and unpacks the peer's key; *what names the call that failed. */
ucs_status_t xb_ucx_lane_connect(struct xb_ucx_lane *l, const void *address, const void *rkey, uint64_t remote_base,
				 int peer_errors, const char **what);
/* What UCX says of the endpoint; the caller frees it. For the lane's owner. */
char *xb_ucx_lane_print(struct xb_ucx_lane *l);
/* The same, asked of the thread that progresses the lane; NULL after wait_ns. */
char *xb_ucx_lane_info(struct xb_ucx_lane *l, int64_t wait_ns);
/* Ends everything within timeout_ns, whatever the peer does, and frees l. When
 * UCX still has something in hand then, it leaves endpoint and worker as they
 * are, and returns how many requests that is: UCX aborts the process, or writes
 * to freed memory, when a worker is destroyed under them. */
int64_t xb_ucx_lane_free(struct xb_ucx_lane *l, int64_t timeout_ns);

/* --- direct.c: operations one by one, for a lane that no group runs --- */

/* Each returns 1 once it is posted, 0 when UCX has no room, or XB_FAIL. */
int xb_ucx_post(struct xb_ucx_lane *l, int op, const struct xb_piece *piece, uint32_t tag);
int xb_ucx_recv(struct xb_ucx_lane *l, uint64_t offset, uint64_t len, uint32_t tag);
/* Progresses the lane: how many posted operations completed, or XB_FAIL; and how
 * many messages came. */
int xb_ucx_poll(struct xb_ucx_lane *l, uint64_t *received);
int xb_ucx_flush(struct xb_ucx_lane *l);
/* 1 once the last flush has ended, 0 before, or XB_FAIL. */
int xb_ucx_flushed(struct xb_ucx_lane *l);
void xb_ucx_cancel(struct xb_ucx_lane *l);

void xb_ucx_lane_prepare(struct xb_ucx_lane *l, ucp_mem_h memh, int memory_type);
void xb_ucx_lane_fail(struct xb_ucx_lane *l, const char *what, ucs_status_t status);

#endif
