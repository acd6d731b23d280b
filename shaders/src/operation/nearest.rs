//! Nearest points: a screen in float32 with a proven bound, and [`super::lists`]. The goodness is minus the distance.
//!
//! Bounded is the distance D as [`megaring_core::nearest`] computes it, the very number that orders the answer. Let d = w (p - q), per axis,
//! be exact, and D* the root of Σ d². Points, query and weights are *tame*: |p| and |q| are at most 2⁴⁰ and w at most 2²⁰; where they are
//! not, every row is a candidate. With u = 2⁻²³, an operation in a shader is off by less than u of its result, and the host's rounding to float32 by u/2;
//! both by 2⁻¹²⁶ where small numbers are lost. Then, with what the shader computes marked ~ :
//!
//! - **Coordinates.** |d~ - d| < 3.1 u w (|p| + |q|) + 2⁻⁸²: u/2 for p and q as float32, u for their difference, u/2 for w as float32 and u for
//!   the product; what is lost is multiplied by at most 2²⁰ or 2⁴¹. It is as much where the compiler multiplies out. Now |p| is at most
//!   P, the largest of all points, and w |p| is also at most w |q| + |d|. So with e = 2⁻²⁰ w (min(P, |q|) + |q|) + 2⁻⁵⁸, which is more than
//!   twice what it stands for, ‖d~‖ lies within ‖e‖ + 3.1 u D* of D* (Minkowski). A point far off therefore does not blur the others.
//! - **Squares, sum and root.** D~ is the root of Σ d~² + 2⁻¹²⁰. A square is off by u, and so is each of five additions, in whatever order and
//!   fused or not; the root halves that and is itself off by at most 5 u (WGSL: 1 / inverseSqrt). Together 8 u of D~. What is lost of
//!   the squares and what is added to them move the root by less than 2⁻⁵⁹, of which ‖e‖ holds more than twice as much. No square is
//!   above 2¹²³, so nothing overflows, and the root's argument is never 0 nor denormal.
//! - **The definition.** D is off from D* by less than 2⁻⁴⁹ of it.
//! - **The bounds.** With δ = 2⁻¹⁸ = 32 u and E = (1 + δ) ‖e‖, D lies between D~ (1 - δ) - E and D~ (1 + δ) + E. All of the above that goes with
//!   D~ or D* is less than 12 u, and the two operations of each bound are off by 2 u of D~ and of E, which both have room for it.
//!
//! A cell has the bounds of the nearest of its points by Σ d~². Its lower bound is one of a point's goodness, so k cells stand for k points. Its
//! upper bound is one for all its points: the argument gives a point further away no nearer bound than that, since exact roots are in order.

use bytemuck::{Pod, Zeroable};
use megaring_core::screen::GROUP_ROWS;

use super::lists::{Block, CELL_ROWS, Lists, Screen, Threshold};
use super::{Delivery, Operation, Part, same_layout};
use crate::script::{Script, Sizes};
use crate::stage::Stage;

const AXES: usize = 5;
/// The largest tame coordinate: 2⁴⁰.
const TAME_COORDINATE: f64 = (1_u64 << 40) as f64;
/// The largest tame weight: 2²⁰.
const TAME_WEIGHT: f64 = (1 << 20) as f64;
/// Of coordinates' weighted size, what an axis may be off by.
const COORDINATE_ERROR: f64 = 1.0 / (1 << 20) as f64;
/// What it may be off by besides: 2⁻⁵⁸.
const LOST: f64 = 1.0 / (1_u64 << 58) as f64;
/// δ.
const RELATIVE: f64 = 1.0 / (1 << 18) as f64;
/// Invocations of a workgroup of `nearest.wgsl`, and the queries of each.
const THREADS: u32 = 64;
const QUERIES: u32 = 4;
/// Points that the shader takes at once.
const FOUR: u32 = 4;

/// Twin of the shaders'.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct NearestParams {
    block: Block,
    weights: [f32; 4],
    weight_v: f32,
    stride: u32,
    queries: u32,
    unused: u32,
}

same_layout!(nearest_params: NearestParams { block, weights, weight_v, stride, queries, unused });

/// A query as the shaders have it, in two fours.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Query {
    point: [f32; AXES],
    error: f32,
    unused: [f32; 2],
}

