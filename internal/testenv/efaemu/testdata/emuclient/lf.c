#include "lf.h"

#include <stdio.h>
#include <stdlib.h>

struct lf lf;

#ifdef EMUCLIENT_DLOPEN
#include <dlfcn.h>

static void *symbol(void *lib, const char *name)
{
	void *sym = dlsym(lib, name);
	if (!sym) {
		fprintf(stderr, "emuclient: %s\n", dlerror());
		exit(1);
	}
	return sym;
}

void lf_load(void)
{
	/* RTLD_LOCAL: libfabric's own dependencies, libibverbs and libefa, do not enter the global scope; the
	 * preloaded emulator is in it from the start and is searched first all the same. */
	void *lib = dlopen("libfabric.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!lib) {
		fprintf(stderr, "emuclient: %s\n", dlerror());
		exit(1);
	}
	*(void **)&lf.getinfo = symbol(lib, "fi_getinfo");
	*(void **)&lf.freeinfo = symbol(lib, "fi_freeinfo");
	*(void **)&lf.dupinfo = symbol(lib, "fi_dupinfo");
	*(void **)&lf.fabric = symbol(lib, "fi_fabric");
	*(void **)&lf.version = symbol(lib, "fi_version");
	*(void **)&lf.strerror = symbol(lib, "fi_strerror");
}
#else
void lf_load(void)
{
	lf = (struct lf){
		.getinfo = fi_getinfo,
		.freeinfo = fi_freeinfo,
		.dupinfo = fi_dupinfo,
		.fabric = fi_fabric,
		.version = fi_version,
		.strerror = fi_strerror,
	};
}
#endif
