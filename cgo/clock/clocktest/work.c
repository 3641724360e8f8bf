#include "work.h"

#include <time.h>

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t xb_work(int64_t ns)
{
	int64_t begin = now(), end;

	do
		end = now();
	while (end - begin < ns);
	return end - begin;
}
