#include "mem.h"

#include <stdio.h>

typedef int CUresult;
typedef uint64_t CUdeviceptr;

#define CALL(r, c, fn, type, ...) failed(c, r, #fn, ((CUresult(*) type)(c)->fn)(__VA_ARGS__))

static int failed(struct xb_cuda *c, struct xb_cuda_result *r, const char *call, CUresult code)
{
	const char *name = NULL;

	if (!code)
		return 0;
	if (!c->cuGetErrorName || ((CUresult(*)(CUresult, const char **))c->cuGetErrorName)(code, &name) || !name)
		name = "unknown CUDA error";
	r->code = code;
	r->call = call;
	snprintf(r->name, sizeof(r->name), "%s", name);
	return 1;
}

/* The current context belongs to a thread, so each call pushes its own and
 * pops it again: no goroutine needs to be locked to a thread. */
static int push(struct xb_cuda *c, void *ctx, struct xb_cuda_result *r)
{
	return CALL(r, c, cuCtxPushCurrent, (void *), ctx);
}

static int pop(struct xb_cuda *c, struct xb_cuda_result *r, int rc)
{
	void *old;
	struct xb_cuda_result own = { 0 };
	int popped = CALL(&own, c, cuCtxPopCurrent, (void **), &old);

	if (!rc && popped)
		*r = own;
	return rc | popped;
}

int xb_cuda_init(struct xb_cuda *c, int *devices, int *driver, struct xb_cuda_result *r)
{
	return CALL(r, c, cuInit, (unsigned), 0) || CALL(r, c, cuDeviceGetCount, (int *), devices) ||
	       CALL(r, c, cuDriverGetVersion, (int *), driver);
}

int xb_cuda_device(struct xb_cuda *c, int ordinal, char *name, int nname, char *bus, int nbus, struct xb_cuda_result *r)
{
	int dev;

	return CALL(r, c, cuDeviceGet, (int *, int), &dev, ordinal) ||
	       CALL(r, c, cuDeviceGetName, (char *, int, int), name, nname, dev) ||
	       CALL(r, c, cuDeviceGetPCIBusId, (char *, int, int), bus, nbus, dev);
}

int xb_cuda_alloc(struct xb_cuda *c, int ordinal, size_t len, int pinned_host, void **ctx, uint64_t *ptr,
		  struct xb_cuda_result *r)
{
	enum { SYNC_MEMOPS = 6, PORTABLE = 1 };
	unsigned one = 1;
	int dev, rc;

	if (CALL(r, c, cuDeviceGet, (int *, int), &dev, ordinal) ||
	    CALL(r, c, cuDevicePrimaryCtxRetain, (void **, int), ctx, dev))
		return 1;
	if (push(c, *ctx, r)) {
		((CUresult(*)(int))c->cuDevicePrimaryCtxRelease)(dev);
		return 1;
	}
	if (pinned_host) {
		void *p = NULL;

		rc = CALL(r, c, cuMemHostAlloc, (void **, size_t, unsigned), &p, len, PORTABLE);
		*ptr = (uint64_t)(uintptr_t)p;
	} else {
		rc = CALL(r, c, cuMemAlloc, (CUdeviceptr *, size_t), ptr, len);
		/* A NIC that reads device memory must not overtake a copy. */
		if (!rc && CALL(r, c, cuPointerSetAttribute, (const void *, int, CUdeviceptr), &one, SYNC_MEMOPS, *ptr)) {
			((CUresult(*)(CUdeviceptr))c->cuMemFree)(*ptr);
			rc = 1;
		}
	}
	rc = pop(c, r, rc);
	if (rc)
		((CUresult(*)(int))c->cuDevicePrimaryCtxRelease)(dev);
	return rc;
}

int xb_cuda_free(struct xb_cuda *c, int ordinal, void *ctx, uint64_t ptr, int pinned_host, struct xb_cuda_result *r)
{
	int dev, rc;

	if (push(c, ctx, r))
		return 1;
	rc = pinned_host ? CALL(r, c, cuMemFreeHost, (void *), (void *)(uintptr_t)ptr)
			 : CALL(r, c, cuMemFree, (CUdeviceptr), ptr);
	rc = pop(c, r, rc);
	return rc | (CALL(r, c, cuDeviceGet, (int *, int), &dev, ordinal) ||
		     CALL(r, c, cuDevicePrimaryCtxRelease, (int), dev));
}

int xb_cuda_copy(struct xb_cuda *c, void *ctx, int kind, uint64_t dst, uint64_t src, size_t len, struct xb_cuda_result *r)
{
	int rc;

	if (push(c, ctx, r))
		return 1;
	if (kind == XB_TO_DEVICE)
		rc = CALL(r, c, cuMemcpyHtoD, (CUdeviceptr, const void *, size_t), dst, (void *)(uintptr_t)src, len);
	else if (kind == XB_FROM_DEVICE)
		rc = CALL(r, c, cuMemcpyDtoH, (void *, CUdeviceptr, size_t), (void *)(uintptr_t)dst, src, len);
	else
		rc = CALL(r, c, cuMemcpyDtoD, (CUdeviceptr, CUdeviceptr, size_t), dst, src, len);
	return pop(c, r, rc);
}

int xb_cuda_set(struct xb_cuda *c, void *ctx, uint64_t dst, int byte, size_t len, struct xb_cuda_result *r)
{
	if (push(c, ctx, r))
		return 1;
	return pop(c, r,
		   CALL(r, c, cuMemsetD8, (CUdeviceptr, unsigned char, size_t), dst, (unsigned char)byte, len) ||
			   CALL(r, c, cuStreamSynchronize, (void *), NULL));
}

int xb_cuda_copy_pieces(struct xb_cuda *c, void *ctx, int kind, uint64_t dst, uint64_t src,
			const struct xb_piece *pieces, uint64_t n, struct xb_cuda_result *r)
{
	int rc = 0;

	if (push(c, ctx, r))
		return 1;
	for (uint64_t i = 0; i < n && !rc; i++) {
		uint64_t d = dst + pieces[i].local, s = src + pieces[i].remote;

		if (kind == XB_TO_DEVICE)
			rc = CALL(r, c, cuMemcpyHtoD, (CUdeviceptr, const void *, size_t), d, (void *)(uintptr_t)s, pieces[i].len);
		else if (kind == XB_FROM_DEVICE)
			rc = CALL(r, c, cuMemcpyDtoH, (void *, CUdeviceptr, size_t), (void *)(uintptr_t)d, s, pieces[i].len);
		else
			rc = CALL(r, c, cuMemcpyDtoDAsync, (CUdeviceptr, CUdeviceptr, size_t, void *), d, s, pieces[i].len, NULL);
	}
	if (!rc)
		rc = CALL(r, c, cuStreamSynchronize, (void *), NULL);
	return pop(c, r, rc);
}
