// Jobs of every operation on the torture's small data, with their answers.
#pragma once

#include "workload.hpp"

namespace megaring::twin {

// The same rows twice, to be screened by their codes and by themselves.
constexpr u32 CORPUS = 7, CORPUS_BY_ROWS = 20, GENERATION = 3;

// Everything that stays in "device memory": made before the kernel starts, never changed.
class Workload {
  public:
    SmallCorpus corpus;
    SmallAutomaton automaton;

    explicit Workload(Random random, u32 dim = 21, const std::vector<u32>& segments = {130, 1, 269})
        : corpus(random, dim, segments), automaton({"a", "bad", "ad", "cab", "gegege", "egeg", "facade"}) {
        table_.resize(TABLE);
        for (Corpus& entry : table_) entry.handle = NO_HANDLE;
        enter(corpus.entry(CORPUS, GENERATION));
        enter(corpus.entry(CORPUS_BY_ROWS, GENERATION, CORPUS_FLOAT32));
    }

    void fill(KernelParams& params) const {
        params.corpora = table_.data();
        params.corpora_mask = TABLE - 1;
        params.automaton = automaton.tables();
    }

    // A job of some operation.
    TestJob job(Random& random) const;

    // One of this operation: there is a specialisation for each on the list, or `job` does not compile.
    template <Opcode OPCODE>
    TestJob job_of(Random& random) const = delete;

    TestJob encode(Random& random) const {
        std::vector<std::string> texts(random.below(40));
        for (std::string& text : texts) {
            const u32 most = random.below(20) == 0 ? 20'000 : 60;
            for (u32 left = random.below(most); left > 0; --left) text += "abcdefgABCG x"[random.below(13)];
        }
        return encode_texts(texts);
    }
    TestJob encode_texts(const std::vector<std::string>& texts) const {
        TestJob job;
        job.opcode = Opcode::encode;
        job.descriptor.items = static_cast<u32>(texts.size());
        std::vector<u64> offsets{0};
        std::vector<SmallAutomaton::Mask> expected;
        std::string all;
        for (const std::string& text : texts) {
            all += text;
            offsets.push_back(all.size());
            expected.push_back(automaton.naive(text));
        }
        append(job.payload, offsets);
        job.payload.insert(job.payload.end(), all.begin(), all.end());
        job.result_len = texts.size() * 16;
        job.wrong = [expected](const u8* result) -> std::string {
            for (u64 text = 0; text < expected.size(); ++text) {
                if (std::memcmp(result + 16 * text, &expected[text], 16) != 0) {
                    return "the mask of text " + std::to_string(text);
                }
            }
            return {};
        };
        return job;
    }

