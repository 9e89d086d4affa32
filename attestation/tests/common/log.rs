//! Builds event logs, honest by default: each digest is over what the event's type says.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of test helpers, shared by several test crates")]

use ring::digest::{SHA256, SHA384, SHA512, digest};

pub const SHA_1: u16 = 4;
pub const SHA_256: u16 = 0xb;
pub const SHA_384: u16 = 0xc;
pub const SHA_512: u16 = 0xd;
pub const SM3: u16 = 0x12;

pub fn size(algorithm: u16) -> u16 {
    match algorithm {
        SHA_1 => 20,
        SHA_384 => 48,
        SHA_512 => 64,
        _ => 32,
    }
}

/// The digest, or for algorithms that are not believed some bytes of the right length.
pub fn hash(algorithm: u16, data: &[u8]) -> Vec<u8> {
    match algorithm {
        SHA_256 => digest(&SHA256, data).as_ref().to_vec(),
        SHA_384 => digest(&SHA384, data).as_ref().to_vec(),
        SHA_512 => digest(&SHA512, data).as_ref().to_vec(),
        other => vec![0xee; size(other).into()],
    }
}

pub struct Event {
    pub register: u32,
    pub kind: u32,
    pub digests: Vec<(u16, Vec<u8>)>,
    pub data: Vec<u8>,
}

/// A log before it is bytes, every field open to change.
pub struct Log {
    pub register: u32,
    pub kind: u32,
    pub digest: [u8; 20],
    pub signature: [u8; 16],
    pub version: [u8; 2],
    pub width: u8,
    pub algorithms: Vec<(u16, u16)>,
    pub vendor: Vec<u8>,
    pub extra: Vec<u8>,
    pub events: Vec<Event>,
    pub padding: Vec<u8>,
}

impl Log {
    pub fn new(algorithms: &[u16]) -> Self {
        Self {
            register: 0,
            kind: 3,
            digest: [0; 20],
            signature: *b"Spec ID Event03\0",
            version: [0, 2],
            width: 2,
            algorithms: algorithms.iter().map(|id| (*id, size(*id))).collect(),
            vendor: vec![],
            extra: vec![],
            events: vec![],
            padding: vec![0xff; 64],
        }
    }

    /// Adds an event whose digests are over `hashed`.
    pub fn measured(mut self, register: u32, kind: u32, data: &[u8], hashed: &[u8]) -> Self {
        let digests = self.algorithms.iter().map(|(id, _)| (*id, hash(*id, hashed))).collect();
        self.events.push(Event { register, kind, digests, data: data.to_vec() });
        self
    }

    pub fn event(self, register: u32, kind: u32, data: &[u8]) -> Self {
        self.measured(register, kind, data, data)
    }

    pub fn no_action(mut self, register: u32, data: &[u8]) -> Self {
        let digests = self.algorithms.iter().map(|(id, size)| (*id, vec![0; usize::from(*size)])).collect();
        self.events.push(Event { register, kind: 3, digests, data: data.to_vec() });
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut head = self.signature.to_vec();
        head.extend([0; 4]);
        head.extend(self.version);
        head.extend([105, self.width]);
        head.extend(u32::try_from(self.algorithms.len()).expect("few").to_le_bytes());
        for (id, size) in &self.algorithms {
            head.extend([id.to_le_bytes(), size.to_le_bytes()].concat());
        }
        head.push(u8::try_from(self.vendor.len()).expect("short"));
        head.extend(&self.vendor);
        head.extend(&self.extra);

        let mut out = [self.register.to_le_bytes(), self.kind.to_le_bytes()].concat();
        out.extend(self.digest);
        counted(&mut out, &head);
        for event in &self.events {
            out.extend(event.register.to_le_bytes());
            out.extend(event.kind.to_le_bytes());
            out.extend(u32::try_from(event.digests.len()).expect("few").to_le_bytes());
            for (id, digest) in &event.digests {
                out.extend(id.to_le_bytes());
                out.extend(digest);
            }
            counted(&mut out, &event.data);
        }
        out.extend(&self.padding);
        out
    }
}

fn counted(out: &mut Vec<u8>, data: &[u8]) {
    out.extend(u32::try_from(data.len()).expect("short").to_le_bytes());
    out.extend(data);
}

pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// UEFI_VARIABLE_DATA.
pub fn variable(vendor: &[u8; 16], name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = vendor.to_vec();
    out.extend((name.encode_utf16().count() as u64).to_le_bytes());
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(utf16(name));
    out.extend(value);
    out
}

/// TCG_PCClientTaggedEvent.
pub fn tagged(tag: u32, inner: &[u8]) -> Vec<u8> {
    let mut out = tag.to_le_bytes().to_vec();
    counted(&mut out, inner);
    out
}

/// EFI_GLOBAL_VARIABLE.
pub const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
