//! Device-mapper's ioctls (`include/uapi/linux/dm-ioctl.h`): create, load the table, resume.

use crate::failure::{Explain, Outcome};
use rustix::ioctl::{Direction, Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use std::ffi::c_void;
use std::fs::File;
use std::path::PathBuf;

const CONTROL: &str = "/dev/mapper/control";
const DEV_CREATE: u8 = 3;
const DEV_SUSPEND: u8 = 6; // without DM_SUSPEND_FLAG: resume
const TABLE_LOAD: u8 = 9;
const READ_ONLY: u32 = 1;

/// Bytes of `struct dm_ioctl`, and of `struct dm_target_spec` after it.
const HEAD: usize = 312;
const TARGET: usize = 40;
/// Room for a table: more than a verity line takes.
const SIZE: usize = 1024;
/// Where the header has the number of the device, and the bytes of a name.
const DEV: usize = 40;
const NAME: usize = 48;
const MAX_NAME: usize = 127;

/// A read-only device of one target over `sectors` sectors; gives its path.
pub(crate) fn create(name: &str, target: &str, sectors: u64, table: &str) -> Outcome<PathBuf> {
    let failed = |step: &str| format!("device-mapper cannot {step} {name} ({table})");
    let remedy = "use the image's kernel and modules";
    let control = File::options().read(true).write(true).open(CONTROL).explain(CONTROL, remedy)?;
    request(&control, DEV_CREATE, &mut buffer(name, None)).explain(failed("create"), remedy)?;
    let mut load = buffer(name, Some((target, sectors, table)));
    request(&control, TABLE_LOAD, &mut load).explain(failed("load the table of"), remedy)?;
    let mut resume = buffer(name, None);
    request(&control, DEV_SUSPEND, &mut resume).explain(failed("start"), remedy)?;
    Ok(format!("/dev/dm-{}", minor(&resume)).into())
}

/// A request's bytes: header, then target and table if there is one.
fn buffer(name: &str, target: Option<(&str, u64, &str)>) -> [u8; SIZE] {
    assert!(name.len() <= MAX_NAME, "names are ours");
    let mut buffer = [0; SIZE];
    let mut put = |at: usize, bytes: &[u8]| buffer[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &4_u32.to_ne_bytes()); // version 4.0.0: what these requests need
    put(12, &(SIZE as u32).to_ne_bytes());
    put(16, &(HEAD as u32).to_ne_bytes());
    put(28, &READ_ONLY.to_ne_bytes());
    put(NAME, name.as_bytes());
    if let Some((kind, sectors, table)) = target {
        assert!(kind.len() < 16 && HEAD + TARGET + table.len() < SIZE, "tables are ours, and short");
        put(20, &1_u32.to_ne_bytes());
        put(HEAD + 8, &sectors.to_ne_bytes());
        put(HEAD + 24, kind.as_bytes());
        put(HEAD + TARGET, table.as_bytes());
    }
    buffer
}

/// The minor number, of the kernel's encoding of a device number in 64 bits.
fn minor(buffer: &[u8; SIZE]) -> u64 {
    let bytes = buffer[DEV..DEV + 8].try_into().expect("eight bytes");
    let dev = u64::from_ne_bytes(bytes);
    (dev & 0xff) | ((dev >> 12) & 0xfff00)
}

fn request(control: &File, number: u8, buffer: &mut [u8; SIZE]) -> rustix::io::Result<()> {
    #[expect(unsafe_code, reason = "an ioctl")]
    // SAFETY: the buffer is as `Request` promises.
    unsafe {
        ioctl(control, Request { number, buffer })
    }
}

struct Request<'a> {
    number: u8,
    buffer: &'a mut [u8; SIZE],
}

#[expect(unsafe_code, reason = "an ioctl that rustix does not know")]
// SAFETY: these requests read and write no more than `data_size` bytes at the pointer, which `buffer` sets to the buffer's
// size; they give no other output than those bytes.
unsafe impl Ioctl for Request<'_> {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::from_components(Direction::ReadWrite, 0xfd, self.number, HEAD)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.buffer.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_layout_of_the_kernels_header() {
        let buffer = buffer("cocoon-root", Some(("verity", 65536, "1 254:0")));
        let word = |at: usize| u32::from_ne_bytes(buffer[at..at + 4].try_into().expect("four"));
        assert_eq!([0, 4, 8, 12, 16, 20, 28].map(word), [4, 0, 0, 1024, 312, 1, 1]);
        assert_eq!(&buffer[48..60], b"cocoon-root\0");
        assert_eq!(&buffer[312..320], &[0; 8]);
        assert_eq!(&buffer[320..328], &65536_u64.to_ne_bytes());
        assert_eq!(&buffer[336..343], b"verity\0");
        assert_eq!(&buffer[352..360], b"1 254:0\0");
    }

    #[test]
    fn the_opcodes_are_the_kernels() {
        let opcode = |number| Request { number, buffer: &mut [0; SIZE] }.opcode();
        assert_eq!(
            [DEV_CREATE, DEV_SUSPEND, TABLE_LOAD].map(opcode),
            [0xc138_fd03, 0xc138_fd06, 0xc138_fd09]
        );
    }

    #[test]
    fn minors_above_255_are_put_together() {
        let mut buffer = buffer("x", None);
        buffer[DEV..DEV + 8].copy_from_slice(&0x0010_fd01_u64.to_ne_bytes());
        assert_eq!(minor(&buffer), 257);
    }
}
