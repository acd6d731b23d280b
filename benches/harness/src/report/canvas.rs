//! A picture: drawn by plotters into SVG, then made fit for a page (a name for those who hear it, dashes, and tips under the pointer).

use std::fmt::Write as _;

use plotters::coord::Shift;
use plotters::coord::combinators::{IntoLogRange, LogCoord};
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::{Circle, DrawingArea, IntoDrawingArea, PathElement, Polygon, Rectangle, SVGBackend, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBAColor, ShapeStyle, TextStyle};

use super::numbers::{clean, escape};
use super::theme::{Ink, Look, Marker, SURFACE, dark_pictures};

/// plotters places by whole units; four to a pixel make its lines look straight.
const UNITS: f64 = 4.0;
/// plotters divides a font's size by this before it writes it.
const FONT_UNIT: f64 = 1.24;
/// plotters knows no dashes in SVG: a line of this opacity is turned into a dashed one afterwards.
const DASHED: f64 = 0.99;

/// Pixels of the picture, from its upper left corner.
pub(super) type Place = (f64, f64);

/// Where a text lies as seen from its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// What a picture is called, and how large it is.
pub(super) struct Sheet<'a> {
    pub(super) width: f64,
    pub(super) height: f64,
    /// What it shows, for those who do not see it.
    pub(super) title: &'a str,
    /// It is a file of its own: it brings its background, fonts and dark colours along.
    pub(super) alone: bool,
}

/// A picture while it is drawn. What plotters reports is kept until the end: drawing into memory has no ways to fail that a caller
/// could do something about.
pub(super) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
    tips: String,
    failure: Option<String>,
}

/// Draws a picture and returns it as SVG; where plotters fails, a paragraph that says so.
pub(super) fn picture(sheet: &Sheet<'_>, draw: impl FnOnce(&mut Canvas<'_>)) -> String {
    let mut svg = String::new();
    let size = ((sheet.width * UNITS) as u32, (sheet.height * UNITS) as u32);
    let (tips, failure) = {
        let mut canvas = Canvas {
            area: SVGBackend::with_string(&mut svg, size).into_drawing_area(),
            tips: String::new(),
            failure: None,
        };
        if sheet.alone {
            canvas.rectangle((0.0, 0.0), (sheet.width, sheet.height), SURFACE, 1.0);
        }
        draw(&mut canvas);
        if let Err(error) = canvas.area.present() {
            canvas.failure = Some(error.to_string());
        }
        (canvas.tips, canvas.failure)
    };
    match failure {
        Some(why) => format!("<p class=\"doubt\">This picture could not be drawn: {}.</p>\n", escape(&why)),
        None => finish(&svg, size, sheet, &tips),
    }
}

fn finish(svg: &str, size: (u32, u32), sheet: &Sheet<'_>, tips: &str) -> String {
    let body = svg.split_once('>').map_or("", |(_, rest)| rest);
    let body = body.trim_end().trim_end_matches("</svg>");
    let dashed = format!("opacity=\"{DASHED}\" stroke=");
    let body = body.replace(&dashed, "stroke-dasharray=\"22 14\" stroke=").replace("opacity=\"1\" ", "");
    let title = escape(sheet.title);
    let style = if sheet.alone { format!("<style>{}</style>\n", dark_pictures("")) } else { String::new() };
    // On the page a picture may grow a little, to fill its column.
    let bound = if sheet.alone { String::new() } else { format!(" style=\"--width:{}px\"", sheet.width) };
    let (w, h) = size;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{}\" height=\"{}\"{bound} role=\"img\" \
         aria-label=\"{title}\" font-family=\"{FONTS}\" stroke-linejoin=\"round\" stroke-linecap=\"round\">\n\
         <title>{title}</title>\n{style}{}{tips}</svg>\n",
        sheet.width,
        sheet.height,
        body.replace(" font-family=\"sans-serif\"", "").trim_start(),
    )
}

/// The fonts of the page and its pictures: what the system has.
pub(super) const FONTS: &str =
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif";

fn unit(place: Place) -> (i32, i32) {
    ((place.0 * UNITS).round() as i32, (place.1 * UNITS).round() as i32)
}

fn stroke(ink: Ink, width: f64, opacity: f64) -> ShapeStyle {
    ShapeStyle { color: ink.rgb().mix(opacity), filled: false, stroke_width: (width * UNITS).round() as u32 }
}

