/* Posting work: the classic ibv_post_send and ibv_post_recv, and the wr_* builder of extended queue pairs. */
#ifndef EFAEMU_POST_H
#define EFAEMU_POST_H

#include "emu.h"

/* Entries of ibv_context_ops. */
int emu_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
int emu_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);

/* emu_fill_wr_builder sets qp's wr_* functions. */
void emu_fill_wr_builder(struct ibv_qp_ex *qp);

#endif
