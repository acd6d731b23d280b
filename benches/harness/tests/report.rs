//! The report of synthetic records: whole, well-formed, self-contained, and true to them. The pages are left in the folder that cargo
//! gives integration tests, so that a person can look at them.

mod synthetic;

use std::collections::BTreeSet;
use std::path::Path;

use megaring_harness::record::{Axis, Crossover, Device, Machine, Peak, Point, Record, Residence, Sizes, Times};
use megaring_harness::report::{html, svg_latency};
use proptest::prelude::*;

/// Parses a page, which is XML as well as HTML.
fn parse(page: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    roxmltree::Document::parse_with_options(page, options).unwrap_or_else(|error| panic!("{error}"))
}

fn text(page: &str) -> String {
    let document = parse(page);
    let all = document.root().descendants().filter(|n| n.is_text()).filter_map(|n| n.text()).collect::<Vec<_>>();
    all.join(" ").replace('\u{202f}', " ")
}

fn records() -> [(&'static str, Record); 4] {
    [
        ("three-backends", synthetic::three_backends()),
        ("emulated", synthetic::emulated()),
        ("cpu-alone", synthetic::cpu_alone()),
        ("empty", synthetic::empty()),
    ]
}

#[test]
fn pages_stand_alone_and_every_picture_has_a_name() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (name, record) in records() {
        let page = html(&record);
        std::fs::write(folder.join(format!("report-{name}.html")), &page).unwrap();
        let document = parse(&page);
        for node in document.root().descendants().filter(roxmltree::Node::is_element) {
            let tag = node.tag_name().name();
            assert!(!["script", "link", "img", "iframe", "image"].contains(&tag), "{name}: <{tag}>");
            assert!(node.attribute("src").is_none() && node.attribute("href").is_none(), "{name}: <{tag}>");
            if tag == "svg" {
                assert_eq!(node.attribute("role"), Some("img"));
                assert!(node.attribute("aria-label").is_some_and(|label| !label.is_empty()));
            }
        }
        assert!(!page.contains("url(") && !page.contains("@import"), "{name}: the page must load nothing");
        assert!(!page.contains("NaN") && !page.contains("inf "), "{name}");
        if let Ok(svg) = svg_latency(&record, None) {
            parse(&svg);
            std::fs::write(folder.join(format!("report-{name}.svg")), svg).unwrap();
        }
    }
}

#[test]
fn the_headline_says_from_where_on_the_gpu_wins_or_that_it_never_does() {
    let three = text(&html(&synthetic::three_backends()));
    let wins = "On this machine the GPU (Synthetic GPU 9000, cuda) wins over the CPU from a batch of 1,024 queries on at 100 × 384 \
                and from the first query on at 5,562 to 1,000,000 × 384.";
    assert!(three.contains(wins), "{three:.600}");
    let mut one_gpu = synthetic::three_backends();
    one_gpu.backends.pop();
    one_gpu.crossovers.retain(|c| c.backend == "cuda");
    one_gpu.crossovers.iter_mut().filter(|c| c.at.rows == 110_000).for_each(|c| c.from = None);
    let told = text(&html(&one_gpu));
    let wins = "wins from a batch of 1,024 queries on at 100 × 384, from the first query on at 5,562 × 384 and from the first query on \
                at 1,000,000 × 384; below, the CPU does. At 110,000 × 384 (up to a batch of 5,562 queries) it never does.";
    assert!(told.contains(wins), "{told:.600}");
    one_gpu.crossovers.iter_mut().for_each(|c| c.from = None);
    assert!(text(&html(&one_gpu)).contains("never wins for good"));
    let emulated = text(&html(&synthetic::emulated()));
    assert!(
        emulated
            .contains("never wins, up to a batch of 5,562 queries at 100 to 1,000,000 × 384: the CPU answers sooner.")
    );
    assert!(emulated.contains("a program on the processor that stands in for a GPU"));
    assert!(!emulated.contains("the GPU ("), "a program that stands in is no GPU");
    assert!(text(&html(&synthetic::cpu_alone())).contains("there is nothing to compare it with"));
    assert!(text(&html(&synthetic::empty())).contains("Nothing was measured."));
}

