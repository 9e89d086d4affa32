//! Deterministic CBOR: integer-keyed maps, decoded strictly (what does not re-encode to the same bytes is refused).

use serde_cbor::Value;
use std::collections::BTreeMap;
use zeroize::{Zeroize, Zeroizing};

use crate::{Coefficient, Price};

/// A map under construction; keys are small integers. Byte strings are wiped when it goes: openings hold prompts.
#[derive(Default)]
pub(crate) struct Map(BTreeMap<Value, Value>);

impl Drop for Map {
    fn drop(&mut self) {
        self.0.values_mut().for_each(wipe);
    }
}

/// Overwrites the byte strings of a value.
fn wipe(value: &mut Value) {
    match value {
        Value::Bytes(bytes) => bytes.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Map(map) => map.values_mut().for_each(wipe),
        _ => {}
    }
}

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

    /// An array of byte strings.
    pub(crate) fn blobs<B: AsRef<[u8]>>(mut self, key: u8, blobs: impl IntoIterator<Item = B>) -> Self {
        let blobs = blobs.into_iter().map(|blob| Value::Bytes(blob.as_ref().to_vec())).collect();
        self.0.insert(Value::Integer(key.into()), Value::Array(blobs));
        self
    }

    /// Class by class, then the coefficient.
    pub(crate) fn price(self, key: u8, price: &Price) -> Self {
        self.ints(
            key,
            &[price.prompt, price.cached, price.completion, price.coefficient.thousandths().into()],
        )
    }

    pub(crate) fn encode(mut self) -> Vec<u8> {
        // Room for all of it at once: a vector that grows leaves copies behind.
        let mut bytes = Vec::with_capacity(self.0.values().map(room).sum::<usize>() + 16);
        let value = Value::Map(std::mem::take(&mut self.0));
        serde_cbor::to_writer(&mut bytes, &value).expect("integers, bytes and arrays of them always encode");
        if let Value::Map(map) = value {
            self.0 = map;
        }
        bytes
    }
}

/// At least the bytes that a value of a map takes, with its key.
fn room(value: &Value) -> usize {
    match value {
        Value::Bytes(bytes) => bytes.len() + 12,
        Value::Array(values) => values.iter().map(room).sum::<usize>() + 12,
        _ => 12,
    }
}

/// Fields taken one by one; `finish` refuses leftovers. What is not taken is wiped.
pub(crate) struct Fields(BTreeMap<Value, Value>);

impl Drop for Fields {
    fn drop(&mut self) {
        self.0.values_mut().for_each(wipe);
    }
}

impl Fields {
    /// Decodes one canonical map; `None` otherwise. The caller has limited the length.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_cbor::from_slice(bytes).ok()?;
        let Value::Map(map) = value else { return None };
        let fields = Self(map);
        let mut again = Zeroizing::new(Vec::with_capacity(bytes.len() + 16));
        serde_cbor::to_writer(&mut *again, &fields.0).ok()?;
        (*again == bytes).then_some(fields)
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

    /// An array of at most `most` byte strings. The caller wipes them.
    pub(crate) fn blobs(&mut self, key: u8, most: usize) -> Option<Vec<Vec<u8>>> {
        let Value::Array(values) = self.take(key)? else { return None };
        if values.len() > most {
            return None;
        }
        let bytes = |value| match value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        };
        values.into_iter().map(bytes).collect()
    }

    /// Whether there is a field of this key.
    pub(crate) fn has(&self, key: u8) -> bool {
        self.0.contains_key(&Value::Integer(key.into()))
    }

    /// An array of exactly `N` integers that fit.
    pub(crate) fn ints<T: TryFrom<i128> + Copy + Default, const N: usize>(
        &mut self,
        key: u8,
    ) -> Option<[T; N]> {
        let Value::Array(values) = self.take(key)? else { return None };
        let mut numbers = [T::default(); N];
        if values.len() != N {
            return None;
        }
        for (number, value) in numbers.iter_mut().zip(values) {
            let Value::Integer(value) = value else { return None };
            *number = T::try_from(value).ok()?;
        }
        Some(numbers)
    }

    /// A price, as [`Map::price`] wrote it.
    pub(crate) fn price(&mut self, key: u8) -> Option<Price> {
        let [prompt, cached, completion, coefficient] = self.ints::<u64, 4>(key)?;
        let coefficient = Coefficient::from_thousandths(coefficient.try_into().ok()?);
        Some(Price { prompt, cached, completion, coefficient })
    }

    pub(crate) fn finish(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
