/* A stand-in for libcuda.so.1: two devices whose memory is the host's. Work on a
 * stream is kept back until the stream is waited for or asked about a second time,
 * so that what does not wait sees what it should not. Every call checks that the
 * right context is current. FAKECUDA_INIT is what cuInit returns, FAKECUDA_BYTES
 * the largest allocation. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	SUCCESS,
	INVALID_VALUE,
	OUT_OF_MEMORY,
	NOT_INITIALIZED,
	INVALID_DEVICE = 101,
	INVALID_CONTEXT = 201,
	ALREADY_MAPPED = 208,
	PEER_ENABLED = 704,
	NOT_READY = 600,
};

typedef uint64_t ptr;

struct context {
	int device, retained, peers;
};

struct allocation {
	ptr p;
	size_t n;
	int device, host, open;
};

struct job {
	void *dst;
	const void *src;
	size_t n;
	int value; /* of a set: src is NULL */
};

struct event {
	double at;
	int passed;
};

struct stream {
	struct job jobs[64];
	struct event *events[8];
	int n, nevents, asked;
};

static int started;
static struct context contexts[2] = { { 0, 0, 0 }, { 1, 0, 0 } };
static struct allocation all[64];
static double ticks;
/* Static TLS: LeakSanitizer crashes at exit over that of a loaded library. */
static __thread __attribute__((tls_model("initial-exec"))) struct context *stack[4];
static __thread __attribute__((tls_model("initial-exec"))) int depth;

static struct context *current(void) { return depth ? stack[depth - 1] : NULL; }

int cuInit(unsigned flags)
{
	const char *rc = getenv("FAKECUDA_INIT");

	signal(SIGINT, SIG_DFL); /* as a badly behaved library would */
	started = !rc && !flags;
	return rc ? atoi(rc) : SUCCESS;
}

int cuDriverGetVersion(int *v)
{
	*v = 12040;
	return started ? SUCCESS : NOT_INITIALIZED;
}

