//! Lineage: what a model's weights learnt from, and what that allows.
//!
//! A licence says what its owner permits; it does not say whose faces are in the weights. Both stand in the manifest, in
//! `facelatch models list` and on the door, because who mounts a door has to answer for both.

use core::fmt;

use serde::{Deserialize, Serialize};

/// What a model learnt from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lineage {
    /// What that allows.
    pub allows: Allows,
    /// The sets of faces or pictures, each with its terms in words.
    pub data: Vec<String>,
    /// Whose answers it was taught by, with the licence, when it was distilled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
}

/// What the terms of the data allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Allows {
    /// Nothing in the terms of the data stands against use in a product.
    Product,
    /// Some of the data may be used for research only.
    Research,
}

impl Lineage {
    /// What is missing from it, if anything.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let empty = |text: &String| text.trim().is_empty();
        (self.data.is_empty() || self.data.iter().any(empty) || self.teacher.as_ref().is_some_and(empty))
            .then_some("`lineage` must name its `data`, each set with its terms, and no name may be empty")
    }
}

impl fmt::Display for Allows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Product => "products",
            Self::Research => "research only",
        })
    }
}
