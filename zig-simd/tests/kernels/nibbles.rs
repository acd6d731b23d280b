//! The screen over halves of codes, on every available instruction set, against the formula that src/nibbles.zig
//! documents, candidate by candidate.

use megaring_core::nibbles::Nibbles;
use megaring_core::screen::CodesView;
use megaring_simd::{Candidate, KernelSet, NibbleRows, ONLINE_K, QueryParams, ScreenQueries, SimdError, TopRows};

use crate::common::{DIMS, Random};
use crate::layout::{Column, pack_codes, pack_columns};

struct Case {
    dim: usize,
    codes: Vec<i8>,
    coarse: Vec<Column>,
    fine: Vec<Column>,
    queries: Vec<Vec<i8>>,
    params: Vec<QueryParams>,
}

impl Case {
    fn new(random: &mut Random, rows: usize, dim: usize, queries: usize) -> Self {
        let fine: Vec<Column> = (0..rows).map(|_| Column::random(random)).collect();
        let scale = 1.0 / (127.0 * 127.0 * (dim.max(1) as f32).sqrt());
        let params = || QueryParams { scale, a: 0.01, b: 0.001, threshold: -0.8, slack: 0.0 };
        Self {
            dim,
            codes: random.codes(rows * dim),
            // No bound, but the formula asks for none: sometimes too narrow, so that both conditions decide.
            coarse: fine.iter().map(|fine| Column { e1: fine.e1 + 9.0 * random.unit(), ..*fine }).collect(),
            fine,
            queries: (0..queries).map(|_| random.codes(dim)).collect(),
            params: (0..queries).map(|_| params()).collect(),
        }
    }

    /// The candidates of one query, and how many rows needed their low halves.
    fn expected(&self, query: usize, k: usize) -> (Vec<Candidate>, usize) {
        let params = self.params[query];
        let (mut threshold, mut lower, mut refined) = (params.threshold, Vec::new(), 0);
        let mut group_threshold = threshold;
        let mut found = Vec::new();
        for row in 0..self.fine.len() {
            if row % 16 == 0 {
                group_threshold = threshold;
            }
            let codes = self.codes[row * self.dim..][..self.dim].iter().zip(&self.queries[query]);
            let sum = |code: &dyn Fn(i32) -> i32| -> i32 {
                codes.clone().map(|(row, query)| code(i32::from(*row)) * i32::from(*query)).sum()
            };
            let bounds = |sum: i32, column: &Column| {
                let score = (sum as f32 * params.scale) * column.mul + column.add;
                let error = params.a * column.e1 + params.b * column.e2;
                (score - error, score + error)
            };
            let (_, coarse) = bounds(sum(&|code| (code + 128) / 16 * 16 - 120), &self.coarse[row]);
            if coarse < group_threshold {
                continue;
            }
            refined += 1;
            let (low, fine) = bounds(sum(&|code| code), &self.fine[row]);
            let upper = fine.min(coarse);
            // The kernel notes every lower bound of a row it looks at; one below the threshold changes nothing, unless
            // the bounds contradict each other, as here they may.
            lower.push(low);
            lower.sort_by(|a: &f32, b| b.total_cmp(a));
            if upper >= threshold {
                found.push(Candidate { row: 70_000 + row as u32, lower: low, upper });
            }
            if let Some(kth) = lower.get(k - 1).filter(|_| k <= ONLINE_K) {
                threshold = threshold.max(*kth);
            }
        }
        (found, refined)
    }

    fn check(&self, k: usize) {
        let rows = self.fine.len();
        let packed = pack_codes(&self.codes, rows, self.dim);
        let zeros = vec![0.0; rows];
        let codes = CodesView { packed: &packed, scale: &zeros, residual: &zeros, wild: false, max_norm: 1.0 };
        let nibbles = Nibbles::new(codes, rows, self.dim);
        let (coarse, fine) = (pack_columns(&self.coarse), pack_columns(&self.fine));
        let halves = NibbleRows::new(nibbles.view(), &coarse, &fine, self.dim).expect("lengths fit");
        let groups = rows.div_ceil(16);
        let mut queries = ScreenQueries::new(self.dim).expect("few dimensions");
        self.queries.iter().for_each(|query| queries.push(query).expect("codes in range"));
        let expected: Vec<_> = (0..self.queries.len()).map(|query| self.expected(query, k)).collect();
        for set in KernelSet::copies() {
            let mut top = TopRows::new(k, rows).expect("a small limit");
            self.params.iter().for_each(|params| top.push(*params));
            let (mut begin, mut refined) = (0, 0);
            // In two parts: the second goes on where the first ended.
            for end in [groups / 3, groups] {
                let (reached, more) =
                    set.screen_nibbles(halves, begin..end, 70_000, queries.all(), &mut top).expect("shapes fit");
                assert_eq!(reached, end, "there is room for every row");
                (begin, refined) = (end, refined + more);
            }
            let context = format!("{} dim {} rows {rows} queries {} k {k}", set.isa(), self.dim, self.queries.len());
            assert_eq!(refined, expected.iter().map(|(_, refined)| refined).sum::<usize>(), "{context}");
            for (query, (expected, _)) in expected.iter().enumerate() {
                assert_eq!(top.get(query), expected, "{context} query {query}");
            }
        }
    }
}

