/* The doors of this process for libraries: see the package's description. */
#ifndef XFERBENCH_CGO_GATE_H
#define XFERBENCH_CGO_GATE_H

#include <linux/filter.h>
#include <stddef.h>

/*
 * The filter of sockets that will listen, copied; NULL: none, and all calls are
 * libc's. 0 or a positive errno.
 */
int xb_gate_policy(const struct sock_filter *program, unsigned short length);

/* Lets nothing in on the listening sockets remembered, for ever. 0 or a positive errno. */
int xb_gate_seal(void);

/* The errno of the kernel's last refusal of a filter, 0: none. */
int xb_gate_refused(void);

#endif
