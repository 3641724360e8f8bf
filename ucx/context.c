#define _GNU_SOURCE
#include "ucp.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* UCX's levels and its handlers' answers (ucs/debug/log_def.h). */
enum { LOG_FATAL = 0, LOG_WARN = 2 };
enum { LOG_STOP = 0, LOG_CONTINUE = 1 };

/* UCX calls its log handler without an argument, so the lines are the
 * process's. */
static struct {
	pthread_mutex_t mu;
	int echo;
	size_t len;
	char text[4096];
} kept = { .mu = PTHREAD_MUTEX_INITIALIZER };

static int keep_line(const char *file, unsigned line, const char *function, int level, const void *component,
		     const char *message, va_list ap)
{
	char words[512];
	size_t n;

	(void)component, (void)function;
	if (level == LOG_FATAL)
		return LOG_CONTINUE; /* UCX ends the process after this line */
	if (level > LOG_WARN && !kept.echo)
		return LOG_STOP;
	vsnprintf(words, sizeof(words), message, ap);
	if (kept.echo)
		fprintf(stderr, "UCX %s:%u: %s\n", file, line, words);
	if (level > LOG_WARN)
		return LOG_STOP;
	n = strlen(words) + 1;
	pthread_mutex_lock(&kept.mu);
	if (kept.len + n > sizeof(kept.text)) { /* the newest lines say most */
		size_t drop = kept.len + n - sizeof(kept.text);
		char *end = memchr(kept.text + drop, '\n', kept.len - drop);

		drop = end ? (size_t)(end + 1 - kept.text) : kept.len;
		memmove(kept.text, kept.text + drop, kept.len - drop);
		kept.len -= drop;
	}
	memcpy(kept.text + kept.len, words, n - 1);
	kept.text[kept.len + n - 1] = '\n';
	kept.len += n;
	pthread_mutex_unlock(&kept.mu);
	return LOG_STOP;
}

void xb_ucx_log_capture(const struct xb_ucp *u, int echo)
{
	kept.echo = echo;
	if (u->log_push_handler)
		u->log_push_handler(keep_line);
}

void xb_ucx_log_take(char *out, size_t n)
{
	size_t len;

	pthread_mutex_lock(&kept.mu);
	len = kept.len < n ? kept.len : n - 1;
	memcpy(out, kept.text + kept.len - len, len);
	out[len] = '\0';
	kept.len = 0;
	pthread_mutex_unlock(&kept.mu);
}

static int tables = -1;

int xb_ucx_tables_open(char *path, size_t n)
{
	if (tables < 0)
		tables = memfd_create("xferbench-ucx", MFD_CLOEXEC);
	if (tables >= 0)
		snprintf(path, n, "/proc/self/fd/%d", tables);
	return tables;
}

char *xb_ucx_tables_read(const struct xb_ucp *u)
{
	struct stat st;
	ssize_t n;
	char *text;

	if (tables < 0)
		return NULL;
	if (u->log_flush)
		u->log_flush();
	if (fstat(tables, &st) || !(text = calloc(1, (size_t)st.st_size + 1)))
		return NULL;
	n = pread(tables, text, (size_t)st.st_size, 0);
	text[n < 0 ? 0 : n] = '\0';
	return text;
}

/* UCX's own threads must not take the signals that are for Go's. */
static void block_signals(sigset_t *old)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, old);
}

char *xb_ucx_known_settings(const struct xb_ucp *u)
{
	uct_component_h *components;
	unsigned count;
	char *text = NULL;
	size_t n;
	FILE *f;

	if (!u->print_all_opts || !u->global_list)
		return NULL;
	/* Loads the transports' modules, which bring their own settings. */
	if (u->query_components(&components, &count) == UCS_OK)
		u->release_components(components);
	f = open_memstream(&text, &n);
	if (!f)
		return NULL;
	u->print_all_opts(f, "UCX_", UCS_CONFIG_PRINT_CONFIG | UCS_CONFIG_PRINT_DOC | UCS_CONFIG_PRINT_HIDDEN,
			  u->global_list, NULL);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

ucs_status_t xb_ucx_init(const struct xb_ucp *u, ucp_config_t *config, const char *name, int shared, ucp_context_h *out)
{
	ucp_params_t params = {
		.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED | UCP_PARAM_FIELD_NAME,
		.features = UCP_FEATURE_RMA | UCP_FEATURE_TAG,
		.mt_workers_shared = shared,
		.name = name,
	};
	ucs_status_t status;
	sigset_t old;

	block_signals(&old);
	status = u->init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, config, out);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	u->config_release(config);
	return status;
}

uint64_t xb_ucx_memory_types(const struct xb_ucp *u, ucp_context_h context)
{
	ucp_context_attr_t attr = { .field_mask = UCP_ATTR_FIELD_MEMORY_TYPES };

	return u->context_query(context, &attr) == UCS_OK ? attr.memory_types : 0;
}

ucs_status_t xb_ucx_mem_map(const struct xb_ucp *u, ucp_context_h context, const struct xb_ucx_cuda *cuda,
			    uint64_t address, uint64_t length, int memory_type, ucp_mem_h *memh, int *got_type)
{
	ucp_mem_map_params_t params = {
		.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
			      UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE,
		.address = (void *)(uintptr_t)address,
		.length = length,
		.memory_type = (ucs_memory_type_t)memory_type,
	};
	ucp_mem_attr_t attr = { .field_mask = UCP_MEM_ATTR_FIELD_MEM_TYPE };
	ucs_status_t status;

	if (cuda->set_current)
		cuda->set_current(cuda->ctx);
	status = u->mem_map(context, &params, memh);
	if (status == UCS_OK && (status = u->mem_query(*memh, &attr)) == UCS_OK)
		*got_type = attr.mem_type;
	if (cuda->set_current)
		cuda->set_current(NULL);
	return status;
}

/* Go calls no function pointers; these call the table's. */
const char *xb_ucx_version(const struct xb_ucp *u) { return u->get_version_string(); }

const char *xb_ucx_status(const struct xb_ucp *u, ucs_status_t status) { return u->status_string(status); }

ucs_status_t xb_ucx_config_read(const struct xb_ucp *u, ucp_config_t **config)
{
	return u->config_read(NULL, NULL, config);
}

ucs_status_t xb_ucx_config_modify(const struct xb_ucp *u, ucp_config_t *config, const char *key, const char *value)
{
	return u->config_modify(config, key, value);
}

void xb_ucx_config_release(const struct xb_ucp *u, ucp_config_t *config) { u->config_release(config); }

void xb_ucx_cleanup(const struct xb_ucp *u, ucp_context_h context) { u->cleanup(context); }

ucs_status_t xb_ucx_mem_unmap(const struct xb_ucp *u, ucp_context_h context, ucp_mem_h memh)
{
	return u->mem_unmap(context, memh);
}

ucs_status_t xb_ucx_rkey_pack(const struct xb_ucp *u, ucp_context_h context, ucp_mem_h memh, void **key, size_t *n)
{
	return u->rkey_pack(context, memh, key, n);
}

void xb_ucx_rkey_buffer_release(const struct xb_ucp *u, void *key) { u->rkey_buffer_release(key); }
