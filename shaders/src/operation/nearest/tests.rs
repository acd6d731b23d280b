//! Points on every device there is, held against the definition.

use megaring_core::lists::wants_every_row;
use megaring_datasets::points;

use super::*;
use crate::gpu::Gpu;
use crate::testing::{self, gpus};

type Point = [f64; AXES];

/// A job, and how the points come: the rows of each part, by rounds.
struct Case<'a> {
    points: &'a [Point],
    queries: &'a [Point],
    weights: Point,
    k: usize,
    /// Candidates that fit.
    capacity: usize,
    rounds: Vec<Vec<usize>>,
}

impl<'a> Case<'a> {
    fn new(points: &'a [Point], queries: &'a [Point], k: usize) -> Self {
        let rounds = vec![vec![points.len()]];
        Self { points, queries, weights: DEFAULT_WEIGHTS, k, capacity: points.len().max(1), rounds }
    }

    fn parts(&self, gpu: &Gpu) -> Vec<Vec<Part>> {
        let mut first = 0;
        let mut part = |rows: usize| {
            let numbers = first..first + rows;
            first += rows;
            let columns = axes(&self.points[numbers.clone()]);
            testing::part(gpu, &super::columns(&columns.each_ref().map(Vec::as_slice)), &[], numbers)
        };
        self.rounds.iter().map(|parts| parts.iter().map(|rows| part(*rows)).collect()).collect()
    }

    /// Runs it and compares each query's answer from its candidates with the one from all points. Gives back how many
    /// candidates each query had; `None` where every point is one.
    fn check(&self, gpu: &Gpu) -> Vec<Option<usize>> {
        let columns = axes(self.points);
        let extent = extent(&columns.each_ref().map(Vec::as_slice));
        let len = lists::len(self.queries.len(), self.capacity);
        let mut job = Nearest::new(self.queries, self.weights, self.k, self.points.len(), extent, len);
        let result = testing::run(gpu, &mut job, &self.parts(gpu), len);
        // Lists are read where they are aligned.
        let words: Vec<u64> = bytemuck::pod_collect_to_vec(&result);
        let lists =
            CandidateLists::read(bytemuck::cast_slice(&words), self.queries.len(), self.points.len()).expect("lists");
        let point = |row: u32| self.points[row as usize];
        let all = 0..self.points.len() as u32;
        let found = self.queries.iter().enumerate().map(|(at, query)| {
            let Candidates::Listed(listed) = lists.of(at) else { return None };
            for candidate in listed {
                let distance = nearest::squared(point(candidate.row), *query, self.weights).sqrt();
                assert!(f64::from(candidate.upper) >= -distance, "{}: {distance} and {candidate:?}", gpu.name);
            }
            let rank = |rows: &[u32]| nearest::rank(rows.iter().copied(), point, *query, self.weights, self.k);
            let mut rows: Vec<u32> = listed.iter().map(|candidate| candidate.row).collect();
            rows.sort_unstable();
            assert!(rows.is_sorted_by(|one, next| one < next), "{}: query {at}: a row twice", gpu.name);
            let (screened, naive) = (rank(&rows), rank(&all.clone().collect::<Vec<_>>()));
            let bits = |found: &[nearest::Neighbour]| -> Vec<(u32, u64)> {
                found.iter().map(|one| (one.row, one.distance.to_bits())).collect()
            };
            assert_eq!(bits(&screened), bits(&naive), "{}: query {at} {query:?}, k {}", gpu.name, self.k);
            Some(rows.len())
        });
        found.collect()
    }
}

fn axes(points: &[Point]) -> [Vec<f64>; AXES] {
    std::array::from_fn(|axis| points.iter().map(|point| point[axis]).collect())
}

fn scaled(points: &[Point], factor: f64, shift: f64) -> Vec<Point> {
    points.iter().map(|point| point.map(|value| value * factor + shift)).collect()
}

/// The lists' lengths; fails where there is a query that all points are candidates for.
fn lengths(found: Vec<Option<usize>>) -> Vec<usize> {
    found.into_iter().map(|listed| listed.expect("a list")).collect()
}

