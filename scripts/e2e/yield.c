/* Preloaded into the engines of vLLM 0.32.0: a short sleep instead of
 * sched_yield(2), which their worker processes call in a loop while they wait.
 * On Linux 6.18, beside NIXL's progress threads, which never yield, two cores
 * served nothing else for up to a minute (docs/e2e.md). */
#include <time.h>

int sched_yield(void);

int sched_yield(void)
{
	struct timespec t = { 0, 1 };

	return nanosleep(&t, 0);
}
