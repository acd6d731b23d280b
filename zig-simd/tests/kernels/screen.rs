//! The int8 screen of every available instruction set against the formula it documents, candidate by candidate.

use megaring_core::aligned::AlignedBytes;
use megaring_core::exact::dot;
use megaring_core::matrix::MAX_DIM;
use megaring_core::metric::Metric;
use megaring_core::screen::GROUP_ROWS;
use megaring_core::screen::QueryScreen;
use megaring_simd::{Candidate, KernelSet, ONLINE_K, QueryParams, ScreenQueries, ScreenRows, SimdError, TopRows};

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
        let columns: Vec<Column> = (0..rows).map(|_| Column::random(random)).collect();
        let query_codes: Vec<Vec<i8>> = (0..queries).map(|_| random.codes(dim)).collect();
        let scale = 1.0 / (127.0 * 127.0 * (dim.max(1) as f32).sqrt());
        let threshold = if keep >= 1.0 { -f32::MAX } else { 0.8 - 1.6 * keep };
        let params = (0..queries)
            .map(|_| QueryParams {
                scale,
                a: random.unit().abs() * 0.01,
                b: 0.001,
                threshold: threshold + random.unit() * 0.05,
                slack: 0.0,
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

    /// The formula, one row at a time: a row's bounds raise the threshold of those after it where at most
    /// [`ONLINE_K`] are wanted.
    fn expected(&self, query: usize, base: u32, k: usize) -> Vec<Candidate> {
        let params = self.params[query];
        let mut threshold = params.threshold;
        let mut lower = Vec::new();
        let candidate = |row: usize| {
            let codes = &self.codes[row * self.dim..][..self.dim];
            let sum: i32 = codes.iter().zip(&self.queries[query]).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
            let column = self.columns[row];
            let score = (sum as f32 * params.scale) * column.mul + column.add;
            let error = params.a * column.e1 + params.b * column.e2;
            let found = Candidate { row: base + row as u32, lower: score - error, upper: score + error };
            if found.upper < threshold {
                return None;
            }
            lower.push(found.lower);
            lower.sort_by(|a: &f32, b| b.total_cmp(a));
            if let Some(kth) = lower.get(k - 1).filter(|_| k <= ONLINE_K) {
                threshold = threshold.max(*kth);
            }
            Some(found)
        };
        (0..self.rows).filter_map(candidate).collect()
    }

    fn top(&self, k: usize, limit: usize) -> TopRows {
        let mut top = TopRows::new(k, limit).expect("a small limit");
        self.params.iter().for_each(|params| top.push(*params));
        top
    }

    fn check(&self, k: usize) {
        for set in KernelSet::copies() {
            let mut top = self.top(k, self.rows);
            let groups = self.packed().groups();
            let reached = set.screen_i8(self.packed(), 0..groups, 70_000, self.packed_queries.all(), &mut top);
            assert_eq!(reached, Ok(groups), "there is room for every row");
            for query in 0..self.queries.len() {
                let (found, expected) = (top.get(query), self.expected(query, 70_000, k));
                let context = format!("{} dim {} rows {} query {query} k {k}", set.isa(), self.dim, self.rows);
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
            Case::new(&mut random, 70, dim, queries, 1.0).check(3);
        }
    }
}

#[test]
fn candidates_equal_the_formula_for_every_number_of_queries_and_rows() {
    let mut random = Random(5);
    for queries in 0..=18 {
        for rows in [0, 1, 15, 16, 17, 47, 48, 49, 130] {
            for (keep, k) in [(0.0, 7), (0.5, 100), (1.0, 100), (1.0, 1), (1.0, 16), (0.8, 17), (1.0, 32)] {
                Case::new(&mut random, rows, 20, queries, keep).check(k);
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
        case.packed_queries.reset(MAX_DIM).expect("the largest dimension");
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
    for set in KernelSet::copies() {
        let mut top = TopRows::new(100, 100).expect("a small limit");
        case.params[6..11].iter().for_each(|params| top.push(*params));
        let queries = case.packed_queries.range(6..11).expect("within");
        assert_eq!(queries.len(), 5);
        assert_eq!(set.screen_i8(case.packed(), 2..5, 0, queries, &mut top), Ok(5));
        for query in 0..5 {
            let mut expected = case.expected(query + 6, 0, 100);
            expected.retain(|candidate| (2 * GROUP_ROWS..5 * GROUP_ROWS).contains(&(candidate.row as usize)));
            assert_eq!(top.get(query), expected, "{}", set.isa());
        }
    }
    assert!(case.packed_queries.range(6..13).is_err());
}

#[test]
fn an_upper_bound_that_equals_the_threshold_is_kept() {
    let mut case = Case::new(&mut Random(10), 40, 24, 1, 1.0);
    let upper = case.expected(0, 0, 64)[17].upper;
    case.params[0].threshold = upper;
    assert!(case.expected(0, 0, 64).iter().any(|candidate| candidate.upper == upper));
    case.check(64);
}

#[test]
fn a_row_that_equals_the_kth_best_is_kept() {
    let mut case = Case::new(&mut Random(12), 100, 24, 2, 1.0);
    case.columns.fill(Column { mul: 0.0, add: 0.5, e1: 0.0, e2: 0.0 });
    case.packed_columns = pack_columns(&case.columns);
    assert_eq!(case.expected(0, 0, 5).len(), 100, "every row ties with the fifth");
    case.check(5);
}

/// However often a screen stops for room, what is left holds every row that can be among the k best.
#[test]
fn a_screen_that_stops_for_room_loses_no_row() {
    for (k, limit) in [(1, 40), (10, 64), (40, 130), (100, 400), (33, 2000)] {
        let case = Case::new(&mut Random(8), 3000, 16, 3, 1.0);
        for set in KernelSet::copies() {
            let mut top = case.top(k, limit);
            let (mut group, groups, mut stops) = (0, case.packed().groups(), 0);
            while group < groups {
                let queries = case.packed_queries.all();
                let reached = set.screen_i8(case.packed(), group..groups, 0, queries, &mut top).expect("shapes fit");
                if reached < groups {
                    stops += 1;
                    top.make_room();
                }
                assert!(reached > group || reached == groups, "no progress");
                group = reached;
            }
            assert!(k <= ONLINE_K || stops > 0, "nothing stopped: k {k}");
            for query in 0..3 {
                top.tidy(query);
                let mut found: Vec<u32> = top.get(query).iter().map(|candidate| candidate.row).collect();
                found.sort_unstable();
                let all = case.expected(query, 0, usize::MAX);
                let mut lower: Vec<f32> = all.iter().map(|candidate| candidate.lower).collect();
                lower.sort_by(|a, b| b.total_cmp(a));
                let mut wanted: Vec<u32> = Vec::new();
                wanted.extend(all.iter().filter(|c| c.upper >= lower[k - 1]).map(|candidate| candidate.row));
                match wanted.len() > limit {
                    true => assert!(top.is_overflowed(query), "{} k {k}", set.isa()),
                    false => assert_eq!(found, wanted, "{} k {k}", set.isa()),
                }
            }
        }
    }
}

/// Codes of values are those that the host makes, and lose as much.
#[test]
fn a_query_is_quantised_as_the_host_does() {
    let mut random = Random(13);
    for dim in DIMS {
        let values: Vec<f32> = (0..dim).map(|_| random.unit() * 3.0).collect();
        let mut codes = vec![0; dim];
        let by_host = QueryScreen::new(Metric::L2, &values, 2.0, &mut codes);
        let mut bits = None;
        for set in KernelSet::copies() {
            let mut queries = ScreenQueries::new(dim).expect("few dimensions");
            let quantised = queries.push_values(set, &values).expect("as many values");
            let screen = QueryScreen::of(Metric::L2, &quantised, 2.0);
            assert_eq!(screen.is_some(), by_host.is_some());
            let mut same = ScreenQueries::new(dim).expect("few dimensions");
            same.push(&codes).expect("codes in range");
            assert_eq!(queries.all(), same.all(), "{} dim {dim}", set.isa());
            assert_eq!(*bits.get_or_insert(quantised), quantised, "{} dim {dim}", set.isa());
            let (Some(screen), Some(by_host)) = (screen, by_host) else { continue };
            assert_eq!((screen.scale, screen.slack), (by_host.scale, by_host.slack));
            for (ours, hosts) in [(screen.a, by_host.a), (screen.b, by_host.b)] {
                assert!((ours - hosts).abs() <= 1e-6 * hosts, "{} dim {dim}", set.isa());
            }
            assert!(screen.slack > 0.0 || dot(&values, &values) == 0.0);
            assert!(queries.push_values(set, &values[1..]).is_err() && queries.len() == 1);
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let case = Case::new(&mut Random(9), 20, 8, 2, 0.5);
    let set = KernelSet::from_env().expect("an instruction set");
    let mut top = case.top(3, 16);
    let all = || case.packed_queries.all();
    let mut run = |groups, base| set.screen_i8(case.packed(), groups, base, all(), &mut top);
    assert!(run(0..0, 0).is_ok());
    assert!(matches!(run(0..3, 0), Err(SimdError::Index { what: "group", index: 3, count: 2 })));
    assert!(matches!(run(0..2, u32::MAX), Err(SimdError::TooLarge { .. })));
    let mut few = TopRows::new(3, 16).expect("a small limit");
    few.push(case.params[0]);
    assert!(matches!(set.screen_i8(case.packed(), 0..2, 0, all(), &mut few), Err(SimdError::Length { .. })));
    let other = ScreenQueries::new(12).expect("few dimensions");
    let mut none = TopRows::new(3, 16).expect("a small limit");
    assert!(set.screen_i8(case.packed(), 0..2, 0, other.all(), &mut none).is_err());
    assert!(ScreenRows::new(&[0; 128], &[0.0; 63], 8).is_err());
    assert!(ScreenRows::new(&[0; 127], &[0.0; 64], 8).is_err());
    let mut queries = ScreenQueries::new(3).expect("few dimensions");
    assert_eq!(queries.push(&[1, -128, 0]), Err(SimdError::QueryCode { position: 1 }));
    assert!(queries.push(&[1, 2]).is_err() && queries.is_empty());
}
