//! The page around the sections.

use super::canvas::FONTS;
use super::headline;
use super::numbers::{count, date, duration, escape, prefixed};
use super::sections;
use super::theme::{Looks, dark_pictures, page_properties};
use crate::record::Record;

/// A run as one HTML page, which is also well-formed XML.
#[must_use]
pub fn html(record: &Record) -> String {
    let looks = Looks::of(record);
    let mut body = String::new();
    body += &head(record);
    body += &doubts(record);
    body += &sections::backends(record, &looks);
    body += &sections::searches(record, &looks);
    body += &sections::winners(record, &looks);
    body += &sections::crossovers(record, &looks);
    body += &sections::peaks(record, &looks);
    body += &sections::others(record, &looks);
    body += &sections::all(record, &looks);
    body += &colophon(record);
    let style = format!(
        "{}\n{}\n:root{{--fonts:{FONTS}}}\n{}",
        page_properties(),
        dark_pictures("svg "),
        include_str!("style.css")
    );
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta charset=\"utf-8\" />\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n\
         <meta name=\"color-scheme\" content=\"light dark\" />\n<title>megaring bench: {}</title>\n\
         <style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(&record.machine.processor)
    )
}

fn head(record: &Record) -> String {
    let sentences = headline::sentences(record);
    let mut html = String::from("<header>\n<p class=\"kicker\">megaring bench</p>\n");
    if let Some((first, rest)) = sentences.split_first() {
        html += &format!("<h1>{}</h1>\n", escape(first));
        for sentence in rest {
            html += &format!("<p class=\"lead\">{}</p>\n", escape(sentence));
        }
    }
    let machine = &record.machine;
    let memory = machine.memory_bytes.map(|bytes| format!(", {} of memory", prefixed(bytes as f64, "B")));
    html += &format!(
        "<p class=\"machine\">{}, {} thread{}{}; {}. {}, took {}. megaring {}.</p>\n",
        escape(&machine.processor),
        count(machine.threads as u64),
        if machine.threads == 1 { "" } else { "s" },
        memory.unwrap_or_default(),
        escape(&machine.system),
        date(machine.started_unix_s),
        duration(machine.took_s),
        escape(&machine.version),
    );
    if !machine.command.is_empty() {
        html += &format!("<pre><code>{}</code></pre>\n", escape(&machine.command));
    }
    html + "</header>\n"
}

/// What a reader has to know before believing a figure.
fn doubts(record: &Record) -> String {
    let (doubted, reasons) = headline::doubts(record);
    let mut items = Vec::new();
    if doubted > 0 {
        let why =
            reasons.iter().take(6).map(|(reason, times)| format!("{} ({}×)", escape(reason), count(*times as u64)));
        let more = if reasons.len() > 6 { ", …" } else { "" };
        items.push(format!(
            "<b>{} of {} measurements are doubtful</b>, ringed in the pictures: {}{more}.",
            count(doubted as u64),
            count(record.points.len() as u64),
            why.collect::<Vec<_>>().join(", ")
        ));
    }
    items.extend(record.notes.iter().map(|note| escape(note)));
    if items.is_empty() {
        return String::new();
    }
    let list: String = items.iter().map(|item| format!("<li>{item}</li>\n")).collect();
    format!("<aside class=\"note\" aria-label=\"What to know before reading on\"><ul>\n{list}</ul></aside>\n")
}

fn colophon(record: &Record) -> String {
    format!(
        "<footer><p>Medians with the 95&#160;% confidence interval of the median; p95 and p99 over all samples, outliers included. \
         An outlier lies above the upper quartile by more than three times the quartiles’ distance. \
         Both axes of every chart are logarithmic. Record schema {}.</p></footer>\n",
        record.schema
    )
}
