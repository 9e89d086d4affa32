//! Memory for weights. Each token reads all of them, so what the processor loses at the borders of pages it loses all
//! the time: they lie on huge pages where the system has some to give.

/// Less is not worth a system call.
const LARGE: usize = 256 << 10;

/// `len` times `value`.
pub(super) fn filled<T: Copy>(value: T, len: usize) -> Vec<T> {
    let mut values = Vec::with_capacity(len);
    ask_for_huge_pages(&mut values);
    values.resize(len, value);
    values
}

/// Asks for memory ahead, line by line.
#[inline(always)]
pub(super) fn fetch(halves: &[u16]) {
    #[cfg(target_arch = "x86_64")]
    for line in halves.chunks(32) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "prefetching is an intrinsic")]
        // SAFETY: a prefetch reads nothing that the program sees, and the address is that of a live slice.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = halves;
}

/// Asks for huge pages under memory that was not written to yet. Where the answer is no, nothing is lost but time.
#[cfg(target_os = "linux")]
fn ask_for_huge_pages<T>(values: &mut Vec<T>) {
    let (start, bytes) = (values.as_mut_ptr().cast::<u8>(), values.capacity() * size_of::<T>());
    if bytes < LARGE {
        return;
    }
    let page = rustix::param::page_size();
    let before = start.addr() % page;
    #[expect(unsafe_code, reason = "advice is a system call on addresses")]
    // SAFETY: this advice changes nothing that memory holds, in the allocation nor in the rest of its first page.
    let _ = unsafe {
        rustix::mm::madvise(
            start.wrapping_sub(before).cast(),
            before + bytes,
            rustix::mm::Advice::LinuxHugepage,
        )
    };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages<T>(_values: &mut Vec<T>) {}
