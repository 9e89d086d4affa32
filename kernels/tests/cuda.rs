//! On a GPU, where there is one: the canary, and a whole model with the bits of the CPU engine.

mod common;

use std::{path::Path, sync::Arc};

use cocoon_engine::{Engine, EngineOptions, Model};
use cocoon_kernels::{
    Choice, Decoder, Row, canary,
    cuda::{Cuda, CudaError, is_present},
};
use common::{bits, gguf::Gguf};

/// The first GPU, or `None` where there is none.
fn gpu() -> Option<Cuda> {
    match Cuda::open(0) {
        Ok(cuda) => Some(cuda),
        Err(error @ (CudaError::NoDriver | CudaError::NoDevice(_))) => {
            println!("SKIPPED: no GPU here ({error}), so nothing ran on one");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_machine_without_a_driver_is_told_so_and_does_not_panic() {
    if !is_present() {
        assert!(matches!(Cuda::open(0), Err(CudaError::NoDriver)));
    }
}

#[test]
fn the_canary_sings() {
    let Some(mut cuda) = gpu() else { return };
    canary::ask(&mut cuda).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn logits_have_the_bits_of_the_cpu_engine() {
    let Some(mut cuda) = gpu() else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/tiny.gguf");
    let bytes = std::fs::read(path).expect("the repository's tiny model");
    let file = Gguf::new(bytes.clone());
    let model = Arc::new(Model::from_bytes(bytes).expect("a model"));
    let engine = Engine::new(Arc::clone(&model), EngineOptions::with_threads(1));
    let tokens: Vec<u32> = (0..300).map(|index| index * 37 % model.vocab_size() as u32).collect();
    let mut expected = Vec::new();
    engine.sequence(300).prefill_visiting(&tokens, |logits| expected.push(bits(logits))).expect("fits");

    let mut decoder = Decoder::new(&mut cuda, file.shape(64, 20), &file.weights()).expect("it fits");
    let table: Vec<u32> = (0..20).rev().collect();
    let mut read = 0;
    for count in [64, 1, 1, 17, 64, 64, 64, 25] {
        let row = |at: usize| Row { token: tokens[at], sequence: 0, position: at as u32 };
        let rows: Vec<Row> = (read..read + count).map(row).collect();
        decoder.step(&mut cuda, &rows, &[&table], &vec![Choice::greedy(); count]).expect("a step");
        let found = decoder.logits(&mut cuda, count).expect("logits");
        for (found, expected) in found.chunks(model.vocab_size()).zip(&expected[read..read + count]) {
            assert!(bits(found) == *expected, "logits from token {read} on differ");
        }
        read += count;
    }
    decoder.scrub(&mut cuda, &table).expect("wiped");
}
