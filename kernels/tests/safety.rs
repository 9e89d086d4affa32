//! What stands between tenants, and between a wrong GPU and a prompt: scrubbing, its proof, and the canary.

mod common;

use cocoon_kernels::{
    Arg, Backend, DecodeError, Decoder, Grid, Kernel,
    canary::{self, CanaryError},
};
use common::{Interpreter, Random, gguf::Gguf};

#[test]
fn scrubbing_wipes_the_pages_of_its_list_and_no_others() {
    let mut random = Random(8);
    for vectors in [1usize, 255, 300] {
        let content: Vec<u8> = random.bytes(5 * vectors * 16).iter().map(|byte| byte | 1).collect();
        let list = [3, 0];
        for mut device in Interpreter::all() {
            let pages = device.device.upload(&content);
            let list = device.words(&list);
            let args = [Arg::Out(&pages, 0), Arg::In(&list, 0), Arg::U32(vectors as u32)];
            device.go(Kernel::Scrub, Grid::each(2), &args);
            for (page, (found, before)) in device
                .device
                .read(pages)
                .expect("written")
                .chunks(vectors * 16)
                .zip(content.chunks(vectors * 16))
                .enumerate()
            {
                let expected = if page == 3 || page == 0 { vec![0; before.len()] } else { before.to_vec() };
                assert_eq!(found, expected, "page {page}");
            }
        }
    }
}

#[test]
fn the_proof_counts_every_word_that_is_not_zero() {
    let vectors = 300;
    let mut content = vec![0u8; 4 * vectors * 16];
    // One bit in the first word, the last and one between of page 2; all of page 1.
    for byte in [2 * vectors * 16, 2 * vectors * 16 + 777, 3 * vectors * 16 - 1] {
        content[byte] = 0x80;
    }
    content[vectors * 16..2 * vectors * 16].fill(1);
    for mut device in Interpreter::all() {
        let pages = device.device.upload(&content);
        let list = device.words(&[0, 1, 2, 3]);
        let dirty = device.words(&[0; 4]);
        let args = [Arg::In(&pages, 0), Arg::In(&list, 0), Arg::Out(&dirty, 0), Arg::U32(vectors as u32)];
        device.go(Kernel::ScrubCheck, Grid::each(4), &args);
        assert_eq!(device.bits(dirty), [1, 1 + 4 * vectors as u32, 4, 1]);
    }
}

