// Encode: each text's keywords, by the host's automaton (host/core/src/encode/keyword.rs) on every byte. The host makes
// coordinates of them.
//
//   PREPARE  a chunk checks a run of the texts' offsets, copies them into scratch, and zeroes their masks there
//   WORK     a chunk is a run of spans: 256 slices of text, one for each thread, brought into shared memory together
//   FINISH   a chunk copies a run of masks out
//
// The state at a byte depends on the bytes before it, but not on those further back than `warm_up`: a thread begins
// that far before its slice, or at its text's start where that is nearer, and is then in the state that a reader of the
// whole text is in. So texts are shared out by bytes alone, however long they are. A slice is an odd number of words
// long, so lanes that go along together are on different banks.
//
// Positions count from the piece of 16 bytes in which the text begins (`lead` bytes before it), for aligned copies.
#pragma once

#include "stage.cuh"

namespace megaring {

// Words of a slice: with fewer the warm-up is most of the work, with more few blocks have any.
constexpr u32 LEAST_SLICE_WORDS = 9;
constexpr u32 MOST_SLICE_WORDS = 33;
// Texts of a PREPARE or FINISH chunk.
constexpr u32 CHUNK_TEXTS = 4096;
constexpr u32 MASK_WORDS = 4;
// Of texts, too: so that positions and the ends of spans stay within 32 bits.
constexpr u64 MOST_TEXT_BYTES = u64(1) << 31;

struct EncodePlan {
    u64 offsets, masks;  // byte offsets in the scratch area; NOWHERE: no room
    u32 items;
    u32 lead;         // bytes between the text's first piece of 16 and the text
    u32 text_bytes;
    u32 slice, spans;  // bytes of one thread, and runs of slices that a block scans at a time
    u32 tables_shared;
};

MR_DEVICE u32 class_bytes() { return 256; }
MR_DEVICE u32 next_bytes(const Automaton& automaton) {
    return align_up((automaton.states << automaton.shift) * u32(sizeof(u16)), PIECE_BYTES);
}
// What of the text before a span is brought along.
MR_DEVICE u32 warm_up_bytes(const Automaton& automaton) { return align_up(automaton.warm_up, PIECE_BYTES); }

// The longest slice, in bytes, for which a span fits into `room` bytes of shared memory, up to the one wished for; 0 if
// there is none.
MR_DEVICE u32 fitting_slice(u32 words, u32 warm_up, u32 room) {
    while (words >= LEAST_SLICE_WORDS && warm_up + words * 4 * THREADS > room) words -= 2;
    return words >= LEAST_SLICE_WORDS ? words * 4 : 0;
}

// Chooses the slices, and whether the tables are copied to shared memory too, where a look-up takes a tenth of the
// time. False if not even one span fits.
MR_DEVICE bool lay_spans(const KernelParams& params, EncodePlan& plan) {
    const Automaton& automaton = params.automaton;
    const u32 room = params.shared_bytes - MAILBOX_BYTES, warm_up = warm_up_bytes(automaton);
    const u32 tables = class_bytes() + next_bytes(automaton);
    const u32 even = plan.text_bytes / (4 * THREADS * larger(params.workers, 1));
    const u32 words = smaller(larger(even, LEAST_SLICE_WORDS), MOST_SLICE_WORDS) | 1;
    plan.tables_shared = tables < room && fitting_slice(words, warm_up, room - tables) != 0;
    plan.slice = fitting_slice(words, warm_up, plan.tables_shared ? room - tables : room);
    if (plan.slice == 0) return false;
    plan.spans = divide_up(plan.lead + plan.text_bytes, plan.slice * THREADS);
    return true;
}

MR_DEVICE Status plan_encode(const KernelParams& params, JobRecord& job) {
    const Descriptor& descriptor = descriptor_of(job);
    EncodePlan& plan = plan_in<EncodePlan>(job);
    if (descriptor.items >= MOST_TEXT_BYTES) return STATUS_BAD_DESCRIPTOR;
    const u64 before = (u64(descriptor.items) + 1) * sizeof(u64);
    const u64 mask_bytes = u64(descriptor.items) * MASK_WORDS * sizeof(u32);
    if (descriptor.payload_len < before || descriptor.payload_len - before >= MOST_TEXT_BYTES) {
        return STATUS_BAD_DESCRIPTOR;
    }
    if (descriptor.result_len < mask_bytes) return STATUS_RESULT_TOO_SMALL;
    plan.items = descriptor.items;
    plan.lead = static_cast<u32>(before % PIECE_BYTES);
    plan.text_bytes = static_cast<u32>(descriptor.payload_len - before);
    Layout layout;
    plan.offsets = take_if_room(layout, before / sizeof(u64) * sizeof(u32), params.scratch_bytes);
    plan.masks = take_if_room(layout, mask_bytes, params.scratch_bytes);
    const bool shared_out = plan.offsets != NOWHERE && plan.masks != NOWHERE && lay_spans(params, plan);
    if (!shared_out) plan.offsets = plan.masks = NOWHERE;
    job.prepare_end = descriptor.items / CHUNK_TEXTS + 1;
    job.work_end = job.prepare_end + (shared_out ? smaller(plan.spans, 4 * params.workers) : 0);
    job.total = job.work_end + divide_up(larger(descriptor.items, 1), CHUNK_TEXTS);
    return STATUS_OK;
}

MR_DEVICE const u64* offsets_of(const KernelParams& params, const JobRecord& job) {
    return reinterpret_cast<const u64*>(payload_of(params, job));
}

// Checks that offsets rise from 0 to the text's length and copies them, two at a time. All lanes of a warp together.
MR_DEVICE_CALL void prepare_encode(const KernelParams& params, JobRecord& job, u32 chunk) {
    const EncodePlan& plan = plan_in<EncodePlan>(job);
    const u64* offsets = offsets_of(params, job);
    const bool stages = plan.offsets != NOWHERE;
    u32* staged = reinterpret_cast<u32*>(job.scratch + plan.offsets);
    const u32 first = chunk * CHUNK_TEXTS, count = smaller(plan.items + 1 - first, CHUNK_TEXTS);
    bool rising = true;
    for (u32 base = 0; base < count; base += 2 * THREADS) {
        const u32 at = base + 2 * thread_index();
        const bool one = at < count, two = at + 1 < count;
        const Piece pair = one ? load_global(reinterpret_cast<const Piece*>(offsets + first) + at / 2) : Piece{0, 0};
        u64 before = warp_shuffle(pair.high, lane_index() == 0 ? 0 : lane_index() - 1);
        if (lane_index() == 0 && one) before = first + at == 0 ? 0 : load_global(offsets + first + at - 1);
        if (one) rising = rising && before <= pair.low && (first + at != 0 || pair.low == 0);
        if (two) rising = rising && pair.low <= pair.high;
        const u64 last = two ? pair.high : pair.low;
        if (one && first + at + (two ? 1 : 0) == plan.items) rising = rising && last == plan.text_bytes;
        if (stages && one) store_global(staged + first + at, static_cast<u32>(pair.low));
        if (stages && two) store_global(staged + first + at + 1, static_cast<u32>(pair.high));
    }
    if (!rising) fail(job, STATUS_BAD_DESCRIPTOR);
    if (plan.masks == NOWHERE) return;
    Piece* masks = reinterpret_cast<Piece*>(job.scratch + plan.masks);
    for (u32 at = thread_index(); at < count; at += THREADS) {
        if (first + at < plan.items) store_global(masks + first + at, Piece{0, 0});
    }
}

// The automaton's tables: in device memory, or in shared memory from its first byte on. Which one is known when this is
// compiled, since a load that must find out takes longer, and a byte of text takes three in a row.
template <bool SHARED>
class Tables {
  public:
    MR_DEVICE explicit Tables(const Automaton& automaton)
        : next_(global(automaton.next)),
          class_of_(global(automaton.class_of)),
          accept_(reinterpret_cast<const u32*>(global(automaton.accept))),
          classes_at_(next_bytes(automaton)),
          shift_(automaton.shift),
          first_accepting_(automaton.first_accepting) {}

