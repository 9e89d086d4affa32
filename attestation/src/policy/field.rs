//! What a policy may say about one field of a report: these values, this bound, or nothing, in so many words.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The word that declares a field free.
const FREE: &str = "free";
/// Most values that one field may be pinned to.
const MAX_VALUES: usize = 64;

/// A field of `N` bytes: pinned to values, or explicitly free. In text `"hex"`, `["hex", "hex"]` or `"free"`; an empty
/// list accepts nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin<const N: usize> {
    /// One of these.
    OneOf(Vec<[u8; N]>),
    /// Any value.
    Free,
}

impl<const N: usize> Pin<N> {
    /// This value alone.
    pub fn to(value: [u8; N]) -> Self {
        Self::OneOf(vec![value])
    }

    pub(crate) fn zero() -> Self {
        Self::to([0; N])
    }

    pub(crate) fn is_zero(&self) -> bool {
        matches!(self, Self::OneOf(values) if *values == [[0; N]])
    }

    /// Does it accept this value?
    pub fn accepts(&self, got: &[u8; N]) -> bool {
        match self {
            Self::OneOf(values) => values.contains(got),
            Self::Free => true,
        }
    }
}

impl<const N: usize> fmt::Display for Pin<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("free"),
            Self::OneOf(values) => match values.as_slice() {
                [] => f.write_str("none: the list is empty"),
                [one] => f.write_str(&hex::encode(one)),
                many => write!(f, "one of {}", many.iter().map(hex::encode).collect::<Vec<_>>().join(", ")),
            },
        }
    }
}

fn fixed<const N: usize, E: Error>(text: &str) -> Result<[u8; N], E> {
    let mut out = [0; N];
    hex::decode_to_slice(text, &mut out).map_err(|error| {
        E::custom(format!("{text:?} is neither {} hex digits nor \"free\": {error}", 2 * N))
    })?;
    Ok(out)
}

impl<const N: usize> Serialize for Pin<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Free => serializer.serialize_str(FREE),
            Self::OneOf(values) => match values.as_slice() {
                [one] => serializer.serialize_str(&hex::encode(one)),
                many => serializer.collect_seq(many.iter().map(hex::encode)),
            },
        }
    }
}

impl<'de, const N: usize> Deserialize<'de> for Pin<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values<const N: usize>;
        impl<'de, const N: usize> Visitor<'de> for Values<N> {
            type Value = Pin<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} hex digits, a list of such, or \"free\"", 2 * N)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Pin<N>, E> {
                if text == FREE { Ok(Pin::Free) } else { fixed(text).map(Pin::to) }
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Pin<N>, A::Error> {
                let mut values = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    if values.len() == MAX_VALUES {
                        return Err(A::Error::custom(format!("more than {MAX_VALUES} values")));
                    }
                    values.push(fixed(&text)?);
                }
                Ok(Pin::OneOf(values))
            }
        }
        deserializer.deserialize_any(Values)
    }
}

/// Words: one of these, or explicitly free. In text `["a", "b"]` or `"free"`; an empty list accepts nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Words", into = "Words")]
pub enum Names {
    /// One of these.
    OneOf(Vec<String>),
    /// Any.
    Free,
}

impl Names {
    /// Does it accept this word?
    pub fn accepts(&self, got: &str) -> bool {
        match self {
            Self::OneOf(names) => names.iter().any(|name| name == got),
            Self::Free => true,
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneOf(names) if names.is_empty() => f.write_str("none: the list is empty"),
            Self::OneOf(names) => f.write_str(&names.join(" or ")),
            Self::Free => f.write_str("free"),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Words {
    Word(String),
    List(Vec<String>),
}

impl TryFrom<Words> for Names {
    type Error = &'static str;

    fn try_from(words: Words) -> Result<Self, Self::Error> {
        match words {
            Words::Word(word) if word == FREE => Ok(Self::Free),
            Words::List(names) if names.len() <= MAX_VALUES => Ok(Self::OneOf(names)),
            _ => Err("write a list of at most 64 words, or \"free\""),
        }
    }
}

impl From<Names> for Words {
    fn from(names: Names) -> Self {
        match names {
            Names::OneOf(names) => Self::List(names),
            Names::Free => Self::Word(FREE.to_owned()),
        }
    }
}

/// A number: bounded from below, or explicitly free. In text `{ at_least = 3 }` or `"free"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Bound", into = "Bound")]
pub enum Floor {
    /// This or more.
    AtLeast(u64),
    /// Any value.
    Free,
}

impl Floor {
    /// Does it accept this value?
    pub fn accepts(self, got: u64) -> bool {
        match self {
            Self::AtLeast(floor) => got >= floor,
            Self::Free => true,
        }
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(floor) => write!(f, "{floor} or more"),
            Self::Free => f.write_str("free"),
        }
    }
}

/// Bits: within a mask, or explicitly free (beyond what hard rules say). In text `{ within = "0x600e7" }` or `"free"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Bound", into = "Bound")]
pub enum Mask {
    /// No bit outside.
    Within(u64),
    /// Any value that the hard rules allow.
    Free,
}

impl Mask {
    /// Does it accept these bits?
    pub fn accepts(self, got: u64) -> bool {
        match self {
            Self::Within(mask) => got & !mask == 0,
            Self::Free => true,
        }
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Within(mask) => write!(f, "no bit outside {mask:#x}"),
            Self::Free => f.write_str("free, within the hard rules"),
        }
    }
}

/// A switch: must be on, must be off, or explicitly free. In text `"on"`, `"off"`, `"free"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// Must be on.
    On,
    /// Must be off.
    Off,
    /// Either.
    Free,
}

