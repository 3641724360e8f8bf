/* The port's traffic counters, as the kernel driver shows them under ports/1/hw_counters. They belong to the device:
 * all processes of the scratch tree count into the same ones, as two processes of one instance would. */
#ifndef EFAEMU_COUNTERS_H
#define EFAEMU_COUNTERS_H

#include <stdint.h>

enum emu_counter {
	COUNTER_TX_BYTES,
	COUNTER_TX_PKTS,
	COUNTER_RX_BYTES,
	COUNTER_RX_PKTS,
	COUNTER_RX_DROPS,
	COUNTER_SEND_BYTES,
	COUNTER_SEND_WRS,
	COUNTER_RECV_BYTES,
	COUNTER_RECV_WRS,
	COUNTER_RDMA_READ_WRS,
	COUNTER_RDMA_READ_BYTES,
	COUNTER_RDMA_READ_WR_ERR,
	COUNTER_RDMA_READ_RESP_BYTES,
	COUNTER_RDMA_WRITE_WRS,
	COUNTER_RDMA_WRITE_BYTES,
	COUNTER_RDMA_WRITE_WR_ERR,
	COUNTER_RDMA_WRITE_RECV_BYTES,
	COUNTER_COUNT,
};

void counters_add(uint32_t dev, enum emu_counter counter, uint64_t n);

/* counters_payload counts length bytes, cut into packets, as sent by device from and received by device to. */
void counters_payload(uint32_t from, uint32_t to, uint64_t length);

/* counters_publish writes what changed on any device to its files. Called before completions are handed out, so that
 * whoever knows of a transfer's end finds it counted. */
void counters_publish(void);

#endif
