//! JSON, as far as the commands print it.
//!
//! Pure.

use std::fmt::{self, Display, Formatter};

/// One value of JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Number(u64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// Names and values, in this order.
    Object(Vec<(String, Json)>),
    /// Nothing.
    Null,
}

impl Json {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A count.
    #[must_use]
    pub fn count(count: usize) -> Self {
        Self::Number(u64::try_from(count).unwrap_or(u64::MAX))
    }

    /// An object.
    pub fn object<const N: usize>(members: [(&str, Self); N]) -> Self {
        Self::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// A list of text.
    pub fn texts(texts: impl IntoIterator<Item = String>) -> Self {
        Self::List(texts.into_iter().map(Self::Text).collect())
    }
}

impl Display for Json {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => out.write_str("null"),
            Self::Bool(on) => write!(out, "{on}"),
            Self::Number(number) => write!(out, "{number}"),
            Self::Text(text) => quoted(out, text),
            Self::List(items) => {
                out.write_str("[")?;
                for (place, item) in items.iter().enumerate() {
                    write!(out, "{}{item}", if place == 0 { "" } else { "," })?;
                }
                out.write_str("]")
            }
            Self::Object(members) => {
                out.write_str("{")?;
                for (place, (name, value)) in members.iter().enumerate() {
                    out.write_str(if place == 0 { "" } else { "," })?;
                    quoted(out, name)?;
                    write!(out, ":{value}")?;
                }
                out.write_str("}")
            }
        }
    }
}

fn quoted(out: &mut Formatter<'_>, text: &str) -> fmt::Result {
    out.write_str("\"")?;
    for character in text.chars() {
        match character {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            other if other.is_control() => write!(out, "\\u{:04x}", u32::from(other))?,
            other => write!(out, "{other}")?,
        }
    }
    out.write_str("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_escaped() {
        let json = Json::object([(
            "a\"b",
            Json::List(vec![Json::text("x\n\u{1}"), Json::Bool(true), Json::Number(3)]),
        )]);
        assert_eq!(json.to_string(), "{\"a\\\"b\":[\"x\\n\\u0001\",true,3]}");
    }
}
