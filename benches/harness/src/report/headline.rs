//! What the figures say, in a few sentences.

use std::collections::BTreeSet;

use super::map::winner;
use super::numbers::{clean, count, factor, plottable, rate, shape, time};
use super::series::{throughput, usual_rows};
use crate::record::{Axis, Crossover, Device, Point, Record, Residence, Sizes};

/// The backend that others are held against.
const CPU: &str = "cpu";

/// The sentences, the most important first.
pub(super) fn sentences(record: &Record) -> Vec<String> {
    let searches: Vec<&Point> = timed(record, "search").collect();
    let backends: BTreeSet<&str> = searches.iter().map(|point| point.backend.as_str()).collect();
    if record.points.is_empty() {
        return vec!["Nothing was measured.".into()];
    }
    if searches.is_empty() {
        return vec!["No search was measured in this run.".into()];
    }
    let others: Vec<&Device> =
        record.backends.iter().filter(|d| d.backend != CPU && backends.contains(d.backend.as_str())).collect();
    if others.is_empty() {
        return alone(record, &searches);
    }
    let mut told: Vec<String> = others.iter().map(|device| verdict(record, device, others.len() > 1)).collect();
    if let Some(first) = told.first_mut() {
        *first = format!("On this machine {first}");
    }
    // Each of the others is a sentence of its own.
    for sentence in told.iter_mut().skip(1) {
        *sentence = capitalised(sentence);
    }
    told.extend(advantage(record, &searches));
    told
}

fn timed<'a>(record: &'a Record, suite: &'a str) -> impl Iterator<Item = &'a Point> {
    record.points.iter().filter(move |p| p.suite == suite && plottable(p.times.p50_ns).is_some())
}

