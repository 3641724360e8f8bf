/* Calls to the CUDA driver through addresses that cgo/dl found: the driver's own
 * headers are not needed to build. Each returns the driver's CUresult. */
#ifndef XB_UCX_DRIVER_H
#define XB_UCX_DRIVER_H

/* xb_cuda_retain makes the primary context of device number ordinal and puts it
 * into *ctx. get is cuDeviceGet, retain cuDevicePrimaryCtxRetain. */
int xb_cuda_retain(void *get, void *retain, int ordinal, void **ctx);

/* xb_cuda_release gives that context back. release is cuDevicePrimaryCtxRelease. */
int xb_cuda_release(void *get, void *release, int ordinal);

#endif
