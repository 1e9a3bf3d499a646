//! Who is enrolled: names, numbers, states.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest name in bytes of UTF-8.
pub const NAME_BYTES: usize = 48;

/// A person's or a door's name: 1 to 48 bytes of UTF-8 without control characters, trimmed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "heapless::String<NAME_BYTES>", into = "heapless::String<NAME_BYTES>")]
pub struct Name(heapless::String<NAME_BYTES>);

impl Name {
    /// Trims and checks `text`.
    ///
    /// # Errors
    /// [`NameError`] when nothing is left, it is too long, or holds a control character.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(NameError::Control);
        }
        heapless::String::try_from(text).map(Self).map_err(|_| NameError::TooLong { bytes: text.len() })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl TryFrom<heapless::String<NAME_BYTES>> for Name {
    type Error = NameError;
    fn try_from(text: heapless::String<NAME_BYTES>) -> Result<Self, NameError> {
        Self::new(text.as_str())
    }
}

impl From<Name> for heapless::String<NAME_BYTES> {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl core::str::FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl core::fmt::Display for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing but blanks.
    #[error("a name needs at least one character")]
    Empty,
    /// Longer than [`NAME_BYTES`].
    #[error("the name has {bytes} bytes, at most {NAME_BYTES} fit")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A line break, tab or other control character.
    #[error("a name holds no control characters")]
    Control,
}

/// A person's number on this door; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubjectId(pub u32);

impl core::fmt::Display for SubjectId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Whether a person may enter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PersonState {
    /// Matched and let in.
    #[default]
    Active,
    /// Matched, but not let in.
    Suspended,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_not_trusted() {
        assert_eq!(Name::new("  Ada Lovelace ").unwrap().as_str(), "Ada Lovelace");
        assert_eq!(Name::new(" \t"), Err(NameError::Empty));
        assert_eq!(Name::new("a\nb"), Err(NameError::Control));
        assert_eq!(Name::new(&"é".repeat(25)), Err(NameError::TooLong { bytes: 50 }));
        let bytes = postcard::to_slice(&heapless::String::<48>::try_from("\u{7}").unwrap(), &mut [0; 8])
            .unwrap()
            .to_vec();
        assert!(postcard::from_bytes::<Name>(&bytes).is_err());
    }
}