#[test]
fn candidates_equal_the_formula_for_every_dimension() {
    let mut random = Random(21);
    for dim in DIMS.into_iter().chain([2, 5, 12, 100, 132, 260]) {
        for queries in [1, 3] {
            Case::new(&mut random, 150, dim, queries).check(3);
        }
    }
}

#[test]
fn candidates_equal_the_formula_for_every_number_of_queries_and_rows() {
    let mut random = Random(22);
    for queries in 0..=9 {
        for rows in [0, 1, 15, 16, 17, 48, 1000] {
            for k in [1, 16, 17, 32, 500] {
                Case::new(&mut random, rows, 24, queries).check(k);
            }
        }
    }
}

#[test]
fn codes_at_the_ends_do_not_overflow() {
    for (row, query) in [(127, 127), (127, -127), (-127, 127), (-127, -127)] {
        let mut case = Case::new(&mut Random(23), 17, 32_768, 1);
        case.codes.fill(row);
        case.queries[0].fill(query);
        case.params[0].threshold = f32::MIN;
        case.check(40);
    }
}

/// Whatever waits in its queue.
#[test]
fn a_screen_stops_for_room_before_the_same_group_on_every_instruction_set() {
    let mut case = Case::new(&mut Random(24), 3000, 16, 3);
    case.params.iter_mut().for_each(|params| params.threshold = f32::MIN);
    // Wide enough to be a bound.
    case.coarse = case.fine.iter().map(|fine| Column { e1: 300.0, ..*fine }).collect();
    let packed = pack_codes(&case.codes, 3000, 16);
    let zeros = vec![0.0; 3000];
    let codes = CodesView { packed: &packed, scale: &zeros, residual: &zeros, wild: false, max_norm: 1.0 };
    let nibbles = Nibbles::new(codes, 3000, 16);
    let (coarse, fine) = (pack_columns(&case.coarse), pack_columns(&case.fine));
    let halves = NibbleRows::new(nibbles.view(), &coarse, &fine, 16).expect("lengths fit");
    let mut queries = ScreenQueries::new(16).expect("few dimensions");
    case.queries.iter().for_each(|query| queries.push(query).expect("codes in range"));
    let mut of_the_first = None;
    for set in KernelSet::copies() {
        let mut top = TopRows::new(40, 3000).expect("a small limit");
        case.params.iter().for_each(|params| top.push(*params));
        let mut stops = Vec::new();
        let mut begin = 0;
        while begin < 188 {
            begin = set.screen_nibbles(halves, begin..188, 0, queries.all(), &mut top).expect("shapes fit").0;
            stops.push(begin);
            top.make_room();
        }
        // Room for 2·40 + 64 candidates, all of which pass: 9 groups.
        assert!(stops.len() > 3 && stops[0] == 9, "{}: {stops:?}", set.isa());
        assert_eq!(of_the_first.get_or_insert_with(|| stops.clone()), &stops, "{}", set.isa());
        let counts: Vec<usize> = (0..3).map(|query| top.get(query).len()).collect();
        assert!(counts.iter().all(|count| (40..=3000).contains(count)), "{}: {counts:?}", set.isa());
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let case = Case::new(&mut Random(25), 20, 8, 1);
    let packed = pack_codes(&case.codes, 20, 8);
    let zeros = [0.0; 20];
    let codes = CodesView { packed: &packed, scale: &zeros, residual: &zeros, wild: false, max_norm: 1.0 };
    let nibbles = Nibbles::new(codes, 20, 8);
    let columns = pack_columns(&case.fine);
    let rows = |high: &[f32], fine: &[f32], dim| NibbleRows::new(nibbles.view(), high, fine, dim).map(|_| ());
    assert_eq!(rows(&columns, &columns, 8), Ok(()));
    assert!(matches!(rows(&columns[64..], &columns, 8), Err(SimdError::Length { .. })));
    assert!(matches!(rows(&columns, &columns[1..], 8), Err(SimdError::Length { .. })));
    assert!(matches!(rows(&columns, &columns, 12), Err(SimdError::Length { .. })));
    assert!(matches!(rows(&columns, &columns, 40_000), Err(SimdError::TooLarge { .. })));
}
