/* The CUDA driver's functions, found at run time: building needs no header of
 * CUDA. Names, enumerations and layouts are the driver API's since CUDA 11.0. */
#ifndef XFERBENCH_CUDA_H
#define XFERBENCH_CUDA_H

#include <stddef.h>
#include <stdint.h>

/* CUuuid and CUipcMemHandle, both passed as they stand here. */
struct xb_cuda_uuid {
	unsigned char bytes[16];
};
struct xb_cuda_ipc {
	unsigned char bytes[64];
};

/* Each function: its field, its symbol and its arguments. It returns CUresult. A
 * CUdeviceptr is uint64_t, a CUdevice int; contexts, streams and events are void *. */
#define XB_CUDA_CALLS(X)                                                                              \
	X(init, "cuInit", (unsigned))                                                                 \
	X(driver_version, "cuDriverGetVersion", (int *))                                              \
	X(error_name, "cuGetErrorName", (int, const char **))                                         \
	X(error_string, "cuGetErrorString", (int, const char **))                                     \
	X(device_count, "cuDeviceGetCount", (int *))                                                  \
	X(device, "cuDeviceGet", (int *, int))                                                        \
	X(device_name, "cuDeviceGetName", (char *, int, int))                                         \
	X(device_uuid, "cuDeviceGetUuid", (struct xb_cuda_uuid *, int))                               \
	X(device_memory, "cuDeviceTotalMem_v2", (size_t *, int))                                      \
	X(device_bus, "cuDeviceGetPCIBusId", (char *, int, int))                                      \
	X(can_access, "cuDeviceCanAccessPeer", (int *, int, int))                                     \
	X(retain, "cuDevicePrimaryCtxRetain", (void **, int))                                         \
	X(release, "cuDevicePrimaryCtxRelease_v2", (int))                                             \
	X(set_current, "cuCtxSetCurrent", (void *))                                                   \
	X(push, "cuCtxPushCurrent_v2", (void *))                                                      \
	X(pop, "cuCtxPopCurrent_v2", (void **))                                                       \
	X(enable_peer, "cuCtxEnablePeerAccess", (void *, unsigned))                                   \
	X(alloc, "cuMemAlloc_v2", (uint64_t *, size_t))                                               \
	X(free, "cuMemFree_v2", (uint64_t))                                                           \
	X(host_alloc, "cuMemHostAlloc", (void **, size_t, unsigned))                                  \
	X(host_free, "cuMemFreeHost", (void *))                                                       \
	X(set, "cuMemsetD8_v2", (uint64_t, unsigned char, size_t))                                    \
	X(set_async, "cuMemsetD8Async", (uint64_t, unsigned char, size_t, void *))                    \
	X(to_device, "cuMemcpyHtoD_v2", (uint64_t, const void *, size_t))                             \
	X(from_device, "cuMemcpyDtoH_v2", (void *, uint64_t, size_t))                                 \
	X(on_device, "cuMemcpyDtoD_v2", (uint64_t, uint64_t, size_t))                                 \
	X(to_peer, "cuMemcpyPeer", (uint64_t, void *, uint64_t, void *, size_t))                      \
	X(to_device_async, "cuMemcpyHtoDAsync_v2", (uint64_t, const void *, size_t, void *))          \
	X(from_device_async, "cuMemcpyDtoHAsync_v2", (void *, uint64_t, size_t, void *))              \
	X(on_device_async, "cuMemcpyDtoDAsync_v2", (uint64_t, uint64_t, size_t, void *))              \
	X(to_peer_async, "cuMemcpyPeerAsync", (uint64_t, void *, uint64_t, void *, size_t, void *))   \
	X(pointer_get, "cuPointerGetAttribute", (void *, int, uint64_t))                              \
	X(pointer_set, "cuPointerSetAttribute", (const void *, int, uint64_t))                        \
	X(ipc_get, "cuIpcGetMemHandle", (struct xb_cuda_ipc *, uint64_t))                             \
	X(ipc_open, "cuIpcOpenMemHandle_v2", (uint64_t *, struct xb_cuda_ipc, unsigned))              \
	X(ipc_close, "cuIpcCloseMemHandle", (uint64_t))                                               \
	X(stream_new, "cuStreamCreate", (void **, unsigned))                                          \
	X(stream_free, "cuStreamDestroy_v2", (void *))                                                \
	X(stream_wait, "cuStreamSynchronize", (void *))                                               \
	X(stream_query, "cuStreamQuery", (void *))                                                    \
	X(stream_after, "cuStreamWaitEvent", (void *, void *, unsigned))                              \
	X(event_new, "cuEventCreate", (void **, unsigned))                                            \
	X(event_free, "cuEventDestroy_v2", (void *))                                                  \
	X(event_record, "cuEventRecord", (void *, void *))                                            \
	X(event_wait, "cuEventSynchronize", (void *))                                                 \
	X(event_query, "cuEventQuery", (void *))                                                      \
	X(event_elapsed, "cuEventElapsedTime", (float *, void *, void *))

