//! Rows of bits: searches and scores of widths around a register's, of ties and thresholds, of rows as queries, of rows
//! that are hidden.

use megaring_core::score::Score;
use megaring_core::search::{Queries, Search};
use megaring_core::{Metric, RowType};
use megaring_datasets::{Matrix, reference};

use super::hidden::{CHOICES, select};
use super::search::{Hits, by_reference, searched, truth};
use super::{Check, matrix};
use crate::Failure;

/// Rows of so many bits, as words: few of them and many, some alike, one without any, one with all.
pub(super) fn rows(count: usize, bits: usize, seed: u64) -> Matrix {
    let width = RowType::bits(bits).width();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut word = || {
        // xorshift (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    let mut values = Vec::with_capacity(count * width);
    for row in 0..count {
        for place in 0..width {
            let many = word();
            let some = match row % 5 {
                _ if row == count / 2 => 0,
                _ if row == count / 3 => u32::MAX,
                0 => many & word() & word(),
                4 => many | word(),
                _ => many,
            };
            let there = u32::MAX >> (32 - (bits - 32 * place).min(32));
            values.push(f32::from_bits(some & there));
        }
        // Some rows come again, far behind.
        if row % 7 == 6 {
            let (from, to) = (row / 2 * width, row * width);
            values.copy_within(from..from + width, to);
        }
    }
    Matrix { rows: count, dim: width, values }
}

/// Searches of every width, with queries that are sent and that are rows, with and without a threshold.
pub(super) fn searches(check: &mut Check<'_, Search>) -> Result<(), Failure> {
    let few: &[(usize, usize)] = &[(1, 8), (700, 64), (333, 1_024)];
    let some = [(40, 24), (1_500, 96), (129, 384), (600, 1_056), (50, 32_768)];
    let many = [(20_000, 256), (5_000, 768), (300, 25_600), (4_097, 2_048)];
    let shapes = check.scale.of([
        few.to_vec(),
        [few, &some].concat(),
        [few, &some, &many[..1]].concat(),
        [few, &some, &many].concat(),
    ]);
    for (count, bits) in shapes {
        let rows = rows(count, bits, 3);
        let corpus = check.subject.store_bits(bits, &rows, &[count / 3, count / 3 + 3])?;
        let asked = check.scale.of([2, 5, 11, 70]).min(count);
        let numbers: Vec<u32> = (0..asked).map(|at| (at * 577 % count) as u32).collect();
        let queries: Vec<f32> = numbers.iter().flat_map(|row| rows.row(*row as usize)).copied().collect();
        for metric in Metric::OF_BITS {
            let all = truth(metric, &queries, &rows, count, None);
            let middle = all[0].get(count / 9).map(|(_, bits)| f64::from(f64::from_bits(*bits) as f32));
            for threshold in [None, middle] {
                let truth = match threshold {
                    None => all.clone(),
                    some => truth(metric, &queries, &rows, count, some),
                };
                for k in [1, 10, 100, count] {
                    for queries in [matrix(rows.dim, &queries).into(), Queries::Rows(numbers.clone())] {
                        let job = Search { corpus: corpus.clone(), queries, metric, k, threshold };
                        searched(check, &format!("{count} x {bits} bits, threshold {threshold:?}"), job, &truth)?;
                    }
                }
            }
        }
    }
    hidden(check)
}

/// What is left where rows are hidden, and the same gathered.
fn hidden(check: &mut Check<'_, Search>) -> Result<(), Failure> {
    let count = check.scale.of([200, 1_500, 1_500, 20_000]);
    let rows = rows(count, 160, 5);
    let corpus = check.subject.store_bits(160, &rows, &[count / 3, count / 3 + 7])?;
    let queries = rows.head(3).values;
    for choice in CHOICES {
        let (view, left) = select(&corpus, check, choice);
        let gathered = check.subject.engine.store().table().gather(&view);
        let values = left.iter().flat_map(|row| rows.row(*row as usize)).copied().collect();
        let subset = Matrix { rows: left.len(), dim: rows.dim, values };
        for metric in Metric::OF_BITS {
            let of_subset = truth(metric, &queries, &subset, count, None);
            let renumber = |hits: &Hits| hits.iter().map(|(row, score)| (left[*row as usize], *score)).collect();
            let all: Vec<Hits> = of_subset.iter().map(renumber).collect();
            for (k, corpus) in [(1, &view), (10, &view), (count, &view), (10, &gathered)] {
                let queries = matrix(rows.dim, &queries).into();
                let job = Search { corpus: corpus.clone(), queries, metric, k, threshold: None };
                searched(check, &format!("{} of {count} x 160 bits", choice.0), job, &all)?;
            }
        }
    }
    Ok(())
}

/// All rows, and some that are named.
pub(super) fn scores(check: &mut Check<'_, Score>) -> Result<(), Failure> {
    for (count, bits, asked) in [(129, 72, 9), (40, 1_024, 3), (70, 32_768, 2)] {
        let rows = rows(count, bits, 7);
        let corpus = check.subject.store_bits(bits, &rows, &[count / 3])?;
        // The rows without any bit and with all of them are among those that are asked for.
        let first = count / 2 - asked / 2;
        let queries = rows.values[first * rows.dim..(first + asked) * rows.dim].to_vec();
        for metric in Metric::OF_BITS {
            let all = reference::score(by_reference(metric), &queries, &rows.values, rows.dim);
            let last = count as u32 - 1;
            for named in [None, Some(vec![last, 0, last / 2, last / 2, last / 3])] {
                let ids = named.clone().unwrap_or_else(|| (0..=last).collect());
                let row = |query: usize| ids.iter().map(move |row| query * count + *row as usize);
                let want: Vec<u32> = (0..asked).flat_map(row).map(|at| all[at].to_bits()).collect();
                let queries = matrix(rows.dim, &queries);
                let name = format!("{count} x {bits} bits, {metric}, {} rows", ids.len());
                check.case(name, Score { corpus: corpus.clone(), queries, metric, rows: named }, &want)?;
            }
        }
    }
    Ok(())
}