#[test]
fn a_backend_that_stopped_earlier_does_not_look_measured_further() {
    let mut record = synthetic::emulated();
    let largest = |c: &&mut Crossover| c.axis == Axis::Items && c.at.rows == 1_000_000;
    record.crossovers.iter_mut().filter(largest).for_each(|c| c.up_to = 64);
    let cold = |c: &&mut Crossover| c.at.rows == 5_562 && c.residence == Residence::Cold;
    record.crossovers.iter_mut().filter(cold).for_each(|c| c.up_to = 256);
    let page = html(&record);
    let told = text(&page);
    let ends = "never wins, up to batches of 64 to 5,562 queries at 100 to 1,000,000 × 384: ";
    assert!(told.contains(ends), "{told:.600}");
    let lines = lines(&page);
    assert!(lines.contains(&"search|5,562 × 384|10|never|never (up to 256)|5,562".to_owned()), "{lines:?}");
    assert!(lines.contains(&"search|1,000,000 × 384|10|never|never|64".to_owned()), "{lines:?}");
}

#[test]
fn doubts_missing_peaks_and_names_are_told_as_they_are() {
    let record = synthetic::emulated();
    let doubted = record.points.iter().filter(|point| !point.times.doubts.is_empty()).count();
    let told = text(&html(&record));
    assert!(doubted > 0 && told.contains(&format!("{doubted} of {} measurements are doubtful", record.points.len())));
    assert!(told.contains("What wgpu could do at most was not measured"));
    assert!(told.contains("Synthetic CPU \"8 cores\" <made up> & co"), "the page shows a name as it is");
    assert!(told.contains("cuda is missing: no driver was found"));
}

#[test]
fn every_measurement_stands_in_the_last_table_and_every_drawable_one_is_a_point() {
    let record = synthetic::three_backends();
    let page = html(&record);
    let document = parse(&page);
    let table = document.descendants().rfind(|n| n.attribute("class") == Some("t2")).unwrap();
    let body = table.children().find(|n| n.has_tag_name("tbody")).unwrap();
    assert_eq!(body.children().filter(|n| n.has_tag_name("tr")).count(), record.points.len());

    let svg = svg_latency(&record, Some((5_562, 384, 10))).unwrap();
    let picture = parse(&svg);
    let tips = picture.descendants().filter(|n| n.attribute("pointer-events").is_some()).count();
    let points = record.points.iter().filter(|p| p.suite == "search" && p.sizes.rows == 5_562).count();
    assert_eq!(tips, points);
    // The colour of doubts is that of `theme::DOUBT`.
    let rings = picture.descendants().filter(|n| n.has_tag_name("circle") && n.attribute("stroke") == Some("#8A5A00"));
    let of = |p: &&Point| p.suite == "search" && p.sizes.rows == 5_562 && !p.times.doubts.is_empty();
    let doubted = record.points.iter().filter(of).count();
    assert!(doubted > 0);
    assert_eq!(rings.count(), doubted);
}