/// Points as a part of a job has them: five columns, each filled up to a multiple of 16 points.
pub(crate) fn columns(points: &[&[f64]; AXES]) -> Vec<u8> {
    let stride = points[0].len().next_multiple_of(GROUP_ROWS);
    let mut bytes = Vec::with_capacity(AXES * stride * size_of::<f32>());
    for (axis, column) in points.iter().enumerate() {
        bytes.extend(column.iter().flat_map(|value| (*value as f32).to_le_bytes()));
        bytes.resize((axis + 1) * stride * size_of::<f32>(), 0);
    }
    bytes
}

/// The largest magnitude on each axis; `None` where a coordinate is not tame.
pub(crate) fn extent(points: &[&[f64]; AXES]) -> Option<[f64; AXES]> {
    let tame = points.iter().all(|column| column.iter().all(is_tame));
    tame.then(|| points.map(|column| column.iter().fold(0.0, |most: f64, value| most.max(value.abs()))))
}

fn is_tame(coordinate: &f64) -> bool {
    coordinate.abs() <= TAME_COORDINATE
}

/// A job.
pub(crate) struct Nearest {
    lists: Lists,
    weights: [f32; AXES],
    /// `None` where the query is not tame.
    queries: Vec<Option<Query>>,
    in_vain: bool,
}

impl Nearest {
    /// The nearest `k` of `points` points with this [`extent`], for each query, into a result of `result` bytes.
    pub(crate) fn new(
        queries: &[[f64; AXES]],
        weights: [f64; AXES],
        k: usize,
        points: usize,
        extent: Option<[f64; AXES]>,
        result: usize,
    ) -> Self {
        let lists = Lists::new(queries.len(), k, points, result).with_work(3 * AXES);
        let extent = extent.filter(|_| weights.iter().all(|weight| (0.0..=TAME_WEIGHT).contains(weight)));
        let of = |query: &[f64; AXES]| {
            let extent = extent.filter(|_| query.iter().all(is_tame))?;
            Some(tame_query(query, &weights, &extent))
        };
        let queries: Vec<_> = queries.iter().map(of).collect();
        let in_vain = lists.is_in_vain() || queries.iter().all(Option::is_none);
        Self { lists, weights: weights.map(|weight| weight as f32), queries, in_vain }
    }

    /// Whether every point is a candidate for every query: then the job needs nothing of the points, nor of the device.
    pub(crate) fn is_in_vain(&self) -> bool {
        self.in_vain
    }

    fn params(&self, part: &Part, block: &Block) -> NearestParams {
        let [x, y, z, w, v] = self.weights;
        NearestParams {
            block: *block,
            weights: [x, y, z, w],
            weight_v: v,
            stride: part.rows.len().next_multiple_of(GROUP_ROWS) as u32 / FOUR,
            queries: (self.lists.input_len() / size_of::<[f32; 4]>()) as u32,
            unused: 0,
        }
    }
}

/// A query with its E.
fn tame_query(query: &[f64; AXES], weights: &[f64; AXES], extent: &[f64; AXES]) -> Query {
    let coordinates = query.iter().zip(weights).zip(extent);
    let errors = coordinates.map(|((q, w), p)| w * (p.min(q.abs()) + q.abs()) * COORDINATE_ERROR + LOST);
    let error = errors.map(|error| error * error).sum::<f64>().sqrt() * (1.0 + RELATIVE);
    Query { point: query.map(|q| q as f32), error: error as f32, unused: [0.0; 2] }
}

impl Screen for Nearest {
    fn fill_cells(&self, script: &mut Script, part: &Part, block: &Block) {
        // An invocation takes a cell of many points, or four of one.
        let invocations =
            if block.cell_rows as usize == CELL_ROWS { block.part_cells() } else { block.rows.div_ceil(FOUR) };
        let workgroups = [invocations.div_ceil(THREADS), block.queries.div_ceil(QUERIES), 1];
        let [work, _] = self.lists.work(block);
        script.dispatch(Stage::Nearest, Some(&part.binding), &self.params(part, block), workgroups, work);
    }

    fn collect(&self, script: &mut Script, part: &Part, block: &Block) {
        let params = self.params(part, block);
        let [_, work] = self.lists.work(block);
        script.dispatch(Stage::NearestCollect, Some(&part.binding), &params, block.collect_workgroups(), work);
    }
}

