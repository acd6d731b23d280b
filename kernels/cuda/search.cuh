// Search: the rows that may be among the k best, with bounds; the host makes the answer exact.
//
//   PREPARE  a chunk is eight queries: quantised into codes and bounds, or made of the rows that they are, one a warp
//   WORK     a chunk is a tile of queries (8, or 64 where there are more) against a share of the rows; of a streamed
//            corpus, against a share of one tile of rows, the lists going on from tile to tile
//   FINISH   a chunk is one query, or eight where there are more queries than blocks, or nothing to merge: its lists
//            become the answer's
//
// The screen is by int8 codes (screen.cuh), by the float32 rows where the corpus asks for that (screen_float32.cuh), or
// by rows of bits (screen_bits.cuh).
//
// Few queries are shared out by rows, so that one query is spread over all blocks; many are shared out by query, and
// nothing needs merging.
#pragma once

#include "lists.cuh"
#include "screen_bits.cuh"
#include "screen_float32.cuh"
#include "stage.cuh"

namespace megaring {

// Shared memory: the slab of codes, then the tile's state. FINISH has cells in the slab's place, and the state's words.
constexpr u32 SEARCH_SHARED_BYTES = SLAB_BYTES + sizeof(TileState);
static_assert(SEARCH_SHARED_BYTES + MAILBOX_BYTES <= 40 << 10, "the least that a device is asked for (src/driver.rs)");
// What a team keeps at hand of the shares' heads while it merges them: a block as many as its histogram leaves room for
// in the tile's state, a warp in front of its near cells. Warps merge where there are more queries than blocks; since a
// tile has `MOST_QUERIES` of them, there are fewer shares than that.
struct Share {
    u32 count;
    float best, highest;
};
constexpr u32 MOST_SPLITS = (WARPS - 1) * BINS * sizeof(u32) / sizeof(Share);
constexpr u32 MOST_SPLITS_OF_WARP = MOST_QUERIES;
// A share of rows is at least this many groups, if there are as many.
constexpr u32 LEAST_GROUPS = 2;
// From this many groups on, a warp takes two at a time.
constexpr u32 WIDE_GROUPS = 32;

struct SearchPlan {
    const Segment* segments;
    double threshold;  // the caller's, as a score
    double max_norm;
    u64 codes, params, shared_thresholds, heads, cells, raw;  // byte offsets in the scratch area
    u32 segment_count, groups;
    u32 items, dim, quads, steps;
    u32 k, metric, capacity, room;
    u32 query_tile, query_tiles, splits;
    u32 every_row, streamed;
    u32 by_values;  // whether the screen is by the rows themselves: float32, or bits
    u32 by_warp;  // a query's shares are merged by a warp, eight queries in a chunk of FINISH
    u32 by_row, rows;  // whether the queries are rows of the corpus, and how many it has
};

// Lays the scratch area for a number of shares; false if it does not fit.
MR_DEVICE bool lay_search(SearchPlan& plan, u64 scratch_bytes, u32 splits) {
    const u32 row_tile = 2 * WARPS * GROUP_ROWS;
    const u64 most = u64(plan.capacity) + row_tile;
    // A streamed corpus's lists go on through all tiles.
    const u64 share_rows = plan.streamed ? most : (plan.groups / splits + 1) * u64(GROUP_ROWS);
    Layout layout;
    plan.splits = splits;
    plan.room = static_cast<u32>(share_rows < most ? share_rows : most);
    plan.codes = layout.take(u64(divide_up(plan.items, 8)) * plan.steps * STEP_WORDS * sizeof(u32));
    plan.params = layout.take(align_up(plan.items, 8) * u64(sizeof(QueryParams)));
    plan.shared_thresholds = layout.take(plan.items * u64(sizeof(i32)));
    plan.heads = layout.take(u64(splits) * plan.items * sizeof(Head));
    const u64 cells = u64(splits) * plan.items * plan.room * sizeof(Cell),
              raw = u64(plan.items) * plan.dim * sizeof(float);
    // The queries as they came are read in PREPARE alone, the cells after it, but for a screen by rows.
    plan.raw = plan.cells = layout.take(plan.by_values || cells > raw ? cells : raw);
    if (plan.by_values) plan.raw = layout.take(raw);
    return layout.used <= scratch_bytes;
}

MR_DEVICE Status plan_search(const KernelParams& params, JobRecord& job, const Corpus& corpus, u64 stream_base) {
    const Descriptor& descriptor = descriptor_of(job);
    SearchPlan& plan = plan_in<SearchPlan>(job);
    const u32 items = descriptor.items;
    if (descriptor.dim != corpus.dim || items == 0 || descriptor.k == 0) return STATUS_BAD_DESCRIPTOR;
    if (!is_metric(descriptor.metric)) return STATUS_BAD_DESCRIPTOR;
    const bool by_row = descriptor.flags & FLAG_QUERY_ROWS;
    const u64 query_bytes = by_row ? sizeof(u32) : descriptor.dim * sizeof(float);
    if (descriptor.payload_len < items * query_bytes) return STATUS_BAD_DESCRIPTOR;
    if (descriptor.result_len < u64(items) * sizeof(ListHeader)) return STATUS_RESULT_TOO_SMALL;
    plan.items = items;
    plan.dim = corpus.dim;
    plan.k = descriptor.k;
    plan.metric = descriptor.metric;
    plan.capacity = list_capacity(items, descriptor.result_len);
    plan.every_row = plan.streamed = 0;
    plan.threshold = bits_to_double(job.slot.confidence_bits);
    if (wants_every_row(plan.k, corpus.rows) || plan.k > plan.capacity || corpus.flags & CORPUS_WILD) {
        return plan_every_row(job, &plan.every_row);
    }
    const bool bits = is_of_bits(plan.metric);
    plan.by_values = bits || corpus.flags & CORPUS_FLOAT32 ? 1 : 0;
    if (!(corpus.flags & (plan.by_values ? CORPUS_ROWS : CORPUS_SCREENED))) return STATUS_STALE_CORPUS;
    plan.segments = corpus.segments;
    plan.segment_count = corpus.segment_count;
    const bool streamed = corpus.stream != nullptr;
    // Its rows are not there to be named, nor are they there as they are.
    if (streamed && (by_row || bits)) return STATUS_BAD_DESCRIPTOR;
    plan.streamed = streamed ? 1 : 0;
    plan.by_row = by_row ? 1 : 0;
    plan.rows = corpus.rows;
    const bool has_columns = !streamed && (bits || !plan.by_values);
    if (has_columns && corpus.segments[0].columns[bits ? 0 : plan.metric - 1] == nullptr) return STATUS_STALE_CORPUS;
    plan.groups = streamed ? corpus.largest_tile : corpus.groups;
    plan.max_norm = corpus.max_norm;
    plan.quads = divide_up(plan.dim, 4);
    plan.steps = divide_up(plan.quads, 8);
    plan.query_tile = items <= 8 || plan.by_values ? 8 : MOST_QUERIES;
    plan.query_tiles = divide_up(items, plan.query_tile);
    u32 splits = smaller(larger(params.workers / plan.query_tiles, 1), larger(plan.groups / LEAST_GROUPS, 1));
    plan.by_warp = items > params.workers || splits == 1 ? 1 : 0;
    splits = smaller(splits, plan.by_warp ? MOST_SPLITS_OF_WARP : MOST_SPLITS);
    while (!lay_search(plan, params.scratch_bytes, splits)) {
        if (splits == 1) return plan_every_row(job, &plan.every_row);
        splits /= 2;
    }
    const u32 tile_chunks = plan.query_tiles * splits;
    job.prepare_end = divide_up(items, 8);
    job.work_end = job.prepare_end + tile_chunks * (streamed ? corpus.segment_count : 1);
    if (streamed) {
        // From here on the job takes its tiles, even if it fails: the host copies them for it.
        job.tile_chunks = tile_chunks;
        job.tiles = corpus.segment_count;
        job.stream = corpus.stream;
        job.stream_base = stream_base;
    }
    job.total = job.work_end + (plan.by_warp ? divide_up(items, WARPS) : items);
    return STATUS_OK;
}

// A row of the corpus, in its segment; null for none.
struct NamedRow {
    const Segment* segment;
    u32 at;
};

// The row that is a query, by its number in the payload. A number that the corpus does not have fails the job. By a
// warp, whose first lane reads: all must go by one number, also where the payload is another job's by now.
MR_DEVICE NamedRow named_row(const KernelParams& params, JobRecord& job, u32 query) {
    const SearchPlan& plan = plan_in<SearchPlan>(job);
    const u32* numbers = reinterpret_cast<const u32*>(payload_of(params, job));
    const u32 row = warp_shuffle(lane_index() == 0 ? load_global(numbers + query) : 0, 0);
    if (row >= plan.rows) {
        if (lane_index() == 0) fail(job, STATUS_BAD_DESCRIPTOR);
        return NamedRow{nullptr, 0};
    }
    const Segment& segment = segment_of(plan.segments, plan.segment_count, row);
    return NamedRow{&segment, row - segment.first_row};
}

// A query's values; null for a row that the corpus does not have.
MR_DEVICE const float* values_of(const KernelParams& params, JobRecord& job, u32 query) {
    const SearchPlan& plan = plan_in<SearchPlan>(job);
    if (!plan.by_row) {
        return reinterpret_cast<const float*>(payload_of(params, job)) + static_cast<u64>(query) * plan.dim;
    }
    const NamedRow row = named_row(params, job, query);
    return row.segment == nullptr ? nullptr : global(row.segment->rows) + static_cast<u64>(row.at) * plan.dim;
}

// Makes a row ready for the int8 screen by what the corpus has of it: nothing of it crosses the bus.
MR_DEVICE QueryParams prepare_row(const SearchPlan& plan, const NamedRow& row, u32 column, u32* fragments) {
    const u32 group = row.at / GROUP_ROWS, place = row.at % GROUP_ROWS;
    RowColumns columns{0.0f, 0.0f, 0.0f, 0.0f};
    const u8* codes = nullptr;
    if (row.segment != nullptr) {
        const float* from =
            global(row.segment->columns[plan.metric - 1]) + static_cast<u64>(group) * GROUP_COLUMNS + place;
        columns = RowColumns{load_global(from), load_global(from + GROUP_ROWS), load_global(from + 2 * GROUP_ROWS),
                             load_global(from + 3 * GROUP_ROWS)};
        codes = global(row.segment->codes) + static_cast<u64>(group) * plan.quads * (4 * GROUP_ROWS);
    }
    const CodedRow coded = code_row(codes, place, codes == nullptr ? 0 : plan.quads, plan.steps, column, fragments);
    // A row of zeroes has the factor zero, and no direction.
    if (columns.mul == 0.0f) return unscreened();
    return row_params(plan.metric, columns, plan.max_norm, plan.threshold, coded);
}

// Eight queries, one to a warp. The padding of the last eight gets zero codes, and a threshold that nothing reaches.
MR_DEVICE_CALL void prepare_search(const KernelParams& params, JobRecord& job, u32 chunk) {
    const SearchPlan& plan = plan_in<SearchPlan>(job);
    const u32 column = warp_index(), query = chunk * 8 + column;
    u32* fragments =
        reinterpret_cast<u32*>(global(job.scratch) + plan.codes) + static_cast<u64>(chunk) * plan.steps * STEP_WORDS;
    QueryParams* out = reinterpret_cast<QueryParams*>(global(job.scratch) + plan.params) + query;
    float* raw = reinterpret_cast<float*>(global(job.scratch) + plan.raw) + static_cast<u64>(query) * plan.dim;
    QueryParams ready = unscreened();
    const bool is_there = query < plan.items;
    if (plan.by_row && !plan.by_values) {
        ready = prepare_row(plan, is_there ? named_row(params, job, query) : NamedRow{nullptr, 0}, column, fragments);
    } else {
        const float* values = is_there ? values_of(params, job, query) : nullptr;
        double norm2 = 0.0;
        float largest = 0.0f;
        if (values != nullptr) {
            const Loaded loaded = load_query(values, raw, plan.dim);
            norm2 = warp_sum(loaded.norm2);
            largest = warp_max(loaded.largest);
        }
        const bool screened = norm2 > 0.0 && is_tame(norm2);
        if (is_of_bits(plan.metric)) {
            // As numbers its words say nothing.
            if (values != nullptr) ready = bits_params(plan.metric, plan.threshold);
        } else if (plan.by_values) {
            if (screened) ready = float32_params(plan.metric, norm2, plan.threshold, float32_bound(plan.dim));
        } else {
            const Coded coded = code_query(raw, plan.dim, plan.steps, column, screened, largest, fragments);
            if (screened) ready = query_params(plan.metric, norm2, plan.max_norm, plan.threshold, largest, coded);
        }
    }
    if (lane_index() == 0) {
        store_global(out, ready);
        if (query < plan.items) {
            store_global(reinterpret_cast<i32*>(global(job.scratch) + plan.shared_thresholds) + query,
                         ordered_int(ready.threshold));
        }
    }
}

// Groups begin..end of all segments together, segment by segment.
template <typename Visit>
MR_DEVICE void each_run(const Segment* segments, u32 count, u32 begin, u32 end, Visit visit) {
    u32 before = 0;
    for (u32 at = 0; at < count && before < end; ++at) {
        const u32 groups = divide_up(segments[at].row_count, GROUP_ROWS);
        const u32 from = begin > before ? begin - before : 0, to = smaller(end - before, groups);
        if (from < to) visit(segments[at], from, to);
        before += groups;
    }
}

MR_DEVICE void screen_run(const QueryTile& queries, const Collector& collector, const Segment& segment, u32 begin,
                          u32 end, bool few, u32* slab) {
    if (few) return screen_groups<1, 1>(queries, collector, segment, begin, end, slab);
    if (end - begin < WIDE_GROUPS) {
        return screen_groups<1, MOST_QUERIES / 8>(queries, collector, segment, begin, end, slab);
    }
    screen_groups<2, MOST_QUERIES / 8>(queries, collector, segment, begin, end, slab);
}

MR_DEVICE_CALL void work_search(JobRecord& job, u32 chunk) {
    const SearchPlan& plan = plan_in<SearchPlan>(job);
    const u32 tile_chunks = plan.query_tiles * plan.splits;
    const u32 tile = chunk / tile_chunks, split = chunk % tile_chunks / plan.query_tiles;
    const u32 first = chunk % plan.query_tiles * plan.query_tile;
    const u32 count = smaller(plan.items - first, plan.query_tile);
    u32* slab = reinterpret_cast<u32*>(shared_memory());
    i32* thresholds = reinterpret_cast<i32*>(global(job.scratch) + plan.shared_thresholds) + first;
    const u64 place = static_cast<u64>(split) * plan.items + first;
    Head* heads = reinterpret_cast<Head*>(global(job.scratch) + plan.heads) + place;
    const Collector collector{reinterpret_cast<Cell*>(global(job.scratch) + plan.cells) + place * plan.room,
                              plan.room, plan.k, plan.capacity, plan.splits > 1 ? thresholds : nullptr};
    const QueryTile queries{reinterpret_cast<const u32*>(global(job.scratch) + plan.codes) +
                                static_cast<u64>(first / 8) * plan.steps * STEP_WORDS,
                            count, plan.steps, plan.quads, plan.metric};
    const QueryParams* ready = reinterpret_cast<const QueryParams*>(global(job.scratch) + plan.params) + first;
    const float* raw =
        reinterpret_cast<const float*>(global(job.scratch) + plan.raw) + static_cast<u64>(first) * plan.dim;
    for (u32 query = thread_index(); query < align_up(count, 8); query += THREADS) {
        if (tile == 0 || query >= count) collector.open(query, load_global(ready + query));
        else collector.reopen(query, load_global(ready + query), load_global(heads + query));
    }
    if (!plan.by_values && plan.steps <= SLAB_STEPS) stage_slab(queries, 0, plan.steps, slab);
    block_sync();
    const bool streamed = plan.streamed != 0;
    const Segment* segments = streamed ? plan.segments + tile : plan.segments;
    const u32 groups = streamed ? divide_up(segments->row_count, GROUP_ROWS) : plan.groups;
    const u32 begin_group = cut(groups, plan.splits, split), end_group = cut(groups, plan.splits, split + 1);
    const u32 segment_count = streamed ? 1 : plan.segment_count;
    const auto each = [&](auto visit) { each_run(segments, segment_count, begin_group, end_group, visit); };
    const auto each_row = [&](auto visit) {
        each([&](const Segment& segment, u32 begin, u32 end) {
            visit(segment, begin * GROUP_ROWS, smaller(end * GROUP_ROWS, segment.row_count));
        });
    };
    float* const values = reinterpret_cast<float*>(slab);
    if (is_of_bits(plan.metric)) {
        each_row([&](const Segment& segment, u32 begin, u32 end) {
            screen_bits_of(plan.metric, raw, count, plan.dim, collector, segment, begin, end, slab);
        });
    } else if (!plan.by_values) {
        each([&](const Segment& segment, u32 begin, u32 end) {
            screen_run(queries, collector, segment, begin, end, plan.query_tile == 8, slab);
        });
    } else if (count == 1) {
        each_row([&](const Segment& segment, u32 begin, u32 end) {
            screen_rows<1>(raw, 1, plan.dim, plan.metric, collector, segment, begin, end, values);
        });
    } else {
        each_row([&](const Segment& segment, u32 begin, u32 end) {
            screen_rows<FLOAT32_QUERIES>(raw, count, plan.dim, plan.metric, collector, segment, begin, end, values);
        });
    }
    collector.close(count, heads, plan.splits > 1);
}

// What a team shares while it merges one query's lists.
struct MergeWords {
    u32 overflow, filled, found, written;
    i32 threshold;
};

// One query's lists, merged by a team.
template <typename Team>
struct Merge {
    Team team;
    MergeWords* words;
    Cell* near;     // shared memory for NEAR cells
    Share* shares;  // likewise, for what is wanted again of each head
    const SearchPlan& plan;
    const u8* scratch;
    u32 query;

