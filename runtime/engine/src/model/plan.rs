//! What is going to be read, checked before anything is; and the reading, on several threads.

use std::{
    collections::HashSet,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    container::{Adjust, Format, Header, Source, TensorInfo},
    error::ModelError,
    kernels::{Matrix, half},
};

/// Most threads that repack weights.
const MAX_LOADERS: usize = 16;

/// What is going to be read.
pub(crate) struct Plan<'a> {
    pub(super) header: &'a Header,
    parts: Vec<Part<'a>>,
    used: HashSet<&'a str>,
    /// Weights of all tensors.
    pub(super) parameters: u64,
}

/// Some rows of a tensor, which become one matrix.
struct Part<'a> {
    tensor: &'a TensorInfo,
    rows: Range<usize>,
    columns: usize,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(header: &'a Header) -> Self {
        Self { header, parts: Vec::new(), used: HashSet::new(), parameters: 0 }
    }

    /// Whether the model has this tensor, stored or given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.header.tensor(name).is_some() || self.header.given.contains_key(name)
    }

    fn tensor(&mut self, name: &str, dimensions: &[usize]) -> Result<&'a TensorInfo, ModelError> {
        let tensor =
            self.header.tensor(name).ok_or_else(|| ModelError::Missing(format!("the tensor {name}")))?;
        if tensor.dimensions != dimensions {
            return Err(ModelError::Malformed(format!(
                "tensor {name} is {:?}, where its configuration says {dimensions:?}",
                tensor.dimensions
            )));
        }
        if self.used.insert(&tensor.name) {
            self.parameters += dimensions.iter().map(|&d| d as u64).product::<u64>();
        }
        Ok(tensor)
    }

    /// The next matrix: a whole tensor.
    pub(crate) fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<(), ModelError> {
        self.stack(name, &[rows], columns)
    }

    /// The next matrices: rows of one tensor, one part after the other.
    pub(crate) fn stack(&mut self, name: &str, parts: &[usize], columns: usize) -> Result<(), ModelError> {
        let tensor = self.tensor(name, &[columns, parts.iter().sum()])?;
        let mut start = 0;
        for rows in parts {
            self.parts.push(Part { tensor, rows: start..start + rows, columns });
            start += rows;
        }
        Ok(())
    }

    /// Reads a short tensor at once.
    pub(crate) fn vector(
        &mut self,
        source: &dyn Source,
        name: &str,
        length: usize,
    ) -> Result<Vec<f32>, ModelError> {
        if let Some(given) = self.header.given.get(name) {
            if given.len() == length {
                return Ok(given.clone());
            }
            return Err(ModelError::Malformed(format!("{name} has {} factors, not {length}", given.len())));
        }
        let tensor = self.tensor(name, &[length])?;
        let bytes = read_rows(source, tensor, 0..1)?;
        let mut numbers: Vec<f32> = match tensor.format {
            Format::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Format::F16 => bytes.as_chunks().0.iter().map(|b| half::widen(u16::from_le_bytes(*b))).collect(),
            Format::Bf16 => {
                bytes.as_chunks().0.iter().map(|b| half::widen_brain(u16::from_le_bytes(*b))).collect()
            }
            _ => return Err(ModelError::Unsupported(format!("tensor {name} is quantised, and only a row"))),
        };
        if tensor.adjust == Adjust::PlusOne {
            numbers.iter_mut().for_each(|number| *number += 1.0);
        }
        if numbers.iter().all(|number| number.is_finite()) { Ok(numbers) } else { Err(damaged(name)) }
    }

    /// A tensor that nothing uses would change the answers of an engine that knows it: biases, experts, adapters.
    pub(crate) fn finish(&self) -> Result<(), ModelError> {
        match self.header.tensors().find(|tensor| !self.used.contains(tensor.name.as_str())) {
            None => Ok(()),
            Some(strange) => Err(ModelError::Unsupported(format!(
                "it has a tensor that this architecture does not use: {}",
                strange.name
            ))),
        }
    }

    /// Reads and repacks all matrices on several threads, the largest first; in the order of the plan.
    pub(crate) fn read(&self, source: &dyn Source) -> Result<Vec<Matrix>, ModelError> {
        let mut order: Vec<usize> = (0..self.parts.len()).collect();
        order.sort_by_key(|&index| {
            std::cmp::Reverse(self.parts[index].rows.len() * self.parts[index].columns)
        });
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<Option<Matrix>>> = Mutex::new((0..self.parts.len()).map(|_| None).collect());
        let load = || -> Result<(), ModelError> {
            while let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                let matrix = self.parts[index].read(source)?;
                done.lock().expect("no code panics while it holds this lock")[index] = Some(matrix);
            }
            Ok(())
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_LOADERS);
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(load)).collect();
            let own = load();
            others
                .into_iter()
                .map(|thread| thread.join().expect("repacking does not panic"))
                .fold(own, Result::and)
        })?;
        let done = done.into_inner().expect("no code panics while it holds this lock");
        Ok(done.into_iter().map(|matrix| matrix.expect("every number was taken")).collect())
    }
}

impl Part<'_> {
    fn read(&self, source: &dyn Source) -> Result<Matrix, ModelError> {
        let (tensor, rows) = (self.tensor, self.rows.len());
        let mut data = read_rows(source, tensor, self.rows.clone())?;
        if let Adjust::Pairs(heads) = tensor.adjust {
            data = pairs(&data, rows, heads);
        }
        let matrix = Matrix::pack(tensor.format, rows, self.columns, &data);
        if matrix.is_finite() { Ok(matrix) } else { Err(damaged(&tensor.name)) }
    }
}

/// Interleaves the halves of each head's rows.
fn pairs(data: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let (row_bytes, head_len) = (data.len() / rows, rows / heads);
    let mut out = Vec::with_capacity(data.len());
    for row in 0..rows {
        let (head, place) = (row / head_len, row % head_len);
        let from = head * head_len + place % 2 * (head_len / 2) + place / 2;
        out.extend_from_slice(&data[from * row_bytes..][..row_bytes]);
    }
    out
}

fn damaged(tensor: &str) -> ModelError {
    ModelError::Malformed(format!("tensor {tensor} holds a weight that is not a finite number"))
}

/// Reads some rows of a tensor; a vector is one row.
fn read_rows(source: &dyn Source, tensor: &TensorInfo, rows: Range<usize>) -> Result<Vec<u8>, ModelError> {
    // The directory was checked against the size of the source, so this is never more than the source has.
    let row_bytes = tensor.bytes / tensor.dimensions[1..].iter().product::<usize>() as u64;
    let mut bytes = vec![0; row_bytes as usize * rows.len()];
    source.read(tensor.offset + row_bytes * rows.start as u64, &mut bytes, &tensor.name)?;
    Ok(bytes)
}
