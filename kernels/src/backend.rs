//! What a decode step needs of a device.

use crate::kernel::{Grid, Kernel};

/// An argument of a kernel. Buffers are followed by the byte from which on the kernel sees them.
#[derive(Debug)]
pub enum Arg<'a, B> {
    /// A buffer that the kernel only reads.
    In(&'a B, u64),
    /// A buffer that the kernel writes, and may read.
    Out(&'a B, u64),
    /// A 32-bit integer.
    U32(u32),
    /// A float.
    F32(f32),
    /// A structure, as it lies in memory.
    Bytes(&'a [u8]),
}

/// A device: memory, and kernels that run in the order in which they are launched.
pub trait Backend {
    /// Memory of the device.
    type Buffer;
    /// What goes wrong there.
    type Error: std::error::Error;
    /// Launches that are kept to be made again at once: on a GPU, a graph.
    type Recording;

    /// Memory of this many bytes, whatever they are.
    ///
    /// # Errors
    /// There is no room.
    fn allocate(&mut self, bytes: usize) -> Result<Self::Buffer, Self::Error>;

    /// Copies to the begin of a buffer.
    ///
    /// # Errors
    /// The buffer is shorter, or the copy fails.
    fn write(&mut self, buffer: &Self::Buffer, content: &[u8]) -> Result<(), Self::Error>;

    /// Copies the first so many bytes of a buffer back, when what was launched is done.
    ///
    /// # Errors
    /// A kernel before it failed, the buffer is shorter, or the copy fails.
    fn read(&mut self, buffer: &Self::Buffer, bytes: usize) -> Result<Vec<u8>, Self::Error>;

    /// Overwrites all of a buffer with zeros, after what was launched is done.
    ///
    /// # Errors
    /// A kernel before it failed, or the device does.
    fn wipe(&mut self, buffer: &Self::Buffer) -> Result<(), Self::Error>;

    /// Runs a kernel after those that were launched before.
    ///
    /// # Errors
    /// The kernel cannot be loaded or does not start.
    fn launch(
        &mut self,
        kernel: Kernel,
        grid: Grid,
        args: &[Arg<'_, Self::Buffer>],
    ) -> Result<(), Self::Error>;

    /// Makes all launches of `body`, which does nothing else with the device, and keeps them. `body` may be called twice,
    /// and what it launches is run once.
    ///
    /// # Errors
    /// As [`Self::launch`]: then nothing is kept.
    fn record(
        &mut self,
        body: &mut dyn FnMut(&mut Self) -> Result<(), Self::Error>,
    ) -> Result<Self::Recording, Self::Error>;

    /// Makes the same launches again: the same kernels on the same memory, whatever it holds by now. The buffers must
    /// still be there.
    ///
    /// # Errors
    /// As [`Self::launch`].
    fn replay(&mut self, recording: &Self::Recording) -> Result<(), Self::Error>;

    /// Memory with this content.
    ///
    /// # Errors
    /// As [`Self::allocate`] and [`Self::write`].
    fn upload(&mut self, content: &[u8]) -> Result<Self::Buffer, Self::Error> {
        let buffer = self.allocate(content.len())?;
        self.write(&buffer, content)?;
        Ok(buffer)
    }
}