    // Cells that fit the part of the slab that is this team's, of a warp behind its shares.
    static constexpr u32 PART = SLAB_BYTES * Team::SIZE / THREADS;
    static constexpr u32 SHARE_BYTES = Team::SIZE == WARP ? MOST_SPLITS_OF_WARP * sizeof(Share) : 0;
    static constexpr u32 NEAR = (PART - SHARE_BYTES) / sizeof(Cell);

    MR_DEVICE void run(u8* result) const {
        ListHeader* header = reinterpret_cast<ListHeader*>(result) + query;
        Candidate* list = reinterpret_cast<Candidate*>(result + plan.items * u64(sizeof(ListHeader))) +
                          static_cast<u64>(query) * plan.capacity;
        const QueryParams params =
            load_global(reinterpret_cast<const QueryParams*>(global(scratch) + plan.params) + query);
        gather_heads(params, team.rank() < plan.splits ? head(team.rank()) : Head{});
        if (!words->overflow) {
            float threshold = narrow_by_heads(params.slack);
            gather_cells(threshold);
            threshold = narrow_by_cells(threshold, params.slack);
            each_found(threshold, [&](const Cell& cell) {
                const u32 at = shared_add(&words->written, 1);
                if (at < plan.capacity) store_global(list + at, Candidate{cell.row, cell.upper});
            });
            team.sync();
        }
        if (team.rank() == 0) {
            const bool every_row = words->overflow || words->written > plan.capacity;
            store_global(header, every_row ? ListHeader{0, EVERY_ROW} : ListHeader{words->written, 0});
        }
        team.sync();
    }