#[test]
fn the_canary_sings_on_every_target_and_in_every_order() {
    for mut device in Interpreter::all() {
        canary::ask(&mut device).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_proof_that_did_not_run_proves_nothing() {
    let inner = Interpreter::all().next().expect("one");
    let mut device = Broken { inner, flip: None, loses_writes: false, writes: 0, idle: None };
    let file = Gguf::new(std::fs::read("../tests/models/tiny.gguf").expect("the repository's tiny model"));
    let mut decoder = Decoder::new(&mut device, file.shape(1, 2), &file.weights()).expect("it works");
    decoder.prove_clean(&mut device, &[1, 0]).expect("new pages are clean");
    device.idle = Some(Kernel::ScrubCheck);
    assert_eq!(decoder.prove_clean(&mut device, &[1, 0]), Err(DecodeError::NotProven { page: 1 }));
    device.idle = Some(Kernel::Scrub);
    decoder.scrub(&mut device, &[0, 0, 1]).expect("there was nothing to wipe, and a page may be named twice");
    device.idle = None;
    let row = cocoon_kernels::Row { token: 1, sequence: 0, position: 0 };
    decoder.step(&mut device, &[row], &[&[0]], &[]).expect("a step");
    device.idle = Some(Kernel::Scrub);
    let result = decoder.scrub(&mut device, &[0]);
    assert!(matches!(result, Err(DecodeError::Dirty { page: 0, .. })), "{result:?}");
}

#[test]
fn an_answer_of_another_step_is_not_taken_for_this_ones() {
    let inner = Interpreter::all().next().expect("one");
    let mut device = Broken { inner, flip: None, loses_writes: false, writes: 0, idle: None };
    let file = Gguf::new(std::fs::read("../tests/models/tiny.gguf").expect("the repository's tiny model"));
    let mut decoder = Decoder::new(&mut device, file.shape(2, 2), &file.weights()).expect("it works");
    let row = |position| cocoon_kernels::Row { token: 1, sequence: 0, position };
    let greedy = [cocoon_kernels::Choice::greedy()];
    decoder.step(&mut device, &[row(0)], &[&[0]], &greedy).expect("a step");
    device.idle = Some(Kernel::Likeliest);
    let result = decoder.step(&mut device, &[row(1), row(2)], &[&[0]], &greedy);
    assert_eq!(result, Err(DecodeError::Stale));
    // A recording that does nothing when it is replayed.
    let result = decoder.step(&mut device, &[row(1)], &[&[0]], &greedy);
    assert_eq!(result, Err(DecodeError::Stale));
}

/// A device whose copies or answers are not what they should be.
struct Broken {
    inner: Interpreter,
    /// Bit of the answer that flips.
    flip: Option<usize>,
    /// Writes after the first to a buffer are lost.
    loses_writes: bool,
    writes: usize,
    /// A kernel that is never run.
    idle: Option<Kernel>,
}

impl Backend for Broken {
    type Buffer = cocoon_ptx_check::Buffer;
    type Error = cocoon_ptx_check::LaunchError;
    type Recording = ();

    fn allocate(&mut self, bytes: usize) -> Result<Self::Buffer, Self::Error> {
        self.inner.allocate(bytes)
    }

    fn write(&mut self, buffer: &Self::Buffer, content: &[u8]) -> Result<(), Self::Error> {
        self.writes += 1;
        if self.loses_writes && self.writes > 1 { Ok(()) } else { self.inner.write(buffer, content) }
    }

    fn read(&mut self, buffer: &Self::Buffer, bytes: usize) -> Result<Vec<u8>, Self::Error> {
        let mut bytes = self.inner.read(buffer, bytes)?;
        if let Some(bit) = self.flip {
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        Ok(bytes)
    }

    fn record(
        &mut self,
        body: &mut dyn FnMut(&mut Self) -> Result<(), Self::Error>,
    ) -> Result<(), Self::Error> {
        body(self)
    }

    fn replay(&mut self, (): &()) -> Result<(), Self::Error> {
        Ok(())
    }

    fn wipe(&mut self, buffer: &Self::Buffer) -> Result<(), Self::Error> {
        self.inner.wipe(buffer)
    }

    fn launch(
        &mut self,
        kernel: Kernel,
        grid: Grid,
        args: &[Arg<'_, Self::Buffer>],
    ) -> Result<(), Self::Error> {
        if self.idle == Some(kernel) { Ok(()) } else { self.inner.launch(kernel, grid, args) }
    }
}

#[test]
fn the_canary_refuses_one_wrong_bit_and_a_write_that_was_lost() {
    let device = |flip, loses_writes| {
        let inner = Interpreter::all().next().expect("one");
        Broken { inner, flip, loses_writes, writes: 0, idle: None }
    };
    assert_eq!(canary::ask(&mut device(None, false)), Ok(()));
    for bit in [0, 4095, 256 * 32 - 1] {
        assert_eq!(canary::ask(&mut device(Some(bit), false)), Err(CanaryError::Wrong { wrong: 1 }));
    }
    let Err(CanaryError::Wrong { wrong }) = canary::ask(&mut device(None, true)) else {
        panic!("a lost write goes unnoticed")
    };
    assert!(wrong > 250, "{wrong} words of the first question's answer differ");
    let file = Gguf::new(std::fs::read("../tests/models/tiny.gguf").expect("the repository's tiny model"));
    let made = Decoder::new(&mut device(Some(70), false), file.shape(1, 1), &file.weights());
    assert_eq!(made.map(drop), Err(DecodeError::Canary { wrong: 1 }), "no model goes to such a device");
}
