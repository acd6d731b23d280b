// The whole kernel: block 0 dispatches, all others work. The grid must be resident at once (cooperative launch), since
// blocks wait for one another.
//
//   host ── slots ──▶ dispatcher ── job records ──▶ workers ── completions ──▶ host
//         (pinned)                 (device memory)            (pinned)
//
// It runs until the position in the control line, for ever if there is none, and the same code serves every mode: a
// persistent kernel has no limit; one launch for each batch has the tail that the host saw. In both it goes on where
// the queue's lines say that the last one stopped.
#pragma once

#include "dispatcher.cuh"
#include "worker.cuh"

namespace megaring {

MR_DEVICE void run_block(const KernelParams& params) {
    if (block_index() == 0) {
        if (warp_index() == 0) Dispatcher(params).run();
        return;
    }
    u32* mailbox = reinterpret_cast<u32*>(shared_memory() + params.shared_bytes - MAILBOX_BYTES);
    Worker(params, mailbox).run();
}

}  // namespace megaring
