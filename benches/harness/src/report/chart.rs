//! A chart on two logarithmic axes, drawn by plotters, as SVG that is readable on light and dark pages.

use std::error::Error;
use std::fmt::Write as _;
use std::iter::once;
use std::ops::Range;

use plotters::prelude::*;

use super::numbers::{clean, escape};

/// Colours in the order of use, after Okabe and Ito, which people with any of the common kinds of colour blindness tell
/// apart. All stand out from white and from nearly black.
pub(super) const INKS: [RGBColor; 6] = [
    RGBColor(0x2f, 0x81, 0xd8),
    RGBColor(0xd9, 0x66, 0x0a),
    RGBColor(0x1a, 0x9a, 0x6c),
    RGBColor(0x9a, 0x6b, 0xd0),
    RGBColor(0xc9, 0x52, 0x8b),
    RGBColor(0x8c, 0x8c, 0x30),
];
/// The ring around what is doubted.
const DOUBT: RGBColor = RGBColor(0xb7, 0x86, 0x0b);
/// Axes, and fainter the grid.
const GREY: RGBColor = RGBColor(0x80, 0x80, 0x80);
/// plotters writes text in black, and the ground is filled with white.
const DARK: &str = "@media(prefers-color-scheme:dark){svg text{fill:#e6edf3}svg [fill=\"#FFFFFF\"]{fill:#15181d}}";
/// Two units are a pixel, since plotters places by whole units. It divides a font's size by 1.24 before it writes it.
const FONT: (&str, u32) = ("system-ui, sans-serif", 31);

/// A point, and what the pointer tells of it.
pub(super) struct Dot {
    pub(super) x: f64,
    pub(super) y: f64,
    /// How far the band above it reaches.
    pub(super) top: f64,
    pub(super) doubted: bool,
    pub(super) tip: String,
}

/// Points that are joined by a line.
pub(super) struct Series {
    pub(super) name: String,
    /// One of [`INKS`]; grey and without marks where there is none.
    pub(super) ink: Option<usize>,
    pub(super) dashed: bool,
    pub(super) dots: Vec<Dot>,
}

/// An axis: what it is called, and how its values are told.
pub(super) type Axis<'a> = (&'a str, fn(f64) -> String);

/// Series on two axes.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) across: Axis<'a>,
    pub(super) upwards: Axis<'a>,
    pub(super) legend: SeriesLabelPosition,
    pub(super) series: &'a [Series],
    /// Values that the upward axis has to hold, so that pictures beside each other have the same one.
    pub(super) range: &'a [f64],
}

impl Chart<'_> {
    /// The picture of `width` x `height` pixels. All numbers of the series are [plottable](super::numbers::plottable).
    pub(super) fn svg(&self, width: u32, height: u32) -> String {
        let mut svg = String::new();
        let tips = match self.draw(&mut svg, (2 * width, 2 * height)) {
            Ok(tips) => tips,
            Err(error) => return format!("<p>This picture could not be drawn: {}.</p>\n", escape(&error.to_string())),
        };
        let body = svg.split_once('>').map_or("", |(_, rest)| rest).trim_end().trim_end_matches("</svg>");
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
             aria-label=\"{}\">\n<style>{DARK}</style>{body}{tips}</svg>\n",
            2 * width,
            2 * height,
            escape(self.title)
        )
    }

    /// Draws, and returns the elements over which the pointer tells something.
    fn draw(&self, svg: &mut String, size: (u32, u32)) -> Result<String, Box<dyn Error>> {
        let area = SVGBackend::with_string(svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        let dots = || self.series.iter().flat_map(|series| &series.dots);
        let x = around(dots().map(|dot| dot.x), 0.0);
        // Nearly a third more for the legend where it is above the lines.
        let room = if self.legend == SeriesLabelPosition::UpperLeft { 0.3 } else { 0.0 };
        let y = around(dots().flat_map(|dot| [dot.y, dot.top]).chain(self.range.iter().copied()), room);
        let mut chart = ChartBuilder::on(&area)
            .margin(20)
            .margin_right(56)
            .caption(clean(self.title), (FONT.0, 34))
            .x_label_area_size(86)
            .y_label_area_size(136)
            .build_cartesian_2d(x.log_scale(), y.log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GREY.mix(0.25))
            .axis_style(GREY)
            .label_style(FONT)
            .x_labels(8)
            .y_labels(8)
            .x_desc(self.across.0)
            .y_desc(self.upwards.0)
            .x_label_formatter(&|value| self.across.1(*value))
            .y_label_formatter(&|value| self.upwards.1(*value))
            .draw()?;
        let mut tips = String::new();
        // The first, which others are held against, is drawn last and so lies on top.
        for series in self.series.iter().rev() {
            let ink = series.ink.map_or(GREY, |ink| INKS[ink % INKS.len()]);
            let (stroke, dots) = (ink.stroke_width(4), &series.dots);
            let line: Vec<(f64, f64)> = dots.iter().map(|dot| (dot.x, dot.y)).collect();
            let band: Vec<_> = dots.iter().map(|dot| (dot.x, dot.top)).chain(line.iter().rev().copied()).collect();
            chart.draw_series(once(Polygon::new(band, ink.mix(0.15))))?;
            let drawn = match series.dashed {
                true => chart.draw_series(DashedLineSeries::new(line, 12, 8, stroke))?,
                false => chart.draw_series(LineSeries::new(line, stroke))?,
            };
            let gap = if series.dashed { 6 } else { 0 };
            drawn.label(clean(&series.name)).legend(move |at| {
                let half = |from, to| PathElement::new([(from, 0), (to, 0)], stroke);
                EmptyElement::at(at) + half(0, 24 - gap) + half(24 + gap, 48)
            });
            // The shape goes with the ink, so that series are told apart without colours.
            let places = dots.iter().map(|dot| (dot.x, dot.y));
            match series.ink.map(|ink| ink % 3) {
                Some(0) => _ = chart.draw_series(places.map(|at| Circle::new(at, 8, ink.filled())))?,
                Some(1) => _ = chart.draw_series(places.map(|at| TriangleMarker::new(at, 11, ink.filled())))?,
                Some(_) => _ = chart.draw_series(places.map(|at| Cross::new(at, 7, stroke)))?,
                None => {}
            }
            let doubted = dots.iter().filter(|dot| dot.doubted);
            chart.draw_series(doubted.map(|dot| Circle::new((dot.x, dot.y), 14, DOUBT.stroke_width(3))))?;
            for dot in dots {
                let ((x, y), tip) = (chart.backend_coord(&(dot.x, dot.y)), escape(&dot.tip));
                writeln!(
                    tips,
                    "<circle cx=\"{x}\" cy=\"{y}\" r=\"16\" fill=\"none\" pointer-events=\"all\"><title>{tip}</title></circle>"
                )?;
            }
        }
        chart.configure_series_labels().position(self.legend.clone()).legend_area_size(60).label_font(FONT).draw()?;
        area.present()?;
        drop(chart);
        Ok(tips)
    }
}

/// A range that holds `values`, with `room` times its length above them, up to a power of ten so that the axis has a
/// label.
fn around(values: impl Iterator<Item = f64>, room: f64) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return 1.0..10.0;
    }
    let high = 1.25 * high * (high / low).powf(room);
    low / 1.25..10f64.powf(high.log10().ceil()) * 1.01
}