  private:
    MR_DEVICE Head head(u32 split) const {
        const Head* heads = reinterpret_cast<const Head*>(global(scratch) + plan.heads);
        return load_global(heads + static_cast<u64>(split) * plan.items + query);
    }

    // Each head once, by one thread; the first of each thread's is on its way.
    MR_DEVICE void gather_heads(const QueryParams& params, Head one) const {
        if (team.rank() == 0) *words = MergeWords{params.screened ? 0u : 1u, 0, 0, 0, ordered_int(params.threshold)};
        team.sync();
        for (u32 split = team.rank(); split < plan.splits; split += Team::SIZE) {
            if (split >= Team::SIZE) one = head(split);
            shares[split] = Share{one.count, one.best, one.highest};
            if (one.overflow) shared_or(&words->overflow, 1);
            else shared_max(&words->threshold, ordered_int(one.threshold));
            if (one.count > 0) shared_add(&words->filled, 1);
        }
        team.sync();
    }

    // Of as many shares as rows are wanted, the best lower bounds belong to that many rows. There are few shares: each
    // bound's rank is found by counting, which is sooner done than a selection by radix.
    MR_DEVICE float narrow_by_heads(double slack) const {
        if (plan.splits > 1 && words->filled >= plan.k) {
            for (u32 split = team.rank(); split < plan.splits; split += Team::SIZE) {
                // An empty share has none, which is minus infinity.
                const float best = shares[split].best;
                u32 above = 0, level = 0;
                for (u32 other = 0; other < plan.splits; ++other) {
                    above += shares[other].best > best ? 1 : 0;
                    level += shares[other].best >= best ? 1 : 0;
                }
                if (above < plan.k && plan.k <= level) {
                    shared_max(&words->threshold, ordered_int(relax(best, slack)));
                }
            }
            team.sync();
        }
        return int_value(words->threshold);
    }