#[test]
fn the_nearest_are_among_the_candidates_and_hardly_more() {
    let queries = points(9, 2);
    for gpu in gpus() {
        for rows in [0, 1, 2, 15, 16, 17, 63, 64, 65, 300, 1_000, 4_097, 20_000] {
            let points = points(rows, 1);
            for k in [1, 2, 10, 40, 100, 1_000, 3_000, rows / 2, rows].into_iter().filter(|k| *k > 0) {
                let found = Case::new(&points, &queries, k).check(gpu);
                if wants_every_row(k as u64, rows as u64) {
                    assert!(found.iter().all(Option::is_none), "{rows} rows, k {k}");
                    continue;
                }
                for listed in lengths(found) {
                    // One point in twenty is the double of another, so there are ties.
                    assert!((k..=2 * k + 40).contains(&listed), "{rows} rows, k {k}: {listed} candidates");
                }
            }
        }
    }
}

#[test]
fn parts_and_rounds_of_any_lengths_make_one_answer() {
    // Away from 0, where the points lie that fill up a part.
    let (points, queries) =
        (scaled(&points(3_000, 3), 1.0, 4.0), vec![[0.0; 5], [4.5; 5], [-30.0, 2.0, 4.0, 9.0, 0.5]]);
    let rounds: [Vec<Vec<usize>>; 4] = [
        vec![vec![1_000, 17, 983, 1_000]],
        vec![vec![1, 15, 16], vec![968], vec![2_000]],
        vec![vec![2_999], vec![1]],
        (0..30).map(|_| vec![33, 67]).collect(),
    ];
    for gpu in gpus() {
        for rounds in &rounds {
            for k in [1, 7, 200] {
                let case = Case { rounds: rounds.clone(), ..Case::new(&points, &queries, k) };
                lengths(case.check(gpu));
            }
        }
    }
}

#[test]
fn many_queries_are_answered_each_for_itself() {
    let (points, queries) = (points(2_600, 4), points(3_000, 5));
    for gpu in gpus() {
        // Cells of one point for so many queries are several blocks.
        for k in [3, 60] {
            let case = Case { capacity: 300, rounds: vec![vec![1_300; 2]], ..Case::new(&points, &queries, k) };
            let listed = lengths(case.check(gpu));
            let mean = listed.iter().sum::<usize>() as f64 / listed.len() as f64;
            assert!(mean < 1.5 * k as f64 + 10.0, "k {k}: {mean} candidates");
        }
    }
}

#[test]
fn points_a_hair_apart_are_told_apart_by_the_definition_alone() {
    let gpus = gpus();
    // Steps far below float32's: the lists are long, the answer is the definition's.
    for step in [1e-9, 1e-12, 2e-16] {
        let hair = |at: usize, axis: usize| 1.0 + ((at * 7_919 + axis * 104_729) % 1_000) as f64 * step;
        let near: Vec<Point> = (0..400).map(|at| std::array::from_fn(|axis| hair(at, axis))).collect();
        let points = [near, scaled(&points(4_000, 6), 1.0, 3.0)].concat();
        let queries = [[1.0; 5], [0.0; 5], [1.0 + 2.5e-10; 5], [-700.0, 3.0, 0.0, 1e3, 4.0]];
        for gpu in gpus {
            for k in [1, 5, 50, 390, 450] {
                for weights in [DEFAULT_WEIGHTS, [1.0, 0.0, 0.0, 0.0, 1e-3]] {
                    Case { weights, ..Case::new(&points, &queries, k) }.check(gpu);
                }
            }
        }
    }
}

#[test]
fn equal_points_go_by_row_and_a_list_that_is_too_short_says_so() {
    let points: Vec<Point> = points(40, 7).into_iter().cycle().take(4_000).collect();
    let queries = [points[3], [0.25; 5]];
    for gpu in gpus() {
        let case = Case::new(&points, &queries, 30);
        assert!(lengths(case.check(gpu)).iter().all(|listed| *listed >= 100), "a hundred of each point");
        for (capacity, fits) in [(29, false), (99, false), (5_000, true)] {
            let case = Case { capacity, ..Case::new(&points, &queries, 30) };
            assert!(case.check(gpu).iter().all(|listed| listed.is_some() == fits), "room for {capacity}");
        }
        // No axis counts: all are equally near.
        let case = Case { weights: [0.0; AXES], ..Case::new(&points, &queries, 30) };
        assert_eq!(lengths(case.check(gpu)), [4_000, 4_000]);
    }
}

