//! A device as the CPU engine's [`Accelerator`]: the engine plans and keeps the books, the [`Decoder`] computes.

use cocoon_engine::{
    Accelerator, AcceleratorError, Blueprint, Format as Stored, MatrixPlan, Model, Needs, Pick, StepAnswer,
    StepWork,
};

use crate::{
    PAGE,
    backend::Backend,
    decode::Decoder,
    error::DecodeError,
    layout::{Format, Packed},
    model::{Layer, Shape, Weights},
    ptx::digest,
    step::{Choice, Row},
};

/// A device with a model, for [`Engine::accelerated`](cocoon_engine::Engine::accelerated).
pub struct Device<B: Backend> {
    backend: B,
    /// Until it retires.
    decoder: Option<Decoder<B>>,
}

impl<B: Backend> Device<B> {
    /// Asks the device's canary and moves the model there, with as much room as is needed.
    ///
    /// # Errors
    /// The canary's answer is wrong, the device has no room, or the kernels do not know the model: the error names what
    /// is missing.
    pub fn open(mut backend: B, model: &Model, needs: Needs) -> Result<Self, AcceleratorError> {
        let blueprint = model.blueprint();
        check(&blueprint)?;
        let shape = shape(&blueprint, needs);
        let weights = weights(&blueprint)?;
        let decoder = Decoder::new(&mut backend, shape, &weights).map_err(failed)?;
        Ok(Self { backend, decoder: Some(decoder) })
    }

    fn decoder(&mut self) -> Result<(&mut B, &mut Decoder<B>), AcceleratorError> {
        let retired = || AcceleratorError::new("the device was retired");
        Ok((&mut self.backend, self.decoder.as_mut().ok_or_else(retired)?))
    }
}

impl<B: Backend> Accelerator for Device<B> {
    fn kernels(&self) -> [u8; 32] {
        digest()
    }

    fn step(&mut self, work: &StepWork, answer: &mut StepAnswer) -> Result<(), AcceleratorError> {
        let (backend, decoder) = self.decoder()?;
        let row = |row: &cocoon_engine::StepRow| Row {
            token: row.token,
            sequence: row.table,
            position: row.position,
        };
        let mut rows: Vec<Row> = work.rows.iter().map(row).collect();
        let tables: Vec<&[u32]> = work.tables.iter().map(Vec::as_slice).collect();
        let choices: Vec<Choice> = work.picks.iter().map(choice).collect();
        let chosen = decoder.step(backend, &rows, &tables, &choices);
        rows.iter_mut().for_each(|row| row.token = 0);
        // Where logits are wanted, nothing was done to them: see `choice`.
        let by_logits = work.picks.iter().take_while(|pick| matches!(pick, Pick::Logits)).count();
        answer.tokens.extend(chosen.map_err(failed)?.into_iter().skip(by_logits));
        if by_logits > 0 {
            answer.logits = decoder.logits(backend, by_logits).map_err(failed)?;
        }
        Ok(())
    }

    fn scrub(&mut self, pages: &[u32]) -> Result<(), AcceleratorError> {
        let (backend, decoder) = self.decoder()?;
        decoder.scrub(backend, pages).map_err(failed)
    }

    fn prove_clean(&mut self, pages: &[u32]) -> Result<(), AcceleratorError> {
        let (backend, decoder) = self.decoder()?;
        decoder.prove_clean(backend, pages).map_err(failed)
    }

    fn retire(&mut self) -> Result<(), AcceleratorError> {
        match self.decoder.take() {
            Some(decoder) => decoder.retire(&mut self.backend).map_err(failed),
            None => Ok(()),
        }
    }
}

/// How the device is asked. Logits stay as they are where the likeliest token is taken without a penalty.
fn choice(pick: &Pick) -> Choice {
    match pick {
        Pick::Logits => Choice::greedy(),
        Pick::Token(choice) => Choice {
            temperature: choice.temperature,
            top_p: choice.top_p,
            penalty: choice.repetition_penalty,
            seed: choice.seed,
            position: choice.position,
            choice: choice.choice,
            recent: choice.recent.clone(),
        },
    }
}

/// In the engine's words, without a number that a conversation has.
fn failed(error: DecodeError) -> AcceleratorError {
    AcceleratorError::new(match error {
        DecodeError::Step { what, limit, .. } => {
            format!("a step's {what} is out of range, where the limit is {limit}")
        }
        other => other.to_string(),
    })
}

/// What the kernels cannot do, by name.
fn check(model: &Blueprint<'_>) -> Result<(), AcceleratorError> {
    let missing = model.beyond_llama();
    if missing.is_empty() {
        return Ok(());
    }
    Err(AcceleratorError::new(format!(
        "the GPU kernels cannot run this model ({}), they have no {}: serve it on the CPU",
        model.family(),
        missing.join(", no ")
    )))
}

fn format(stored: Stored) -> Format {
    match stored {
        Stored::Q4_0 => Format::Q4_0,
        Stored::Q4_1 => Format::Q4_1,
        Stored::Q5_0 => Format::Q5_0,
        Stored::Q8_0 => Format::Q8_0,
        Stored::Q4K => Format::Q4K,
        Stored::Q5K => Format::Q5K,
        Stored::Q6K => Format::Q6K,
        Stored::F16 => Format::F16,
        Stored::Bf16 => Format::Bf16,
        Stored::F32 => Format::F32,
    }
}

fn shape(model: &Blueprint<'_>, needs: Needs) -> Shape {
    let sizes = model.sizes();
    Shape {
        width: sizes.width,
        feed_width: sizes.feed_width,
        heads: sizes.heads,
        kv_heads: sizes.kv_heads,
        head_len: sizes.head_len,
        epsilon: sizes.epsilon,
        query_scale: sizes.query_scale,
        vocabulary: sizes.vocabulary,
        pages: needs.pages,
        table_width: needs.context.div_ceil(PAGE),
        rows: needs.rows,
    }
}

fn weights(model: &Blueprint<'_>) -> Result<Weights, AcceleratorError> {
    let pack = |matrix: MatrixPlan<'_>| {
        let format = format(matrix.format());
        Packed::new(format, matrix.rows(), matrix.columns(), &matrix.bytes())
            .map_err(|error| AcceleratorError::new(format!("the model cannot be laid out: {error}")))
    };
    let mut layers = Vec::with_capacity(model.sizes().layers);
    for layer in model.layers() {
        let [query, key, value, attention_out, gate, up, down] = layer.matrices();
        layers.push(Layer {
            attention_norm: layer.attention_norm().to_vec(),
            query: pack(query)?,
            key: pack(key)?,
            value: pack(value)?,
            attention_out: pack(attention_out)?,
            feed_norm: layer.feed_norm().to_vec(),
            gate: pack(gate)?,
            up: pack(up)?,
            down: pack(down)?,
        });
    }
    Ok(Weights {
        embedding: pack(model.embedding())?,
        output: model.output().map(pack).transpose()?,
        output_norm: model.output_norm().to_vec(),
        layers,
        frequencies: model.frequencies().to_vec(),
    })
}
