//! The report of synthetic records: whole, well-formed, self-contained, and true to them. The pages are left in the
//! folder that cargo gives integration tests, so that a person can look at them.

mod synthetic;

use std::collections::BTreeSet;
use std::path::Path;

use megaring_harness::record::{Axis, Point, Record, Residence};
use megaring_harness::report::{html, svg_latency};
use proptest::prelude::*;

/// Parses a page, which is XML as well as HTML.
fn parse(page: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    roxmltree::Document::parse_with_options(page, options).unwrap_or_else(|error| panic!("{error}"))
}

fn text_of(node: roxmltree::Node<'_, '_>) -> String {
    let all = node.descendants().filter(|n| n.is_text()).filter_map(|n| n.text());
    all.collect::<String>().replace('\u{202f}', " ")
}

fn text(page: &str) -> String {
    text_of(parse(page).root())
}

/// The lines of all tables, cells apart by a bar.
fn lines(page: &str) -> Vec<String> {
    let document = parse(page);
    let lines = document.descendants().filter(|n| n.has_tag_name("tr"));
    lines.map(|line| line.children().map(text_of).collect::<Vec<_>>().join("|")).collect()
}

#[test]
fn pages_stand_alone_and_every_picture_has_a_name() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let records =
        [("three", synthetic::three_backends()), ("cpu", synthetic::cpu_alone()), ("empty", synthetic::empty())];
    for (name, record) in records {
        let page = html(&record);
        std::fs::write(folder.join(format!("report-{name}.html")), &page).unwrap();
        for node in parse(&page).root().descendants().filter(roxmltree::Node::is_element) {
            let tag = node.tag_name().name();
            assert!(!["script", "link", "img", "iframe", "image"].contains(&tag), "{name}: <{tag}>");
            assert!(node.attribute("src").is_none() && node.attribute("href").is_none(), "{name}: <{tag}>");
            assert!(tag != "svg" || node.attribute("aria-label").is_some_and(|label| !label.is_empty()));
        }
        assert!(!page.contains("url(") && !page.contains("@import"), "{name}: the page must load nothing");
        assert!(!page.contains("NaN") && !page.contains("inf "), "{name}");
        let picture = svg_latency(&record);
        assert_eq!(picture.is_none(), name == "empty");
        if let Some(svg) = picture {
            parse(&svg);
            std::fs::write(folder.join(format!("report-{name}.svg")), svg).unwrap();
        }
    }
}

#[test]
fn the_headline_says_from_where_on_a_gpu_wins_or_that_it_never_does() {
    let told = text(&html(&synthetic::three_backends()));
    let wins = "On this machine the GPU (Synthetic GPU 9000, cuda) wins over the CPU from a batch of 1,024 queries on at 100 × 384, \
                from the first query on at 5,562 to 1,000,000 × 384; wgpu on synthetic pipe (LLVM 0.0, 256 bits), a program on the \
                processor that stands in for a GPU, never wins, up to batches of 5,562 at 100 to 1,000,000 × 384.";
    assert!(told.contains(wins), "{told:.900}");
    assert!(told.contains("At best cuda is "), "{told:.900}");
    let mut record = synthetic::three_backends();
    let of_cuda = |c: &&mut megaring_harness::record::Crossover| c.backend == "cuda" && c.axis == Axis::Items;
    record.crossovers.iter_mut().filter(of_cuda).for_each(|c| (c.from, c.up_to) = (None, c.at.rows.min(64)));
    let told = text(&html(&record));
    assert!(told.contains("never wins for good, up to batches of 64 at"), "{told:.900}");
    assert!(text(&html(&synthetic::cpu_alone())).contains("there is nothing to compare it with"));
    assert!(text(&html(&synthetic::empty())).contains("Nothing was measured."));
}

#[test]
fn doubts_notes_missing_peaks_and_names_are_told_as_they_are() {
    let record = synthetic::three_backends();
    let told = text(&html(&record));
    let doubted = record.points.iter().filter(|point| !point.times.doubts.is_empty()).count();
    let sentence = format!(
        "{doubted} of {} measurements are doubtful, ringed in the pictures: after … samples within … % only ({doubted}×).",
        record.points.len()
    );
    assert!(doubted > 0 && told.contains(&sentence), "{told:.1500}");
    assert!(lines(&html(&record)).iter().any(|line| line.starts_with("wgpu|") && line.contains("|not measured|–|")));
    assert!(told.contains("Synthetic CPU \"8 cores\" <made up> & co"), "the page shows a name as it is");
    assert!(text(&html(&synthetic::cpu_alone())).contains("cuda is missing: no driver was found"));
}

