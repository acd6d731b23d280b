//! Encoder profiles: the words that pull each axis, the elements' biases, the garden names. Read from TOML; the default
//! is compiled in.

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;

/// Words a profile may have in all: the mask is 128 bits.
pub const MAX_WORDS: usize = 128;
/// Bytes of the longest word.
pub const MAX_WORD_BYTES: usize = 64;

/// The text of the default profile, `whitemagic-v1`.
pub const DEFAULT: &str = include_str!("whitemagic-v1.toml");

/// What an element does to a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Element {
    /// Added to x, y and z.
    pub bias: [f64; 3],
    /// Factor of w.
    pub importance: f64,
    /// Factor of v.
    pub vitality: f64,
}

/// A checked profile.
#[derive(Debug, Clone)]
pub struct Profile {
    name: String,
    words: Vec<String>,
    poles: [u128; 4],
    gardens: BTreeMap<String, Element>,
    unknown: Element,
}

/// Why a profile cannot be used.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// Not TOML, or not of the form.
    #[error("the profile is not valid: {0}")]
    Form(#[from] toml::de::Error),
    /// A rule of the form is broken.
    #[error("the profile's {field}: {description}")]
    Rule {
        /// Where.
        field: String,
        /// What is wrong.
        description: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    poles: Poles,
    gardens: BTreeMap<String, String>,
    elements: BTreeMap<String, [f64; 5]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Poles {
    logic: Vec<String>,
    emotion: Vec<String>,
    micro: Vec<String>,
    r#macro: Vec<String>,
}

/// The element of a garden that no profile names.
const UNKNOWN_GARDEN: &str = "earth";

impl Profile {
    /// Reads a profile from TOML text.
    ///
    /// # Errors
    /// When the text is not of the form, has more than [`MAX_WORDS`] words, or a word that is empty, too long, or not
    /// lower-case ASCII.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let text: Text = toml::from_str(text)?;
        let poles = [&text.poles.logic, &text.poles.emotion, &text.poles.micro, &text.poles.r#macro];
        let words: Vec<String> = poles.into_iter().flatten().cloned().collect();
        check_words(&words)?;
        let mut bit = 0;
        let poles = poles.map(|pole| {
            let mask = pole.iter().enumerate().fold(0, |mask, (i, _)| mask | 1_u128 << (bit + i));
            bit += pole.len();
            mask
        });
        let elements = read_elements(&text.elements)?;
        let element = |name: &str, field: String| {
            elements.get(name).copied().ok_or_else(|| rule(field, format!("there is no element {name:?}")))
        };
        let unknown = element(UNKNOWN_GARDEN, "elements".into())?;
        let gardens = text
            .gardens
            .iter()
            .map(|(garden, name)| Ok((garden.to_lowercase(), element(name, format!("gardens.{garden}"))?)))
            .collect::<Result<_, ProfileError>>()?;
        Ok(Self { name: text.name, words, poles, gardens, unknown })
    }

    /// The profile's name, such as `whitemagic-v1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Words in bit order: logic, emotion, micro, macro.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Masks of the four poles: logic, emotion, micro, macro.
    #[must_use]
    pub fn poles(&self) -> [u128; 4] {
        self.poles
    }

    /// What a garden does; `None` for the empty name.
    #[must_use]
    pub fn element(&self, garden: &str) -> Option<Element> {
        if garden.is_empty() {
            return None;
        }
        // Most gardens are lower-case ASCII already: look before folding.
        let found = self.gardens.get(garden).or_else(|| self.gardens.get(&garden.to_lowercase()));
        Some(found.copied().unwrap_or(self.unknown))
    }
}

fn check_words(words: &[String]) -> Result<(), ProfileError> {
    if words.len() > MAX_WORDS {
        return Err(rule("poles", format!("{} words, more than the mask's {MAX_WORDS} bits", words.len())));
    }
    match words.iter().find(|w| w.is_empty() || w.len() > MAX_WORD_BYTES || !w.bytes().all(is_word_byte)) {
        Some(word) => Err(rule("poles", format!("{word:?} is not 1 to {MAX_WORD_BYTES} bytes of lower-case ASCII"))),
        None => Ok(()),
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii() && !byte.is_ascii_uppercase()
}

fn read_elements(elements: &BTreeMap<String, [f64; 5]>) -> Result<BTreeMap<&str, Element>, ProfileError> {
    elements
        .iter()
        .map(|(name, numbers)| {
            if numbers.iter().any(|n| !n.is_finite()) {
                return Err(rule(format!("elements.{name}"), "every number must be finite"));
            }
            let [x, y, z, importance, vitality] = *numbers;
            Ok((name.as_str(), Element { bias: [x, y, z], importance, vitality }))
        })
        .collect()
}

fn rule(field: impl Into<String>, description: impl Into<String>) -> ProfileError {
    ProfileError::Rule { field: field.into(), description: description.into() }
}
