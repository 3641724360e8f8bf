/* What the device's hardware does: carries out posted work, and takes in packets. */
#ifndef EFAEMU_ENGINE_H
#define EFAEMU_ENGINE_H

#include "qp.h"

/* emu_engine_submit hands a list of requests to the device. */
void emu_engine_submit(struct emu_qp *qp, struct emu_send_wr *head);

/* emu_engine_progress carries on with qp's work in flight and receives its packets. */
void emu_engine_progress(struct emu_qp *qp);

#endif
