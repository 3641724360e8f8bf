/* Packets between queue pairs: one Unix datagram socket a queue pair, bound in the scratch folder, so that they reach
 * every process that shares it, whatever its network namespace, and vanish with it. */
#ifndef EFAEMU_WIRE_H
#define EFAEMU_WIRE_H

#include <sys/types.h>
#include <sys/uio.h>

#include "emu.h"

enum emu_packet_kind {
	EMU_PACKET_SEND = 1,      /* carries a send's payload */
	EMU_PACKET_WRITE_IMM = 2, /* carries the immediate of an RDMA write whose data is already there */
};

struct emu_packet_header {
	union ibv_gid sgid;
	uint32_t src_qpn;
	uint32_t length; /* bytes of payload, or of the RDMA write */
	__be32 imm;
	uint8_t kind;
	uint8_t has_imm;
	uint8_t unsolicited; /* consumes no posted receive */
	uint8_t reserved;
};

/* emu_wire_open binds the socket of queue pair qpn. -1: errno says why. */
int emu_wire_open(uint32_t qpn);
void emu_wire_close(int fd, uint32_t qpn);

/* emu_wire_send sends one packet to queue pair qpn. 0, or EAGAIN: the peer's socket is full for now, or another errno:
 * nobody is there any more. */
int emu_wire_send(int fd, uint32_t qpn, const struct emu_packet_header *header, const struct iovec *payload, uint32_t num);

/* emu_wire_alive tells whether a process has queue pair qpn's socket open. */
bool emu_wire_alive(uint32_t qpn);

/* emu_wire_peek looks at the next packet's header without taking it. False: there is none. */
bool emu_wire_peek(int fd, struct emu_packet_header *header);

/* emu_wire_receive takes the next packet. False if its payload did not fit; what fits is stored. */
bool emu_wire_receive(int fd, struct emu_packet_header *header, const struct iovec *payload, uint32_t num);

#endif
