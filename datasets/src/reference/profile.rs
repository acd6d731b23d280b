//! An encoder profile: the words, the gardens and the elements, read from TOML of the form of `lexicon.toml`.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;

use crate::DataError;

/// The default profile, `whitemagic-v1`, as TOML.
pub const LEXICON_TOML: &str = include_str!("../../data/lexicon.toml");

/// What an element does to a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Element {
    /// Added to x, y and z.
    pub biases: [f64; 3],
    /// Factors of w and v.
    pub factors: [f64; 2],
}

/// A parsed profile. At most 128 words, so that a mask fits a u128.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The profile's name.
    pub name: String,
    /// All words in bit order: logic, emotion, micro, macro.
    pub words: Vec<String>,
    /// Bits of the logic pole (x = -1).
    pub logic: Range<usize>,
    /// Bits of the emotion pole (x = +1).
    pub emotion: Range<usize>,
    /// Bits of the micro pole (y = -1).
    pub micro: Range<usize>,
    /// Bits of the macro pole (y = +1).
    pub macro_: Range<usize>,
    /// The element of each garden, by the garden's name in lower case.
    pub gardens: BTreeMap<String, Element>,
    /// The element of a garden that is not listed.
    pub earth: Element,
}

impl Profile {
    /// The default profile, `whitemagic-v1`: 123 words.
    ///
    /// # Errors
    /// Only if the file compiled in is damaged.
    pub fn whitemagic() -> Result<Profile, DataError> {
        Profile::parse(LEXICON_TOML)
    }

    /// Reads a profile from TOML.
    ///
    /// # Errors
    /// [`DataError::Profile`] where the TOML does not parse, there are more than 128 words, a garden names an element
    /// that is not there, or there is no element `earth`.
    pub fn parse(toml: &str) -> Result<Profile, DataError> {
        let file: ProfileFile = toml::from_str(toml).map_err(|error| profile(error.message()))?;
        let element = |name: &str| {
            let missing = || profile(&format!("there is no element {name:?}"));
            file.elements
                .get(name)
                .map(|&[x, y, z, w, v]| Element { biases: [x, y, z], factors: [w, v] })
                .ok_or_else(missing)
        };
        let gardens = file.gardens.iter().map(|(garden, name)| Ok((garden.to_lowercase(), element(name)?)));
        let gardens = gardens.collect::<Result<_, DataError>>()?;
        let earth = element("earth")?;

        let mut words = Vec::new();
        let mut pole = |list: Vec<String>| {
            let start = words.len();
            words.extend(list);
            start..words.len()
        };
        let (logic, emotion) = (pole(file.poles.logic), pole(file.poles.emotion));
        let (micro, macro_) = (pole(file.poles.micro), pole(file.poles.macro_));
        if words.len() > 128 {
            return Err(profile(&format!("{} words; a mask holds 128", words.len())));
        }
        Ok(Profile { name: file.name, words, logic, emotion, micro, macro_, gardens, earth })
    }
}

#[derive(Deserialize)]
struct ProfileFile {
    name: String,
    poles: Poles,
    gardens: BTreeMap<String, String>,
    elements: BTreeMap<String, [f64; 5]>,
}

#[derive(Deserialize)]
struct Poles {
    logic: Vec<String>,
    emotion: Vec<String>,
    micro: Vec<String>,
    #[serde(rename = "macro")]
    macro_: Vec<String>,
}

fn profile(message: &str) -> DataError {
    DataError::Profile(message.to_owned())
}
