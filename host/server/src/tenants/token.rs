//! Tokens: 256 random bits that show who calls. Whoever keeps them keeps their SHA-256 alone.

use std::fmt;

use megaring_core::Error;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What every token begins with, so that it is known for one wherever it turns up.
const TOKEN: &str = "mr-";
/// What every hash begins with.
const HASH: &str = "sha256:";

/// A token as its owner has it: `mr-` and 64 hexadecimal digits.
pub struct Token(String);

/// The SHA-256 of a token's text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::Internal`] where the system has no random numbers.
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| Error::Internal(format!("no random numbers: {error}")))?;
        Ok(Self(format!("{TOKEN}{}", hex(&bytes))))
    }

    /// Its text: to be shown once.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl TokenHash {
    /// The hash of what a caller has sent as a token.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// Whether both are the same; how long that takes tells nothing of them.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HASH}{}", hex(&self.0))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for TokenHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("{text:?} is no hash of a token: {HASH} and 64 hexadecimal digits");
        let digits = text.strip_prefix(HASH).filter(|digits| digits.len() == 64 && digits.is_ascii());
        let digits = digits.ok_or_else(malformed)?;
        let mut hash = [0; 32];
        for (at, byte) in hash.iter_mut().enumerate() {
            let pair = &digits[at * 2..at * 2 + 2];
            let is_hex = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = u8::from_str_radix(pair, 16).ok().filter(|_| is_hex).ok_or_else(malformed)?;
        }
        Ok(Self(hash))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