#[test]
fn the_map_names_the_quickest_backend_of_every_cell_and_the_table_every_crossover() {
    let record = synthetic::three_backends();
    let page = html(&record);
    let told = text(&page);
    let resident = || record.points.iter().filter(|p| p.suite == "search" && p.residence == Residence::Resident);
    let cells: BTreeSet<(u64, u64)> = resident().map(|p| (p.sizes.rows, p.sizes.items)).collect();
    for (rows, items) in cells {
        let here = resident().filter(|p| (p.sizes.rows, p.sizes.items) == (rows, items));
        let best = here.min_by(|a, b| a.times.p50_ns.total_cmp(&b.times.p50_ns)).unwrap();
        let cell = format!("{} over {} × 384: {} ", thousands(items), thousands(rows), best.backend);
        assert!(told.contains(&cell), "{cell}");
    }
    // cuda, cuda cold, wgpu and wgpu cold at 5,562 rows, as the synthetic costs give them.
    let lines = lines(&page);
    let of_rows = |rows: u64| {
        let from = |backend: &str, residence: Residence| {
            let fits = |c: &&Crossover| {
                c.axis == Axis::Items && c.at.rows == rows && c.backend == backend && c.residence == residence
            };
            record.crossovers.iter().find(fits).unwrap().from.map_or("never".to_owned(), thousands)
        };
        let [a, b] =
            ["cuda", "wgpu"].map(|name| format!("{}|{}", from(name, Residence::Resident), from(name, Residence::Cold)));
        format!("search|{} × 384|10|{a}|{b}|5,562", thousands(rows))
    };
    for rows in [100, 5_562, 110_000, 1_000_000] {
        assert!(lines.contains(&of_rows(rows)), "{}", of_rows(rows));
    }
}

/// The lines of all tables, cells apart by a bar.
fn lines(page: &str) -> Vec<String> {
    let document = parse(page);
    let lines = document.descendants().filter(|n| n.has_tag_name("tr"));
    let line = |tr: roxmltree::Node<'_, '_>| {
        tr.children().map(|td| all_text(td).replace('\u{202f}', " ")).collect::<Vec<_>>().join("|")
    };
    lines.map(line).collect()
}

fn all_text(node: roxmltree::Node<'_, '_>) -> String {
    node.descendants().filter(roxmltree::Node::is_text).filter_map(|n| n.text()).collect()
}

fn thousands(value: u64) -> String {
    match value {
        0..1_000 => value.to_string(),
        1_000..1_000_000 => format!("{},{:03}", value / 1_000, value % 1_000),
        _ => format!("{},{:03},{:03}", value / 1_000_000, value / 1_000 % 1_000, value % 1_000),
    }
}

#[test]
fn the_picture_of_no_particular_size_is_of_the_corpus_in_the_middle() {
    let mut record = synthetic::emulated();
    // There was less time for larger corpora, and hardly any for the largest.
    record.points.retain(|p| p.sizes.rows < 5_562 || p.sizes.items < if p.sizes.rows < 1_000_000 { 128 } else { 2 });
    let svg = svg_latency(&record, None).unwrap();
    assert!(text(&svg).contains("searches over 5,562 × 384, k = 10"), "{svg:.600}");
}

#[test]
fn a_picture_of_sizes_that_were_not_measured_says_which_were() {
    let error = svg_latency(&synthetic::cpu_alone(), Some((7, 384, 10))).unwrap_err();
    assert!(error.to_string().contains("5562 rows x 384, k 10"), "{error}");
    assert!(svg_latency(&synthetic::empty(), None).unwrap_err().to_string().contains("nothing to draw"));
}

/// Numbers that break arithmetic, among others that do not.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        Just(-1.0),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(f64::MIN_POSITIVE),
        Just(f64::MAX),
        1e-3..1e3_f64,
        1e3..1e12_f64,
    ]
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), 1..5_u64, 1..2_000_000_u64]
}

fn word(of: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![8 => proptest::sample::select(of).prop_map(str::to_owned), 1 => any::<String>()]
}

fn backend() -> impl Strategy<Value = String> {
    word(&["cpu", "cuda", "wgpu", "a<b", "&amp;", "\"]]>", "\u{0}\u{1b}[31m"])
}

fn residence() -> impl Strategy<Value = Residence> {
    proptest::sample::select(&[Residence::Resident, Residence::Cold][..])
}

fn sizes() -> impl Strategy<Value = Sizes> {
    (size(), size(), size(), size()).prop_map(|(rows, dim, k, items)| Sizes { rows, dim, k, items })
}

