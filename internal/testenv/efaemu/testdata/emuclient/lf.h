/* libfabric's few exported functions, linked or (-DEMUCLIENT_DLOPEN) opened at run time as the tool under test does.
 * All else is static inline in its headers. */
#ifndef EMUCLIENT_LF_H
#define EMUCLIENT_LF_H

#include <stdint.h>

#include <rdma/fabric.h>

struct lf {
	int (*getinfo)(uint32_t version, const char *node, const char *service, uint64_t flags,
		       const struct fi_info *hints, struct fi_info **info);
	void (*freeinfo)(struct fi_info *info);
	struct fi_info *(*dupinfo)(const struct fi_info *info);
	int (*fabric)(struct fi_fabric_attr *attr, struct fid_fabric **fabric, void *context);
	uint32_t (*version)(void);
	const char *(*strerror)(int errnum);
};

extern struct lf lf;

/* lf_load fills lf, or ends the process. */
void lf_load(void);

#endif