fn fill(ink: Ink, opacity: f64) -> ShapeStyle {
    ShapeStyle { color: ink.rgb().mix(opacity), filled: true, stroke_width: 0 }
}

impl Canvas<'_> {
    fn keep<E: std::fmt::Display>(&mut self, result: Result<(), E>) {
        if let Err(error) = result {
            self.failure = Some(error.to_string());
        }
    }

    /// A line through `places`.
    pub(super) fn line(&mut self, places: &[Place], ink: Ink, width: f64) {
        let points: Vec<_> = places.iter().copied().map(unit).collect();
        let result = self.area.draw(&PathElement::new(points, stroke(ink, width, 1.0)));
        self.keep(result);
    }

    /// A dashed line through `places`.
    pub(super) fn dashes(&mut self, places: &[Place], ink: Ink, width: f64) {
        let points: Vec<_> = places.iter().copied().map(unit).collect();
        let result = self.area.draw(&PathElement::new(points, stroke(ink, width, DASHED)));
        self.keep(result);
    }

    /// A filled polygon.
    pub(super) fn polygon(&mut self, corners: &[Place], ink: Ink, opacity: f64) {
        let points: Vec<_> = corners.iter().copied().map(unit).collect();
        let result = self.area.draw(&Polygon::new(points, fill(ink, opacity)));
        self.keep(result);
    }

    /// A filled rectangle.
    pub(super) fn rectangle(&mut self, from: Place, to: Place, ink: Ink, opacity: f64) {
        let result = self.area.draw(&Rectangle::new([unit(from), unit(to)], fill(ink, opacity)));
        self.keep(result);
    }

    /// A circle that is not filled.
    pub(super) fn ring(&mut self, centre: Place, radius: f64, ink: Ink, width: f64) {
        let radius = (radius * UNITS).round() as i32;
        let result = self.area.draw(&Circle::new(unit(centre), radius, stroke(ink, width, 1.0)));
        self.keep(result);
    }

    /// A backend's point; hollow where `hollow`.
    pub(super) fn marker(&mut self, centre: Place, radius: f64, look: Look, hollow: bool) {
        // The rim of the surface's colour keeps points apart that lie on a line or on each other.
        self.shape(centre, radius + 1.0, look.marker, SURFACE);
        self.shape(centre, radius, look.marker, look.ink);
        if hollow {
            self.shape(centre, radius - 1.75, look.marker, SURFACE);
        }
    }

    fn shape(&mut self, centre: Place, radius: f64, marker: Marker, ink: Ink) {
        // Corners, by the angle of the first in turns clockwise from the top; sizes that look alike.
        let (corners, first, size) = match marker {
            Marker::Circle => {
                let style = fill(ink, 1.0);
                let result = self.area.draw(&Circle::new(unit(centre), (radius * UNITS).round() as i32, style));
                return self.keep(result);
            }
            Marker::Triangle => (3, 0.0, 1.3),
            Marker::Inverted => (3, 0.5, 1.3),
            Marker::Square => (4, 0.125, 1.25),
            Marker::Diamond => (4, 0.0, 1.3),
            Marker::Pentagon => (5, 0.0, 1.15),
        };
        let places: Vec<Place> = (0..corners)
            .map(|corner| {
                let turn = (first + f64::from(corner) / f64::from(corners)) * std::f64::consts::TAU;
                (centre.0 + turn.sin() * radius * size, centre.1 - turn.cos() * radius * size)
            })
            .collect();
        self.polygon(&places, ink, 1.0);
    }

    /// A line of text whose middle has the height of `place`.
    pub(super) fn text(&mut self, place: Place, text: &str, size: f64, ink: Ink, align: Align) {
        self.write(place, text, size, ink, align, FontStyle::Normal);
    }

    /// The same in bold.
    pub(super) fn bold(&mut self, place: Place, text: &str, size: f64, ink: Ink, align: Align) {
        self.write(place, text, size, ink, align, FontStyle::Bold);
    }

    fn write(&mut self, place: Place, text: &str, size: f64, ink: Ink, align: Align, style: FontStyle) {
        let h_pos = match align {
            Align::Start => HPos::Left,
            Align::Middle => HPos::Center,
            Align::End => HPos::Right,
        };
        // plotters would centre by the height of an x; 0.36 of the size is the middle of figures and capitals.
        let place = (place.0, place.1 - 0.40 * size);
        let font = ("sans-serif", size * UNITS * FONT_UNIT).into_font().style(style);
        let colour: RGBAColor = ink.rgb().mix(1.0);
        let style = TextStyle::from(font).color(&colour).pos(Pos::new(h_pos, VPos::Top));
        let result = self.area.draw(&Text::new(clean(text), unit(place), style));
        self.keep(result);
    }

    /// What the pointer tells at a place.
    pub(super) fn tip(&mut self, centre: Place, radius: f64, text: &str) {
        let (x, y) = unit(centre);
        let r = radius * UNITS;
        let _ = writeln!(
            self.tips,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" fill=\"none\" pointer-events=\"all\"><title>{}</title></circle>",
            escape(text)
        );
    }
}

