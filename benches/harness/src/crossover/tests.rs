//! Where wins begin, also where they stop in between, and lines that must not mix.

use megaring_engine::measure::stats;
use proptest::prelude::*;

use super::*;

const SEARCH: Sizes = Sizes { rows: 5_562, dim: 384, k: 10, items: 0 };

/// A point whose interval is 2 % to each side.
fn point(backend: &str, residence: Residence, sizes: Sizes, micros: f64) -> Point {
    let nanos = micros * 1e3;
    let times = Times { ci_ns: [0.98 * nanos, 1.02 * nanos], ..stats::times(&[nanos]).unwrap() };
    let (case, backend) = ("search".to_owned(), backend.to_owned());
    Point { suite: "search".into(), case, backend, residence, sizes, times, multiply_adds: 0.0, bytes: 0.0 }
}

fn along_items(backend: &str, residence: Residence, micros: &[(u64, f64)]) -> Vec<Point> {
    micros.iter().map(|&(items, micros)| point(backend, residence, Sizes { items, ..SEARCH }, micros)).collect()
}

/// The only crossover there is: where it begins and up to where it was looked for.
fn only(points: &[Point], axis: Axis) -> (Option<u64>, u64) {
    let found = crossovers(points, "cpu", axis);
    let [crossover] = &found[..] else { panic!("{found:?}") };
    assert_eq!((crossover.axis, crossover.against.as_str(), crossover.backend.as_str()), (axis, "cpu", "cuda"));
    (crossover.from, crossover.up_to)
}

fn items(cpu: &[(u64, f64)], gpu: &[(u64, f64)]) -> (Option<u64>, u64) {
    let mut points = along_items("cuda", Residence::Resident, gpu);
    points.extend(along_items("cpu", Residence::Resident, cpu));
    only(&points, Axis::Items)
}

const CPU: [(u64, f64); 6] = [(1, 40.0), (2, 50.0), (4, 80.0), (8, 150.0), (16, 290.0), (32, 560.0)];

#[test]
fn wins_to_the_end_begin_somewhere() {
    assert_eq!(items(&CPU, &CPU.map(|(items, _)| (items, 100.0))), (Some(8), 32));
    assert_eq!(items(&CPU, &CPU.map(|(items, _)| (items, 1.0))), (Some(1), 32), "from the first");
    assert_eq!(items(&CPU, &CPU.map(|(items, _)| (items, 500.0))), (Some(32), 32), "at the last alone");
    assert_eq!(items(&CPU, &CPU.map(|(items, _)| (items, 999.0))), (None, 32), "never");
}

#[test]
fn a_win_between_losses_counts_for_nothing() {
    let gpu = [(1, 30.0), (2, 40.0), (4, 100.0), (8, 120.0), (16, 200.0), (32, 400.0)];
    assert_eq!(items(&CPU, &gpu), (Some(8), 32), "it wins, loses and wins again");
    let gpu = [(1, 30.0), (2, 40.0), (4, 60.0), (8, 120.0), (16, 200.0), (32, 600.0)];
    assert_eq!(items(&CPU, &gpu), (None, 32), "it loses at the end");
}

#[test]
fn a_draw_is_no_win() {
    // 1.5 % quicker, with 2 % of doubt on both; and equal.
    for ratio in [0.985, 1.0] {
        assert_eq!(items(&CPU, &CPU.map(|(items, micros)| (items, ratio * micros))), (None, 32));
        let gpu = CPU.map(|(items, micros)| (items, if items == 8 { ratio } else { 0.5 } * micros));
        assert_eq!(items(&CPU, &gpu), (Some(16), 32));
    }
    assert_eq!(items(&CPU, &CPU.map(|(items, micros)| (items, 0.95 * micros))), (Some(1), 32));
}

#[test]
fn what_only_one_measured_says_nothing() {
    let gpu = [(1, 100.0), (2, 100.0), (8, 100.0), (16, 100.0), (64, 5_000.0)];
    let cpu: Vec<_> = CPU.into_iter().filter(|(items, _)| *items != 2).collect();
    assert_eq!(items(&cpu, &gpu), (Some(8), 16));
    let mut points = along_items("cuda", Residence::Resident, &[(3, 1.0)]);
    points.extend(along_items("cpu", Residence::Resident, &CPU));
    assert_eq!(crossovers(&points, "cpu", Axis::Items), [], "no size in common");
    assert_eq!(crossovers(&along_items("cpu", Residence::Resident, &CPU), "cpu", Axis::Items), []);
    assert_eq!(crossovers(&[], "cpu", Axis::Items), []);
}

