#include "cuda.h"

#define XB_ARGS const struct xb_cuda *c, struct xb_cuda_error *e

#define XB_CUDA_SYMBOL(field, symbol, args) symbol,
const char *const xb_cuda_symbols[] = { XB_CUDA_CALLS(XB_CUDA_SYMBOL) NULL };
#undef XB_CUDA_SYMBOL

/* The place of a field among the symbols. */
#define SYMBOL(field) xb_cuda_symbols[offsetof(struct xb_cuda, field) / sizeof(void (*)(void))]

static int failed(XB_ARGS, const char *call, int code)
{
	if (!code)
		return 0;
	e->code = code;
	e->call = call;
	if (c->error_name(code, &e->name))
		e->name = NULL;
	if (c->error_string(code, &e->words))
		e->words = NULL;
	return 1;
}

#define CALL(field, ...) failed(c, e, SYMBOL(field), c->field(__VA_ARGS__))

/* A closed context is no context: the driver would take NULL for "none current",
 * and a stream that is closed for the default one. */
static int push(XB_ARGS, void *ctx)
{
	return ctx ? CALL(push, ctx) : failed(c, e, SYMBOL(push), XB_CUDA_INVALID_CONTEXT);
}

/* Puts the thread's own context back; the first error is the one that is told. */
static int pop(XB_ARGS, int rc)
{
	struct xb_cuda_error own = { 0 };
	void *old;
	int popped = failed(c, &own, SYMBOL(pop), c->pop(&old));

	if (!rc && popped)
		*e = own;
	return rc | popped;
}

#define IN(field, ...) (push(c, e, ctx) ? 1 : pop(c, e, CALL(field, __VA_ARGS__)))
#define ON(handle, field, ...) ((handle) ? IN(field, __VA_ARGS__) : failed(c, e, SYMBOL(field), XB_CUDA_INVALID_HANDLE))

/* Whether a query's work is done; that it is not is no error. */
static int query(XB_ARGS, int rc, int *done)
{
	*done = rc == 0;
	if (rc && e->code == XB_CUDA_NOT_READY)
		return 0;
	(void)c;
	return rc;
}

int xb_cuda_start(XB_ARGS, int *version) { return CALL(init, 0) || CALL(driver_version, version); }

int xb_cuda_count(XB_ARGS, int *n) { return CALL(device_count, n); }

int xb_cuda_describe(XB_ARGS, int ordinal, struct xb_cuda_device *out)
{
	int dev;

	return CALL(device, &dev, ordinal) || CALL(device_name, out->name, sizeof(out->name), dev) ||
	       CALL(device_bus, out->bus, sizeof(out->bus), dev) || CALL(device_uuid, &out->uuid, dev) ||
	       CALL(device_memory, &out->bytes, dev);
}

int xb_cuda_can_access(XB_ARGS, int ordinal, int peer, int *can)
{
	int a, b;

	return CALL(device, &a, ordinal) || CALL(device, &b, peer) || CALL(can_access, can, a, b);
}

int xb_cuda_pointer(XB_ARGS, uint64_t p, struct xb_cuda_pointer *out)
{
	enum { MEMORY_TYPE = 2, IS_MANAGED = 8, DEVICE_ORDINAL = 9, RANGE_START = 11, RANGE_SIZE = 12 };

	return CALL(pointer_get, &out->type, MEMORY_TYPE, p) || CALL(pointer_get, &out->managed, IS_MANAGED, p) ||
	       CALL(pointer_get, &out->device, DEVICE_ORDINAL, p) || CALL(pointer_get, &out->base, RANGE_START, p) ||
	       CALL(pointer_get, &out->bytes, RANGE_SIZE, p);
}

int xb_cuda_retain(XB_ARGS, int ordinal, void **ctx)
{
	int dev;

	return CALL(device, &dev, ordinal) || CALL(retain, ctx, dev);
}

int xb_cuda_release(XB_ARGS, int ordinal)
{
	int dev;

	return CALL(device, &dev, ordinal) || CALL(release, dev);
}

int xb_cuda_set_current(XB_ARGS, void *ctx) { return CALL(set_current, ctx); }

int xb_cuda_enable_peer(XB_ARGS, void *ctx, void *peer) { return IN(enable_peer, peer, 0); }

int xb_cuda_alloc(XB_ARGS, void *ctx, size_t n, uint64_t *p) { return IN(alloc, p, n); }

int xb_cuda_free(XB_ARGS, void *ctx, uint64_t p) { return IN(free, p); }

int xb_cuda_host_alloc(XB_ARGS, void *ctx, size_t n, unsigned flags, void **p) { return IN(host_alloc, p, n, flags); }

int xb_cuda_host_free(XB_ARGS, void *ctx, void *p) { return IN(host_free, p); }

int xb_cuda_sync_memops(XB_ARGS, void *ctx, uint64_t p)
{
	enum { SYNC_MEMOPS = 6 };
	unsigned one = 1;

	return IN(pointer_set, &one, SYNC_MEMOPS, p);
}

