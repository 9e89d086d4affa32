//! A model that takes its time: the tiny one with its layers repeated. What it says is noise; that it is still saying it
//! when a part is killed is what tests need.

/// Rewrites a GGUF (version 3) so that its transformer blocks come `times` times each.
///
/// # Panics
/// If the file is not the small, known kind of GGUF that lies in the repository.
pub fn repeat_layers(gguf: &[u8], times: u32) -> Vec<u8> {
    let mut reader = Reader { bytes: gguf, at: 0 };
    assert_eq!(reader.take(4), b"GGUF");
    let version = reader.u32();
    let tensor_count = reader.u64();
    let pairs = reader.u64();
    let metadata_from = reader.at;
    let mut blocks = None;
    let mut alignment = 32;
    for _ in 0..pairs {
        let key = reader.string();
        let kind = reader.u32();
        let at = reader.at;
        if key.ends_with(".block_count") {
            blocks = Some((at, u32::from_le_bytes(gguf[at..at + 4].try_into().expect("four bytes"))));
        }
        if key == "general.alignment" {
            alignment = u32::from_le_bytes(gguf[at..at + 4].try_into().expect("four bytes")) as usize;
        }
        reader.skip_value(kind);
    }
    let mut metadata = gguf[metadata_from..reader.at].to_vec();
    let (at, count) = blocks.expect("a block count");
    metadata[at - metadata_from..][..4].copy_from_slice(&(count * times).to_le_bytes());

    let mut tensors: Vec<Tensor> = (0..tensor_count).map(|_| reader.tensor()).collect();
    let data_from = reader.at.next_multiple_of(alignment);
    let data = &gguf[data_from..];
    let length = data.len().next_multiple_of(alignment) as u64;
    tensors = tensors.into_iter().flat_map(|tensor| tensor.repeated(count, times, length)).collect();

    let mut out = Vec::new();
    out.extend_from_slice(b"GGUF");
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    out.extend_from_slice(&pairs.to_le_bytes());
    out.extend_from_slice(&metadata);
    for tensor in &tensors {
        tensor.write(&mut out);
    }
    out.resize(out.len().next_multiple_of(alignment), 0);
    // Every repetition has the whole data to itself, since tensors may not overlap; most of it stays unused.
    for _ in 0..times {
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(alignment), 0);
    }
    out
}

#[derive(Clone)]
struct Tensor {
    name: String,
    dimensions: Vec<u64>,
    kind: u32,
    offset: u64,
}

impl Tensor {
    fn repeated(self, count: u32, times: u32, data_length: u64) -> Vec<Self> {
        let Some(rest) = self.name.strip_prefix("blk.") else { return vec![self] };
        let (number, rest) = rest.split_once('.').expect("blk.N.name");
        let number: u32 = number.parse().expect("a number");
        (0..times)
            .map(|round| Self {
                name: format!("blk.{}.{rest}", number + round * count),
                offset: self.offset + u64::from(round) * data_length,
                ..self.clone()
            })
            .collect()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.name.len() as u64).to_le_bytes());
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(&(self.dimensions.len() as u32).to_le_bytes());
        for dimension in &self.dimensions {
            out.extend_from_slice(&dimension.to_le_bytes());
        }
        out.extend_from_slice(&self.kind.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    fn string(&mut self) -> &'a str {
        let length = self.u64() as usize;
        std::str::from_utf8(self.take(length)).expect("keys are UTF-8")
    }

    fn skip_value(&mut self, kind: u32) {
        match kind {
            0 | 1 | 7 => self.at += 1,
            2 | 3 => self.at += 2,
            4..=6 => self.at += 4,
            10..=12 => self.at += 8,
            8 => {
                let length = self.u64() as usize; // a token's bytes need not be UTF-8
                self.at += length;
            }
            9 => {
                let (kind, count) = (self.u32(), self.u64());
                (0..count).for_each(|_| self.skip_value(kind));
            }
            other => panic!("a value of unknown kind {other}"),
        }
    }

    fn tensor(&mut self) -> Tensor {
        let name = self.string().to_owned();
        let dimensions = (0..self.u32()).map(|_| self.u64()).collect();
        Tensor { name, dimensions, kind: self.u32(), offset: self.u64() }
    }
}
