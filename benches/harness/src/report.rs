//! A record as one HTML page that needs nothing else, and one of its pictures as an SVG file.
//!
//! The page has no scripts and loads nothing. Pictures are inline SVG, in light or dark as the reader's system is; the
//! pointer tells the figures behind each point. Whatever a record holds, such as times that are no numbers, gives a
//! page: what cannot be drawn is left out of the pictures and stands in the tables.

mod chart;
mod headline;
mod numbers;
mod page;
mod pictures;
mod series;

pub use page::html;
pub use pictures::svg_latency;
