//! The int8 screen of every available instruction set against the formula it documents, candidate by candidate.

use megaring_core::aligned::AlignedBytes;
use megaring_core::matrix::MAX_DIM;
use megaring_core::screen::GROUP_ROWS;
use megaring_simd::{Candidate, CandidateBuffers, KernelSet, QueryParams, ScreenQueries, ScreenRows, SimdError};

use crate::common::{DIMS, Random};
use crate::layout::{Column, pack_codes, pack_columns};

struct Case {
    dim: usize,
    rows: usize,
    codes: Vec<i8>,
    columns: Vec<Column>,
    queries: Vec<Vec<i8>>,
    params: Vec<QueryParams>,
    packed_codes: AlignedBytes,
    packed_columns: Vec<f32>,
    packed_queries: ScreenQueries,
}

impl Case {
    /// `keep` in 0..=1 moves the thresholds: about that share of the rows passes.
    fn new(random: &mut Random, rows: usize, dim: usize, queries: usize, keep: f32) -> Case {
        let codes = random.codes(rows * dim);
        let columns: Vec<Column> = (0..rows)
            .map(|_| Column {
                mul: 0.5 + random.unit().abs(),
                add: random.unit() * 0.1,
                e1: random.unit().abs(),
                e2: random.unit().abs(),
            })
            .collect();
        let query_codes: Vec<Vec<i8>> = (0..queries).map(|_| random.codes(dim)).collect();
        let scale = 1.0 / (127.0 * 127.0 * (dim.max(1) as f32).sqrt());
        let threshold = if keep >= 1.0 { -f32::MAX } else { 0.8 - 1.6 * keep };
        let params = (0..queries)
            .map(|_| QueryParams {
                scale,
                a: random.unit().abs() * 0.01,
                b: 0.001,
                threshold: threshold + random.unit() * 0.05,
            })
            .collect();
        let packed_codes = pack_codes(&codes, rows, dim);
        let packed_columns = pack_columns(&columns);
        let mut packed_queries = ScreenQueries::new(dim).expect("few dimensions");
        for query in &query_codes {
            packed_queries.push(query).expect("codes in range");
        }
        Case { dim, rows, codes, columns, queries: query_codes, params, packed_codes, packed_columns, packed_queries }
    }

    fn packed(&self) -> ScreenRows<'_> {
        ScreenRows::new(&self.packed_codes, &self.packed_columns, self.dim).expect("lengths fit")
    }

    /// The formula, one row at a time.
    fn expected(&self, query: usize, base: u32) -> Vec<Candidate> {
        let params = self.params[query];
        let candidate = |row: usize| {
            let codes = &self.codes[row * self.dim..][..self.dim];
            let sum: i32 = codes.iter().zip(&self.queries[query]).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
            let column = self.columns[row];
            let score = (sum as f32 * params.scale) * column.mul + column.add;
            let error = params.a * column.e1 + params.b * column.e2;
            let upper = score + error;
            (upper >= params.threshold).then_some(Candidate { row: base + row as u32, lower: score - error, upper })
        };
        (0..self.rows).filter_map(candidate).collect()
    }

    /// Runs the screen to the end, taking the candidates out whenever it stops.
    fn screened(&self, set: &KernelSet, capacity: usize, base: u32) -> Vec<Vec<Candidate>> {
        let mut found = vec![Vec::new(); self.queries.len()];
        let mut buffers = CandidateBuffers::new(self.queries.len(), capacity).expect("large enough");
        let (mut group, groups) = (0, self.packed().groups());
        loop {
            let reached = set
                .screen_i8(self.packed(), group..groups, base, self.packed_queries.all(), &self.params, &mut buffers)
                .expect("shapes fit");
            assert!(
                reached == groups || (0..self.queries.len()).any(|query| buffers.is_full(query)),
                "stopped for no reason"
            );
            assert!(reached == groups || reached > group, "no progress");
            for (query, found) in found.iter_mut().enumerate() {
                found.extend_from_slice(buffers.get(query));
            }
            buffers.clear();
            group = reached;
            if group == groups {
                return found;
            }
        }
    }

    fn check(&self, capacity: usize) {
        for set in KernelSet::available() {
            let found = self.screened(set, capacity, 70_000);
            for (query, found) in found.iter().enumerate() {
                let expected = self.expected(query, 70_000);
                let context =
                    format!("{} dim {} rows {} query {query} capacity {capacity}", set.isa(), self.dim, self.rows);
                assert_eq!(found.len(), expected.len(), "{context}");
                for (found, expected) in found.iter().zip(expected) {
                    assert_eq!(found.row, expected.row, "{context}");
                    assert_eq!(found.lower.to_bits(), expected.lower.to_bits(), "{context}");
                    assert_eq!(found.upper.to_bits(), expected.upper.to_bits(), "{context}");
                }
            }
        }
    }
}

#[test]
fn candidates_equal_the_formula_for_every_dimension() {
    let mut random = Random(4);
    for dim in DIMS {
        for queries in [1, 2, 9] {
            Case::new(&mut random, 70, dim, queries, 0.3).check(64);
        }
    }
}

