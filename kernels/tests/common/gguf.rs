//! As much of GGUF (its specification, version 3) as the repository's own models need.

use std::collections::HashMap;

use cocoon_kernels::{Format, Layer, Packed, Shape, Weights};

/// A value of the metadata, if it is one that is needed.
enum Value {
    Number(f64),
    Other,
}

/// A model file in memory.
pub(crate) struct Gguf {
    metadata: HashMap<String, Value>,
    /// Columns and rows, type, and first byte of each tensor.
    tensors: HashMap<String, (Vec<usize>, u32, usize)>,
    bytes: Vec<u8>,
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        self.at += N;
        self.bytes[self.at - N..self.at].try_into().expect("N bytes")
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> usize {
        u64::from_le_bytes(self.take()) as usize
    }

    fn text(&mut self) -> String {
        let length = self.u64();
        self.at += length;
        String::from_utf8(self.bytes[self.at - length..self.at].to_vec()).expect("UTF-8")
    }

    fn value(&mut self, kind: u32) -> Value {
        match kind {
            0 | 1 | 7 => Value::Number(self.take::<1>()[0].into()),
            2 | 3 => Value::Number(u16::from_le_bytes(self.take()).into()),
            4 | 5 => Value::Number(self.u32().into()),
            6 => Value::Number(f32::from_le_bytes(self.take()).into()),
            8 => {
                self.text();
                Value::Other
            }
            9 => {
                let (kind, count) = (self.u32(), self.u64());
                for _ in 0..count {
                    self.value(kind);
                }
                Value::Other
            }
            10 | 11 => Value::Number(self.u64() as f64),
            12 => Value::Number(f64::from_le_bytes(self.take())),
            other => panic!("metadata of type {other}"),
        }
    }
}

impl Gguf {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let mut reader = Reader { bytes: &bytes, at: 8 };
        assert_eq!(&bytes[..4], b"GGUF");
        let (tensor_count, value_count) = (reader.u64(), reader.u64());
        let metadata = (0..value_count).map(|_| {
            let (key, kind) = (reader.text(), reader.u32());
            (key, reader.value(kind))
        });
        let metadata: HashMap<_, _> = metadata.collect();
        let tensors: Vec<_> = (0..tensor_count)
            .map(|_| {
                let (name, dimensions) = (reader.text(), reader.u32());
                let dimensions: Vec<usize> = (0..dimensions).map(|_| reader.u64()).collect();
                (name, dimensions, reader.u32(), reader.u64())
            })
            .collect();
        let start = reader.at.next_multiple_of(32);
        let tensors =
            tensors.into_iter().map(|(name, sizes, kind, offset)| (name, (sizes, kind, start + offset)));
        Self { tensors: tensors.collect(), metadata, bytes }
    }

    /// First byte and length of each matrix of a type of two bytes a number.
    pub(crate) fn tensors_of(&self, kind: u32) -> Vec<(String, (usize, usize))> {
        let of_kind = self.tensors.iter().filter(|(_, (_, found, _))| *found == kind);
        let place = |(name, (sizes, _, start)): (&String, &(Vec<usize>, u32, usize))| {
            (name.clone(), (*start, sizes.iter().product::<usize>() * 2))
        };
        of_kind.map(place).collect()
    }

    fn number(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key)? {
            Value::Number(number) => Some(*number),
            Value::Other => None,
        }
    }

    fn size(&self, key: &str) -> usize {
        self.number(key).unwrap_or_else(|| panic!("{key}")) as usize
    }

    fn matrix(&self, name: &str) -> Option<Packed> {
        self.rows(name, usize::MAX)
    }

    /// The first rows of a matrix.
    fn rows(&self, name: &str, most: usize) -> Option<Packed> {
        let (sizes, kind, start) = self.tensors.get(name)?;
        let format = match kind {
            2 => Format::Q4_0,
            3 => Format::Q4_1,
            8 => Format::Q8_0,
            other => panic!("{name} is of type {other}"),
        };
        let (columns, rows) = (sizes[0], sizes[1].min(most));
        let length = rows * columns / 32 * format.block_bytes();
        Some(Packed::new(format, rows, columns, &self.bytes[*start..*start + length]).expect("fits"))
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let (sizes, kind, start) = self.tensors.get(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(*kind, 0, "{name} is in F32");
        let bytes = self.bytes[*start..*start + sizes[0] * 4].chunks_exact(4);
        bytes.map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes"))).collect()
    }

    /// The weights of a Llama.
    pub(crate) fn weights(&self) -> Weights {
        let layer = |index: usize| {
            let matrix = |part: &str| self.matrix(&format!("blk.{index}.{part}.weight")).expect("a matrix");
            Layer {
                attention_norm: self.floats(&format!("blk.{index}.attn_norm.weight")),
                query: matrix("attn_q"),
                key: matrix("attn_k"),
                value: matrix("attn_v"),
                attention_out: matrix("attn_output"),
                feed_norm: self.floats(&format!("blk.{index}.ffn_norm.weight")),
                gate: matrix("ffn_gate"),
                up: matrix("ffn_up"),
                down: matrix("ffn_down"),
            }
        };
        let base = self.number("llama.rope.freq_base").unwrap_or(10_000.0);
        let head_len = self.size("llama.embedding_length") / self.size("llama.attention.head_count");
        let rotated = self.number("llama.rope.dimension_count").map_or(head_len, |size| size as usize);
        assert!(!self.tensors.contains_key("rope_freqs.weight"), "positions are not scaled");
        Weights {
            embedding: self.matrix("token_embd.weight").expect("an embedding"),
            output: self.matrix("output.weight"),
            output_norm: self.floats("output_norm.weight"),
            layers: (0..self.size("llama.block_count")).map(layer).collect(),
            frequencies: (0..rotated / 2)
                .map(|pair| libm::pow(base, -2.0 * pair as f64 / rotated as f64))
                .collect(),
        }
    }

    /// A smaller model of the same weights: its first layer, and its first tokens.
    pub(crate) fn part(&self, tokens: usize, rows: usize, pages: usize) -> (Shape, Weights) {
        let (mut shape, mut weights) = (self.shape(rows, pages), self.weights());
        shape.vocabulary = tokens;
        weights.embedding = self.rows("token_embd.weight", tokens).expect("an embedding");
        weights.output = self.rows("output.weight", tokens);
        weights.layers.truncate(1);
        (shape, weights)
    }

    /// Its sizes, with room for some sequences.
    pub(crate) fn shape(&self, rows: usize, pages: usize) -> Shape {
        let heads = self.size("llama.attention.head_count");
        Shape {
            width: self.size("llama.embedding_length"),
            feed_width: self.size("llama.feed_forward_length"),
            heads,
            kv_heads: self.size("llama.attention.head_count_kv"),
            head_len: self.size("llama.embedding_length") / heads,
            epsilon: self.number("llama.attention.layer_norm_rms_epsilon").unwrap_or(1e-5) as f32,
            query_scale: 1.0 / ((self.size("llama.embedding_length") / heads) as f32).sqrt(),
            vocabulary: self.matrix("token_embd.weight").expect("an embedding").rows,
            pages,
            table_width: pages,
            rows,
        }
    }
}
