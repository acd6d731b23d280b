// What the torture has the device do: small corpora, texts and points, and for each job the plainest code that tells
// whether its answer is right. That code follows the definitions in host/core/src (exact.rs, nearest.rs, screen.rs,
// lists.rs), not the device's.
#pragma once

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "../kernel.cuh"

namespace megaring::twin {

// xorshift64*: the same jobs every time.
class Random {
  public:
    explicit Random(u64 seed) : state_(seed * 2 + 1) {}
    u64 next() {
        state_ ^= state_ >> 12, state_ ^= state_ << 25, state_ ^= state_ >> 27;
        return state_ * 0x2545F4914F6CDD1D;
    }
    u32 below(u32 bound) { return static_cast<u32>((next() >> 32) * bound >> 32); }
    double unit() { return static_cast<double>(next() >> 11) / (u64(1) << 53) * 2 - 1; }

  private:
    u64 state_;
};

// A job as the torture's host submits it. `wrong` says what is wrong with an answer; an empty text is nothing.
struct TestJob {
    Opcode opcode = Opcode::nop;
    Descriptor descriptor{};
    double threshold = 0;
    std::vector<u8> payload;
    u64 result_len = 0;
    u32 status = STATUS_OK;
    bool refused = false;  // counted as a fault
    std::function<std::string(const u8* result)> wrong;
    std::function<void(Slot&)> damage;  // done to the slot before it is published
};

// As it is written in files' names.
inline const char* name_of(Opcode opcode) {
    switch (opcode) {
#define MEGARING_OPERATION(number, name) \
    case Opcode::name: return #name;
#include "../operations.inc"
        default: return "no operation";
    }
}

template <typename T>
void append(std::vector<u8>& bytes, const std::vector<T>& values) {
    const u8* from = reinterpret_cast<const u8*>(values.data());
    bytes.insert(bytes.end(), from, from + values.size() * sizeof(T));
}
template <typename T>
T read_at(const u8* bytes, u64 index) {
    T value;
    std::memcpy(&value, bytes + index * sizeof(T), sizeof(T));
    return value;
}

// core::exact.
inline double lanes(const float* a, const float* b, u32 dim, bool squares) {
    double l[8] = {};
    for (u32 i = 0; i < dim; ++i) {
        const double x = a[i], y = b[i];
        l[i % 8] += squares ? (x - y) * (x - y) : x * y;
    }
    return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
}
inline u32 naive_bits(const float* a, const float* b, u32 dim, u32 (*join)(u32, u32)) {
    u32 count = 0;
    for (u32 i = 0; i < dim; ++i) {
        for (u32 bits = join(std::bit_cast<u32>(a[i]), std::bit_cast<u32>(b[i])); bits != 0; bits >>= 1) count += bits & 1;
    }
    return count;
}
inline double naive_score(u32 metric, const float* a, const float* b, u32 dim) {
    if (metric == METRIC_HAMMING) return naive_bits(a, b, dim, [](u32 x, u32 y) { return x ^ y; });
    if (metric == METRIC_JACCARD) {
        const u32 both = naive_bits(a, b, dim, [](u32 x, u32 y) { return x & y; });
        const u32 either = naive_bits(a, b, dim, [](u32 x, u32 y) { return x | y; });
        return either == 0 ? 1.0 : static_cast<double>(both) / either;
    }
    if (metric != METRIC_COSINE) return lanes(a, b, dim, metric == METRIC_L2);
    const double dot = lanes(a, b, dim, false), a2 = lanes(a, a, dim, false), b2 = lanes(b, b, dim, false);
    return a2 == 0 || b2 == 0 ? 0.0 : std::clamp(dot / std::sqrt(a2 * b2), -1.0, 1.0);
}
inline float naive_reported(double score) { return std::clamp(static_cast<float>(score), -FLT_MAX, FLT_MAX); }

// core::nearest.
inline double naive_squared(const double* point, u64 stride, const double* query, const double* weights) {
    double sum = 0;
    for (u32 axis = 0; axis < 5; ++axis) {
        const double d = weights[axis] * (point[axis * stride] - query[axis]);
        sum = axis == 0 ? d * d : sum + d * d;
    }
    return sum;
}

// Whether a query's list holds every row that is wanted.
inline std::string list_lacks(const u8* result, u64 len, u32 items, u32 query, u32 rows,
                              const std::vector<u32>& wanted) {
    const u64 capacity = (len / items - sizeof(ListHeader)) / sizeof(Candidate);
    const ListHeader header = read_at<ListHeader>(result, query);
    if (header.flags & EVERY_ROW) return {};
    if (header.count > capacity) return "more candidates than there is room for";
    std::vector<bool> there(rows);
    for (u32 at = 0; at < header.count; ++at) {
        const Candidate candidate = read_at<Candidate>(result + items * sizeof(ListHeader), query * capacity + at);
        if (candidate.row >= rows || there[candidate.row]) return "a candidate is no row, or there twice";
        there[candidate.row] = true;
    }
    for (u32 row : wanted) {
        if (!there[row]) return "row " + std::to_string(row) + " is missing among the candidates";
    }
    return {};
}

// A corpus of a few segments in "device memory", with all its parts.
class SmallCorpus {
  public:
    u32 dim, rows = 0;
    std::vector<float> values;
    std::vector<std::vector<double>> columns;  // of points, by segment: five columns each
    double max_norm = 0;

