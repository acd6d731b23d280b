//! The sizes that are measured: enough for every coefficient to show somewhere, small enough for the time there is.

/// A generated corpus, and the jobs on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CorpusPlan {
    pub(super) rows: usize,
    pub(super) dim: usize,
    pub(super) cases: Vec<Case>,
}

/// A job on a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Search {
        queries: usize,
        k: usize,
    },
    Score {
        queries: usize,
    },
    Nearest {
        queries: usize,
        k: usize,
    },
    /// Bringing the corpus to a device.
    Upload,
}

/// Texts to encode: so many memories of so many average memories' text each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) memories: usize,
    pub(super) length: usize,
}

/// What is measured: the texts, then the corpora, the smallest first.
pub(super) struct Plan {
    pub(super) corpora: Vec<CorpusPlan>,
    pub(super) texts: Vec<Texts>,
}

impl Plan {
    /// What tells the coefficients apart: batches for multiply-adds from bytes, answers for candidates, narrow rows for
    /// what each row costs.
    pub(super) fn new(quick: bool) -> Self {
        let search = |queries, k| Case::Search { queries, k };
        let nearest = |queries, k| Case::Nearest { queries, k };
        let score = |queries| Case::Score { queries };
        let corpus = |rows, dim, cases: &[Case]| CorpusPlan { rows, dim, cases: cases.to_vec() };
        let mut corpora = vec![
            corpus(256, 384, &[search(1, 10), search(64, 10), search(512, 10), search(8, 200), score(1), score(16)]),
            corpus(
                2_048,
                384,
                &[
                    search(1, 10),
                    search(4, 10),
                    search(16, 10),
                    search(64, 10),
                    search(512, 10),
                    search(8, 500),
                    search(64, 100),
                    score(1),
                    score(16),
                ],
            ),
            corpus(
                2_048,
                64,
                &[search(1, 10), search(64, 10), score(16), nearest(1, 10), nearest(64, 10), nearest(64, 100)],
            ),
            corpus(
                16_384,
                384,
                &[search(1, 10), search(8, 10), search(64, 10), search(512, 10), score(1), score(8), Case::Upload],
            ),
            corpus(8_192, 128, &[search(1, 10), search(4, 10), search(16, 10), search(256, 10)]),
            corpus(16_384, 32, &[search(1, 10), search(256, 10), score(16), nearest(1, 10), nearest(256, 10)]),
            corpus(
                65_536,
                384,
                &[
                    search(1, 10),
                    search(4, 10),
                    search(16, 10),
                    search(64, 10),
                    nearest(1, 10),
                    nearest(64, 10),
                    Case::Upload,
                ],
            ),
        ];
        let texts = |memories, length| Texts { memories, length };
        let mut all_texts = vec![texts(1, 1), texts(16, 1), texts(256, 1), texts(4_096, 1), texts(16, 100)];
        if !quick {
            corpora.push(corpus(5_562, 768, &[search(1, 10), search(16, 10), search(256, 10), score(4), Case::Upload]));
            corpora.push(corpus(
                262_144,
                384,
                &[search(1, 10), search(16, 10), search(128, 10), search(1, 1_000), nearest(256, 10), Case::Upload],
            ));
            all_texts.extend([texts(1_024, 4), texts(65_536, 1)]);
        }
        Self { corpora, texts: all_texts }
    }

    /// Steps in all: one for each case, the texts, and the empty job.
    pub(super) fn steps(&self) -> usize {
        1 + self.texts.len() + self.corpora.iter().map(|corpus| corpus.cases.len()).sum::<usize>()
    }
}
