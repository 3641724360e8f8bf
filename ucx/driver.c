#include "driver.h"

typedef int (*xb_retain)(void **ctx, int device);
typedef int (*xb_device_get)(int *device, int ordinal);
typedef int (*xb_release)(int device);

int xb_cuda_retain(void *get, void *retain, int ordinal, void **ctx)
{
	int device, rc = ((xb_device_get)get)(&device, ordinal);

	return rc ? rc : ((xb_retain)retain)(ctx, device);
}

int xb_cuda_release(void *get, void *release, int ordinal)
{
	int device, rc = ((xb_device_get)get)(&device, ordinal);

	return rc ? rc : ((xb_release)release)(device);
}