    SmallCorpus(Random& random, u32 dim, const std::vector<u32>& segments) : dim(dim) {
        for (u32 count : segments) add(random, count);
    }

    Corpus entry(u32 handle, u32 generation, u32 more_flags = 0) const {
        Corpus corpus{};
        corpus.handle = handle, corpus.generation = generation;
        corpus.dim = dim, corpus.rows = rows;
        corpus.segment_count = static_cast<u32>(segments_.size()), corpus.segments = segments_.data();
        corpus.flags = CORPUS_SCREENED | CORPUS_ROWS | CORPUS_COORDINATES | more_flags;
        corpus.groups = groups_;
        corpus.max_norm = max_norm;
        return corpus;
    }

    const float* row(u32 at) const { return values.data() + u64(at) * dim; }
    double squared(u32 row, const double* query, const double* weights) const {
        u32 segment = 0;
        while (segment + 1 < segments_.size() && segments_[segment + 1].first_row <= row) ++segment;
        return naive_squared(columns[segment].data() + (row - segments_[segment].first_row),
                             segments_[segment].row_count, query, weights);
    }

  private:
    // Everything of one segment. The buffers never move: there is room for all from the start.
    void add(Random& random, u32 count) {
        if (values.capacity() == 0) {
            values.reserve(MOST_ROWS * u64(dim)), columns.reserve(8), norms2_.reserve(8), codes_.reserve(8),
                screens_.reserve(24);
        }
        const u32 first = rows;
        std::vector<double> norms2, points(5 * u64(count));
        for (u32 row = 0; row < count; ++row) {
            // Some rows are all zero, some are there twice.
            const u32 kind = random.below(16);
            for (u32 at = 0; at < dim; ++at) values.push_back(kind == 0 ? 0.0f : static_cast<float>(random.unit()));
            float* mine = values.data() + u64(first + row) * dim;
            if (kind == 1 && row > 0) std::copy(mine - dim, mine, mine);
            norms2.push_back(lanes(mine, mine, dim, false));
            max_norm = std::max(max_norm, std::sqrt(norms2.back()));
        }
        // Coarse coordinates tie often.
        for (double& value : points) value = random.below(3) - 1.0;
        rows += count;
        columns.push_back(points);
        norms2_.push_back(norms2);
        pack(first, count);
        Segment segment{codes_.back().data(),
                        {},
                        values.data() + u64(first) * dim,
                        norms2_.back().data(),
                        columns.back().data(),
                        first,
                        count};
        for (u32 metric = 0; metric < 3; ++metric) {
            segment.columns[metric] = screens_[screens_.size() - 3 + metric].data();
        }
        segments_.push_back(segment);
        groups_ += (count + 15) / 16;
    }

    // core::screen: codes, and the columns of the three metrics.
    void pack(u32 first, u32 count) {
        const u32 groups = (count + 15) / 16, quads = (dim + 3) / 4;
        std::vector<u8> codes(u64(groups) * quads * 64, 128);
        std::vector<float> screens[3];
        for (auto& screen : screens) screen.assign(groups * 64, 0.0f);
        auto up = [](double value) { return std::nextafter(static_cast<float>(value), INFINITY); };
        for (u32 at = 0; at < groups * 16; ++at) {
            const u32 group = at / 16, lane = at % 16;
            auto put = [&](u32 metric, double mul, double add, float e1, float e2) {
                float* cells = screens[metric - 1].data() + group * 64 + lane;
                cells[0] = static_cast<float>(mul), cells[16] = static_cast<float>(add), cells[32] = e1, cells[48] = e2;
            };
            if (at >= count) {
                for (u32 metric : {METRIC_COSINE, METRIC_DOT, METRIC_L2}) put(metric, 0, -INFINITY, 0, 0);
                continue;
            }
            const float* mine = row(first + at);
            float largest = 0;
            for (u32 i = 0; i < dim; ++i) largest = std::max(largest, std::fabs(mine[i]));
            const float scale = largest / 127.0f;
            double lost = 0;
            for (u32 i = 0; i < dim && largest > 0; ++i) {
                const int code = std::clamp(static_cast<int>(std::lrint(mine[i] * (127.0f / largest))), -127, 127);
                codes[((u64(group) * quads + i / 4) * 16 + lane) * 4 + i % 4] = static_cast<u8>(code + 128);
                lost += std::pow(mine[i] - static_cast<double>(scale) * code, 2);
            }
            const double norm2 = norms2_.back()[at], norm = std::sqrt(norm2), residual = std::sqrt(lost) * (1 + 1e-9);
            put(METRIC_DOT, scale, 0, up(residual), up(norm));
            if (norm == 0) put(METRIC_COSINE, 0, 0, 0, 0);
            else put(METRIC_COSINE, scale / norm, 0, up(residual / norm), 1);
            put(METRIC_L2, 2.0 * scale, -norm2, up(2 * residual), up(2 * norm));
        }
        codes_.push_back(codes);
        for (auto& screen : screens) screens_.push_back(screen);
    }

