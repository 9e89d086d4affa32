//! Authenticode digest of a PE/COFF program: what UEFI firmware measures of the kernel that it starts.
//!
//! Microsoft, "Windows Authenticode Portable Executable Signature Format", 2008, "Calculating the PE image hash"; the fields
//! are those of "PE Format". What is hashed, in this order:
//!
//! | bytes | but not |
//! | --- | --- |
//! | all headers, SizeOfHeaders long | CheckSum (4), entry 4 of the data directories (8) |
//! | each section that has data, by place in the file | |
//! | what follows the last section | the attribute certificates at the end of the file |
//!
//! Firmware and signing tools disagree about files whose sections overlap or leave gaps, or that have certificates in the
//! middle. Such files are refused: no linker makes them, and one digest is all that a prediction can have.

use crate::digest::{sha256, sha384};
use crate::reader::{length, u16};

/// The largest program, in bytes.
pub const PROGRAM_MAX: usize = 256 << 20;
/// Most sections of a program: what Windows' loader takes.
pub const SECTIONS_MAX: usize = 96;

const DOS_HEADER: usize = 64;
const LFANEW: usize = 0x3c;
const COFF_HEADER: usize = 20;
const SECTION_HEADER: usize = 40;
/// Offset of CheckSum in the optional header, of PE32 and PE32+ alike.
const CHECKSUM: usize = 64;
/// Offset of SizeOfHeaders in the optional header.
const SIZE_OF_HEADERS: usize = 60;
/// The data directory of the attribute certificates.
const SECURITY: usize = 4;

/// Why a file has no Authenticode digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no PE/COFF program with one Authenticode digest: {0}")]
pub struct NotPe(&'static str);

/// A program, and which of its bytes count.
#[derive(Debug, Clone)]
pub struct Program<'a> {
    parts: Vec<&'a [u8]>,
}

impl<'a> Program<'a> {
    /// Finds the bytes that are hashed.
    ///
    /// # Errors
    /// If it is no PE/COFF file, is too large, or is laid out in a way that has no single digest.
    pub fn parse(file: &'a [u8]) -> Result<Self, NotPe> {
        if file.len() > PROGRAM_MAX {
            return Err(NotPe("it is larger than 256 MiB"));
        }
        let headers = Headers::parse(file)?;
        let certificates = headers.certificates(file)?;
        let signed = file.len() - certificates;
        let mut parts = Vec::with_capacity(3 + headers.sections + 1);
        parts.push(part(file, 0, headers.checksum)?);
        let after_checksum = headers.checksum + 4;
        match headers.security {
            Some(entry) => {
                parts.push(part(file, after_checksum, entry)?);
                parts.push(part(file, entry + 8, headers.size)?);
            }
            None => parts.push(part(file, after_checksum, headers.size)?),
        }
        let mut end = headers.size;
        for (start, size) in headers.sorted_sections(file)? {
            if start != end {
                return Err(NotPe("its sections overlap or leave gaps"));
            }
            end = start.checked_add(size).ok_or(NotPe("a section ends past 4 GiB"))?;
            parts.push(part(file, start, end)?);
        }
        if end > signed {
            return Err(NotPe("its certificates lie inside a section"));
        }
        parts.push(part(file, end, signed)?);
        Ok(Self { parts })
    }

    /// Its digest in the SHA-384 bank: what TDX's registers and PCR 4 are extended with.
    pub fn sha384(&self) -> [u8; 48] {
        sha384(&self.parts)
    }

    /// Its digest in the SHA-256 bank: what Secure Boot's databases hold.
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&self.parts)
    }
}

/// The headers' offsets in the file, in bytes.
struct Headers {
    checksum: usize,
    /// Where entry 4 of the data directories is, if there are so many.
    security: Option<usize>,
    /// SizeOfHeaders.
    size: usize,
    section_table: usize,
    sections: usize,
}

impl Headers {
    fn parse(file: &[u8]) -> Result<Self, NotPe> {
        let short = NotPe("it ends inside its headers");
        if !file.starts_with(b"MZ") {
            return Err(NotPe("it does not begin with MZ"));
        }
        let pe = length(file, LFANEW).ok_or(short)?;
        if pe < DOS_HEADER || pe > file.len() || !file[pe..].starts_with(b"PE\0\0") {
            return Err(NotPe("its DOS header leads to no PE header"));
        }
        let coff = pe + 4;
        let sections = usize::from(u16(file, coff + 2).ok_or(short)?);
        if sections > SECTIONS_MAX {
            return Err(NotPe("it has more than 96 sections"));
        }
        let optional = coff + COFF_HEADER;
        let optional_size = usize::from(u16(file, coff + 16).ok_or(short)?);
        let directories = match u16(file, optional).ok_or(short)? {
            0x10b => 96,
            0x20b => 112,
            _ => return Err(NotPe("its optional header is neither PE32 nor PE32+")),
        };
        if optional_size < directories {
            return Err(NotPe("its optional header is too short"));
        }
        let count = length(file, optional + directories - 4).ok_or(short)?;
        if count > 16 || directories + count * 8 > optional_size {
            return Err(NotPe("its data directories do not fit its optional header"));
        }
        let size = length(file, optional + SIZE_OF_HEADERS).ok_or(short)?;
        let section_table = optional + optional_size;
        if size > file.len() || section_table + sections * SECTION_HEADER > size {
            return Err(NotPe("SizeOfHeaders does not cover its headers, or more than the file"));
        }
        let security = (count > SECURITY).then_some(optional + directories + SECURITY * 8);
        Ok(Self { checksum: optional + CHECKSUM, security, size, section_table, sections })
    }

    /// How many bytes at the end of the file are attribute certificates.
    fn certificates(&self, file: &[u8]) -> Result<usize, NotPe> {
        let Some(entry) = self.security else { return Ok(0) };
        let short = NotPe("it ends inside its headers");
        let (start, size) = (length(file, entry).ok_or(short)?, length(file, entry + 4).ok_or(short)?);
        if size == 0 {
            return Ok(0);
        }
        if start < self.size || start % 8 != 0 || start.checked_add(size) != Some(file.len()) {
            return Err(NotPe("its certificates are not at the end of the file"));
        }
        Ok(size)
    }

    /// Start and length of each section that has data, by place in the file.
    fn sorted_sections(&self, file: &[u8]) -> Result<Vec<(usize, usize)>, NotPe> {
        let mut sections = Vec::with_capacity(self.sections);
        for index in 0..self.sections {
            let header = self.section_table + index * SECTION_HEADER;
            let short = NotPe("it ends inside its section table");
            let (size, start) =
                (length(file, header + 16).ok_or(short)?, length(file, header + 20).ok_or(short)?);
            if size > 0 {
                sections.push((start, size));
            }
        }
        sections.sort_unstable();
        Ok(sections)
    }
}

fn part(file: &[u8], start: usize, end: usize) -> Result<&[u8], NotPe> {
    file.get(start..end).ok_or(NotPe("a part of it lies past its end"))
}
