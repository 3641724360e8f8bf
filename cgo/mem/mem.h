#ifndef XFERBENCH_MEM_H
#define XFERBENCH_MEM_H

#include <stddef.h>
#include <stdint.h>

/* How much of a mapping one system call populates or unmaps. The call holds the
 * process's memory lock, for which the Go runtime's own mmap waits meanwhile, and
 * with it all goroutines. */
#define XB_MEM_PART ((size_t)4 << 20)

/* Anonymous memory without pages; huge asks for 2 MiB pages. NULL and errno on
 * failure. */
void *xb_mem_map(size_t len, int huge);
/* Faults len bytes at off in, so that the first transfer does not; off is a
 * multiple of XB_MEM_PART, len that at most. -1 and errno on failure. */
int xb_mem_populate(void *p, size_t off, size_t len, int huge);
int xb_mem_unmap(void *p, size_t len);

/* The payload at byte offset off is a function of off and key alone. */
void xb_pattern_fill(unsigned char *p, size_t len, uint64_t off, uint64_t key);
/* The offset of the first byte of p that is not the payload of off, or len. */
size_t xb_pattern_check(const unsigned char *p, size_t len, uint64_t off, uint64_t key);
/* What a transfer wrote: len bytes at offset at are those of the source's offset from. */
struct xb_span {
	uint64_t at, from, len;
};
/* The same over n spans of base. Returns n when all is right, else the span's index
 * and *at, the offset within it. */
uint64_t xb_pattern_check_spans(const unsigned char *base, const struct xb_span *spans, uint64_t n, uint64_t key, uint64_t *at);

#endif
