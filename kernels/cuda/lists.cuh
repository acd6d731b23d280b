// Candidate lists: what a screen leaves of the rows, one list for each query (host/core/src/lists.rs).
#pragma once

#include "plan.cuh"

namespace megaring {

MR_DEVICE u32 list_capacity(u64 items, u64 bytes) {
    const u64 each = bytes / items;
    const u64 capacity = each < sizeof(ListHeader) ? 0 : (each - sizeof(ListHeader)) / sizeof(Candidate);
    return static_cast<u32>(capacity < 0xFFFFFFFF ? capacity : 0xFFFFFFFF);
}

// Every row is a candidate: one chunk says so.
MR_DEVICE Status plan_every_row(JobRecord& job, u32* every_row) {
    *every_row = 1;
    job.prepare_end = job.work_end = 0;
    job.total = 1;
    return STATUS_OK;
}

MR_DEVICE void write_every_row(u8* result, u32 items) {
    ListHeader* headers = reinterpret_cast<ListHeader*>(result);
    for (u32 query = thread_index(); query < items; query += THREADS) store_global(headers + query, ListHeader{0, EVERY_ROW});
}

}  // namespace megaring
