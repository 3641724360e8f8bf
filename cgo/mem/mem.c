#define _GNU_SOURCE
#include "mem.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14; headers older than glibc 2.35 lack it */
#endif
#define HUGE_PAGE (2u << 20)

static size_t whole_pages(size_t len) { return (len + HUGE_PAGE - 1) & ~(size_t)(HUGE_PAGE - 1); }

void *xb_mem_map(size_t len, int huge)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	void *p;

	if (huge)
		flags |= MAP_HUGETLB | (21 << MAP_HUGE_SHIFT);
	p = mmap(NULL, whole_pages(len), PROT_READ | PROT_WRITE, flags, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	/* Small pages cost a copying transport several percent; what a kernel does
	 * not have it ignores. */
	if (!huge)
		madvise(p, whole_pages(len), MADV_HUGEPAGE);
	return p;
}

int xb_mem_populate(void *p, size_t off, size_t len, int huge)
{
	char *at = (char *)p + off;

	/* A huge page that the pool lacks is an error from madvise, not a SIGBUS
	 * later. */
	if (!madvise(at, whole_pages(len), MADV_POPULATE_WRITE))
		return 0;
	if (errno != EINVAL || huge)
		return -1;
	memset(at, 0, len); /* a kernel before 5.14 */
	return 0;
}

int xb_mem_unmap(void *p, size_t len)
{
	size_t left = whole_pages(len);

	while (left) {
		size_t n = left < XB_MEM_PART ? left : XB_MEM_PART;

		left -= n;
		if (munmap((char *)p + left, n))
			return -1;
	}
	return 0;
}

/* splitmix64's finaliser over the word's number and the key: neighbours,
 * iterations and seeds share no bytes. */
static inline uint64_t word(uint64_t index, uint64_t key)
{
	uint64_t x = (index + key) * 0x9E3779B97F4A7C15ull;

	x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
	return x ^ (x >> 31);
}

static inline unsigned char byte_at(uint64_t off, uint64_t key)
{
	uint64_t w = word(off >> 3, key);
	unsigned char b[8];

	memcpy(b, &w, 8);
	return b[off & 7];
}

void xb_pattern_fill(unsigned char *p, size_t len, uint64_t off, uint64_t key)
{
	size_t i = 0;

	for (; i < len && ((off + i) & 7); i++)
		p[i] = byte_at(off + i, key);
	for (; i + 8 <= len; i += 8) {
		uint64_t w = word((off + i) >> 3, key);

		memcpy(p + i, &w, 8);
	}
	for (; i < len; i++)
		p[i] = byte_at(off + i, key);
}

size_t xb_pattern_check(const unsigned char *p, size_t len, uint64_t off, uint64_t key)
{
	size_t i = 0;

	for (; i < len && ((off + i) & 7); i++)
		if (p[i] != byte_at(off + i, key))
			return i;
	for (; i + 8 <= len; i += 8) {
		uint64_t w = word((off + i) >> 3, key);

		if (memcmp(p + i, &w, 8))
			break; /* the byte loop finds the place */
	}
	for (; i < len; i++)
		if (p[i] != byte_at(off + i, key))
			return i;
	return len;
}

uint64_t xb_pattern_check_spans(const unsigned char *base, const struct xb_span *spans, uint64_t n, uint64_t key, uint64_t *at)
{
	for (uint64_t i = 0; i < n; i++) {
		*at = xb_pattern_check(base + spans[i].at, spans[i].len, spans[i].from, key);
		if (*at != spans[i].len)
			return i;
	}
	return n;
}
