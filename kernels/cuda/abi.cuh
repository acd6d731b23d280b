// Everything that the host and the device both read: slots, the ring's lines, corpora, jobs' parameters. `src/abi.rs`
// is the same in Rust; both sides assert sizes and offsets, so neither can change alone. Little-endian, naturally
// aligned, no pointers to functions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace megaring {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i8 = std::int8_t;
using i32 = std::int32_t;

// One slot of any ring (host/ring/src/slot.rs). The accessors below name what a job or a completion keeps in `data`.
struct alignas(128) Slot {
    u64 sequence;         // position + 1
    u64 event_type;       // job: opcode | ABI version << 32; completion: opcode | kind of body << 16
    u64 source_id;        // job: tenant; completion: ticket
    u64 timestamp_ns;     // Unix time
    u64 confidence_bits;  // job: threshold as float64; completion: status | nanoseconds on the device << 16
    u64 data_len;
    u64 data[10];         // the last word repeats the sequence
};
static_assert(sizeof(Slot) == 128 && offsetof(Slot, data) == 48);

constexpr u32 ABI_VERSION = 1;
constexpr u32 JOB_DATA_BYTES = 72;

// A job's slot, word by word of its data (host/ring/src/descriptor.rs).
struct Descriptor {
    u32 corpus, corpus_generation;
    u64 payload_offset, payload_len;
    u32 arena_generation, items;
    u32 k;
    u8 metric, dtype;
    u16 flags;
    u64 deadline_ns;
    u64 result_offset, result_len;
    u32 dim;
    u32 check;  // of the slot's words: `slot_check` in host/ring/src/descriptor.rs
};
static_assert(sizeof(Descriptor) == 72);

enum class Opcode : u32 {
#define MEGARING_OPERATION(number, name) name = number,
#include "operations.inc"
    stop = 0xFFFF,  // the kernel ends once everything before it is done
};
enum Metric : u32 { METRIC_COSINE = 1, METRIC_DOT = 2, METRIC_L2 = 3, METRIC_HAMMING = 4, METRIC_JACCARD = 5 };
enum Status : u32 {
    STATUS_OK = 0,
    STATUS_CANCELLED = 1,
    STATUS_DEADLINE_EXCEEDED = 2,
    STATUS_BAD_DESCRIPTOR = 3,
    STATUS_UNKNOWN_OPCODE = 4,
    STATUS_STALE_CORPUS = 5,
    STATUS_BACKEND_FAILED = 6,
    STATUS_SHUTTING_DOWN = 7,
    STATUS_RESULT_TOO_SMALL = 8,
};
enum BodyKind : u32 { BODY_EMPTY = 0, BODY_ARENA = 1, BODY_HITS = 2 };
enum Flags : u32 { FLAG_ALL_ROWS = 1, FLAG_POINTS = 2, FLAG_QUERY_ROWS = 4, FLAG_HIDDEN = 8 };

// What a search or a nearest job answers (host/core/src/lists.rs).
struct alignas(8) ListHeader {
    u32 count;
    u32 flags;  // EVERY_ROW or 0
};
struct alignas(8) Candidate {
    u32 row;
    float upper;
};
static_assert(sizeof(ListHeader) == 8 && sizeof(Candidate) == 8);
constexpr u32 EVERY_ROW = 1;

// A word with two cache lines of its own. What the other words mean is said where the line is used.
struct alignas(128) Line {
    u64 words[16];
};
static_assert(sizeof(Line) == 128);

enum Command : u64 { COMMAND_RUN = 0, COMMAND_STOP = 1 };
enum KernelState : u64 { STATE_NEVER_RAN = 0, STATE_RUNNING = 1, STATE_ENDED = 2 };
enum EndReason : u64 {
    END_LIMIT = 0,      // the limit position was reached and everything before it is done
    END_STOPPED = 1,    // the host asked for it; everything taken is done
    END_HOST_LOST = 2,  // the host's heartbeat was missing
    END_BUDGET = 3,     // a wait on the device ran out of its budget, or a job stood still
    END_BAD_TAIL = 4,   // the submission tail is no value that the host can have stored
};

// Words of the control line, written by the host.
enum ControlWord : u32 {
    CONTROL_COMMAND = 0,
    CONTROL_LIMIT = 1,         // position at which the kernel ends; NO_LIMIT: it does not
    CONTROL_CLOCK_OFFSET = 2,  // Unix time minus the device's clock in nanoseconds, modulo 2^64; 0: not known yet
};
constexpr u64 NO_LIMIT = ~u64(0);
// Words of the device's heartbeat, written by the device.
enum BeatWord : u32 {
    BEAT_COUNT = 0,
    BEAT_CLOCK = 1,  // the device's clock at that beat, by which the host corrects the offset
};
// Words of the report line, written by the device.
enum ReportWord : u32 {
    REPORT_STATE = 0,
    REPORT_REASON = 1,
    REPORT_POSITION = 2,  // submissions taken so far, when it ended
    REPORT_CLOCK = 3,     // the device's clock at the start, in nanoseconds
    REPORT_FAULTS = 4,    // slots and regions that could not be trusted, since the start
    REPORT_JOBS = 5,      // jobs completed since the start
};