impl Operation for Nearest {
    fn sizes(&self) -> Sizes {
        if self.in_vain { Sizes::default() } else { self.lists.sizes(self.queries.len() * size_of::<Query>()) }
    }

    fn fill(&self, input: &mut [u8]) {
        if self.in_vain {
            return;
        }
        let (head, queries) = input.split_at_mut(self.lists.input_len());
        // Nothing is listed for a query that is not tame.
        let least = |query: &Option<Query>| if query.is_some() { f32::MIN } else { f32::MAX };
        self.lists.fill(head, self.queries.iter().map(|query| Threshold { least: least(query), slack: 0.0 }));
        for (bytes, query) in queries.as_chunks_mut::<{ size_of::<Query>() }>().0.iter_mut().zip(&self.queries) {
            *bytes = bytemuck::cast(query.unwrap_or_else(Query::zeroed));
        }
    }

    fn round(&mut self, parts: &[Part], first: bool) -> Script {
        if self.in_vain { Script::default() } else { self.lists.round(self, parts, first) }
    }

    fn delivery(&self) -> Delivery {
        let lists = self.lists;
        let whole: Vec<bool> = self.queries.iter().map(Option::is_none).collect();
        Box::new(move |output, result| lists.deliver(output, result, |query| whole[query]))
    }
}

#[cfg(test)]
mod tests {
    use megaring_core::arena_format::{self, CandidateLists, Candidates};
    use megaring_core::nearest::{self, DEFAULT_WEIGHTS};
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

        /// Runs it, compares each query's answer from its candidates with that from all points, and gives back how many candidates there
        /// were for each; `None` for a query for which that is all.
        fn check(&self, gpu: &Gpu) -> Vec<Option<usize>> {
            let columns = axes(self.points);
            let extent = extent(&columns.each_ref().map(Vec::as_slice));
            let len = arena_format::lists_len(self.queries.len(), self.capacity);
            let mut job = Nearest::new(self.queries, self.weights, self.k, self.points.len(), extent, len);
            let result = testing::run(gpu, &mut job, &self.parts(gpu), len);
            // Lists are read where they are aligned.
            let words: Vec<u64> = bytemuck::pod_collect_to_vec(&result);
            let lists = CandidateLists::read(bytemuck::cast_slice(&words), self.queries.len()).expect("lists");
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
                    let found = Case::new(&points, &queries, k).check(&gpu);
                    if 2 * k >= rows {
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
                    lengths(case.check(&gpu));
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
                let listed = lengths(case.check(&gpu));
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
            for gpu in &gpus {
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
            assert!(lengths(case.check(&gpu)).iter().all(|listed| *listed >= 100), "a hundred of each point");
            for (capacity, fits) in [(29, false), (99, false), (5_000, true)] {
                let case = Case { capacity, ..Case::new(&points, &queries, 30) };
                assert!(case.check(&gpu).iter().all(|listed| listed.is_some() == fits), "room for {capacity}");
            }
            // No axis counts: all are equally near.
            let case = Case { weights: [0.0; AXES], ..Case::new(&points, &queries, 30) };
            assert_eq!(lengths(case.check(&gpu)), [4_000, 4_000]);
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
                    let found = Case { weights, ..Case::new(&points, &queries, 10) }.check(&gpu);
                    let tame = factor <= TAME_COORDINATE / 2.5 && weight <= TAME_WEIGHT / 2.0;
                    assert_eq!(found.iter().all(Option::is_some), tame, "factor {factor:e}, weight {weight:e}");
                    // Where float32 has its full precision, that shows.
                    if tame && factor * weight > 1e-12 && factor > 1e-30 && weight > 1e-30 {
                        assert!(
                            lengths(found).iter().all(|listed| *listed < 60),
                            "factor {factor:e}, weight {weight:e}"
                        );
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
            let found = Case::new(&points, &queries, 4).check(&gpu);
            assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, false]);
        }
    }

    #[test]
    fn a_point_far_off_does_not_blur_the_others() {
        let (mut points, queries) = (points(2_000, 11), points(5, 12));
        points[77] = [TAME_COORDINATE; AXES];
        for gpu in gpus() {
            let listed = lengths(Case::new(&points, &queries, 10).check(&gpu));
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
                    lengths(Case { weights, ..Case::new(&points, &queries, 600) }.check(&gpu));
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
}
