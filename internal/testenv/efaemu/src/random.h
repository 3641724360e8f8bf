/* A small seeded generator (splitmix64, Steele, Lea and Flood 2014), so that a shuffled run can be repeated. */
#ifndef EFAEMU_RANDOM_H
#define EFAEMU_RANDOM_H

#include <stdint.h>

static inline uint64_t emu_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

#endif