fn capitalised(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// A device with the backend that serves it.
fn named(device: &Device) -> String {
    format!("{} ({})", clean(&device.device), clean(&device.backend))
}

fn alone(record: &Record, searches: &[&Point]) -> Vec<String> {
    let who = match record.backends.first() {
        Some(device) if device.backend == CPU => format!("the CPU ({})", clean(&device.device)),
        Some(device) => named(device),
        None => "one backend".into(),
    };
    let mut told = vec![format!("Only {who} was measured: there is nothing to compare it with.")];
    let rows = usual_rows(searches.iter().copied());
    let usual = || searches.iter().filter(|p| Some(p.sizes.rows) == rows);
    let first = usual().min_by_key(|p| p.sizes.items);
    let most = usual().filter_map(|p| Some((throughput(p)?, p))).max_by(|a, b| a.0.total_cmp(&b.0));
    if let (Some(first), Some((per_s, most))) = (first, most) {
        told.push(format!(
            "It answers {} in {}, and at most {} in batches of {}.",
            batch_over(first.sizes.items, first.sizes.rows, first.sizes.dim),
            time(first.times.p50_ns),
            rate(per_s, "queries"),
            count(most.sizes.items),
        ));
    }
    told
}

fn batch_over(items: u64, rows: u64, dim: u64) -> String {
    let queries = if items == 1 { "a single query".to_owned() } else { format!("a batch of {} queries", count(items)) };
    format!("{queries} over {}", shape(rows, dim))
}

/// Where one device begins to win; where it has `rivals`, what lies below may be theirs as well as the CPU's.
fn verdict(record: &Record, device: &Device, rivals: bool) -> String {
    let crossovers = comparable(record, &device.backend);
    let who = if device.emulated {
        format!(
            "{} on {}, a program on the processor that stands in for a GPU,",
            clean(&device.backend),
            clean(&device.device)
        )
    } else {
        format!("the GPU ({}, {})", clean(&device.device), clean(&device.backend))
    };
    let Some(first) = crossovers.first() else {
        return format!("{who} was measured, but not beside the CPU.");
    };
    let dim = first.at.dim;
    let uploaded = if first.residence == Residence::Cold { ", the upload included" } else { "" };
    // Sizes of corpora beside each other with the same crossover are told as one.
    let (mut wins, mut never) = (Vec::new(), Vec::new());
    for same in crossovers.chunk_by(|a, b| a.from == b.from && (a.from.is_some() || a.up_to == b.up_to)) {
        let rows = range(same[0].at.rows, same[same.len() - 1].at.rows, dim);
        match same[0].from {
            Some(from) => wins.push(format!("from {} on at {rows}", batch_word(from))),
            None => never.push((same[0].up_to, rows)),
        }
    }
    if wins.is_empty() {
        // How far it was measured, which is not as far where it took too long.
        let up_to = || crossovers.iter().map(|c| c.up_to);
        let (least, most) = (up_to().min().unwrap_or(0), up_to().max().unwrap_or(0));
        let rows = range(first.at.rows, crossovers[crossovers.len() - 1].at.rows, dim);
        let ends = match least == most {
            true => format!("{} at {rows}", up_to_batch(most)),
            false => format!("up to batches of {} to {} queries at {rows}", count(least), count(most)),
        };
        return match ahead(record, first, device) {
            0 => format!("{who} never wins{uploaded}, {ends}: the CPU answers sooner."),
            some => format!(
                "{who} never wins for good{uploaded}, {ends}, though it is ahead at {} of the sizes measured.",
                count(some)
            ),
        };
    }
    let mut told = match crossovers.iter().any(|c| c.from.is_some_and(|from| from > 1)) && !rivals {
        true => format!("{who} wins {}{uploaded}; below, the CPU does.", listed(&wins)),
        false => format!("{who} wins over the CPU {}{uploaded}.", listed(&wins)),
    };
    if !never.is_empty() {
        let never: Vec<String> =
            never.into_iter().map(|(up_to, rows)| format!("{rows} ({})", up_to_batch(up_to))).collect();
        told += &format!(" At {} it never does.", listed(&never));
    }
    told
}

/// At how many of the sizes that `crossover` is about the device is ahead of the CPU beyond doubt, by times that are not doubted.
fn ahead(record: &Record, crossover: &Crossover, device: &Device) -> u64 {
    let of = |p: &&Point| {
        p.suite == "search" && (&p.case, p.sizes.dim, p.sizes.k) == (&crossover.case, crossover.at.dim, crossover.at.k)
    };
    let mine =
        record.points.iter().filter(of).filter(|p| p.backend == device.backend && p.residence == crossover.residence);
    let wins = mine.filter(|mine| {
        let cpu = record.points.iter().filter(of).filter(|p| p.backend == CPU && p.sizes == mine.sizes);
        winner(cpu.chain([*mine])).is_some_and(|win| !win.tie && !win.doubted() && win.best.backend == device.backend)
    });
    wins.count() as u64
}

fn up_to_batch(up_to: u64) -> String {
    format!("up to a batch of {} quer{}", count(up_to), if up_to == 1 { "y" } else { "ies" })
}

fn batch_word(from: u64) -> String {
    match from {
        0 | 1 => "the first query".into(),
        more => format!("a batch of {} queries", count(more)),
    }
}

/// The crossovers of `backend` along the batch that one sentence can tell: of one case, dimension and k, resident where there are any.
fn comparable<'a>(record: &'a Record, backend: &str) -> Vec<&'a Crossover> {
    let measured = |c: &Crossover| record.points.iter().any(|p| p.suite == "search" && p.case == c.case);
    let all = record.crossovers.iter().filter(|c| c.backend == backend && c.axis == Axis::Items && measured(c));
    let mut all: Vec<&Crossover> = all.collect();
    all.sort_by_key(|c| (c.residence, c.at.rows));
    let Some(first) = all.first().copied() else { return all };
    all.retain(|c| {
        (&c.case, c.residence, c.at.dim, c.at.k) == (&first.case, first.residence, first.at.dim, first.at.k)
    });
    all
}

fn range(first: u64, last: u64, dim: u64) -> String {
    if first == last { shape(first, dim) } else { format!("{} to {}", count(first), shape(last, dim)) }
}

fn listed(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [init @ .., last] => format!("{} and {last}", init.join(", ")),
    }
}

