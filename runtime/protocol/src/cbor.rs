//! Deterministic CBOR: integer-keyed maps, decoded strictly (what does not re-encode to the same bytes is refused).

use serde_cbor::Value;
use std::collections::BTreeMap;

/// A map under construction; keys are small integers.
#[derive(Default)]
pub(crate) struct Map(BTreeMap<Value, Value>);

impl Map {
    pub(crate) fn int(mut self, key: u8, value: impl Into<i128>) -> Self {
        self.0.insert(Value::Integer(key.into()), Value::Integer(value.into()));
        self
    }

    pub(crate) fn bytes(mut self, key: u8, value: &[u8]) -> Self {
        self.0.insert(Value::Integer(key.into()), Value::Bytes(value.to_vec()));
        self
    }

    pub(crate) fn ints(mut self, key: u8, values: &[u64]) -> Self {
        let values = values.iter().map(|&v| Value::Integer(v.into())).collect();
        self.0.insert(Value::Integer(key.into()), Value::Array(values));
        self
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        serde_cbor::to_vec(&Value::Map(self.0)).expect("integers, bytes and arrays of them always encode")
    }
}

/// Fields taken one by one; `finish` refuses leftovers.
pub(crate) struct Fields(BTreeMap<Value, Value>);

impl Fields {
    /// Decodes one canonical map; `None` otherwise. The caller has limited the length.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_cbor::from_slice(bytes).ok()?;
        if serde_cbor::to_vec(&value).ok()? != bytes {
            return None;
        }
        match value {
            Value::Map(map) => Some(Self(map)),
            _ => None,
        }
    }

    fn take(&mut self, key: u8) -> Option<Value> {
        self.0.remove(&Value::Integer(key.into()))
    }

    pub(crate) fn int<T: TryFrom<i128>>(&mut self, key: u8) -> Option<T> {
        match self.take(key)? {
            Value::Integer(value) => T::try_from(value).ok(),
            _ => None,
        }
    }

    pub(crate) fn array<const N: usize>(&mut self, key: u8) -> Option<[u8; N]> {
        self.bytes(key)?.try_into().ok()
    }

    pub(crate) fn bytes(&mut self, key: u8) -> Option<Vec<u8>> {
        match self.take(key)? {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn pair<T: TryFrom<i128>>(&mut self, key: u8) -> Option<(T, T)> {
        let Value::Array(values) = self.take(key)? else { return None };
        match values.as_slice() {
            [Value::Integer(a), Value::Integer(b)] => Some((T::try_from(*a).ok()?, T::try_from(*b).ok()?)),
            _ => None,
        }
    }

    pub(crate) fn finish(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
