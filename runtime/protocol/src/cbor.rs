//! Deterministic CBOR: integer-keyed maps, decoded strictly (what does not re-encode to the same bytes is refused).

use serde_cbor::Value;
use std::collections::BTreeMap;

use crate::{Coefficient, Price};

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

    /// Class by class, then the coefficient.
    pub(crate) fn price(self, key: u8, price: &Price) -> Self {
        self.ints(
            key,
            &[price.prompt, price.cached, price.completion, price.coefficient.thousandths().into()],
        )
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