    MR_DEVICE u32 step(u32 state, u8 byte) const {
        if constexpr (SHARED) {
            const u32 column = (shared_memory() + classes_at_)[byte];
            return reinterpret_cast<const u16*>(shared_memory())[state << shift_ | column];
        } else {
            return next_[state << shift_ | class_of_[byte]];
        }
    }
    MR_DEVICE bool accepts(u32 state) const { return state >= first_accepting_; }
    // The four words of an accepting state.
    MR_DEVICE const u32* accept(u32 state) const { return accept_ + (state - first_accepting_) * MASK_WORDS; }

  private:
    const u16* next_;
    const u8* class_of_;
    const u32* accept_;
    u32 classes_at_, shift_, first_accepting_;
};

// The words found in one text so far.
struct FoundWords {
    u32 words[MASK_WORDS] = {};

    template <typename Tables>
    MR_DEVICE void add(const Tables& tables, u32 state) {
        const u32* accept = tables.accept(state);
        MR_UNROLL
        for (u32 at = 0; at < MASK_WORDS; ++at) words[at] |= accept[at];
    }

    // Adds them to a text's mask, which other threads may be adding to, and starts anew.
    MR_DEVICE void flush(u32* mask) {
        MR_UNROLL
        for (u32 at = 0; at < MASK_WORDS; ++at) {
            if (words[at] != 0) device_or(mask + at, words[at]);
            words[at] = 0;
        }
    }
};

// Brings text to shared memory, by a whole block.
MR_DEVICE_CALL void bring_text(u32 to, const u8* from, u64 bytes) { copy_pieces(shared_memory() + to, from, 0, bytes); }

// A run of spans, by one block.
template <bool SHARED>
class TextScan {
  public:
    MR_DEVICE TextScan(const KernelParams& params, const JobRecord& job)
        : plan_(plan_in<EncodePlan>(job)), tables_(params.automaton) {
        warm_up_ = params.automaton.warm_up;
        warm_up_bytes_ = warm_up_bytes(params.automaton);
        offsets_ = reinterpret_cast<const u32*>(global(job.scratch) + plan_.offsets);
        masks_ = reinterpret_cast<u32*>(global(job.scratch) + plan_.masks);
        pieces_ = payload_of(params, job) + ((plan_.items + u64(1)) * sizeof(u64) - plan_.lead);
        text_at_ = SHARED ? next_bytes(params.automaton) + class_bytes() : 0;
        if constexpr (SHARED) stage_tables(params.automaton);
    }

