//! JSON with nothing lost: keys that stand twice are refused, and what is there can be walked with its place named.
//! Called by `oci`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::error::ProfileError;

/// Keys in one object; no object of a profile has half as many.
const MAX_KEYS: usize = 16;
/// Characters of a foreign text in a message.
const MAX_SHOWN: usize = 64;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool,
    /// None where it is no whole number from 0 to 2^64 - 1.
    Number(Option<u64>),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Reads one value and nothing after it. The depth is bounded by the parser.
pub(crate) fn read(bytes: &[u8]) -> Result<Json, ProfileError> {
    serde_json::from_slice(bytes).map_err(|error| ProfileError::Json(error.to_string()))
}

/// A foreign text as it may stand in a condition or an event.
pub(crate) fn shortened(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .take(MAX_SHOWN)
        .collect()
}

impl Json {
    /// What it is, for a message.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    pub(crate) fn object(self, place: &str) -> Result<Vec<(String, Self)>, ProfileError> {
        match self {
            Self::Object(entries) => Ok(entries),
            other => Err(other.instead_of("an object", place)),
        }
    }

    /// An absent list and `null` are the same to the programs that write profiles.
    pub(crate) fn list(self, place: &str) -> Result<Vec<Self>, ProfileError> {
        match self {
            Self::List(items) => Ok(items),
            Self::Null => Ok(Vec::new()),
            other => Err(other.instead_of("a list", place)),
        }
    }

    pub(crate) fn text(self, place: &str) -> Result<String, ProfileError> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(other.instead_of("a text", place)),
        }
    }

    pub(crate) fn number(&self, place: &str) -> Result<u64, ProfileError> {
        match self {
            Self::Number(Some(number)) => Ok(*number),
            Self::Number(None) => Err(ProfileError::form(
                place,
                "is no whole number from 0 to 18446744073709551615",
            )),
            other => Err(other.instead_of("a number", place)),
        }
    }

    fn instead_of(&self, wanted: &str, place: &str) -> ProfileError {
        ProfileError::form(
            place,
            format!("is {} where {wanted} must stand", self.kind()),
        )
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(Some(number)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(u64::try_from(number).ok()))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Number(None))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object: Vec<(String, Json)> = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            // Go programs also take keys in other letters; two that differ only so would be one to them.
            if object
                .iter()
                .any(|(known, _)| known.eq_ignore_ascii_case(&key))
            {
                let key = shortened(&key);
                return Err(A::Error::custom(format!("the key `{key}` stands twice")));
            }
            if object.len() == MAX_KEYS {
                return Err(A::Error::custom(format!(
                    "an object has more than {MAX_KEYS} keys"
                )));
            }
            object.push((key, entries.next_value()?));
        }
        Ok(Json::Object(object))
    }
}