    // Counts the cells that pass, and brings as many near as fit: mostly all that is still of interest.
    MR_DEVICE void gather_cells(float threshold) const {
        each_cell(threshold, [&](const Cell& cell) {
            const u32 at = shared_add(&words->found, 1);
            if (at < NEAR) near[at] = cell;
        });
        team.sync();
    }

    MR_DEVICE float narrow_by_cells(float threshold, double slack) const {
        // Some rows too many cost the host less than another selection costs here.
        const u32 enough = plan.splits > 1 ? 2 * plan.k + 64 : plan.k + 16;
        const u32 most = smaller(enough, plan.capacity);
        if (words->found <= most) return threshold;
        const auto each = [&](auto visit) {
            each_found(threshold, [&](const Cell& cell) { visit(ordered_key(cell.lower)); });
        };
        if constexpr (Team::SIZE == WARP) {
            const u32 bound = plan.k <= WARP ? kth_bound(plan.k, each) : 0;
            if (bound != 0) {
                threshold = sharper(threshold, relax(key_value(bound), slack));
                i32 left = 0;
                each_found(threshold, [&](const Cell&) { ++left; });
                if (static_cast<u32>(warp_sum(left)) <= most) return threshold;
            }
        }
        return sharper(threshold, relax(key_value(kth_largest(team, plan.k, each)), slack));
    }