static const struct {
	int code;
	const char *name, *words;
} known[] = {
	{ INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument" },
	{ OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory" },
	{ 100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected" },
	{ INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal" },
	{ INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context" },
	{ 400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle" },
};

static int look(int code, const char **out, int words)
{
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].code == code) {
			*out = words ? known[i].words : known[i].name;
			return SUCCESS;
		}
	*out = NULL;
	return INVALID_VALUE;
}

int cuGetErrorName(int code, const char **s) { return look(code, s, 0); }

int cuGetErrorString(int code, const char **s) { return look(code, s, 1); }

int cuDeviceGetCount(int *n)
{
	*n = 2;
	return SUCCESS;
}

int cuDeviceGet(int *d, int ordinal)
{
	*d = ordinal + 70; /* a handle is no ordinal */
	return ordinal == 0 || ordinal == 1 ? SUCCESS : INVALID_DEVICE;
}

int cuDeviceGetName(char *s, int n, int d)
{
	snprintf(s, (size_t)n, "Fake %d", d - 70);
	return SUCCESS;
}

int cuDeviceGetUuid(unsigned char u[16], int d)
{
	for (int i = 0; i < 16; i++)
		u[i] = (unsigned char)(i * 16 + d - 70);
	return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t *n, int d)
{
	*n = (size_t)(80 - (d - 70) * 40) << 30;
	return SUCCESS;
}

int cuDeviceGetPCIBusId(char *s, int n, int d)
{
	snprintf(s, (size_t)n, "0000:10:1%c.0", d == 70 ? 'C' : 'D');
	return SUCCESS;
}

int cuDeviceCanAccessPeer(int *can, int a, int b)
{
	*can = a != b;
	return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **ctx, int d)
{
	contexts[d - 70].retained++;
	*ctx = &contexts[d - 70];
	return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int d)
{
	if (contexts[d - 70].retained <= 0)
		return INVALID_CONTEXT;
	contexts[d - 70].retained--;
	return SUCCESS;
}

int cuCtxSetCurrent(void *ctx)
{
	depth = 1;
	stack[0] = ctx;
	return SUCCESS;
}

int cuCtxPushCurrent_v2(void *ctx)
{
	if (!ctx || depth == 4 || ((struct context *)ctx)->retained <= 0)
		return INVALID_CONTEXT;
	stack[depth++] = ctx;
	return SUCCESS;
}

int cuCtxPopCurrent_v2(void **ctx)
{
	if (!depth)
		return INVALID_CONTEXT;
	*ctx = stack[--depth];
	return SUCCESS;
}

int cuCtxEnablePeerAccess(void *ctx, unsigned flags)
{
	if (!current() || flags || ctx == current())
		return INVALID_CONTEXT;
	return current()->peers++ ? PEER_ENABLED : SUCCESS;
}

static int allocate(void **p, size_t n, int host)
{
	const char *most = getenv("FAKECUDA_BYTES");

	if (!current())
		return INVALID_CONTEXT;
	if (most && n > (size_t)atoll(most))
		return OUT_OF_MEMORY;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (!all[i].p) {
			*p = calloc(1, n);
			all[i] = (struct allocation){ (ptr)(uintptr_t)*p, n, current()->device, host, 0 };
			return SUCCESS;
		}
	return OUT_OF_MEMORY;
}

static struct allocation *find(ptr p)
{
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].p && p >= all[i].p && p < all[i].p + all[i].n)
			return &all[i];
	return NULL;
}

static int release(ptr p, int host)
{
	struct allocation *a = find(p);

	if (!a || a->p != p || a->host != host || !current() || current()->device != a->device)
		return INVALID_VALUE;
	free((void *)(uintptr_t)p);
	a->p = 0;
	return SUCCESS;
}

int cuMemAlloc_v2(ptr *p, size_t n)
{
	void *a;
	int rc = allocate(&a, n, 0);

	if (!rc)
		*p = (ptr)(uintptr_t)a;
	return rc;
}

int cuMemFree_v2(ptr p) { return release(p, 0); }

int cuMemHostAlloc(void **p, size_t n, unsigned flags) { return flags > 7 ? INVALID_VALUE : allocate(p, n, 1); }

int cuMemFreeHost(void *p) { return release((ptr)(uintptr_t)p, 1); }

/* Whether n bytes at p are memory of device, of the current one if that is -1. */
static int within(ptr p, size_t n, int device)
{
	struct allocation *a = find(p);

	if (device < 0 && current())
		device = current()->device;
	return a && !a->host && a->device == device && n <= a->p + a->n - p;
}

static void *at(ptr p) { return (void *)(uintptr_t)p; }

int cuMemsetD8_v2(ptr p, unsigned char value, size_t n)
{
	if (!within(p, n, -1))
		return INVALID_VALUE;
	memset(at(p), value, n);
	return SUCCESS;
}

int cuMemcpyHtoD_v2(ptr dst, const void *src, size_t n)
{
	if (!within(dst, n, -1))
		return INVALID_VALUE;
	memcpy(at(dst), src, n);
	return SUCCESS;
}

int cuMemcpyDtoH_v2(void *dst, ptr src, size_t n)
{
	if (!within(src, n, -1))
		return INVALID_VALUE;
	memcpy(dst, at(src), n);
	return SUCCESS;
}

int cuMemcpyDtoD_v2(ptr dst, ptr src, size_t n)
{
	if (!within(dst, n, -1) || !within(src, n, -1))
		return INVALID_VALUE;
	memcpy(at(dst), at(src), n);
	return SUCCESS;
}

static int between(ptr dst, struct context *to, ptr src, struct context *from, size_t n)
{
	return to && from && within(dst, n, to->device) && within(src, n, from->device);
}

int cuMemcpyPeer(ptr dst, void *to, ptr src, void *from, size_t n)
{
	if (!between(dst, to, src, from, n))
		return INVALID_VALUE;
	memcpy(at(dst), at(src), n);
	return SUCCESS;
}

static int queue(struct stream *s, int ok, struct job j)
{
	if (!ok || s->n == 64)
		return INVALID_VALUE;
	s->jobs[s->n++] = j;
	s->asked = 0;
	return SUCCESS;
}

int cuMemsetD8Async(ptr p, unsigned char value, size_t n, void *s)
{
	return queue(s, within(p, n, -1), (struct job){ at(p), NULL, n, value });
}

int cuMemcpyHtoDAsync_v2(ptr dst, const void *src, size_t n, void *s)
{
	return queue(s, within(dst, n, -1), (struct job){ at(dst), src, n, 0 });
}

int cuMemcpyDtoHAsync_v2(void *dst, ptr src, size_t n, void *s)
{
	return queue(s, within(src, n, -1), (struct job){ dst, at(src), n, 0 });
}

int cuMemcpyDtoDAsync_v2(ptr dst, ptr src, size_t n, void *s)
{
	return queue(s, within(dst, n, -1) && within(src, n, -1), (struct job){ at(dst), at(src), n, 0 });
}

int cuMemcpyPeerAsync(ptr dst, void *to, ptr src, void *from, size_t n, void *s)
{
	return queue(s, between(dst, to, src, from, n), (struct job){ at(dst), at(src), n, 0 });
}

int cuPointerGetAttribute(void *out, int what, ptr p)
{
	struct allocation *a = find(p);

	if (!a)
		return INVALID_VALUE;
	switch (what) {
	case 2:
		*(unsigned *)out = a->host ? 1 : 2;
		return SUCCESS;
	case 8:
		*(unsigned char *)out = 0; /* the driver writes one byte */
		return SUCCESS;
	case 9:
		*(int *)out = a->device;
		return SUCCESS;
	case 11:
		*(ptr *)out = a->p;
		return SUCCESS;
	case 12:
		*(size_t *)out = a->n;
		return SUCCESS;
	}
	return INVALID_VALUE;
}

int cuPointerSetAttribute(const void *value, int what, ptr p)
{
	return what == 6 && *(const unsigned *)value == 1 && within(p, 1, -1) ? SUCCESS : INVALID_VALUE;
}

struct handle {
	ptr p;
	unsigned char rest[56];
};

int cuIpcGetMemHandle(struct handle *h, ptr p)
{
	if (!within(p, 1, -1))
		return INVALID_VALUE;
	memset(h, 0x5a, sizeof(*h));
	h->p = p;
	return SUCCESS;
}

/* Unlike the driver this one opens a handle of its own process. */
int cuIpcOpenMemHandle_v2(ptr *p, struct handle h, unsigned flags)
{
	struct allocation *a = find(h.p);

	if (!a || flags != 1 || h.rest[0] != 0x5a || h.rest[55] != 0x5a || !current())
		return INVALID_VALUE;
	if (a->open)
		return ALREADY_MAPPED;
	a->open = 1;
	*p = h.p;
	return SUCCESS;
}

int cuIpcCloseMemHandle(ptr p)
{
	struct allocation *a = find(p);

	if (!a || !a->open)
		return INVALID_VALUE;
	a->open = 0;
	return SUCCESS;
}

int cuStreamCreate(void **s, unsigned flags)
{
	if (!current() || flags != 1)
		return INVALID_VALUE;
	*s = calloc(1, sizeof(struct stream));
	return SUCCESS;
}

static void drain(struct stream *s)
{
	for (int i = 0; i < s->n; i++) {
		if (s->jobs[i].src)
			memcpy(s->jobs[i].dst, s->jobs[i].src, s->jobs[i].n);
		else
			memset(s->jobs[i].dst, s->jobs[i].value, s->jobs[i].n);
	}
	for (int i = 0; i < s->nevents; i++) {
		s->events[i]->passed = 1;
		s->events[i]->at = ticks += 1.5;
	}
	s->n = s->nevents = 0;
}

int cuStreamDestroy_v2(void *s)
{
	drain(s);
	free(s);
	return SUCCESS;
}

int cuStreamSynchronize(void *s)
{
	if (!current())
		return INVALID_CONTEXT;
	if (s) /* else the default stream, on which nothing is kept back */
		drain(s);
	return SUCCESS;
}

int cuStreamQuery(void *p)
{
	struct stream *s = p;

	if ((s->n || s->nevents) && !s->asked++)
		return NOT_READY;
	drain(s);
	return SUCCESS;
}

int cuStreamWaitEvent(void *s, void *event, unsigned flags)
{
	return s && ((struct event *)event)->passed >= 0 && !flags ? SUCCESS : INVALID_VALUE;
}

int cuEventCreate(void **e, unsigned flags)
{
	struct event *v = calloc(1, sizeof(*v));

	v->passed = 1;
	*e = v;
	return current() && !flags ? SUCCESS : INVALID_VALUE;
}

int cuEventDestroy_v2(void *e)
{
	free(e);
	return SUCCESS;
}

int cuEventRecord(void *e, void *p)
{
	struct stream *s = p;

	if (s->nevents == 8)
		return INVALID_VALUE;
	((struct event *)e)->passed = 0;
	s->events[s->nevents++] = e;
	s->asked = 0;
	return SUCCESS;
}

int cuEventQuery(void *e) { return ((struct event *)e)->passed ? SUCCESS : NOT_READY; }

int cuEventSynchronize(void *e) { return cuEventQuery(e); }

int cuEventElapsedTime(float *ms, void *from, void *to)
{
	*ms = (float)(((struct event *)to)->at - ((struct event *)from)->at);
	return SUCCESS;
}