/// By how much the quickest device beats the CPU where it does so the most. Doubted times count only where it wins for good: one that was
/// disturbed would else be the best of all.
fn advantage(record: &Record, searches: &[&Point]) -> Option<String> {
    let key = |p: &Point| (p.case.clone(), p.sizes);
    let resident = || searches.iter().copied().filter(|p| p.residence == Residence::Resident);
    let of_cpu = resident().filter(|p| p.backend == CPU);
    let ratio = |cpu: &Point, other: &Point| cpu.times.p50_ns / other.times.p50_ns;
    let wins = of_cpu.filter_map(|cpu| {
        let here = resident().filter(|p| key(p) == key(cpu));
        let win = winner(here).filter(|win| !win.tie && win.best.backend != CPU)?;
        if win.doubted() && !for_good(record, win.best) {
            return None;
        }
        Some((cpu, win.best))
    });
    let (cpu, best) = wins.max_by(|a, b| ratio(a.0, a.1).total_cmp(&ratio(b.0, b.1)))?;
    let device = record.backends.iter().find(|device| device.backend == best.backend);
    let name = device.map_or_else(|| clean(&best.backend), named);
    let sizes = cpu.sizes;
    let mut told = format!(
        "At best {name} is {} as fast as the CPU: {} takes {} rather than {}",
        factor(ratio(cpu, best)),
        batch_over(sizes.items, sizes.rows, sizes.dim),
        time(best.times.p50_ns),
        time(cpu.times.p50_ns),
    );
    if let Some(per_s) = throughput(best) {
        told += &format!(" ({})", rate(per_s, "queries"));
    }
    told.push('.');
    Some(told)
}

/// Whether a point lies where its backend always wins.
fn for_good(record: &Record, point: &Point) -> bool {
    let at = Sizes { items: 0, ..point.sizes };
    record.crossovers.iter().any(|c| {
        (&c.case, &c.backend, c.residence, c.axis, c.at)
            == (&point.case, &point.backend, point.residence, Axis::Items, at)
            && c.from.is_some_and(|from| from <= point.sizes.items)
    })
}

/// How many measurements are doubted, and each kind of reason with the number of times it was given, the most frequent first. Reasons that
/// differ in their figures alone are of one kind, told with the least and the most of each.
pub(super) fn doubts(record: &Record) -> (usize, Vec<(String, usize)>) {
    let doubted = record.points.iter().filter(|p| !p.times.doubts.is_empty()).count();
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    for doubt in record.points.iter().flat_map(|p| &p.times.doubts) {
        let (words, figures) = apart(doubt);
        match kinds.iter_mut().find(|(kind, ..)| *kind == words) {
            Some((_, ranges, times)) => {
                for (range, figure) in ranges.iter_mut().zip(figures) {
                    *range = (range.0.min(figure), range.1.max(figure));
                }
                *times += 1;
            }
            None => kinds.push((words, figures.into_iter().map(|figure| (figure, figure)).collect(), 1)),
        }
    }
    kinds.sort_by_key(|(.., times)| std::cmp::Reverse(*times));
    let told = kinds.into_iter().map(|(words, ranges, times)| {
        let range = |(least, most): (u64, u64)| match least == most {
            true => least.to_string(),
            false => format!("{least} to {most}"),
        };
        let mut ranges = ranges.into_iter().map(range);
        let reason: String =
            words.iter().flat_map(|word| [(*word).to_owned(), ranges.next().unwrap_or_default()]).collect();
        (reason, times)
    });
    (doubted, told.collect())
}

/// Reasons of the same words: those, the least and the most of each figure between them, and how often.
type Kind<'a> = (Vec<&'a str>, Vec<(u64, u64)>, usize);

/// The words of a sentence and the figures between them. What is no figure stays with its words.
fn apart(sentence: &str) -> (Vec<&str>, Vec<u64>) {
    let (mut words, mut figures, mut rest) = (Vec::new(), Vec::new(), sentence);
    let mut from = 0;
    while let Some(begin) = rest[from..].find(|c: char| c.is_ascii_digit()).map(|found| from + found) {
        let end = rest[begin..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |length| begin + length);
        let Ok(figure) = rest[begin..end].parse() else {
            from = end;
            continue;
        };
        words.push(&rest[..begin]);
        figures.push(figure);
        (rest, from) = (&rest[end..], 0);
    }
    words.push(rest);
    (words, figures)
}

#[cfg(test)]
mod tests {
    use super::apart;

    #[test]
    fn a_sentence_is_its_words_and_its_figures() {
        assert_eq!(
            apart("after 6 samples within 84 % only"),
            (vec!["after ", " samples within ", " % only"], vec![6, 84])
        );
        assert_eq!(apart("7"), (vec!["", ""], vec![7]));
        assert_eq!(apart(""), (vec![""], vec![]));
        assert_eq!(apart("é99999999999999999999 x"), (vec!["é99999999999999999999 x"], vec![]), "too long for one");
    }
}
