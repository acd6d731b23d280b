//! The generators: the same bits for the same seed, and a likeness to the real sample that is measured.

use std::collections::{HashMap, HashSet};

use megaring_datasets::reference::{Metric, Profile, encode, keyword_mask, search};
use megaring_datasets::{Embeddings, Matrix, Memories, memories, points, queries, sample};

/// FNV-1a 64, written out again so that the golden sums do not rest on the crate's own hashing.
fn fnv(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn with_rows(rows: usize) -> Embeddings {
    Embeddings { rows, clusters: 300, ..Embeddings::default() }
}

#[test]
fn embeddings_are_the_same_bits_for_the_same_seed() {
    let recipe = with_rows(700);
    let matrix = recipe.generate();
    assert_eq!((matrix.rows, matrix.dim, matrix.values.len()), (700, 384, 700 * 384));
    assert_eq!(fnv(matrix.to_le_bytes()), 0x1ade_5af8_6d64_77d4);
    assert_ne!(Embeddings { seed: 2, ..recipe.clone() }.generate().checksum(), matrix.checksum());
    let raw = Embeddings { normalized: false, dim: 33, ..recipe }.generate();
    assert_eq!(fnv(raw.to_le_bytes()), 0xa09f_84a3_f1aa_9d26);
}

#[test]
fn memories_are_the_same_bits_for_the_same_seed() {
    let drawn = memories(2000, 7).unwrap();
    assert_eq!(fnv(drawn.text().bytes()), 0x029a_1faa_d7e7_1bad);
    let features = drawn.iter().flat_map(|memory| {
        let numbers = [memory.importance, memory.age_days, memory.galactic_distance, f64::from(memory.access_count)];
        numbers.into_iter().flat_map(f64::to_le_bytes).chain(memory.garden.bytes())
    });
    assert_eq!(fnv(features), 0x0140_56e0_204c_faa7);
    assert_ne!(memories(2000, 8).unwrap().text(), drawn.text());
}

#[test]
fn points_and_queries_are_the_same_bits_for_the_same_seed() {
    let drawn = points(5000, 3);
    assert_eq!(fnv(drawn.iter().flatten().flat_map(|value| value.to_le_bytes())), 0xc798_1a89_928d_968f);
    let drawn = queries(&with_rows(100).generate(), 50, 3);
    assert_eq!(fnv(drawn.to_le_bytes()), 0xe64b_baa4_3c31_2e7c);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let many = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
    let make = || (with_rows(300).generate().checksum(), memories(300, 1).unwrap());
    assert_eq!(one.install(make), many.install(make));
}

#[test]
fn fewer_rows_are_a_prefix_of_more() {
    assert_eq!(with_rows(90).generate(), with_rows(300).generate().head(90));
    assert_eq!(
        memories(40, 5).unwrap().text(),
        memories(90, 5).unwrap().text().split_at(memories(40, 5).unwrap().text().len()).0
    );
}

/// What makes a set of embeddings look real.
#[derive(Debug)]
struct Likeness {
    mean_norm: f64,
    /// Quantiles 5, 50 and 95 % of the similarity of the tenth nearest neighbour.
    tenth: [f64; 3],
    /// Mean similarity of the ten nearest neighbours.
    ten_mean: f64,
    /// Largest variance of a single coordinate, relative to the mean one: large where the axes were not turned.
    peak: f64,
    /// Share of the total variance along its strongest direction, by power iteration.
    strongest: f64,
}

/// Rows whose neighbours are looked at; the sample's rows are in random order.
const SAMPLED: usize = 400;

fn likeness(matrix: &Matrix) -> Likeness {
    let mean = mean(matrix);
    let mean_norm = mean.iter().map(|value| value * value).sum::<f64>().sqrt();
    // Eleven hits, the first of which is the row itself.
    let queries = matrix.head(SAMPLED);
    let found = search(Metric::Cosine, &queries.values, &matrix.values, matrix.dim, 11, None);
    let mut tenth: Vec<f64> = found.iter().map(|hits| hits[10].score).collect();
    tenth.sort_by(f64::total_cmp);
    let ten_mean = found.iter().flat_map(|hits| &hits[1..]).map(|hit| hit.score).sum::<f64>() / (10 * SAMPLED) as f64;
    let tenth = [5, 50, 95].map(|percent| tenth[SAMPLED * percent / 100]);
    Likeness { mean_norm, tenth, ten_mean, peak: peak(matrix, &mean), strongest: strongest(matrix, &mean) }
}

fn mean(matrix: &Matrix) -> Vec<f64> {
    let mut mean = vec![0.0; matrix.dim];
    for row in matrix.iter_rows() {
        mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value) / matrix.rows as f64);
    }
    mean
}

