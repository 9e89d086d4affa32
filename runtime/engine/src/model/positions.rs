//! How far each pair of dimensions turns with each position.

use super::{families::Window, plan::Plan, shape::Shape};
use crate::{container::Source, error::ModelError};

/// The turning of one kind of layer.
#[derive(Default)]
pub(crate) struct Positions {
    /// Radians that one position turns each pair of a head by.
    frequencies: Vec<f64>,
    /// What cosines and sines are multiplied by.
    factor: f64,
}

impl Positions {
    /// Radians that one position turns each pair of a head by.
    pub(super) fn frequencies(&self) -> &[f64] {
        &self.frequencies
    }

    /// Whether sines and cosines are taken as they are.
    pub(super) fn is_plain(&self) -> bool {
        self.factor == 1.0
    }

    /// Cosine and sine of each pair's angle at a position. From `libm` in Rust: the same under every C library.
    pub(crate) fn angles(&self, position: usize, out: &mut Vec<(f32, f32)>) {
        out.clear();
        out.extend(self.frequencies.iter().map(|frequency| {
            let angle = position as f64 * frequency;
            ((libm::cos(angle) * self.factor) as f32, (libm::sin(angle) * self.factor) as f32)
        }));
    }

    /// The turning of layers that see all.
    pub(super) fn read(plan: &mut Plan<'_>, source: &dyn Source, shape: &Shape) -> Result<Self, ModelError> {
        let (family, header) = (shape.architecture, plan.header);
        let base = header.float(&family.key("rope.freq_base"))?.unwrap_or(10_000.0);
        let positive = |key: &str, number: Option<f64>, otherwise: f64| match number {
            None => Ok(otherwise),
            Some(number) if number > 0.0 && number.is_finite() => Ok(number),
            Some(number) => Err(ModelError::Malformed(format!("{} is {number}", family.key(key)))),
        };
        if !(base > 1.0 && base.is_finite()) {
            return Err(ModelError::Malformed(format!("{} is {base}", family.key("rope.freq_base"))));
        }
        let number = |key: &str| header.float(&family.key(key));
        let divisor = match header.text(&family.key("rope.scaling.type"))? {
            None | Some("none") => positive("rope.scale_linear", number("rope.scale_linear")?, 1.0)?,
            Some("linear") => positive("rope.scaling.factor", number("rope.scaling.factor")?, 1.0)?,
            Some("longrope") => 1.0,
            Some(other) => {
                return Err(ModelError::Unsupported(format!("its positions are scaled by {other:?}")));
            }
        };
        let factor = number("rope.scaling.attn_factor")?;
        let factors = Self::factors(plan, source, shape)?;
        let mut new = Self::with_base(base, shape, positive("rope.scaling.attn_factor", factor, 1.0)?);
        for (frequency, factor) in new.frequencies.iter_mut().zip(factors) {
            *frequency /= f64::from(factor) * divisor;
        }
        if let Some(bad) = new.frequencies.iter().find(|frequency| !frequency.is_finite()) {
            return Err(ModelError::Malformed(format!("its positions turn by {bad}")));
        }
        Ok(new)
    }

    /// The turning of layers with a window, where it is another.
    pub(super) fn local(shape: &Shape) -> Option<Self> {
        match shape.architecture.window {
            Window::AllBut { base, .. } => Some(Self::with_base(base, shape, 1.0)),
            Window::No | Window::All => None,
        }
    }

    fn with_base(base: f64, shape: &Shape, factor: f64) -> Self {
        let frequency = |pair| libm::pow(base, -2.0 * f64::from(pair) / shape.rotated as f64);
        Self { frequencies: (0..shape.rotated as u32 / 2).map(frequency).collect(), factor }
    }

    /// What each frequency is divided by: Llama 3's list, or one of the two of long-context models.
    fn factors(plan: &mut Plan<'_>, source: &dyn Source, shape: &Shape) -> Result<Vec<f32>, ModelError> {
        const LONG: &str = "rope_factors_long.weight";
        const SHORT: &str = "rope_factors_short.weight";
        const PLAIN: &str = "rope_freqs.weight";
        let pairs = shape.rotated / 2;
        let (name, factors) = if plan.has(LONG) && plan.has(SHORT) {
            let key = shape.architecture.key("rope.scaling.original_context_length");
            let original = plan.header.unsigned(&key)?;
            let original = original.ok_or_else(|| ModelError::Missing(format!("the metadata key {key}")))?;
            let (long, short) = (plan.vector(source, LONG, pairs)?, plan.vector(source, SHORT, pairs)?);
            if shape.context as u64 > original { (LONG, long) } else { (SHORT, short) }
        } else if plan.has(PLAIN) {
            (PLAIN, plan.vector(source, PLAIN, pairs)?)
        } else {
            (PLAIN, vec![1.0; pairs])
        };
        match factors.iter().find(|factor| !(**factor > 0.0 && factor.is_finite())) {
            None => Ok(factors),
            Some(bad) => Err(ModelError::Malformed(format!("tensor {name} divides a frequency by {bad}"))),
        }
    }
}