#[test]
fn sizes_from_one_end_of_what_is_tame_to_the_other_and_beyond() {
    let (some, queries) = (points(2_000, 8), points(5, 9));
    for gpu in gpus() {
        for factor in [1e-300, 1e-40, 1e-20, 1e-9, 1e-3, 1e6, 4e11, TAME_COORDINATE / 2.5, 1e15, 1e90] {
            for weight in [1e-300, 1e-45, 1e-30, 1e-6, 1.0, 1e5, TAME_WEIGHT / 2.0, 1e7, 1e40] {
                let (points, queries) = (scaled(&some, factor, 0.0), scaled(&queries, factor, 0.0));
                let weights = DEFAULT_WEIGHTS.map(|usual| usual * weight);
                let found = Case { weights, ..Case::new(&points, &queries, 10) }.check(gpu);
                let tame = factor <= TAME_COORDINATE / 2.5 && weight <= TAME_WEIGHT / 2.0;
                assert_eq!(found.iter().all(Option::is_some), tame, "factor {factor:e}, weight {weight:e}");
                // Where float32 has its full precision, that shows.
                if tame && factor * weight > 1e-12 && factor > 1e-30 && weight > 1e-30 {
                    assert!(lengths(found).iter().all(|listed| *listed < 60), "factor {factor:e}, weight {weight:e}");
                }
            }
        }
    }
}

#[test]
fn a_query_that_is_not_tame_leaves_the_others_their_lists() {
    let points = points(1_000, 10);
    let queries = [[0.5; 5], [0.0, 0.0, 1e13, 0.0, 0.0], [0.1; 5], [f64::MAX; 5]];
    for gpu in gpus() {
        let found = Case::new(&points, &queries, 4).check(gpu);
        assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, false]);
    }
}

#[test]
fn a_point_far_off_does_not_blur_the_others() {
    let (mut points, queries) = (points(2_000, 11), points(5, 12));
    points[77] = [TAME_COORDINATE; AXES];
    for gpu in gpus() {
        let listed = lengths(Case::new(&points, &queries, 10).check(gpu));
        assert!(listed.iter().all(|listed| *listed < 30), "{listed:?}");
    }
}

#[test]
fn bounds_hold_for_points_that_float32_cannot_hold() {
    // Sevenths have no end, so every coordinate is rounded, and both small and large ones meet.
    let seventh = |at: usize, axis: usize| (((at * (axis + 3)) % 1_009) as f64 - 500.0) / 7.0;
    let points: Vec<Point> = (0..5_000).map(|at| std::array::from_fn(|axis| seventh(at, axis))).collect();
    for gpu in gpus() {
        for shift in [0.0, 1e3, 1e5, 1e6] {
            let points = scaled(&points, 1.0, shift);
            let queries = [[0.0; AXES], points[1_234], [shift + 0.3; AXES], [-shift; AXES]];
            for weights in [DEFAULT_WEIGHTS, [1.0 / 3.0, 0.0, 1e-5, 0.1, 1e4]] {
                lengths(Case { weights, ..Case::new(&points, &queries, 600) }.check(gpu));
            }
        }
    }
}

#[test]
fn columns_are_filled_up_and_extents_are_those_of_tame_points() {
    let (one, two) = (vec![1.0, -3.0, 0.1], vec![0.0; 3]);
    let axes = [&one[..], &two, &two, &two, &one];
    let bytes = columns(&axes);
    let values: Vec<f32> = bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
    assert_eq!((values.len(), &values[..4], values[64]), (80, &[1.0, -3.0, 0.1, 0.0][..], 1.0));
    assert_eq!(extent(&axes), Some([3.0, 0.0, 0.0, 0.0, 3.0]));
    assert_eq!(extent(&[&[]; AXES]), Some([0.0; AXES]));
    for wild in [TAME_COORDINATE * 1.5, -1e300, f64::NAN, f64::INFINITY] {
        assert_eq!(extent(&[&two[..], &two, &[0.0, wild, 1.0], &two, &two]), None, "{wild}");
    }
}
