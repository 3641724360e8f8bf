/* Preloaded into the engines of vLLM 0.32.0, for two things that it does on CPUs
 * (docs/e2e.md). */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Its worker processes call sched_yield(2) in a loop while they wait. On Linux
 * 6.18, beside NIXL's progress threads, which never yield, two cores served nothing
 * else for up to a minute: a short sleep instead. */
int sched_yield(void);

int sched_yield(void)
{
	struct timespec t = { 0, 1 };

	return nanosleep(&t, 0);
}

#ifdef __x86_64__
/* Its attention uses the CPU's AMX tiles where there are any, without asking the
 * kernel for them: the worker of a decode engine died by SIGILL at its first
 * transferred cache. Prefill engines ran, perhaps since something else in them had
 * asked. Where the kernel or the CPU has none, the request fails and changes
 * nothing. Wraps: arch_prctl(2), ARCH_REQ_XCOMP_PERM. */
enum { REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };

__attribute__((constructor)) static void ask_for_tiles(void)
{
	(void)syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XTILEDATA);
}
#endif