    // Only the CRC is worked out here: of the hash, the host's tests say whether it is right.
    TestJob checksum(Random& random) const { return checksum_of(random, random.below(600)); }
    TestJob checksum_of(Random& random, u32 items) const {
        TestJob job;
        job.opcode = Opcode::checksum;
        job.descriptor.items = items;
        std::vector<u64> offsets{0};
        std::vector<u8> all;
        std::vector<u32> expected;
        for (u32 string = 0; string < job.descriptor.items; ++string) {
            u32 crc = ~u32(0);
            for (u32 left = random.below(random.below(200) == 0 ? 9'000 : 70); left > 0; --left) {
                all.push_back(static_cast<u8>(random.below(256)));
                crc ^= all.back();
                for (u32 bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78 : 0);
            }
            offsets.push_back(all.size());
            expected.push_back(~crc);
        }
        append(job.payload, offsets);
        job.payload.insert(job.payload.end(), all.begin(), all.end());
        job.result_len = expected.size() * 16;
        job.wrong = [expected](const u8* result) -> std::string {
            for (u64 string = 0; string < expected.size(); ++string) {
                if (read_at<u64>(result, 2 * string) != expected[string]) {
                    return "the CRC of string " + std::to_string(string);
                }
            }
            return {};
        };
        return job;
    }

    TestJob score(Random& random) const {
        const u32 items = random.below(7);
        return score_of(random, items, random.below(2) == 0);
    }
    TestJob score_of(Random& random, u32 items, bool all_rows) const {
        TestJob job = with_queries(random, Opcode::score, items);
        std::vector<u32> rows;
        if (all_rows) {
            job.descriptor.flags = FLAG_ALL_ROWS;
            for (u32 row = 0; row < corpus.rows; ++row) rows.push_back(row);
        } else {
            for (u32 left = random.below(90); left > 0; --left) rows.push_back(random.below(corpus.rows));
            append(job.payload, rows);
            job.descriptor.k = static_cast<u32>(rows.size());
        }
        job.result_len = items * rows.size() * sizeof(float);
        job.wrong = [this, rows, items, metric = job.descriptor.metric,
                     payload = job.payload](const u8* result) -> std::string {
            for (u64 cell = 0; cell < items * rows.size(); ++cell) {
                const float* query = reinterpret_cast<const float*>(payload.data()) + cell / rows.size() * corpus.dim;
                const float expected =
                    naive_reported(naive_score(metric, query, corpus.row(rows[cell % rows.size()]), corpus.dim));
                if (read_at<u32>(result, cell) != std::bit_cast<u32>(expected)) {
                    return "the score in cell " + std::to_string(cell);
                }
            }
            return {};
        };
        return job;
    }

    TestJob search(Random& random) const {
        const u32 items = 1 + random.below(9);
        TestJob job = search_of(random, items, 1 + random.below(5));
        if (random.below(3) == 0) job = by_rows(random, std::move(job));
        return random.below(4) == 0 ? screened_by_rows(std::move(job)) : job;
    }
    // The same job by the float32 screen.
    static TestJob screened_by_rows(TestJob job) {
        job.descriptor.corpus = CORPUS_BY_ROWS;
        return job;
    }
    // Of any metric, and now and then of zeroes alone; or of one metric, and of no zeroes.
    TestJob search_of(Random& random, u32 items, u32 k, u32 metric = 0) const {
        return expect_hits(with_queries(random, Opcode::search, items, metric), k);
    }
    // The same search with rows of the corpus as its queries, of zeroes too if they may be.
    TestJob by_rows(Random& random, TestJob job, bool zeroes = true) const {
        std::vector<u32> rows(job.descriptor.items);
        job.payload.clear();
        for (u32& row : rows) {
            do row = random.below(corpus.rows);
            while (!zeroes && naive_score(METRIC_DOT, corpus.row(row), corpus.row(row), corpus.dim) == 0);
            append(job.payload, std::vector<float>(corpus.row(row), corpus.row(row) + corpus.dim));
        }
        job = expect_hits(std::move(job), job.descriptor.k);
        job.descriptor.flags = FLAG_QUERY_ROWS;
        job.payload.clear();
        append(job.payload, rows);
        return job;
    }
    TestJob expect_hits(TestJob job, u32 k) const {
        const u32 items = job.descriptor.items;
        job.descriptor.k = k;
        job.threshold = is_distance(job.descriptor.metric) ? INFINITY : -INFINITY;
        job.result_len = items * (sizeof(ListHeader) + (4 * k + 100) * sizeof(Candidate));
        job.wrong = [this, items, k, len = job.result_len, metric = job.descriptor.metric,
                     payload = job.payload](const u8* result) -> std::string {
            for (u32 query = 0; query < items; ++query) {
                std::vector<std::pair<double, u32>> order;
                for (u32 row = 0; row < corpus.rows; ++row) {
                    const double score =
                        naive_score(metric, reinterpret_cast<const float*>(payload.data()) + u64(query) * corpus.dim,
                                    corpus.row(row), corpus.dim);
                    order.emplace_back(is_distance(metric) ? score : -score, row);
                }
                std::sort(order.begin(), order.end());
                std::vector<u32> wanted;
                for (u32 at = 0; at < k; ++at) wanted.push_back(order[at].second);
                if (std::string lacks = list_lacks(result, len, items, query, corpus.rows, wanted); !lacks.empty()) {
                    return lacks;
                }
            }
            return {};
        };
        return job;
    }

    TestJob nearest(Random& random) const {
        TestJob job = with_points(random, 1 + random.below(4));
        job.descriptor.corpus = CORPUS, job.descriptor.corpus_generation = GENERATION;
        expect_nearest(job, corpus.rows, [this](u32 row, const double* query, const double* weights) {
            return corpus.squared(row, query, weights);
        });
        return job;
    }

    TestJob nearest_sent(Random& random) const {
        TestJob job = with_points(random, 1 + random.below(3));
        const u32 count = random.below(20) == 0 ? 5000 : 100 + random.below(300);
        std::vector<double> columns(5 * u64(count));
        for (double& value : columns) value = random.unit();
        append(job.payload, columns);
        job.descriptor.flags = FLAG_POINTS;
        job.descriptor.dim = count;
        expect_nearest(job, count, [columns, count](u32 row, const double* query, const double* weights) {
            return naive_squared(columns.data() + row, count, query, weights);
        });
        return job;
    }

  private:
    static constexpr u32 TABLE = 16;

    void enter(const Corpus& entry) {
        u64 at = (entry.handle * u64(0x9E3779B97F4A7C15) + entry.generation * u64(0xC2B2AE3D27D4EB4F)) >> 32;
        while (table_[at % TABLE].handle != NO_HANDLE) ++at;
        table_[at % TABLE] = entry;
    }

    TestJob with_queries(Random& random, Opcode opcode, u32 items, u32 metric = 0) const {
        TestJob job;
        job.opcode = opcode;
        job.descriptor.corpus = CORPUS, job.descriptor.corpus_generation = GENERATION;
        job.descriptor.dim = corpus.dim;
        job.descriptor.items = items;
        job.descriptor.metric = static_cast<u8>(metric != 0 ? metric : METRIC_COSINE + random.below(5));
        std::vector<float> values(u64(items) * corpus.dim);
        const bool zeros = metric == 0 && random.below(8) == 0;
        for (float& value : values) value = zeros ? 0.0f : static_cast<float>(random.unit());
        append(job.payload, values);
        return job;
    }

    static TestJob with_points(Random& random, u32 items) {
        TestJob job;
        job.opcode = Opcode::nearest;
        job.descriptor.items = items;
        job.descriptor.k = 1 + random.below(6);
        std::vector<double> values(5 * u64(items));
        for (double& value : values) value = random.unit();
        append(job.payload, values);
        append(job.payload, std::vector<double>{1, 1, 0.8, 1.5, 2});
        return job;
    }

    template <typename Squared>
    static void expect_nearest(TestJob& job, u32 rows, Squared squared) {
        const u32 items = job.descriptor.items, k = job.descriptor.k;
        job.result_len = items * (sizeof(ListHeader) + (k + 64) * sizeof(Candidate));
        job.wrong = [=, len = job.result_len, payload = job.payload](const u8* result) -> std::string {
            const double* queries = reinterpret_cast<const double*>(payload.data());
            for (u32 query = 0; query < items; ++query) {
                std::vector<double> all(rows);
                for (u32 row = 0; row < rows; ++row) {
                    all[row] = squared(row, queries + 5 * u64(query), queries + 5 * u64(items));
                }
                std::vector<double> sorted = all;
                std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end());
                const double last = std::nextafter(sorted[k - 1] * (1 + 1e-15), INFINITY);
                std::vector<u32> wanted;
                for (u32 row = 0; row < rows; ++row) {
                    if (all[row] <= last) wanted.push_back(row);
                }
                // A list that could have been short must be.
                if (wanted.size() < k + 8 && read_at<ListHeader>(result, query).flags & EVERY_ROW) {
                    return "every row, though few tie";
                }
                if (std::string lacks = list_lacks(result, len, items, query, rows, wanted); !lacks.empty()) {
                    return lacks;
                }
            }
            return {};
        };
    }

    std::vector<Corpus> table_;
};

template <>
inline TestJob Workload::job_of<Opcode::nop>(Random&) const { return TestJob{}; }
template <>
inline TestJob Workload::job_of<Opcode::search>(Random& random) const { return search(random); }
template <>
inline TestJob Workload::job_of<Opcode::score>(Random& random) const { return score(random); }
template <>
inline TestJob Workload::job_of<Opcode::encode>(Random& random) const { return encode(random); }
template <>
inline TestJob Workload::job_of<Opcode::checksum>(Random& random) const { return checksum(random); }
template <>
inline TestJob Workload::job_of<Opcode::nearest>(Random& random) const {
    return random.below(2) ? nearest(random) : nearest_sent(random);
}

inline TestJob Workload::job(Random& random) const {
    constexpr TestJob (Workload::*ALL[])(Random&) const = {
#define MEGARING_OPERATION(number, name) &Workload::job_of<Opcode::name>,
#include "../operations.inc"
    };
    return (this->*ALL[random.below(std::size(ALL))])(random);
}

}  // namespace megaring::twin