struct xb_cuda {
#define XB_CUDA_FIELD(field, symbol, args) int(*field) args;
	XB_CUDA_CALLS(XB_CUDA_FIELD)
#undef XB_CUDA_FIELD
};

/* The symbols of struct xb_cuda in its order, NULL after the last. */
extern const char *const xb_cuda_symbols[];

/* Codes that this package's C code knows. */
enum {
	XB_CUDA_OUT_OF_MEMORY = 2,
	XB_CUDA_INVALID_CONTEXT = 201,
	XB_CUDA_INVALID_HANDLE = 400,
	XB_CUDA_NOT_READY = 600,
};

/* A failed call. The words are the driver's, and stay its own. */
struct xb_cuda_error {
	int code;
	const char *call, *name, *words;
};

struct xb_cuda_device {
	char name[256], bus[32];
	struct xb_cuda_uuid uuid;
	size_t bytes;
};

struct xb_cuda_pointer {
	unsigned type, managed;
	int device;
	uint64_t base;
	size_t bytes;
};

/* All return 0, or 1 with what went wrong in *e. ctx is made current for the call
 * and the thread's own context put back, so no goroutine is locked to a thread. */
#define XB_ARGS const struct xb_cuda *c, struct xb_cuda_error *e
int xb_cuda_start(XB_ARGS, int *version);
int xb_cuda_count(XB_ARGS, int *n);
int xb_cuda_describe(XB_ARGS, int ordinal, struct xb_cuda_device *out);
int xb_cuda_can_access(XB_ARGS, int ordinal, int peer, int *can);
int xb_cuda_pointer(XB_ARGS, uint64_t p, struct xb_cuda_pointer *out);
int xb_cuda_retain(XB_ARGS, int ordinal, void **ctx);
int xb_cuda_release(XB_ARGS, int ordinal);
int xb_cuda_set_current(XB_ARGS, void *ctx);
int xb_cuda_enable_peer(XB_ARGS, void *ctx, void *peer);
int xb_cuda_alloc(XB_ARGS, void *ctx, size_t n, uint64_t *p);
int xb_cuda_free(XB_ARGS, void *ctx, uint64_t p);
int xb_cuda_host_alloc(XB_ARGS, void *ctx, size_t n, unsigned flags, void **p);
int xb_cuda_host_free(XB_ARGS, void *ctx, void *p);
int xb_cuda_sync_memops(XB_ARGS, void *ctx, uint64_t p);
int xb_cuda_set(XB_ARGS, void *ctx, uint64_t dst, unsigned char byte, size_t n);
int xb_cuda_to_device(XB_ARGS, void *ctx, uint64_t dst, const void *src, size_t n);
int xb_cuda_from_device(XB_ARGS, void *ctx, void *dst, uint64_t src, size_t n);
int xb_cuda_on_device(XB_ARGS, void *ctx, uint64_t dst, uint64_t src, size_t n);
int xb_cuda_to_peer(XB_ARGS, void *ctx, void *peer, uint64_t dst, uint64_t src, size_t n);
int xb_cuda_ipc_get(XB_ARGS, void *ctx, uint64_t p, struct xb_cuda_ipc *out);
int xb_cuda_ipc_open(XB_ARGS, void *ctx, const struct xb_cuda_ipc *handle, uint64_t *p);
int xb_cuda_ipc_close(XB_ARGS, void *ctx, uint64_t p);
int xb_cuda_stream_new(XB_ARGS, void *ctx, void **s);
int xb_cuda_stream_free(XB_ARGS, void *ctx, void *s);
int xb_cuda_stream_wait(XB_ARGS, void *ctx, void *s);
int xb_cuda_stream_query(XB_ARGS, void *ctx, void *s, int *done);
int xb_cuda_stream_after(XB_ARGS, void *ctx, void *s, void *event);
int xb_cuda_set_async(XB_ARGS, void *ctx, void *s, uint64_t dst, unsigned char byte, size_t n);
int xb_cuda_to_device_async(XB_ARGS, void *ctx, void *s, uint64_t dst, const void *src, size_t n);
int xb_cuda_from_device_async(XB_ARGS, void *ctx, void *s, void *dst, uint64_t src, size_t n);
int xb_cuda_on_device_async(XB_ARGS, void *ctx, void *s, uint64_t dst, uint64_t src, size_t n);
int xb_cuda_to_peer_async(XB_ARGS, void *ctx, void *s, void *peer, uint64_t dst, uint64_t src, size_t n);
int xb_cuda_event_new(XB_ARGS, void *ctx, void **event);
int xb_cuda_event_free(XB_ARGS, void *ctx, void *event);
int xb_cuda_event_record(XB_ARGS, void *ctx, void *event, void *s);
int xb_cuda_event_wait(XB_ARGS, void *ctx, void *event);
int xb_cuda_event_query(XB_ARGS, void *ctx, void *event, int *done);
int xb_cuda_event_elapsed(XB_ARGS, void *ctx, void *from, void *to, float *ms);
#undef XB_ARGS

#endif
