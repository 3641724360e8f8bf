#ifndef XFERBENCH_WORK_H
#define XFERBENCH_WORK_H

#include <stdint.h>

/* Reads the clock until ns have passed; how many did. */
int64_t xb_work(int64_t ns);

#endif