// Where the ring lies, as the device addresses it.
struct RingView {
    Line* submission_tail;  // host writes
    Line* submission_head;  // device writes
    Line* completion_tail;  // device writes
    Line* completion_head;  // host writes
    Line* host_heartbeat;
    Line* device_heartbeat;
    Line* control;
    Line* report;
    Slot* submissions;
    Slot* completions;
    const u64* runs;  // generation << 32 | blocks, for the first block of each leased run
    u8* arena;
    u64 submission_capacity;  // powers of two
    u64 completion_capacity;
    u64 arena_blocks;
    u64 arena_block_bytes;
};
static_assert(sizeof(RingView) == 128);

// Rows of a corpus that lie together: one segment, or one tile of a streamed corpus. Missing parts are null.
struct Segment {
    const u8* codes;            // [group of 16 rows][quad][16 rows][4 elements], code + 128
    const float* columns[3];    // by metric - 1, of bits the first: [group][mul x16, add x16, e1 x16, e2 x16]
    const float* rows;          // row-major, dim wide; or words of bits
    const double* norms2;       // canonical squared norms
    const double* coordinates;  // five columns of `row_count` each
    u32 first_row;
    u32 row_count;
};
static_assert(sizeof(Segment) == 64);

// How a corpus too large for the device's memory comes through it: the host copies tile after tile into two buffers,
// tile t into buffer t mod 2, and says so in `ready`; the device says in `consumed` how many it is done with. Both
// count from the start of the stream.
struct StreamLines {
    Line ready;     // word 0: tiles copied, host writes
    Line consumed;  // word 0: tiles done with, device writes
};

// One version of a corpus: an entry of an open-addressing table on (handle, generation). Handle 0xFFFFFFFF: never used.
struct alignas(128) Corpus {
    u32 handle, generation;
    u32 dim, rows;
    u32 segment_count;
    u32 flags;                // CORPUS_*
    u32 groups;               // of 16 rows, all segments together
    u32 largest_tile;         // streamed: groups of the largest tile; else 0
    double max_norm;          // largest row norm
    const Segment* segments;  // in row order; streamed: one for each tile, with its buffer's codes and columns
    StreamLines* stream;      // streamed: pinned host memory; else null
    u64 stream_session;       // streamed: told apart from the sessions before it, whose counts start anew; never 0
    u64 reserved[8];
};
static_assert(sizeof(Corpus) == 128);

constexpr u32 NO_HANDLE = 0xFFFFFFFF;
enum CorpusFlags : u32 {
    CORPUS_SCREENED = 1,     // codes, and columns of every metric that is not null
    CORPUS_WILD = 2,         // some norm is beyond what the screen bounds: every row is a candidate
    CORPUS_ROWS = 4,         // rows and norms are there
    CORPUS_COORDINATES = 8,  // coordinates are there
    CORPUS_FLOAT32 = 16,     // screen by the float32 rows rather than by codes
};

// The keyword automaton's tables (host/core/src/encode/keyword.rs) in device memory.
struct Automaton {
    const u16* next;      // [state << shift | class]
    const u8* class_of;   // 256
    const u64* accept;    // two words for each state from first_accepting on, low half first
    u32 states, shift, first_accepting;
    u32 warm_up;          // bytes after which the state does not depend on where reading began
};
static_assert(sizeof(Automaton) == 40);

struct JobRecord;
struct DeviceState;

// The kernel's only parameter; constant over a backend's life, so that a graph of the launch can be replayed.
struct KernelParams {
    RingView ring;
    const Corpus* corpora;
    u64 corpora_mask;
    Automaton automaton;
    JobRecord* jobs;
    DeviceState* state;
    u8* scratch;           // job_slots areas
    u64 scratch_bytes;     // of one area
    u32 job_slots;         // power of two
    u32 workers;           // blocks but for the dispatcher
    u32 shared_bytes;      // dynamic shared memory of a block
    u32 reserved;
    u64 budget_ns;         // longest wait of one block for another
    u64 host_timeout_ns;   // 0: the host's heartbeat is not watched
};
static_assert(sizeof(KernelParams) == 248);

}  // namespace megaring
