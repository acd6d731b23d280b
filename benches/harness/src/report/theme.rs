//! Colours, in light and dark, and how a backend is told from others.
//!
//! Pictures are drawn in the light colours, as plain attributes, so that any reader of SVG shows them; a style sheet that selects by
//! these attributes puts the dark ones in their place where the reader's system is dark.

use std::fmt::Write as _;

use plotters::style::RGBColor;

use crate::record::{Record, Residence};

/// A colour by its part in a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ink {
    light: u32,
    dark: u32,
    /// The custom property of the page that is the same colour.
    property: &'static str,
}

const fn ink(property: &'static str, light: u32, dark: u32) -> Ink {
    Ink { light, dark, property }
}

/// Text and the lines that matter.
pub(super) const TEXT: Ink = ink("--text", 0x1f_23_28, 0xe6_ed_f3);
/// Text and lines that are read second.
pub(super) const MUTED: Ink = ink("--muted", 0x59_63_6e, 0x9d_a7_b3);
/// Lines of a grid.
pub(super) const GRID: Ink = ink("--grid", 0xdf_e3_e8, 0x2f_36_3f);
/// What a picture is drawn on.
pub(super) const SURFACE: Ink = ink("--surface", 0xff_ff_ff, 0x15_1a_21);
/// Text on a backend's colour.
pub(super) const ON_COLOUR: Ink = ink("--on-colour", 0xff_ff_fe, 0x0d_11_17);
/// What is doubted.
pub(super) const DOUBT: Ink = ink("--doubt", 0x8a_5a_00, 0xe3_b3_41);

/// Hues after Okabe and Ito, which people with any of the common kinds of colour blindness tell apart; darkened or lightened until text
/// of the colour has a contrast of 4.5 to 1 with what it stands on.
const BACKENDS: [Ink; 6] = [
    ink("--backend-0", 0x0b_62_a8, 0x5a_a9_f5),
    ink("--backend-1", 0xbf_4a_00, 0xff_9a_52),
    ink("--backend-2", 0x00_7f_5f, 0x3f_cb_9f),
    ink("--backend-3", 0x7a_4f_a3, 0xc7_9b_ef),
    ink("--backend-4", 0x8a_65_01, 0xe3_c3_41),
    ink("--backend-5", 0xa0_3a_6b, 0xf0_8f_bb),
];

const FIXED: [Ink; 6] = [TEXT, MUTED, GRID, SURFACE, ON_COLOUR, DOUBT];

impl Ink {
    pub(super) fn rgb(self) -> RGBColor {
        let [_, r, g, b] = self.light.to_be_bytes();
        RGBColor(r, g, b)
    }

    /// As CSS on the page, such as `var(--text)`.
    pub(super) fn css(self) -> String {
        format!("var({})", self.property)
    }
}

/// The shape of a backend's points, so that it is known without its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Circle,
    Triangle,
    Square,
    Diamond,
    Inverted,
    Pentagon,
}

const MARKERS: [Marker; 6] =
    [Marker::Circle, Marker::Triangle, Marker::Square, Marker::Diamond, Marker::Inverted, Marker::Pentagon];

/// How a backend looks, the same all over the report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) ink: Ink,
    pub(super) marker: Marker,
}

/// Looks of all backends of a record.
pub(super) struct Looks<'a> {
    names: Vec<&'a str>,
}

/// These look the same in every report, so that two of them can be laid side by side.
const KNOWN: [&str; 3] = ["cpu", "cuda", "wgpu"];

impl<'a> Looks<'a> {
    pub(super) fn of(record: &'a Record) -> Self {
        let mut names: Vec<&str> = KNOWN.to_vec();
        let devices = record.backends.iter().map(|device| device.backend.as_str());
        for name in devices.chain(record.points.iter().map(|point| point.backend.as_str())) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Self { names }
    }

    pub(super) fn get(&self, backend: &str) -> Look {
        let place = self.names.iter().position(|name| *name == backend).unwrap_or(0);
        // More backends than looks repeat them; their names still stand at the lines.
        Look { ink: BACKENDS[place % BACKENDS.len()], marker: MARKERS[place % MARKERS.len()] }
    }

    /// The backends in the order in which they are told: the CPU first.
    pub(super) fn order(&self, backend: &str) -> usize {
        self.names.iter().position(|name| *name == backend).unwrap_or(usize::MAX)
    }
}

