//! What a program or kernel module says that it needs.

use object::elf::{DT_NEEDED, FileHeader64, PT_INTERP};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use object::{Endianness, Object as _, ObjectSection as _};

/// What the loader needs to start a program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// The loader's path; `None` if it is static.
    pub(crate) loader: Option<String>,
    /// The libraries' names.
    pub(crate) libraries: Vec<String>,
}

/// Reads the dynamic section of a 64-bit ELF file.
///
/// # Errors
/// If it is none, or broken; in words.
pub(crate) fn needs(file: &[u8]) -> Result<Needs, String> {
    read_needs(file).map_err(|error| format!("no ELF program of 64 bits: {error}"))
}

fn read_needs(file: &[u8]) -> object::Result<Needs> {
    let header = FileHeader64::<Endianness>::parse(file)?;
    let endian = header.endian()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut loader = None;
    for segment in header.program_headers(endian, file)? {
        if segment.p_type(endian) == PT_INTERP
            && let Some(path) = segment.interpreter(endian, file)?
        {
            loader = Some(text(path));
        }
    }
    let mut libraries = Vec::new();
    let sections = header.sections(endian, file)?;
    if let Some((entries, link)) = sections.dynamic(endian, file)? {
        let strings = sections.strings(endian, file, link)?;
        for entry in entries.iter().filter(|entry| entry.d_tag(endian) == DT_NEEDED) {
            libraries.push(text(entry.string(endian, strings)?));
        }
    }
    Ok(Needs { loader, libraries })
}

/// The modules that a kernel module names in `depends=`, with `_` for `-`.
///
/// # Errors
/// If it is no module, or says nothing about it; in words.
pub(crate) fn module_depends(file: &[u8]) -> Result<Vec<String>, String> {
    let object = object::File::parse(file).map_err(|error| format!("no ELF file: {error}"))?;
    let section = object.section_by_name(".modinfo").ok_or("it has no .modinfo")?;
    let info = section.data().map_err(|error| format!("its .modinfo is broken: {error}"))?;
    let list = info.split(|&byte| byte == 0).find_map(|entry| entry.strip_prefix(b"depends="));
    let list =
        str::from_utf8(list.ok_or("its .modinfo has no depends=")?).map_err(|_| "depends= is no text")?;
    Ok(list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_needs_what_every_dynamic_program_needs() {
        let this = std::fs::read(std::env::current_exe().expect("it runs")).expect("readable");
        let needs = needs(&this).expect("ELF");
        assert_eq!(needs.loader.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert!(needs.libraries.iter().any(|name| name == "libc.so.6"), "{needs:?}");
        assert!(module_depends(&this).is_err());
    }

    #[test]
    fn what_is_cut_off_or_no_program_at_all_is_an_error_and_no_panic() {
        let this = std::fs::read(std::env::current_exe().expect("it runs")).expect("readable");
        assert!(needs(b"#!/bin/sh\n").is_err());
        for length in [0, 4, 16, 63, 64, 100, 1000, 4096] {
            assert!(needs(&this[..length]).is_err(), "{length}");
            assert!(module_depends(&this[..length]).is_err(), "{length}");
        }
    }
}