#[test]
fn candidates_equal_the_formula_for_every_number_of_queries_and_rows() {
    let mut random = Random(5);
    for queries in 0..=18 {
        for rows in [0, 1, 15, 16, 17, 47, 48, 49, 130] {
            for keep in [0.0, 0.5, 1.0] {
                Case::new(&mut random, rows, 20, queries, keep).check(if queries % 2 == 0 { 16 } else { 53 });
            }
        }
    }
}

#[test]
fn the_largest_dimension_and_codes_do_not_overflow() {
    for (row_code, query_code) in [(127, 127), (127, -127), (-127, 127), (-127, -127)] {
        let mut case = Case::new(&mut Random(6), 2, MAX_DIM, 2, 1.0);
        case.codes.fill(row_code);
        case.packed_codes = pack_codes(&case.codes, 2, case.dim);
        case.packed_queries.clear();
        for query in &mut case.queries {
            query.fill(query_code);
            case.packed_queries.push(query).expect("codes in range");
        }
        case.check(64);
    }
    assert!(matches!(ScreenQueries::new(MAX_DIM + 1), Err(SimdError::TooLarge { .. })));
}

#[test]
fn a_range_of_queries_and_groups_is_screened_alone() {
    let case = Case::new(&mut Random(7), 100, 40, 12, 0.6);
    for set in KernelSet::available() {
        let mut buffers = CandidateBuffers::new(5, 4 * GROUP_ROWS).expect("large enough");
        let queries = case.packed_queries.range(6..11).expect("within");
        assert_eq!(queries.len(), 5);
        let reached =
            set.screen_i8(case.packed(), 2..5, 0, queries, &case.params[6..11], &mut buffers).expect("shapes fit");
        assert_eq!(reached, 5);
        for query in 0..5 {
            let mut expected = case.expected(query + 6, 0);
            expected.retain(|candidate| (2 * GROUP_ROWS..5 * GROUP_ROWS).contains(&(candidate.row as usize)));
            assert_eq!(buffers.get(query), expected, "{}", set.isa());
        }
    }
    assert!(case.packed_queries.range(6..13).is_err());
}

#[test]
fn an_upper_bound_that_equals_the_threshold_is_kept() {
    let mut case = Case::new(&mut Random(10), 40, 24, 1, 1.0);
    let upper = case.expected(0, 0)[17].upper;
    case.params[0].threshold = upper;
    assert!(case.expected(0, 0).iter().any(|candidate| candidate.upper == upper));
    case.check(64);
}

#[test]
fn raising_thresholds_after_a_stop_is_heeded() {
    let mut case = Case::new(&mut Random(8), 400, 16, 3, 1.0);
    for set in KernelSet::available() {
        let mut buffers = CandidateBuffers::new(3, 40).expect("large enough");
        let stop = set
            .screen_i8(case.packed(), 0..25, 0, case.packed_queries.all(), &case.params, &mut buffers)
            .expect("shapes fit");
        assert!(stop < 25 && buffers.is_full(0));
        buffers.get_mut(1).sort_by(|a, b| b.upper.total_cmp(&a.upper));
        let best = buffers.get(1)[0];
        for query in 0..3 {
            buffers.truncate(query, 1);
        }
        let before = case.params.clone();
        case.params.iter_mut().for_each(|params| params.threshold = f32::INFINITY);
        let end = set.screen_i8(case.packed(), stop..25, 0, case.packed_queries.all(), &case.params, &mut buffers);
        assert_eq!(end, Ok(25));
        assert_eq!(buffers.get(1), [best]);
        case.params = before;
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let case = Case::new(&mut Random(9), 20, 8, 2, 0.5);
    let set = KernelSet::from_env().expect("an instruction set");
    let mut buffers = CandidateBuffers::new(2, 16).expect("large enough");
    let all = || case.packed_queries.all();
    let mut run =
        |groups, base, params: &[QueryParams]| set.screen_i8(case.packed(), groups, base, all(), params, &mut buffers);
    assert!(run(0..0, 0, &case.params).is_ok());
    assert!(matches!(run(0..3, 0, &case.params), Err(SimdError::Index { what: "group", index: 3, count: 2 })));
    assert!(matches!(run(0..2, 0, &case.params[1..]), Err(SimdError::Length { .. })));
    assert!(matches!(run(0..2, u32::MAX, &case.params), Err(SimdError::TooLarge { .. })));
    let mut few = CandidateBuffers::new(1, 16).expect("large enough");
    assert!(set.screen_i8(case.packed(), 0..2, 0, all(), &case.params, &mut few).is_err());
    let other = ScreenQueries::new(12).expect("few dimensions");
    let mut none = CandidateBuffers::new(0, 16).expect("large enough");
    assert!(set.screen_i8(case.packed(), 0..2, 0, other.all(), &[], &mut none).is_err());
    assert!(matches!(CandidateBuffers::new(1, 15), Err(SimdError::TooSmall { .. })));
    assert!(CandidateBuffers::new(usize::MAX, 16).is_err());
    assert!(ScreenRows::new(&[0; 128], &[0.0; 63], 8).is_err());
    assert!(ScreenRows::new(&[0; 127], &[0.0; 64], 8).is_err());
    let mut queries = ScreenQueries::new(3).expect("few dimensions");
    assert_eq!(queries.push(&[1, -128, 0]), Err(SimdError::QueryCode { position: 1 }));
    assert!(queries.push(&[1, 2]).is_err() && queries.is_empty());
}