fn peak(matrix: &Matrix, mean: &[f64]) -> f64 {
    let mut variances = vec![0.0; matrix.dim];
    for row in matrix.iter_rows() {
        let centred = row.iter().zip(mean).map(|(&value, mean)| f64::from(value) - mean);
        variances.iter_mut().zip(centred).for_each(|(sum, value)| *sum += value * value);
    }
    variances.iter().fold(0.0f64, |peak, &value| peak.max(value)) * matrix.dim as f64 / variances.iter().sum::<f64>()
}

fn strongest(matrix: &Matrix, mean: &[f64]) -> f64 {
    let mut direction: Vec<f64> = (0..matrix.dim).map(|i| 1.0 + (i % 5) as f64).collect();
    let mut share = 0.0;
    for _ in 0..25 {
        let norm = direction.iter().map(|value| value * value).sum::<f64>().sqrt();
        direction.iter_mut().for_each(|value| *value /= norm);
        let mut next = vec![0.0; matrix.dim];
        let (mut along, mut total) = (0.0, 0.0);
        for row in matrix.iter_rows() {
            let centred = || row.iter().zip(mean).map(|(&value, mean)| f64::from(value) - mean);
            let projection: f64 = centred().zip(&direction).map(|(value, axis)| value * axis).sum();
            along += projection * projection;
            total += centred().map(|value| value * value).sum::<f64>();
            next.iter_mut().zip(centred()).for_each(|(sum, value)| *sum += projection * value);
        }
        share = along / total;
        direction = next;
    }
    share
}

#[test]
fn embeddings_look_like_the_real_sample() {
    let real = likeness(&sample().unwrap().embeddings);
    let made = likeness(&with_rows(2048).generate());
    println!("real {real:?}\nmade {made:?}");
    assert!((0.25..0.37).contains(&real.mean_norm) && (0.25..0.37).contains(&made.mean_norm));
    assert!((real.ten_mean - made.ten_mean).abs() < 0.04);
    for (real, made) in real.tenth.iter().zip(made.tenth) {
        assert!((real - made).abs() < 0.07, "{real} and {made}");
    }
    assert!(made.peak < 2.5 && real.peak < 2.5);
    assert!((0.025..0.09).contains(&real.strongest) && (0.025..0.09).contains(&made.strongest));
}

#[test]
fn embeddings_hold_duplicates_near_and_exact() {
    let matrix = with_rows(3000).generate();
    let distinct: HashSet<Vec<u8>> =
        matrix.iter_rows().map(|row| row.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let exact = 3000 - distinct.len();
    assert!((1..20).contains(&exact), "{exact} exact duplicates");
    let twins = |matrix: &Matrix| {
        let late = Matrix::new(400, 384, matrix.values[2600 * 384..].to_vec());
        let found = search(Metric::Cosine, &late.values, &matrix.values, 384, 2, Some(0.975));
        found.iter().filter(|hits| hits.len() == 2).count()
    };
    let count = twins(&matrix);
    assert!((5..40).contains(&count), "{count} of 400 rows with a twin");
    assert_eq!(twins(&Embeddings { exact_duplicates: 0.0, near_duplicates: 0.0, ..with_rows(3000) }.generate()), 0);
}

#[test]
fn rows_are_normalised_unless_raw_norms_are_asked_for() {
    let norms = |matrix: &Matrix| -> Vec<f64> {
        matrix.iter_rows().map(|row| row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()).collect()
    };
    for dim in [1, 2, 3, 17, 384, 1000] {
        let matrix = Embeddings { rows: 50, dim, ..Embeddings::default() }.generate();
        assert!(norms(&matrix).iter().all(|norm| (norm - 1.0).abs() < 1e-6), "dim {dim}");
    }
    let raw = norms(&Embeddings { normalized: false, ..with_rows(200) }.generate());
    assert!(raw.iter().all(|norm| (3.0..12.0).contains(norm)));
    assert!(raw.iter().any(|norm| *norm < 5.5) && raw.iter().any(|norm| *norm > 6.5));
}

#[test]
fn degenerate_recipes_are_legal() {
    assert_eq!(with_rows(0).generate(), Matrix::new(0, 384, vec![]));
    assert_eq!(Embeddings { dim: 0, ..with_rows(5) }.generate(), Matrix::new(5, 0, vec![]));
    let alone = Embeddings { clusters: 0, ..with_rows(3) }.generate();
    assert!(alone.values.iter().all(|value| value.is_finite()));
    let copies = Embeddings { exact_duplicates: 1.0, ..with_rows(9) }.generate();
    assert!(copies.iter_rows().all(|row| row == copies.row(0)));
    assert!(memories(0, 1).unwrap().is_empty());
    assert!(points(0, 1).is_empty());
    assert_eq!(queries(&with_rows(0).generate(), 2, 1).rows, 2);
}

#[test]
fn queries_are_rows_rows_with_noise_and_directions() {
    let matrix = with_rows(500).generate();
    let queries = queries(&matrix, 300, 11);
    let best = search(Metric::Cosine, &queries.values, &matrix.values, 384, 1, None);
    let verbatim =
        queries.iter_rows().zip(&best).filter(|(query, hits)| *query == matrix.row(hits[0].row as usize)).count();
    let near = best.iter().filter(|hits| hits[0].score > 0.65).count() - verbatim;
    let far = best.iter().filter(|hits| hits[0].score < 0.4).count();
    assert!(
        (35..90).contains(&verbatim) && (120..230).contains(&near) && (35..90).contains(&far),
        "{verbatim} {near} {far}"
    );
}

#[test]
fn memories_have_natural_lengths() {
    let drawn = memories(20_000, 1).unwrap();
    let mut lengths: Vec<usize> = drawn.iter().map(|memory| memory.content.len()).collect();
    lengths.sort_unstable();
    let mean = drawn.text().len() as f64 / 20_000.0;
    println!("mean {mean}, median {}, longest {}", lengths[10_000], lengths[19_999]);
    assert!((335.0..385.0).contains(&mean), "mean {mean}");
    assert!((180..240).contains(&lengths[10_000]), "median {}", lengths[10_000]);
    assert!((5_000..=10_000).contains(&lengths[19_999]), "longest {}", lengths[19_999]);
    let empty = lengths.iter().filter(|&&length| length == 0).count();
    assert!((15..80).contains(&empty), "{empty} empty");
    let foreign = drawn.iter().filter(|memory| !memory.content.is_ascii()).count();
    assert!((200..1200).contains(&foreign), "{foreign} beyond ASCII");
    assert!(drawn.text().contains('\u{212a}') && drawn.text().contains('İ') && drawn.text().contains('記'));
}

/// Share of contents in which each word of the profile stands.
fn keyword_rates<'a>(contents: impl Iterator<Item = &'a str>, words: &[String]) -> Vec<f64> {
    let mut counts = vec![0u32; words.len()];
    let mut total = 0.0;
    for content in contents {
        let mask = keyword_mask(content, words);
        counts.iter_mut().enumerate().for_each(|(bit, count)| *count += (mask >> bit & 1) as u32);
        total += 1.0;
    }
    counts.into_iter().map(|count| f64::from(count) / total).collect()
}