prop_compose! {
    fn times()(
        samples in any::<usize>(), p50_ns in number(), p95_ns in number(), p99_ns in number(), min_ns in number(),
        max_ns in number(), ci_ns in [number(), number()], outliers in any::<usize>(),
        doubts in prop::collection::vec(any::<String>(), 0..2),
    ) -> Times {
        Times { samples, p50_ns, p95_ns, p99_ns, min_ns, max_ns, ci_ns, outliers, doubts }
    }
}

prop_compose! {
    fn point()(
        suite in word(&["search", "search", "encode", "ring", "grpc"]), case in word(&["search", "empty job"]),
        backend in backend(), residence in residence(), sizes in sizes(), times in times(), multiply_adds in number(),
        bytes in number(),
    ) -> Point {
        Point { suite, case, backend, residence, sizes, times, multiply_adds, bytes }
    }
}

prop_compose! {
    fn crossover()(
        case in word(&["search"]), residence in residence(), backend in backend(), against in backend(),
        rows in any::<bool>(), at in sizes(), from in prop::option::of(size()), up_to in size(),
    ) -> Crossover {
        let axis = if rows { Axis::Rows } else { Axis::Items };
        Crossover { case, residence, backend, against, axis, at, from, up_to }
    }
}

prop_compose! {
    fn machine()(
        processor in any::<String>(), threads in any::<usize>(), system in any::<String>(),
        memory_bytes in any::<Option<u64>>(), version in any::<String>(), command in any::<String>(),
        started_unix_s in any::<u64>(), took_s in number(),
    ) -> Machine {
        Machine { processor, threads, system, memory_bytes, version, command, started_unix_s, took_s }
    }
}

prop_compose! {
    fn device()(
        backend in backend(), device in any::<String>(), instruction_set in any::<String>(), emulated in any::<bool>(),
    ) -> Device {
        Device { backend, device, instruction_set, emulated }
    }
}

prop_compose! {
    fn peak()(
        backend in backend(), multiply_adds_per_s in prop::option::of(number()), bytes_per_s in prop::option::of(number()),
        how in any::<String>(),
    ) -> Peak {
        Peak { backend, multiply_adds_per_s, bytes_per_s, how }
    }
}

prop_compose! {
    fn record()(
        schema in any::<u32>(), machine in machine(), backends in prop::collection::vec(device(), 0..5),
        peaks in prop::collection::vec(peak(), 0..5), points in prop::collection::vec(point(), 0..40),
        crossovers in prop::collection::vec(crossover(), 0..12), notes in prop::collection::vec(any::<String>(), 0..3),
    ) -> Record {
        Record { schema, machine, backends, peaks, points, crossovers, notes }
    }
}

/// Every number of an SVG's geometry is one.
fn check_geometry(document: &roxmltree::Document<'_>) {
    let geometry = ["x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "points", "viewBox"];
    for node in document.descendants().filter(|node| node.tag_name().namespace().is_some_and(|n| n.ends_with("svg"))) {
        for attribute in node.attributes().filter(|attribute| geometry.contains(&attribute.name())) {
            for number in attribute.value().split([' ', ',']).filter(|number| !number.is_empty()) {
                let value: f64 = number.parse().unwrap_or(f64::NAN);
                assert!(value.abs() < 1e5, "{}=\"{}\"", attribute.name(), attribute.value());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_record_gives_a_whole_page(record in record()) {
        let page = html(&record);
        check_geometry(&parse(&page));
        if let Ok(svg) = svg_latency(&record, None) {
            check_geometry(&parse(&svg));
        }
    }

}

proptest! {
    // Each of these pages is half a megabyte.
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn any_times_of_a_usual_grid_give_a_whole_page(times in prop::collection::vec(times(), 300)) {
        let mut record = synthetic::three_backends();
        for (point, times) in record.points.iter_mut().zip(times) {
            point.times = times;
        }
        check_geometry(&parse(&html(&record)));
    }
}