    MR_DEVICE void run(u32 span) {
        const u32 bytes = plan_.slice * THREADS, begin = span * bytes;
        const u32 end = smaller(begin + bytes, plan_.lead + plan_.text_bytes);
        staged_from_ = begin < warm_up_bytes_ ? 0 : begin - warm_up_bytes_;
        // Nobody reads the span before any more.
        block_sync();
        bring_text(text_at_, pieces_ + staged_from_, align_to_piece(end - staged_from_));
        block_sync();
        const u32 first = begin + thread_index() * plan_.slice;
        scan(larger(first, plan_.lead), smaller(first + plan_.slice, end));
    }

  private:
    MR_DEVICE void stage_tables(const Automaton& automaton) {
        // Two entries at a time: an odd one at the end has a neighbour, since allocations are whole pieces.
        const u32 words = divide_up(automaton.states << automaton.shift, 2);
        const u32* from = reinterpret_cast<const u32*>(global(automaton.next));
        u32* next = reinterpret_cast<u32*>(shared_memory());
        constexpr u32 TOGETHER = 8;
        for (u32 base = thread_index(); base < words; base += TOGETHER * THREADS) {
            u32 held[TOGETHER];
            MR_UNROLL
            for (u32 at = 0; at < TOGETHER; ++at) held[at] = load_global(from + smaller(base + at * THREADS, words - 1));
            MR_UNROLL
            for (u32 at = 0; at < TOGETHER; ++at) {
                if (base + at * THREADS < words) store_shared(next + base + at * THREADS, held[at]);
            }
        }
        if (thread_index() < class_bytes()) {
            store_shared(shared_memory() + next_bytes(automaton) + thread_index(),
                         load_global(global(automaton.class_of) + thread_index()));
        }
    }

    // The text that a position lies in: the last that begins at it or before. It is not empty.
    MR_DEVICE u32 text_at(u32 position) const {
        u32 low = 0, count = plan_.items;
        while (count > 1) {
            const u32 half = count / 2;
            if (plan_.lead + load_global(offsets_ + low + half) <= position) low += half;
            count -= half;
        }
        return low;
    }

