//! A record as one HTML page that needs nothing else, and one of its pictures as an SVG file.
//!
//! The page has no scripts and loads nothing. Pictures are inline SVG, in light or dark as the reader's system is; the pointer tells the
//! figures behind each point. Whatever a record holds, such as times that are no numbers, gives a page: what cannot be drawn is left out
//! of the pictures and stands in the last table.

mod canvas;
mod curves;
mod headline;
mod map;
mod numbers;
mod page;
mod picture;
mod roofline;
mod sections;
mod series;
mod tables;
#[cfg(test)]
mod testing;
mod theme;

pub use page::html;
pub use picture::{NoPicture, svg_latency};