#[test]
fn memories_use_keywords_at_natural_rates() {
    let profile = Profile::whitemagic().unwrap();
    let drawn = memories(20_000, 2).unwrap();
    let made = keyword_rates(drawn.iter().map(|memory| memory.content), &profile.words);
    let real = sample().unwrap().records;
    let real = keyword_rates(real.iter().map(|record| record.content.as_str()), &profile.words);
    assert!(made.iter().all(|&rate| rate > 0.0), "every word occurs");
    let per_memory = [real.iter().sum::<f64>(), made.iter().sum::<f64>()];
    println!("keywords per memory, real and made: {per_memory:?}");
    assert!((per_memory[0] - per_memory[1]).abs() < 2.0);
    // The words that docstrings use much are used as much here; texts here are a little longer.
    for (word, (real, made)) in profile.words.iter().zip(real.iter().zip(&made)).filter(|(_, (real, _))| **real > 0.05)
    {
        assert!((0.6..2.0).contains(&(made / real)), "{word}: {real} and {made}");
    }
}

#[test]
fn memories_reach_every_zone_and_every_kind_of_garden() {
    let profile = Profile::whitemagic().unwrap();
    let drawn: Memories = memories(5_000, 3).unwrap();
    let mut zones = HashMap::new();
    for memory in drawn.iter() {
        *zones.entry(encode(&memory, &profile).zone).or_insert(0) += 1;
    }
    assert!((0..5).all(|zone| zones.get(&zone).is_some_and(|&count| count > 50)), "{zones:?}");
    let gardens: HashSet<&str> = drawn.gardens().iter().copied().collect();
    assert!(gardens.contains("") && gardens.contains("FIRE") && gardens.contains("joy"));
    assert!(drawn.importance().iter().all(|value| (0.0..=1.0).contains(value)));
    assert!(drawn.galactic_distance().iter().all(|value| (0.0..=1.0).contains(value)));
    assert!(drawn.age_days().iter().all(|value| value.is_finite() && *value >= 0.0));
    assert!(drawn.access_count().contains(&0) && drawn.access_count().iter().any(|&count| count > 30));
    assert_eq!((drawn.offsets().len(), drawn.offsets()[5_000]), (5_001, drawn.text().len()));
}

#[test]
fn points_stay_in_range_and_tie() {
    let drawn = points(4_000, 9);
    let low = [-1.0, -1.0, -1.0, 0.5, 0.0];
    let high = [1.0, 1.0, 1.0, 2.5, 1.0];
    assert!(drawn.iter().all(|point| (0..5).all(|axis| (low[axis]..=high[axis]).contains(&point[axis]))));
    let distinct: HashSet<[u64; 5]> = drawn.iter().map(|point| point.map(f64::to_bits)).collect();
    assert!((100..400).contains(&(4_000 - distinct.len())), "{} repeated", 4_000 - distinct.len());
}
