"""Free lists of a prefill and a decode engine, and the descriptors after merging."""
from collections import deque


def merged(left, right):
    n = i = 0
    while i < len(left):
        j = i
        while j + 1 < len(left) and left[j + 1] == left[j] + 1 and right[j + 1] == right[j] + 1:
            j += 1
        n += 1
        i = j + 1
    return n


class Pool:
    def __init__(self, blocks, order, caching):
        self.free_list, self.order, self.caching = deque(range(1, blocks)), order, caching

    def alloc(self, k):
        return [self.free_list.popleft() for _ in range(k)]

    def free(self, blocks, hashed):
        rev = list(reversed(list(enumerate(blocks))))
        if self.order == "fifo":
            self.free_list.extend(b for _, b in rev)
            return
        front = [b for i, b in rev if not self.caching or i >= hashed]
        back = [b for i, b in rev if self.caching and i < hashed]
        for b in reversed(front):
            self.free_list.appendleft(b)
        self.free_list.extend(back)


def run(prefill, decode, tokens, out, order, caching, requests, regions, block=16):
    p, d = Pool(prefill, order, caching), Pool(decode, order, caching)
    result = []
    for _ in range(requests):
        k = -(-tokens // block)
        pb, db = p.alloc(k), d.alloc(k)
        result.append(merged(db, pb) * regions)
        db += d.alloc(-(-(tokens + out - 1) // block) - k)
        p.free(pb, tokens // block)
        d.free(db, (tokens + out - 1) // block)
    return result


for args in [
    (8500, 8500, 8000, 2, "fifo", 0, 40, 56),
    (8500, 8600, 8000, 2, "fifo", 0, 60, 56),
    (4300, 4300, 4000, 2, "fifo", 0, 60, 56),
    (4300, 4300, 4000, 1, "fifo", 0, 60, 56),
    (8500, 8500, 8000, 2, "lifo", 0, 10, 28),
    (8500, 8500, 8000, 1, "lifo", 0, 10, 28),
    (8500, 8500, 8000, 2, "lifo", 1, 40, 28),
    (1000, 1000, 1000, 40, "lifo", 1, 40, 28),
    (1000, 900, 1000, 40, "fifo", 0, 40, 28),
]:
    print(*args, ":", *run(args[0], args[1], args[2], args[3], args[4], bool(args[5]), args[6], args[7]))
