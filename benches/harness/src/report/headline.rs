//! What the figures say, in a few sentences.

use std::collections::BTreeSet;

use super::numbers::{amount, clean, count, factor, shape, time};
use super::series::{drawable, groups, throughput, winners};
use crate::record::{Axis, Crossover, Device, Point, Record, Residence, Sizes};

/// The backend that others are held against.
const CPU: &str = "cpu";

/// The sentences, the most important first.
pub(super) fn sentences(record: &Record) -> Vec<String> {
    let searched: BTreeSet<&str> = drawable(record, "search").map(|point| &*point.backend).collect();
    if record.points.is_empty() {
        return vec!["Nothing was measured.".into()];
    }
    if searched.is_empty() {
        return vec!["No search was measured in this run.".into()];
    }
    let devices = record.backends.iter().filter(|d| d.backend != CPU && searched.contains(&*d.backend));
    let verdicts: Vec<String> = devices.map(|device| verdict(record, device)).collect();
    if verdicts.is_empty() {
        return alone(record);
    }
    let verdicts = format!("On this machine {}.", verdicts.join("; "));
    std::iter::once(verdicts).chain(advantage(record)).collect()
}

/// A size of corpus that all backends searched, such as the middle one; none where there is no such size.
pub(super) fn usual_rows(record: &Record) -> Option<u64> {
    let of = |device: &Device| {
        drawable(record, "search").filter(|p| p.backend == device.backend).map(|p| p.sizes.rows).collect()
    };
    let all = record.backends.iter().map(of).filter(|rows: &BTreeSet<u64>| !rows.is_empty());
    let shared = all.reduce(|a, b| &a & &b)?;
    shared.iter().nth(shared.len().saturating_sub(1) / 2).copied()
}

/// The smallest batch of a backend over corpora in place of the usual size, and the one with the most queries a second.
pub(super) fn usual<'a>(record: &'a Record, device: &Device) -> Option<(&'a Point, &'a Point)> {
    let rows = usual_rows(record)?;
    let mine = || {
        drawable(record, "search")
            .filter(|p| p.backend == device.backend && p.residence == Residence::Resident && p.sizes.rows == rows)
    };
    let first = mine().min_by_key(|p| p.sizes.items)?;
    let most = mine().max_by(|a, b| throughput(a).partial_cmp(&throughput(b)).unwrap_or(std::cmp::Ordering::Equal))?;
    Some((first, most))
}

fn alone(record: &Record) -> Vec<String> {
    let Some(device) = record.backends.first() else { return vec!["One backend was measured.".into()] };
    let who = match &*device.backend {
        CPU => format!("the CPU ({})", clean(&device.device)),
        other => format!("{other} ({})", clean(&device.device)),
    };
    let mut told = vec![format!("Only {who} was measured: there is nothing to compare it with.")];
    if let Some((first, most)) = usual(record, device) {
        told.push(format!(
            "It answers {} in {}, and at most {}queries a second in batches of {}.",
            batch_over(first.sizes),
            time(first.times.p50_ns),
            amount(throughput(most).unwrap_or(0.0)),
            count(most.sizes.items),
        ));
    }
    told
}

fn batch_over(Sizes { items, rows, dim, .. }: Sizes) -> String {
    let queries = if items == 1 { "a single query".to_owned() } else { format!("a batch of {} queries", count(items)) };
    format!("{queries} over {}", shape(rows, dim))
}

/// Where one device begins to win over the CPU.
fn verdict(record: &Record, device: &Device) -> String {
    let (backend, name) = (clean(&device.backend), clean(&device.device));
    let who = match device.emulated {
        true => format!("{backend} on {name}, a program on the processor that stands in for a GPU,"),
        false => format!("the GPU ({name}, {backend})"),
    };
    let crossovers = comparable(record, &device.backend);
    let (Some(first), Some(last)) = (crossovers.first(), crossovers.last()) else {
        return format!("{who} was measured, but not beside the CPU");
    };
    let uploaded = if first.residence == Residence::Cold { ", the upload included" } else { "" };
    let range = |first: &Crossover, last: &Crossover| match first.at.rows == last.at.rows {
        true => shape(first.at.rows, first.at.dim),
        false => format!("{} to {}", count(first.at.rows), shape(last.at.rows, last.at.dim)),
    };
    if crossovers.iter().all(|c| c.from.is_none()) {
        // How far it was measured, which is not as far where it took too long.
        let up_to: BTreeSet<u64> = crossovers.iter().map(|c| c.up_to).collect();
        let ends: Vec<String> = [up_to.first(), up_to.last()].into_iter().flatten().map(|end| count(*end)).collect();
        let ends = if up_to.len() == 1 { ends[0].clone() } else { ends.join(" to ") };
        let groups = groups(record, "search");
        let mut wins = groups.values().flat_map(|lines| winners(lines, first.residence)).filter_map(|(_, win)| win);
        let ahead = wins.any(|win| !win.tie && !win.doubted() && win.best.backend == device.backend);
        let for_good = if ahead { " for good" } else { "" };
        return format!("{who} never wins{for_good}{uploaded}, up to batches of {ends} at {}", range(first, last));
    }
    // Sizes of corpora beside each other with the same crossover are told as one.
    let parts = crossovers.chunk_by(|a, b| a.from == b.from).map(|same| {
        let rows = range(same[0], same[same.len() - 1]);
        match same[0].from {
            Some(0 | 1) => format!("from the first query on at {rows}"),
            Some(from) => format!("from a batch of {} queries on at {rows}", count(from)),
            None => format!("never for good at {rows}"),
        }
    });
    format!("{who} wins over the CPU{uploaded} {}", parts.collect::<Vec<_>>().join(", "))
}

/// The crossovers of `backend` along the batch that one sentence can tell: of one case, dimension and k, resident where
/// there are any.
fn comparable<'a>(record: &'a Record, backend: &str) -> Vec<&'a Crossover> {
    let of = |c: &&Crossover| c.backend == backend && c.axis == Axis::Items && c.at.rows > 0;
    let mut all: Vec<&Crossover> = record.crossovers.iter().filter(of).collect();
    all.sort_by_key(|c| (c.residence, &c.case, c.at.dim, c.at.k, c.at.rows));
    if let Some(first) = all.first().copied() {
        all.retain(|c| {
            (c.residence, &c.case, c.at.dim, c.at.k) == (first.residence, &first.case, first.at.dim, first.at.k)
        });
    }
    all
}

/// By how much the quickest device beats the CPU where it does so the most, by times that are not doubted.
fn advantage(record: &Record) -> Option<String> {
    let groups = groups(record, "search");
    let wins = groups.values().flat_map(|lines| {
        let cpu = lines.get(&(CPU, Residence::Resident));
        let wins = winners(lines, Residence::Resident).into_values().flatten();
        wins.filter(|win| !win.tie && !win.doubted() && win.best.backend != CPU)
            .filter_map(move |win| Some((*cpu?.get(&win.best.sizes.items)?, win.best)))
    });
    let ratio = |(cpu, best): &(&Point, &Point)| cpu.times.p50_ns / best.times.p50_ns;
    let (cpu, best) = wins.max_by(|a, b| ratio(a).total_cmp(&ratio(b)))?;
    Some(format!(
        "At best {} is {} as fast as the CPU: {} takes {} rather than {}.",
        clean(&best.backend),
        factor(ratio(&(cpu, best))),
        batch_over(best.sizes),
        time(best.times.p50_ns),
        time(cpu.times.p50_ns),
    ))
}