    template <typename Visit>
    MR_DEVICE void each_found(float threshold, Visit visit) const {
        if (words->found > NEAR) return each_cell(threshold, visit);
        for (u32 at = team.rank(); at < words->found; at += Team::SIZE) {
            if (near[at].upper >= threshold) visit(near[at]);
        }
    }

    // The cells of all lists that pass. Eight threads walk a list where there are several, all do where there is one.
    template <typename Visit>
    MR_DEVICE void each_cell(float threshold, Visit visit) const {
        constexpr u32 AT_ONCE = 8;
        const u32 together = plan.splits == 1 ? Team::SIZE : 8;
        for (u32 split = team.rank() / together; split < plan.splits; split += Team::SIZE / together) {
            const Share one = shares[split];
            if (plan.splits > 1 && one.highest < threshold) continue;
            const Cell* cells = reinterpret_cast<const Cell*>(global(scratch) + plan.cells) +
                                (static_cast<u64>(split) * plan.items + query) * plan.room;
            for (u32 begin = team.rank() % together; begin < one.count; begin += AT_ONCE * together) {
                Cell some[AT_ONCE];
                MR_UNROLL
                for (u32 at = 0; at < AT_ONCE; ++at) {
                    some[at] = load_global(cells + smaller(begin + at * together, one.count - 1));
                }
                MR_UNROLL
                for (u32 at = 0; at < AT_ONCE; ++at) {
                    if (begin + at * together < one.count && some[at].upper >= threshold) visit(some[at]);
                }
            }
        }
    }