/* A set returns before it is done: for the caller it ends with the default stream. */
int xb_cuda_set(XB_ARGS, void *ctx, uint64_t dst, unsigned char byte, size_t n)
{
	if (push(c, e, ctx))
		return 1;
	return pop(c, e, CALL(set, dst, byte, n) || CALL(stream_wait, NULL));
}

int xb_cuda_to_device(XB_ARGS, void *ctx, uint64_t dst, const void *src, size_t n) { return IN(to_device, dst, src, n); }

int xb_cuda_from_device(XB_ARGS, void *ctx, void *dst, uint64_t src, size_t n) { return IN(from_device, dst, src, n); }

/* A copy on the device returns before it is done, too. */
int xb_cuda_on_device(XB_ARGS, void *ctx, uint64_t dst, uint64_t src, size_t n)
{
	if (push(c, e, ctx))
		return 1;
	return pop(c, e, CALL(on_device, dst, src, n) || CALL(stream_wait, NULL));
}

int xb_cuda_to_peer(XB_ARGS, void *ctx, void *peer, uint64_t dst, uint64_t src, size_t n)
{
	if (push(c, e, ctx))
		return 1;
	return pop(c, e, CALL(to_peer, dst, peer, src, ctx, n) || CALL(stream_wait, NULL));
}

int xb_cuda_ipc_get(XB_ARGS, void *ctx, uint64_t p, struct xb_cuda_ipc *out) { return IN(ipc_get, out, p); }

int xb_cuda_ipc_open(XB_ARGS, void *ctx, const struct xb_cuda_ipc *handle, uint64_t *p)
{
	enum { LAZY_ENABLE_PEER_ACCESS = 1 };

	return IN(ipc_open, p, *handle, LAZY_ENABLE_PEER_ACCESS);
}

int xb_cuda_ipc_close(XB_ARGS, void *ctx, uint64_t p) { return IN(ipc_close, p); }

int xb_cuda_stream_new(XB_ARGS, void *ctx, void **s)
{
	enum { NON_BLOCKING = 1 };

	return IN(stream_new, s, NON_BLOCKING);
}

int xb_cuda_stream_free(XB_ARGS, void *ctx, void *s) { return ON(s, stream_free, s); }

int xb_cuda_stream_wait(XB_ARGS, void *ctx, void *s) { return ON(s, stream_wait, s); }

int xb_cuda_stream_query(XB_ARGS, void *ctx, void *s, int *done)
{
	return query(c, e, ON(s, stream_query, s), done);
}

int xb_cuda_stream_after(XB_ARGS, void *ctx, void *s, void *event)
{
	return event ? ON(s, stream_after, s, event, 0) : failed(c, e, SYMBOL(stream_after), XB_CUDA_INVALID_HANDLE);
}

int xb_cuda_set_async(XB_ARGS, void *ctx, void *s, uint64_t dst, unsigned char byte, size_t n)
{
	return ON(s, set_async, dst, byte, n, s);
}

int xb_cuda_to_device_async(XB_ARGS, void *ctx, void *s, uint64_t dst, const void *src, size_t n)
{
	return ON(s, to_device_async, dst, src, n, s);
}

int xb_cuda_from_device_async(XB_ARGS, void *ctx, void *s, void *dst, uint64_t src, size_t n)
{
	return ON(s, from_device_async, dst, src, n, s);
}

int xb_cuda_on_device_async(XB_ARGS, void *ctx, void *s, uint64_t dst, uint64_t src, size_t n)
{
	return ON(s, on_device_async, dst, src, n, s);
}

int xb_cuda_to_peer_async(XB_ARGS, void *ctx, void *s, void *peer, uint64_t dst, uint64_t src, size_t n)
{
	return ON(s, to_peer_async, dst, peer, src, ctx, n, s);
}

int xb_cuda_event_new(XB_ARGS, void *ctx, void **event) { return IN(event_new, event, 0); }

int xb_cuda_event_free(XB_ARGS, void *ctx, void *event) { return ON(event, event_free, event); }

int xb_cuda_event_record(XB_ARGS, void *ctx, void *event, void *s)
{
	return event ? ON(s, event_record, event, s) : failed(c, e, SYMBOL(event_record), XB_CUDA_INVALID_HANDLE);
}

int xb_cuda_event_wait(XB_ARGS, void *ctx, void *event) { return ON(event, event_wait, event); }

int xb_cuda_event_query(XB_ARGS, void *ctx, void *event, int *done)
{
	return query(c, e, ON(event, event_query, event), done);
}

int xb_cuda_event_elapsed(XB_ARGS, void *ctx, void *from, void *to, float *ms)
{
	return to ? ON(from, event_elapsed, ms, from, to) : failed(c, e, SYMBOL(event_elapsed), XB_CUDA_INVALID_HANDLE);
}