/// A logarithmic axis between two places of a picture.
pub(super) struct Axis {
    coord: LogCoord<f64>,
    low: f64,
    high: f64,
    from: i32,
    to: i32,
}

impl Axis {
    /// An axis on which all of `values`, which are [plottable](super::numbers::plottable), lie between `from` and `to` with some room to
    /// both sides.
    pub(super) fn around(values: impl IntoIterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = values.into_iter().fold((f64::INFINITY, 0.0_f64), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = if low <= high { (low, high) } else { (1.0, 1.0) };
        let room = (high / low).powf(0.04).max(1.15);
        let (mut low, mut high) = (low / room, high * room);
        // A few equal values would else fill the height with their noise.
        while high / low < 4.0 {
            (low, high) = (low / 1.2, high * 1.2);
        }
        Self { coord: (low..high).log_scale().into(), low, high, from: unit((from, 0.0)).0, to: unit((to, 0.0)).0 }
    }

    /// The pixel of `value`.
    pub(super) fn at(&self, value: f64) -> f64 {
        f64::from(self.coord.map(&value.clamp(self.low, self.high), (self.from, self.to))) / UNITS
    }

    /// Whether `value` lies on it.
    pub(super) fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// The ends of the axis.
    pub(super) fn ends(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// Round values: powers of ten, on short axes also their doubles and fives, on long ones not all.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let factors: &[f64] = match (self.high / self.low).log10() {
            length if length < 1.3 => &[1.0, 2.0, 5.0],
            length if length < 2.2 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let step = ((self.high / self.low).log10() / 7.0).ceil().max(1.0) as i32;
        decades
            .filter(|decade| decade.rem_euclid(step) == 0)
            .flat_map(|decade| factors.iter().map(move |factor| factor * 10f64.powi(decade)))
            .filter(|tick| self.holds(*tick))
            .collect()
    }

    /// Those of `values` that can stand beside each other when each needs `room` pixels, the first and the last before others.
    pub(super) fn labelled(&self, values: &[f64], room: f64) -> Vec<f64> {
        let (Some(first), Some(last)) = (values.first(), values.last()) else { return Vec::new() };
        let mut kept = vec![*first];
        for value in &values[1..] {
            let gap = |other: f64| (self.at(*value) - self.at(other)).abs();
            let free = kept.iter().all(|other| gap(*other) >= room);
            if free && (value == last || gap(*last) >= room) {
                kept.push(*value);
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::Axis;

    #[test]
    fn an_axis_has_ends_and_some_ticks_whatever_lies_on_it() {
        for values in [vec![], vec![5.0], vec![1e-6, 1e24], vec![3.0, 3.1], vec![1.0, 5_562.0]] {
            let axis = Axis::around(values.iter().copied(), 100.0, 400.0);
            let (low, high) = axis.ends();
            assert!(low > 0.0 && high.is_finite() && high / low >= 4.0, "{low} to {high}");
            let ticks = axis.ticks();
            assert!((1..=9).contains(&ticks.len()), "{values:?}: {ticks:?}");
            for value in values {
                assert!((100.0..=400.0).contains(&axis.at(value)), "{value}");
            }
        }
    }

    #[test]
    fn labels_of_an_axis_keep_their_distance_and_the_ends_are_among_them() {
        let values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1_024.0, 5_562.0];
        let axis = Axis::around(values, 0.0, 300.0);
        let labelled = axis.labelled(&values, 40.0);
        assert_eq!((labelled.first(), labelled.last()), (Some(&1.0), Some(&5_562.0)));
        assert!(labelled.windows(2).all(|pair| axis.at(pair[1]) - axis.at(pair[0]) >= 40.0), "{labelled:?}");
        assert!(axis.labelled(&[], 40.0).is_empty());
    }
}
