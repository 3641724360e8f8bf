#ifndef XFERBENCH_DL_H
#define XFERBENCH_DL_H

#include <dlfcn.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>

enum { XB_NSIG = 65 };

struct xb_signals {
	struct sigaction action[XB_NSIG];
	unsigned char saved[XB_NSIG];
};

void xb_signals_save(struct xb_signals *s);
void xb_signals_restore(const struct xb_signals *s);
int xb_signal_action(int sig, uintptr_t *handler, int *flags);

/* dlopen and dlerror on one thread, between a save and a restore of the signal
 * actions. On failure NULL and the loader's words; else path is the file. */
void *xb_dl_open(const char *name, int visibility, char *words, size_t nwords, char *path, size_t npath);
void *xb_dl_sym(void *handle, const char *name, char *words, size_t nwords);

#endif
