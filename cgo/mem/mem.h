#ifndef XFERBENCH_MEM_H
#define XFERBENCH_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "../loop/loop.h"

/* How much of a mapping one system call populates or unmaps. The call holds the
 * process's memory lock, for which the Go runtime's own mmap waits meanwhile, and
 * with it all goroutines. */
#define XB_MEM_PART ((size_t)4 << 20)

/* Anonymous memory without pages; huge asks for 2 MiB pages. NULL and errno on
 * failure. */
void *xb_mem_map(size_t len, int huge);
/* Faults len bytes at off in, so that the first transfer does not; off is a
 * multiple of XB_MEM_PART, len that at most. -1 and errno on failure. */
int xb_mem_populate(void *p, size_t off, size_t len, int huge);
int xb_mem_unmap(void *p, size_t len);

/* The payload at byte offset off is a function of off and key alone. */
void xb_pattern_fill(unsigned char *p, size_t len, uint64_t off, uint64_t key);
/* The offset of the first byte of p that is not the payload of off, or len. */
size_t xb_pattern_check(const unsigned char *p, size_t len, uint64_t off, uint64_t key);
/* The same over pieces; to_local says that local is the destination. Returns n
 * when all is right, else the piece's index and *at, the offset within it. */
uint64_t xb_pattern_check_pieces(const unsigned char *base, const struct xb_piece *pieces, uint64_t n,
				 int to_local, uint64_t key, uint64_t *at);
void xb_mem_copy_pieces(unsigned char *dst, const unsigned char *src, const struct xb_piece *pieces, uint64_t n);

/* libcuda, loaded at run time (the driver API of CUDA 11 and later). */
struct xb_cuda {
	void *cuInit, *cuGetErrorName, *cuDeviceGetCount, *cuDeviceGet, *cuDeviceGetName,
		*cuDevicePrimaryCtxRetain, *cuDevicePrimaryCtxRelease, *cuCtxPushCurrent, *cuCtxPopCurrent,
		*cuMemAlloc, *cuMemFree, *cuMemHostAlloc, *cuMemFreeHost, *cuMemcpyHtoD, *cuMemcpyDtoH,
		*cuMemcpyDtoD, *cuMemcpyDtoDAsync, *cuStreamSynchronize, *cuMemsetD8, *cuPointerSetAttribute,
		*cuDeviceGetPCIBusId, *cuDriverGetVersion;
};
struct xb_cuda_result {
	int code;
	const char *call;
	char name[64];
};
enum xb_copy { XB_TO_DEVICE, XB_FROM_DEVICE, XB_ON_DEVICE };

int xb_cuda_init(struct xb_cuda *c, int *devices, int *driver, struct xb_cuda_result *r);
int xb_cuda_device(struct xb_cuda *c, int ordinal, char *name, int nname, char *bus, int nbus, struct xb_cuda_result *r);
int xb_cuda_alloc(struct xb_cuda *c, int ordinal, size_t len, int pinned_host, void **ctx, uint64_t *ptr,
		  struct xb_cuda_result *r);
int xb_cuda_free(struct xb_cuda *c, int ordinal, void *ctx, uint64_t ptr, int pinned_host, struct xb_cuda_result *r);
int xb_cuda_copy(struct xb_cuda *c, void *ctx, int kind, uint64_t dst, uint64_t src, size_t len, struct xb_cuda_result *r);
int xb_cuda_set(struct xb_cuda *c, void *ctx, uint64_t dst, int byte, size_t len, struct xb_cuda_result *r);
/* Copies all pieces from src to dst on the device (to_device 0: device to host
 * memory, 1: host to device, 2: device to device), then waits. */
int xb_cuda_copy_pieces(struct xb_cuda *c, void *ctx, int kind, uint64_t dst, uint64_t src,
			const struct xb_piece *pieces, uint64_t n, struct xb_cuda_result *r);

#endif
