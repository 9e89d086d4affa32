//! UEFI's structures inside events, read for people. What does not have its form is `None`, and shown as bytes.

use super::text::{ascii, guid, utf16};

/// Reads little-endian fields; `None` at the end of the bytes.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<usize> {
        self.array().map(|bytes| u16::from_le_bytes(*bytes).into())
    }

    fn u32(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(*self.array()?)).ok()
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// A u64 length that must fit into what is left.
    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.u64()?).ok().filter(|length| *length <= self.0.len())
    }
}

/// UEFI_VARIABLE_DATA (PFP 10.2.6): GUID, lengths of name (in UTF-16 units) and value as u64, name, value.
pub(super) struct Variable<'a> {
    pub(super) vendor: &'a [u8; 16],
    name: &'a [u8],
    pub(super) value: &'a [u8],
}

impl<'a> Variable<'a> {
    /// `None` unless the lengths are exact.
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(data);
        let vendor = fields.array()?;
        let (name, value) = (fields.length()?.checked_mul(2)?, fields.length()?);
        let variable = Self { vendor, name: fields.take(name)?, value: fields.take(value)? };
        fields.0.is_empty().then_some(variable)
    }

    pub(super) fn name(&self) -> String {
        utf16(self.name)
    }
}

/// Certificates and hashes in a signature database: a row of EFI_SIGNATURE_LIST (UEFI 2.10, 32.4.1).
pub(super) fn signatures(mut bytes: &[u8]) -> Option<usize> {
    const HEAD: usize = 28;
    let mut count = 0;
    while !bytes.is_empty() {
        let mut head = Fields(bytes);
        head.take(16)?;
        let (list, header, each) = (head.u32()?, head.u32()?, head.u32()?);
        let entries = list.checked_sub(HEAD)?.checked_sub(header)?;
        if each == 0 || entries % each != 0 {
            return None;
        }
        count += entries / each;
        bytes = bytes.get(list..)?;
    }
    Some(count)
}

/// EFI_LOAD_OPTION (UEFI 2.10, 3.1.3): its description and the path of what it starts.
pub(super) fn load_option(bytes: &[u8]) -> Option<String> {
    let mut fields = Fields(bytes);
    fields.u32()?;
    let path_length = fields.u16()?;
    let (units, _) = fields.0.as_chunks::<2>();
    let title = 2 * (units.iter().position(|unit| *unit == [0, 0])? + 1);
    let title = utf16(fields.take(title)?);
    Some(format!("{title:?} at {}", device_path(fields.take(path_length)?)?))
}

/// BootOrder: names of boot variables.
pub(super) fn boot_order(bytes: &[u8]) -> Option<String> {
    let (units, odd) = bytes.as_chunks::<2>();
    let names: Vec<String> =
        units.iter().take(64).map(|unit| format!("Boot{:04X}", u16::from_le_bytes(*unit))).collect();
    odd.is_empty().then(|| names.join(", "))
}

/// UEFI_IMAGE_LOAD_EVENT (PFP 10.2.3): the path of the image. Its address and length are the firmware's business.
pub(super) fn image_path(data: &[u8]) -> Option<String> {
    let mut fields = Fields(data);
    fields.take(24)?;
    let length = fields.length()?;
    let path = fields.take(length)?;
    fields.0.is_empty().then(|| device_path(path))?
}

/// UEFI_PLATFORM_FIRMWARE_BLOB2 (PFP 10.2.5): description, address, length.
pub(super) fn firmware_blob(data: &[u8]) -> Option<String> {
    let mut fields = Fields(data);
    let [length] = *fields.array::<1>()?;
    let name = ascii(fields.take(length.into())?);
    let (base, size) = (fields.u64()?, fields.u64()?);
    fields.0.is_empty().then(|| format!("{name}, {size} bytes at {base:#x}"))
}

/// UEFI_HANDOFF_TABLE_POINTERS2 (PFP 10.2.4): the description alone.
pub(super) fn handoff_table(data: &[u8]) -> Option<String> {
    let mut fields = Fields(data);
    let [length] = *fields.array::<1>()?;
    fields.take(length.into()).map(ascii)
}

/// UEFI_GPT_DATA (PFP 10.2.7): the disk's GUID and the partitions' names.
pub(super) fn partitions(data: &[u8]) -> Option<String> {
    const HEADER: usize = 92;
    const MAX_NAMES: usize = 128;
    let mut fields = Fields(data);
    let header = fields.take(HEADER)?;
    let disk = header.get(56..72)?.try_into().map(guid).ok()?;
    let count = fields.u64()?;
    let (entries, rest) = fields.0.as_chunks::<128>();
    if !rest.is_empty() || u64::try_from(entries.len()) != Ok(count) {
        return None;
    }
    let names: Vec<String> = entries.iter().take(MAX_NAMES).map(|entry| utf16(&entry[56..])).collect();
    Some(format!("disk {disk}, {count} partitions: {}", names.join(", ")))
}

/// A device path (UEFI 2.10, 10.3) in words, node by node: what says nothing to people is left out.
pub(super) fn device_path(path: &[u8]) -> Option<String> {
    const END: [u8; 2] = [0x7f, 0xff];
    let (mut fields, mut words) = (Fields(path), Vec::new());
    while !fields.0.is_empty() {
        let kind = *fields.array::<2>()?;
        let body = fields.u16()?.checked_sub(4)?;
        let body = fields.take(body)?;
        if kind == END {
            break;
        }
        words.extend(node(kind, body));
    }
    if words.is_empty() { None } else { Some(words.join(" ")) }
}

fn node([kind, subtype]: [u8; 2], body: &[u8]) -> Option<String> {
    /// OVMF's file system of what QEMU was started with: `-kernel`, `-initrd` (OvmfPkg, QemuKernelLoaderFs).
    const QEMU_LOADER: &str = "1428f772-b64a-441e-b8c3-9ebdd7f893c7";
    let guid = || body.first_chunk::<16>().map(guid);
    match (kind, subtype) {
        (3, 23) => Some("NVMe".into()),
        (3, 2) => Some("SCSI".into()),
        (3, 18) => Some("SATA".into()),
        (3, 11) => Some("network".into()),
        (4, 1) => Some(format!("partition {}", Fields(body).u32()?)),
        (4, 3) => Some(match guid()? {
            known if known == QEMU_LOADER => "from QEMU's command line:".into(),
            other => format!("vendor {other}"),
        }),
        (4, 4) => Some(utf16(body)),
        (4, 6) => Some(format!("firmware file {}", guid()?)),
        (4, 7) => Some(format!("firmware volume {}", guid()?)),
        _ => None,
    }
}