    static constexpr u32 MOST_ROWS = 1 << 16;
    std::vector<Segment> segments_;
    std::vector<std::vector<double>> norms2_;
    std::vector<std::vector<u8>> codes_;
    std::vector<std::vector<float>> screens_;
    u32 groups_ = 0;
};

// A complete Aho-Corasick automaton of a few words in ASCII. Its states are the words' beginnings.
class SmallAutomaton {
  public:
    explicit SmallAutomaton(const std::vector<std::string>& words) : words_(words) {
        std::vector<std::string> all{""};
        for (const std::string& word : words) {
            for (u64 len = 1; len <= word.size(); ++len) all.push_back(word.substr(0, len));
            longest_ = std::max(longest_, static_cast<u32>(word.size()));
        }
        std::sort(all.begin(), all.end());
        all.erase(std::unique(all.begin(), all.end()), all.end());
        // The root first, then the silent states, then the others.
        auto later = std::stable_partition(all.begin(), all.end(),
                                           [&](const std::string& state) { return !any(mask_of(state)); });
        first_accepting_ = static_cast<u32>(later - all.begin());
        for (u32 byte = 0; byte < 256; ++byte) {
            class_of_[byte] = byte >= 'a' && byte < 'h'   ? byte - 'a' + 1
                              : byte >= 'A' && byte < 'H' ? byte - 'A' + 1
                                                          : 0;
        }
        for (u32 state = 0; state < all.size(); ++state) {
            for (u32 letter = 0; letter < 8; ++letter) {
                next_.push_back(letter == 0 ? 0
                                            : longest_suffix(all, all[state] + static_cast<char>('a' + letter - 1)));
            }
            if (state >= first_accepting_) accept_.push_back(mask_of(all[state]));
        }
    }

    Automaton tables() const {
        return Automaton{next_.data(),     class_of_, accept_[0].words, static_cast<u32>(next_.size() / 8), 3,
                         first_accepting_, longest_};
    }

    struct Mask {
        u64 words[2];
    };
    // By looking for every word everywhere.
    Mask naive(const std::string& text) const {
        Mask mask{};
        for (u64 bit = 0; bit < words_.size(); ++bit) {
            auto same = [](char a, char b) {
                return std::tolower(static_cast<u8>(a)) == std::tolower(static_cast<u8>(b));
            };
            if (std::search(text.begin(), text.end(), words_[bit].begin(), words_[bit].end(), same) != text.end()) {
                mask.words[place(bit) / 64] |= u64(1) << place(bit) % 64;
            }
        }
        return mask;
    }

  private:
    static bool any(const Mask& mask) { return (mask.words[0] | mask.words[1]) != 0; }
    // Words all over the mask.
    static u64 place(u64 bit) { return bit * 37 % 128; }
    Mask mask_of(const std::string& state) const {
        Mask mask{};
        for (u64 bit = 0; bit < words_.size(); ++bit) {
            if (state.ends_with(words_[bit])) mask.words[place(bit) / 64] |= u64(1) << place(bit) % 64;
        }
        return mask;
    }
    static u16 longest_suffix(const std::vector<std::string>& all, std::string text) {
        for (;; text.erase(0, 1)) {
            const auto found = std::find(all.begin(), all.end(), text);
            if (found != all.end()) return static_cast<u16>(found - all.begin());
        }
    }

    std::vector<std::string> words_;
    u32 longest_ = 0, first_accepting_ = 0;
    u8 class_of_[256];
    std::vector<u16> next_;
    std::vector<Mask> accept_;
};

}  // namespace megaring::twin