    // The words that end within begin..end.
    MR_DEVICE void scan(u32 begin, u32 end) const {
        if (begin >= end) return;
        u32 text = text_at(begin);
        const u32 start = plan_.lead + load_global(offsets_ + text);
        u32 text_end = plan_.lead + load_global(offsets_ + text + 1);
        u32 at = begin - start < warm_up_ ? start : begin - warm_up_;
        u32 state = 0;
        FoundWords found;
        for (; at < end; ++at) {
            if (at == text_end) {
                found.flush(masks_ + u64(text) * MASK_WORDS);
                state = 0;
                // Empty texts lie on the way.
                while (at == text_end) text_end = plan_.lead + load_global(offsets_ + ++text + 1);
            }
            state = tables_.step(state, shared_memory()[text_at_ + at - staged_from_]);
            if (tables_.accepts(state) && at >= begin) found.add(tables_, state);
        }
        found.flush(masks_ + u64(text) * MASK_WORDS);
    }

    const EncodePlan& plan_;
    Tables<SHARED> tables_;
    u32 warm_up_, warm_up_bytes_;
    const u32* offsets_;
    u32* masks_;
    const u8* pieces_;
    u32 text_at_;  // of the span's text, in shared memory
    u32 staged_from_ = 0;
};

template <bool SHARED>
MR_DEVICE void scan_spans(const KernelParams& params, JobRecord& job, u32 chunk) {
    const u32 chunks = job.work_end - job.prepare_end, spans = plan_in<EncodePlan>(job).spans;
    TextScan<SHARED> scan(params, job);
    for (u32 span = cut(spans, chunks, chunk); span < cut(spans, chunks, chunk + 1); ++span) scan.run(span);
}

MR_DEVICE_CALL void work_encode(const KernelParams& params, JobRecord& job, u32 chunk) {
    if (plan_in<EncodePlan>(job).tables_shared) scan_spans<true>(params, job, chunk);
    else scan_spans<false>(params, job, chunk);
}

// Without room in scratch: a thread to a text, read and answered where it lies.
MR_DEVICE_CALL void scan_whole_texts(const KernelParams& params, JobRecord& job, u32 first, u32 end) {
    const u64* offsets = offsets_of(params, job);
    const u8* bytes = reinterpret_cast<const u8*>(offsets + plan_in<EncodePlan>(job).items + 1);
    const Tables<false> tables(params.automaton);
    Piece* out = reinterpret_cast<Piece*>(result_of(params, job));
    for (u32 text = first + thread_index(); text < end; text += THREADS) {
        FoundWords found;
        u32 state = 0;
        for (u64 at = offsets[text]; at < offsets[text + 1]; ++at) {
            state = tables.step(state, bytes[at]);
            if (tables.accepts(state)) found.add(tables, state);
        }
        out[text] = Piece{found.words[0] | u64(found.words[1]) << 32, found.words[2] | u64(found.words[3]) << 32};
    }
}

MR_DEVICE void finish_encode(const KernelParams& params, JobRecord& job, u32 chunk) {
    const EncodePlan& plan = plan_in<EncodePlan>(job);
    const u32 first = chunk * CHUNK_TEXTS, end = smaller(plan.items, first + CHUNK_TEXTS);
    if (plan.masks == NOWHERE) return scan_whole_texts(params, job, first, end);
    copy_pieces(result_of(params, job), job.scratch + plan.masks, u64(first) * PIECE_BYTES, u64(end) * PIECE_BYTES);
}

template <>
struct Operation<Opcode::encode> {
    static constexpr bool AT_ONCE = false;

    static MR_DEVICE Status plan(const KernelParams& params, JobRecord& job, StreamPlace&) {
        return plan_encode(params, job);
    }

    static MR_DEVICE void run(const KernelParams& params, JobRecord& job, Phase phase, u32 chunk) {
        if (phase == PHASE_PREPARE) prepare_encode(params, job, chunk);
        else if (phase == PHASE_WORK) work_encode(params, job, chunk);
        else finish_encode(params, job, chunk);
    }
};

}  // namespace megaring
