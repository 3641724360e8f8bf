#define _GNU_SOURCE
#include "dl.h"

#include <link.h>
#include <stdio.h>

void xb_signals_save(struct xb_signals *s)
{
	for (int i = 1; i < XB_NSIG; i++)
		s->saved[i] = sigaction(i, NULL, &s->action[i]) == 0;
}

void xb_signals_restore(const struct xb_signals *s)
{
	struct sigaction is;

	for (int i = 1; i < XB_NSIG; i++)
		if (s->saved[i] && sigaction(i, NULL, &is) == 0 &&
		    (is.sa_sigaction != s->action[i].sa_sigaction ||
		     is.sa_flags != s->action[i].sa_flags))
			sigaction(i, &s->action[i], NULL);
}

int xb_signal_action(int sig, uintptr_t *handler, int *flags)
{
	struct sigaction is;
	int rc = sigaction(sig, NULL, &is);

	if (rc == 0) {
		*handler = (uintptr_t)is.sa_sigaction;
		*flags = is.sa_flags;
	}
	return rc;
}

void *xb_dl_open(const char *name, int visibility, char *words, size_t nwords, char *path, size_t npath)
{
	struct xb_signals saved;
	struct link_map *map;
	void *h;

	xb_signals_save(&saved);
	h = dlopen(name, RTLD_NOW | visibility);
	if (!h) {
		const char *e = dlerror();

		snprintf(words, nwords, "%s", e ? e : "dlopen failed without a reason");
	}
	xb_signals_restore(&saved);
	if (h && dlinfo(h, RTLD_DI_LINKMAP, &map) == 0)
		snprintf(path, npath, "%s", map->l_name);
	else if (h)
		snprintf(path, npath, "%s", name);
	return h;
}

void *xb_dl_sym(void *handle, const char *name, char *words, size_t nwords)
{
	void *p = dlsym(handle, name);

	if (!p) {
		const char *e = dlerror();

		snprintf(words, nwords, "%s", e ? e : "the symbol's value is NULL");
	}
	return p;
}