impl Switch {
    /// Does it accept this position?
    pub fn accepts(self, on: bool) -> bool {
        self == Self::Free || (self == Self::On) == on
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Free => "free",
        })
    }
}

/// How bounds are written.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Bound {
    Word(String),
    AtLeast(AtLeast),
    Within(Within),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AtLeast {
    at_least: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Within {
    within: String,
}

impl TryFrom<Bound> for Floor {
    type Error = &'static str;

    fn try_from(bound: Bound) -> Result<Self, Self::Error> {
        match bound {
            Bound::Word(word) if word == FREE => Ok(Self::Free),
            Bound::AtLeast(AtLeast { at_least }) => Ok(Self::AtLeast(at_least)),
            _ => Err("write { at_least = NUMBER } or \"free\""),
        }
    }
}

impl From<Floor> for Bound {
    fn from(floor: Floor) -> Self {
        match floor {
            Floor::AtLeast(at_least) => Self::AtLeast(AtLeast { at_least }),
            Floor::Free => Self::Word(FREE.to_owned()),
        }
    }
}

impl TryFrom<Bound> for Mask {
    type Error = &'static str;

    fn try_from(bound: Bound) -> Result<Self, Self::Error> {
        const WRITE: &str = "write { within = \"0xHEX\" } or \"free\"";
        match bound {
            Bound::Word(word) if word == FREE => Ok(Self::Free),
            Bound::Within(Within { within }) => {
                let digits = within.strip_prefix("0x").ok_or(WRITE)?;
                u64::from_str_radix(digits, 16).map(Self::Within).map_err(|_| WRITE)
            }
            _ => Err(WRITE),
        }
    }
}

impl From<Mask> for Bound {
    fn from(mask: Mask) -> Self {
        match mask {
            Mask::Within(mask) => Self::Within(Within { within: format!("{mask:#x}") }),
            Mask::Free => Self::Word(FREE.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        pin: Pin<2>,
        floor: Floor,
        mask: Mask,
        switch: Switch,
    }

    fn read(pin: &str, floor: &str, mask: &str, switch: &str) -> Result<Fields, toml::de::Error> {
        toml::from_str(&format!("pin = {pin}\nfloor = {floor}\nmask = {mask}\nswitch = {switch}\n"))
    }

    #[test]
    fn fields_survive_their_text_form() {
        for pin in [Pin::Free, Pin::to([1, 2]), Pin::OneOf(vec![]), Pin::OneOf(vec![[0; 2], [1; 2]])] {
            for (floor, mask, switch) in [
                (Floor::Free, Mask::Free, Switch::Free),
                (Floor::AtLeast(7), Mask::Within(0x600e7), Switch::On),
            ] {
                let fields = Fields { pin: pin.clone(), floor, mask, switch };
                let text = toml::to_string(&fields).expect("it encodes");
                assert_eq!(toml::from_str::<Fields>(&text).as_ref(), Ok(&fields), "{text}");
            }
        }
    }

    #[test]
    fn anything_else_is_refused() {
        assert!(read("\"0102\"", "{ at_least = 1 }", "{ within = \"0x1\" }", "\"on\"").is_ok());
        for (pin, floor, mask, switch) in [
            ("\"01\"", "\"free\"", "\"free\"", "\"on\""),
            ("\"any\"", "\"free\"", "\"free\"", "\"on\""),
            ("\"\"", "\"free\"", "\"free\"", "\"on\""),
            ("\"0102\"", "3", "\"free\"", "\"on\""),
            ("\"0102\"", "{ at_most = 3 }", "\"free\"", "\"on\""),
            ("\"0102\"", "\"free\"", "{ within = \"7\" }", "\"on\""),
            ("\"0102\"", "\"free\"", "{ at_least = 1 }", "\"on\""),
            ("\"0102\"", "\"free\"", "\"free\"", "true"),
        ] {
            assert!(read(pin, floor, mask, switch).is_err(), "{pin} {floor} {mask} {switch}");
        }
    }

    #[test]
    fn an_empty_list_accepts_nothing() {
        assert!(!Pin::OneOf(vec![]).accepts(&[0; 4]));
        assert!(Pin::<4>::zero().accepts(&[0; 4]));
        assert!(!Pin::<4>::zero().accepts(&[0, 0, 0, 1]));
    }
}
