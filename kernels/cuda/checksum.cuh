// Checksum: CRC-32C and xxHash64 of byte strings (host/core/src/checksum.rs), a thread to a string.
//
//   PREPARE  a chunk copies a run of the payload into scratch
//   FINISH   a chunk is a run of strings: the block makes the CRC's tables in shared memory, then each thread takes
//            the string of its number, 32 bytes at a time
//
// xxHash64 can only be had in order, so a string is no more than one thread's work. CRC-32C goes by eight bytes and
// eight tables ("slicing by 8": Kounavis and Berry, 2005). Each thread checks the two offsets that it goes by; together
// they see whether all rise from 0 to the end.
#pragma once

#include "stage.cuh"

namespace megaring {

constexpr u32 CRC_TABLES = 8, CRC_ENTRIES = 256;
constexpr u32 CRC32C_REFLECTED = 0x82F63B78;
constexpr u32 STRIPE_BYTES = 32;
constexpr u64 PRIME_1 = 0x9E3779B185EBCA87, PRIME_2 = 0xC2B2AE3D27D4EB4F, PRIME_3 = 0x165667B19E3779F9;
constexpr u64 PRIME_4 = 0x85EBCA77C2B2AE63, PRIME_5 = 0x27D4EB2F165667C5;

struct ChecksumPlan {
    u64 payload;  // byte offset in the scratch area of a copy; NOWHERE: no room
    u64 payload_bytes;
    u64 content_bytes;
    u32 items;
};

MR_DEVICE Status plan_checksum(const KernelParams& params, JobRecord& job) {
    const Descriptor& descriptor = descriptor_of(job);
    ChecksumPlan& plan = plan_in<ChecksumPlan>(job);
    const u64 before = (u64(descriptor.items) + 1) * sizeof(u64);
    if (descriptor.payload_len < before) return STATUS_BAD_DESCRIPTOR;
    if (descriptor.result_len / sizeof(Piece) < descriptor.items) return STATUS_RESULT_TOO_SMALL;
    plan.items = descriptor.items;
    plan.content_bytes = descriptor.payload_len - before;
    plan.payload_bytes = align_to_piece(descriptor.payload_len);
    Layout layout;
    plan.payload = take_if_room(layout, plan.payload_bytes, params.scratch_bytes);
    const u64 copies = plan.payload == NOWHERE ? 0 : (plan.payload_bytes + STAGE_BYTES - 1) / STAGE_BYTES;
    job.prepare_end = job.work_end = static_cast<u32>(copies);
    job.total = job.work_end + divide_up(larger(descriptor.items, 1), THREADS);
    return STATUS_OK;
}

// The tables: entry `byte` of table `t` is the CRC of that byte and `t` zero bytes after it. Ends with a barrier.
MR_DEVICE const u32* crc_tables() {
    u32* tables = reinterpret_cast<u32*>(shared_memory());
    for (u32 byte = thread_index(); byte < CRC_ENTRIES; byte += THREADS) {
        u32 crc = byte;
        for (u32 bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? CRC32C_REFLECTED : 0);
        tables[byte] = crc;
    }
    block_sync();
    for (u32 byte = thread_index(); byte < CRC_ENTRIES; byte += THREADS) {
        u32 crc = tables[byte];
        for (u32 table = 1; table < CRC_TABLES; ++table) {
            crc = crc >> 8 ^ tables[crc & 0xFF];
            tables[table * CRC_ENTRIES + byte] = crc;
        }
    }
    block_sync();
    return tables;
}

MR_DEVICE u32 crc_byte(const u32* tables, u32 crc, u32 byte) { return crc >> 8 ^ tables[(crc ^ byte) & 0xFF]; }

MR_DEVICE u32 crc_word(const u32* tables, u32 crc, u64 word) {
    word ^= crc;
    u32 next = 0;
    MR_UNROLL
    for (u32 byte = 0; byte < 8; ++byte) {
        next ^= tables[(CRC_TABLES - 1 - byte) * CRC_ENTRIES + (word >> 8 * byte & 0xFF)];
    }
    return next;
}

MR_DEVICE u64 rotated(u64 value, u32 by) { return value << by | value >> (64 - by); }
MR_DEVICE u64 xxhash_round(u64 lane, u64 word) {
    return rotated(lane + word * PRIME_2, 31) * PRIME_1;
}

// Eight bytes of a string, wherever they begin: all within it, and only words that hold some of them are read.
MR_DEVICE u64 word_at(const u8* content) {
    const u64 address = reinterpret_cast<u64>(content);
    const u64* words = reinterpret_cast<const u64*>(address & ~u64(7));
    const u32 shift = static_cast<u32>(address & 7) * 8;
    if (shift == 0) return load_global(words);
    return load_global(words) >> shift | load_global(words + 1) << (64 - shift);
}
MR_DEVICE u32 u32_at(const u8* content) {
    return content[0] | content[1] << 8 | content[2] << 16 | static_cast<u32>(content[3]) << 24;
}

// Both checksums: the CRC in the low word of the first half.
MR_DEVICE Piece checksums(const u32* tables, const u8* content, u64 length) {
    const u8* const end = content + length;
    u32 crc = ~u32(0);
    u64 hash = PRIME_5;
    if (length >= STRIPE_BYTES) {
        u64 lanes[4] = {PRIME_1 + PRIME_2, PRIME_2, 0, u64(0) - PRIME_1};
        for (; u64(end - content) >= STRIPE_BYTES; content += STRIPE_BYTES) {
            MR_UNROLL
            for (u32 lane = 0; lane < 4; ++lane) {
                const u64 word = word_at(content + 8 * lane);
                crc = crc_word(tables, crc, word);
                lanes[lane] = xxhash_round(lanes[lane], word);
            }
        }
        hash = rotated(lanes[0], 1) + rotated(lanes[1], 7) + rotated(lanes[2], 12) + rotated(lanes[3], 18);
        MR_UNROLL
        for (u32 lane = 0; lane < 4; ++lane) {
            hash = (hash ^ xxhash_round(0, lanes[lane])) * PRIME_1 + PRIME_4;
        }
    }
    hash += length;
    for (; end - content >= 8; content += 8) {
        const u64 word = word_at(content);
        crc = crc_word(tables, crc, word);
        hash = rotated(hash ^ xxhash_round(0, word), 27) * PRIME_1 + PRIME_4;
    }
    if (end - content >= 4) {
        const u32 word = u32_at(content);
        hash = rotated(hash ^ word * PRIME_1, 23) * PRIME_2 + PRIME_3;
        for (u32 byte = 0; byte < 4; ++byte) crc = crc_byte(tables, crc, word >> 8 * byte);
        content += 4;
    }
    for (; content != end; ++content) {
        crc = crc_byte(tables, crc, *content);
        hash = rotated(hash ^ *content * PRIME_5, 11) * PRIME_1;
    }
    hash = (hash ^ hash >> 33) * PRIME_2;
    hash = (hash ^ hash >> 29) * PRIME_3;
    return Piece{~crc, hash ^ hash >> 32};
}

MR_DEVICE_CALL void finish_checksum(const KernelParams& params, JobRecord& job, u32 chunk) {
    const ChecksumPlan& plan = plan_in<ChecksumPlan>(job);
    const u32* tables = crc_tables();
    const u8* payload = plan.payload == NOWHERE ? payload_of(params, job) : job.scratch + plan.payload;
    const u64* offsets = reinterpret_cast<const u64*>(payload);
    const u64 item = u64(chunk) * THREADS + thread_index();
    if (item >= plan.items) {
        if (plan.items == 0 && item == 0 && (offsets[0] != 0 || plan.content_bytes != 0)) {
            fail(job, STATUS_BAD_DESCRIPTOR);
        }
        return;
    }
    const u64 begin = load_global(offsets + item), end = load_global(offsets + item + 1);
    const bool first_holds = item != 0 || begin == 0;
    const bool last_holds = item + 1 != plan.items || end == plan.content_bytes;
    if (begin > end || end > plan.content_bytes || !first_holds || !last_holds) return fail(job, STATUS_BAD_DESCRIPTOR);
    const u8* contents = reinterpret_cast<const u8*>(offsets + plan.items + 1);
    store_global(reinterpret_cast<Piece*>(result_of(params, job)) + item,
                 checksums(tables, contents + begin, end - begin));
}

template <>
struct Operation<Opcode::checksum> {
    static constexpr bool AT_ONCE = false;

    static MR_DEVICE Status plan(const KernelParams& params, JobRecord& job, StreamPlace&) {
        return plan_checksum(params, job);
    }

    static MR_DEVICE void run(const KernelParams& params, JobRecord& job, Phase phase, u32 chunk) {
        const ChecksumPlan& plan = plan_in<ChecksumPlan>(job);
        if (phase != PHASE_PREPARE) return finish_checksum(params, job, chunk);
        copy_chunk(job.scratch + plan.payload, payload_of(params, job), 0, plan.payload_bytes, chunk);
    }
};

}  // namespace megaring