#[test]
fn cold_stands_beside_resident_where_the_other_uploads_nothing() {
    let mut points = along_items("cpu", Residence::Resident, &CPU);
    points.extend(along_items("cuda", Residence::Resident, &CPU.map(|(items, _)| (items, 60.0))));
    points.extend(along_items("cuda", Residence::Cold, &CPU.map(|(items, _)| (items, 200.0))));
    let begins: Vec<_> =
        crossovers(&points, "cpu", Axis::Items).iter().map(|found| (found.residence, found.from)).collect();
    assert_eq!(begins, [(Residence::Resident, Some(4)), (Residence::Cold, Some(16))]);
    points.extend(along_items("cpu", Residence::Cold, &CPU.map(|(items, _)| (items, 300.0))));
    assert_eq!(crossovers(&points, "cpu", Axis::Items)[1].from, Some(1), "it has times of its own");
}

#[test]
fn rows_grow_at_batch_one() {
    let of = |backend: &'static str, items, micros: [f64; 3]| {
        let rows = [1_000, 5_562, 20_000].into_iter().zip(micros);
        rows.map(move |(rows, micros)| point(backend, Residence::Resident, Sizes { rows, items, ..SEARCH }, micros))
    };
    let mut points: Vec<Point> = of("cpu", 1, [10.0, 40.0, 150.0]).collect();
    points.extend(of("cuda", 1, [90.0, 90.0, 90.0]));
    // Larger batches, and work without a corpus, belong to other lines.
    points.extend(of("cpu", 2, [10.0, 40.0, 1.0]));
    points.extend(of("cuda", 2, [1.0, 1.0, 90.0]));
    points.push(point("cpu", Residence::Resident, Sizes { rows: 0, dim: 0, k: 0, items: 1 }, 1.0));
    points.push(point("cuda", Residence::Resident, Sizes { rows: 0, dim: 0, k: 0, items: 1 }, 2.0));
    assert_eq!(only(&points, Axis::Rows), (Some(20_000), 20_000));
    let by_items = crossovers(&points, "cpu", Axis::Items);
    assert_eq!(by_items.len(), 4, "one for each number of rows, 0 too");
    assert!(by_items.iter().all(|found| found.at.items == 0 && found.up_to <= 2));
}

#[test]
fn lines_do_not_mix() {
    let mut points = Vec::new();
    for (k, dim, gpu) in [(10, 384, 100.0), (100, 384, 200.0), (10, 768, 300.0)] {
        for (items, micros) in CPU {
            let sizes = Sizes { k, dim, items, ..SEARCH };
            points.push(point("cpu", Residence::Resident, sizes, micros));
            points.push(point("cuda", Residence::Resident, sizes, gpu));
            points.push(point("wgpu", Residence::Resident, sizes, 10.0 * gpu));
        }
    }
    let found = crossovers(&points, "cpu", Axis::Items);
    let begins: Vec<_> =
        found.iter().map(|found| (found.backend.as_str(), found.at.dim, found.at.k, found.from)).collect();
    assert_eq!(
        begins,
        [
            ("cuda", 384, 10, Some(8)),
            ("cuda", 384, 100, Some(16)),
            ("cuda", 768, 10, Some(32)),
            ("wgpu", 384, 10, None),
            ("wgpu", 384, 100, None),
            ("wgpu", 768, 10, None),
        ]
    );
    // The same of another case is another line.
    let other: Vec<Point> = points.iter().map(|point| Point { case: "score".into(), ..point.clone() }).collect();
    points.extend(other.into_iter().filter(|point| point.backend == "cpu"));
    assert_eq!(crossovers(&points, "cpu", Axis::Items), found);
}

#[test]
fn of_two_that_say_the_same_the_last_counts() {
    let mut points = along_items("cpu", Residence::Resident, &CPU);
    points.extend(along_items("cuda", Residence::Resident, &[(32, 1.0), (32, 900.0)]));
    assert_eq!(only(&points, Axis::Items), (None, 32));
}

proptest! {
    #[test]
    fn it_wins_from_there_on_and_not_just_before(gpu in proptest::collection::vec(1.0_f64..1e3, 6)) {
        let gpu: Vec<(u64, f64)> = CPU.iter().zip(gpu).map(|(&(items, _), micros)| (items, micros)).collect();
        let wins: Vec<bool> = CPU.iter().zip(&gpu).map(|(cpu, gpu)| gpu.1 * 1.02 < cpu.1 * 0.98).collect();
        let (from, up_to) = items(&CPU, &gpu);
        prop_assert_eq!(up_to, 32);
        for (at, (value, _)) in CPU.iter().enumerate() {
            prop_assert_eq!(from.is_some_and(|from| from <= *value), wins[at..].iter().all(|wins| *wins));
        }
    }
}
