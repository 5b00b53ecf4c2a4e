//! Words that stand in the code as `&'static str`, written down and read again.

use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

/// A word, or none. (By this name, because a derived reader would borrow a `&str` from what it reads.)
pub type Word = Option<&'static str>;

/// The words that state can hold: phases of a batch, and parts of a model.
const WORDS: [&str; 4] = ["prefill", "decode", "mixed", "encoder"];

/// Writes a word.
pub(super) fn serialize<S: Serializer>(word: &Word, serializer: S) -> Result<S::Ok, S::Error> {
    word.serialize(serializer)
}

/// Reads a word. One that is not known is none.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Word, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| WORDS.into_iter().find(|word| *word == text)))
}