    static MR_DEVICE float sharper(float a, float b) { return a < b ? b : a; }
};

MR_DEVICE_CALL void finish_search(const KernelParams& params, JobRecord& job, u32 chunk) {
    const SearchPlan& plan = plan_in<SearchPlan>(job);
    u8* result = global(result_of(params, job));
    if (plan.every_row) return write_every_row(result, plan.items);
    TileState& tile = tile_state();
    MergeWords* words = reinterpret_cast<MergeWords*>(tile.counts);
    if (!plan.by_warp) {
        Cell* near = reinterpret_cast<Cell*>(shared_memory());
        Share* shares = reinterpret_cast<Share*>(tile.histograms[1]);
        Merge<BlockTeam>{BlockTeam{tile.histograms[0]}, words, near, shares, plan, job.scratch, chunk}.run(result);
        return;
    }
    const u32 warp = warp_index(), query = chunk * WARPS + warp;
    using OneWarp = Merge<WarpTeam>;
    if (query < plan.items) {
        u8* part = shared_memory() + warp * OneWarp::PART;
        Cell* near = reinterpret_cast<Cell*>(part + OneWarp::SHARE_BYTES);
        OneWarp{WarpTeam{tile.histograms[warp]}, words + warp, near, reinterpret_cast<Share*>(part), plan, job.scratch, query}
            .run(result);
    }
}

template <>
struct Operation<Opcode::search> {
    static constexpr bool AT_ONCE = false;

    static MR_DEVICE Status plan(const KernelParams& params, JobRecord& job, StreamPlace& stream) {
        const Descriptor& descriptor = descriptor_of(job);
        const Corpus* corpus = find_corpus(params, descriptor.corpus, descriptor.corpus_generation);
        if (corpus == nullptr) return STATUS_STALE_CORPUS;
        stream.enter(*corpus);
        return plan_search(params, job, *corpus, stream.next);
    }

    static MR_DEVICE void run(const KernelParams& params, JobRecord& job, Phase phase, u32 chunk) {
        if (phase == PHASE_PREPARE) prepare_search(params, job, chunk);
        else if (phase == PHASE_WORK) work_search(job, chunk);
        else finish_search(params, job, chunk);
    }
};

}  // namespace megaring
