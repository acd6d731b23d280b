//! Three searches of the real sample, for a person to see that the answers make sense.

use megaring_proto::v1 as pb;
use serde::Serialize;

use super::data::Corpus;
use crate::console::{Failure, Output, printable};

/// Titles of records of the sample, each the query of an example. One that is not there is passed over.
const QUERIES: [&str; 3] = ["shutil.copy", "asyncio.locks.Lock", "gzip.decompress"];
/// Matches shown of each, the query itself left out.
const SHOWN: usize = 4;

/// An example, for programs.
#[derive(Serialize)]
struct Example<'a> {
    example: &'a str,
    matches: &'a [(&'a String, f32)],
}

/// Shows them. `answers` has the hits of each row.
pub(super) fn tell(corpus: &Corpus, answers: &[pb::Hits], output: &mut Output) -> Result<(), Failure> {
    if !output.is_json() {
        output.text("EXAMPLES: RECORDS OF THE REAL SAMPLE, AND WHAT LIES CLOSEST (BY COSINE)")?;
    }
    for query in QUERIES {
        let row = corpus.titles.iter().position(|title| title == query);
        let Some((row, hits)) = row.and_then(|row| Some((row, answers.get(row)?))) else { continue };
        let hits = hits.rows.iter().zip(&hits.titles).zip(&hits.scores);
        let others = hits.filter(|((other, _), _)| **other as usize != row).take(SHOWN);
        let matches: Vec<(&String, f32)> = others.map(|((_, title), score)| (title, *score)).collect();
        output.answer(&Example { example: query, matches: &matches }, || {
            let matches = matches.iter().map(|(title, score)| format!("{} ({score:.3})", printable(title)));
            format!("{query}: {}", matches.collect::<Vec<_>>().join(", "))
        })?;
    }
    if output.is_json() { Ok(()) } else { output.text("") }
}