/// What follows a backend's name where its corpus is uploaded first.
pub(super) fn suffix(residence: Residence) -> &'static str {
    match residence {
        Residence::Resident => "",
        Residence::Cold => " cold",
    }
}

fn inks() -> impl Iterator<Item = Ink> {
    FIXED.into_iter().chain(BACKENDS)
}

/// Style rules that turn a picture dark where the reader's system is; `scope` is put before each selector.
pub(super) fn dark_pictures(scope: &str) -> String {
    let mut css = String::from("@media (prefers-color-scheme:dark){");
    for Ink { light, dark, .. } in inks() {
        for attribute in ["fill", "stroke"] {
            let _ = write!(css, "{scope}[{attribute}=\"#{light:06X}\"]{{{attribute}:#{dark:06x}}}");
        }
    }
    css.push('}');
    css
}

/// The colours as custom properties of the page.
pub(super) fn page_properties() -> String {
    let list = |dark: bool| {
        inks().fold(String::new(), |mut css, ink| {
            let _ = write!(css, "{}:#{:06x};", ink.property, if dark { ink.dark } else { ink.light });
            css
        })
    };
    format!(":root{{{}}}@media (prefers-color-scheme:dark){{:root{{{}}}}}", list(false), list(true))
}

#[cfg(test)]
mod tests {
    use super::super::canvas::{Align, Sheet, picture};
    use super::*;

    /// The way plotters writes a colour is its own affair, and could change with it: then dark pictures would stay light.
    #[test]
    fn every_colour_stands_in_a_picture_as_the_dark_style_looks_for_it() {
        for ink in inks() {
            let sheet = Sheet { width: 40.0, height: 40.0, title: "a colour", alone: false };
            let drawn = picture(&sheet, |canvas| {
                canvas.line(&[(1.0, 1.0), (9.0, 9.0)], ink, 1.0);
                canvas.dashes(&[(1.0, 1.0), (9.0, 9.0)], ink, 1.0);
                canvas.ring((20.0, 20.0), 3.0, ink, 1.0);
                canvas.polygon(&[(1.0, 1.0), (9.0, 9.0), (1.0, 9.0)], ink, 0.5);
                canvas.rectangle((1.0, 1.0), (9.0, 9.0), ink, 1.0);
                canvas.text((20.0, 20.0), "word", 12.0, ink, Align::Start);
            });
            let style = dark_pictures("");
            for (attribute, times) in [("fill", 3), ("stroke", 3)] {
                let colour = format!("{attribute}=\"#{:06X}\"", ink.light);
                assert!(style.contains(&format!("[{colour}]{{{attribute}:#{:06x}}}", ink.dark)), "{colour}: {style}");
                assert_eq!(drawn.matches(&colour).count(), times, "{colour} in {drawn}");
            }
            let colours = drawn.split(['"', '\'']).filter(|value| value.starts_with('#') || value.starts_with("rgb"));
            assert_eq!(colours.count(), 6, "no other colour, and none written otherwise: {drawn}");
        }
    }

    /// Relative luminance as WCAG defines it.
    fn luminance(colour: u32) -> f64 {
        let [_, r, g, b] = colour.to_be_bytes().map(|byte| {
            let c = f64::from(byte) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * r + 0.7152 * g + 0.0722 * b
    }

    fn contrast(a: u32, b: u32) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_of_every_colour_can_be_read_in_both_modes() {
        for ink in BACKENDS.into_iter().chain([TEXT, MUTED, DOUBT]) {
            assert!(contrast(ink.light, SURFACE.light) >= 4.5, "{ink:x?} {}", contrast(ink.light, SURFACE.light));
            assert!(contrast(ink.dark, SURFACE.dark) >= 4.5, "{ink:x?} {}", contrast(ink.dark, SURFACE.dark));
        }
        for ink in BACKENDS {
            assert!(contrast(ink.light, ON_COLOUR.light) >= 4.5, "{ink:x?}");
            assert!(contrast(ink.dark, ON_COLOUR.dark) >= 4.5, "{ink:x?}");
        }
    }

    #[test]
    fn no_two_parts_share_a_light_colour_because_the_dark_one_is_found_by_it() {
        let mut all: Vec<u32> = inks().map(|ink| ink.light).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), inks().count());
    }
}