#[test]
fn every_measurement_is_a_line_and_every_one_of_a_corpus_is_a_point() {
    let record = synthetic::three_backends();
    let lines = lines(&html(&record));
    for point in &record.points {
        let start = format!("{}|{}", point.case, point.backend);
        let end = format!("|120|{}|{}", point.times.outliers, point.times.doubts.join(""));
        assert!(lines.iter().any(|line| line.starts_with(&start) && line.ends_with(&end)), "{start} … {end}");
    }
    assert_eq!(lines.iter().filter(|line| line.contains("|120|")).count(), record.points.len());

    let svg = svg_latency(&record).unwrap();
    let picture = parse(&svg);
    assert!(text(&svg).contains("Time of a batch, search: 5,562 × 384, k = 10"), "the corpus in the middle");
    let shown: Vec<&Point> = record.points.iter().filter(|p| p.suite == "search" && p.sizes.rows == 5_562).collect();
    let tips = picture.descendants().filter(|n| n.has_tag_name(("http://www.w3.org/2000/svg", "title")));
    assert_eq!(tips.count(), shown.len());
    let doubtful = svg.matches("; doubtful: ").count();
    assert_eq!(doubtful, shown.iter().filter(|p| !p.times.doubts.is_empty()).count());
    assert_eq!(picture.descendants().filter(|n| n.attribute("stroke") == Some("#B7860B")).count(), doubtful);
}

#[test]
fn the_map_names_the_quickest_backend_of_every_cell_and_the_table_every_crossover() {
    let record = synthetic::three_backends();
    let page = html(&record);
    let resident = || record.points.iter().filter(|p| p.suite == "search" && p.residence == Residence::Resident);
    let cells: BTreeSet<(u64, u64)> = resident().map(|p| (p.sizes.rows, p.sizes.items)).collect();
    let titles = page.replace(['\u{202f}', ','], "");
    for (rows, items) in cells {
        let here = resident().filter(|p| (p.sizes.rows, p.sizes.items) == (rows, items));
        let best = here.min_by(|a, b| a.times.p50_ns.total_cmp(&b.times.p50_ns)).unwrap();
        let cell = format!("title=\"{items} over {rows}×384: {} ", best.backend);
        assert!(titles.contains(&cell), "{cell}");
    }
    let lines = lines(&page);
    for told in [
        "search|cuda|100 × 384, k = 10|batch 1,024|batch 5,562",
        "search|cuda|5,562 × 384, k = 10|batch 1|batch 5,562",
        "search|wgpu cold|1,000,000 × 384, k = 10|never|batch 5,562",
        "search|cuda|batch 1, dim 384, k = 10|rows 5,562|rows 1,000,000",
    ] {
        assert!(lines.iter().any(|line| line == told), "{told} is not in {lines:#?}");
    }
}

/// Numbers that break arithmetic, among others that do not.
fn number() -> impl Strategy<Value = f64> {
    let odd = vec![0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, f64::MAX];
    prop_oneof![proptest::sample::select(odd), 1e-3..1e12_f64]
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), 1..2_000_000_u64]
}

prop_compose! {
    /// A record with up to 40 points and some crossovers and peaks of which every number and every name may be
    /// anything.
    fn record()(
        numbers in prop::collection::vec([number(), number(), number(), number()], 40),
        sizes in prop::collection::vec([size(), size(), size(), size()], 0..40),
        name in any::<String>(), keep in any::<bool>(),
    ) -> Record {
        let mut record = synthetic::three_backends();
        record.points.truncate(sizes.len());
        for ((point, [rows, dim, k, items]), [a, b, c, d]) in record.points.iter_mut().zip(&sizes).zip(&numbers) {
            (point.times.p50_ns, point.times.p95_ns, point.times.ci_ns) = (*a, *b, [*c, *d]);
            (point.multiply_adds, point.bytes) = (*b, *c);
            if keep {
                (point.case, point.suite) = (name.clone(), name.clone());
            }
            (point.sizes.rows, point.sizes.dim, point.sizes.k, point.sizes.items) = (*rows, *dim, *k, *items);
            if items % 2 == 0 {
                (point.backend, point.times.doubts) = (name.clone(), vec![name.clone()]);
            }
        }
        for ((crossover, [rows, .., up_to]), [a, b, ..]) in record.crossovers.iter_mut().zip(&sizes).zip(&numbers) {
            (crossover.at.rows, crossover.up_to, crossover.from) = (*rows, *up_to, None);
            record.peaks.iter_mut().for_each(|peak| (peak.multiply_adds_per_s, peak.bytes_per_s) = (Some(*a), Some(*b)));
        }
        record.machine.took_s = numbers[0][0];
        (record.machine.processor, record.machine.command, record.backends[1].device) = (name.clone(), name.clone(), name.clone());
        record.notes.push(name);
        record
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_record_gives_a_whole_page_whose_geometry_is_of_numbers(record in record()) {
        let page = html(&record) + &svg_latency(&record).unwrap_or_default();
        let (page, picture) = page.split_at(page.find("</html>").unwrap() + "</html>".len());
        for document in [page, picture].into_iter().filter(|document| !document.trim().is_empty()).map(parse) {
            let geometry = ["x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "points", "viewBox"];
            let attributes = document.descendants().flat_map(|node| node.attributes());
            for attribute in attributes.filter(|attribute| geometry.contains(&attribute.name())) {
                for number in attribute.value().split([' ', ',']).filter(|number| !number.is_empty()) {
                    let value: f64 = number.parse().unwrap_or(f64::NAN);
                    assert!(value.abs() < 1e5, "{}=\"{}\"", attribute.name(), attribute.value());
                }
            }
        }
    }
}
