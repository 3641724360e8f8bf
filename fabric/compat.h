/*
 * Values of libfabric's ABI that the headers of 1.17 do not have yet. They never
 * change; where the headers know them too, the assertions hold them together.
 */
#ifndef XFERBENCH_FABRIC_COMPAT_H
#define XFERBENCH_FABRIC_COMPAT_H

#include <rdma/fabric.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_ext.h>

enum {
	XB_OPT_SHARED_MEMORY_PERMITTED = 11, /* bool, 1.18 */
	XB_OPT_MAX_MSG_SIZE = 12,            /* size_t, 1.22 */
	XB_OPT_MAX_TAGGED_SIZE = 13,
	XB_OPT_MAX_RMA_SIZE = 14,
};

enum {
	XB_OPT_EFA_RNR_RETRY = -(0xefa << 16), /* size_t */
	XB_OPT_EFA_EMULATED_READ,              /* bool, 1.18 */
	XB_OPT_EFA_EMULATED_WRITE,
};

#if FI_VERSION_GE(FI_VERSION(FI_MAJOR_VERSION, FI_MINOR_VERSION), FI_VERSION(1, 22))
_Static_assert((int)XB_OPT_SHARED_MEMORY_PERMITTED == (int)FI_OPT_SHARED_MEMORY_PERMITTED, "ABI");
_Static_assert((int)XB_OPT_MAX_MSG_SIZE == (int)FI_OPT_MAX_MSG_SIZE, "ABI");
_Static_assert((int)XB_OPT_MAX_TAGGED_SIZE == (int)FI_OPT_MAX_TAGGED_SIZE, "ABI");
_Static_assert((int)XB_OPT_MAX_RMA_SIZE == (int)FI_OPT_MAX_RMA_SIZE, "ABI");
_Static_assert((int)XB_OPT_EFA_EMULATED_READ == (int)FI_OPT_EFA_EMULATED_READ, "ABI");
_Static_assert((int)XB_OPT_EFA_EMULATED_WRITE == (int)FI_OPT_EFA_EMULATED_WRITE, "ABI");
#endif

/* Room behind a structure that a newer library may know to be longer. */
#define XB_OFI_PAD 256

#endif
