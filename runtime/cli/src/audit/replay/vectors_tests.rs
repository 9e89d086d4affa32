//! Papers of texts that became vectors.

use cocoon_engine::{Embedder, pack};
use cocoon_protocol::{Embedded, VectorsHash};

use super::*;

fn encoder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models/families/bert"))
}

/// Papers of texts that became vectors, by the small encoder.
fn kit_of_vectors() -> Kit {
    let mut kit = kit();
    let mut archive = Vec::new();
    pack(&encoder(), &mut archive).expect("it is packed");
    let weights = ring::digest::digest(&ring::digest::SHA256, &archive);
    let weights: [u8; 32] = weights.as_ref().try_into().expect("32 bytes");
    kit.attest_model(weights);
    let embedder = Embedder::open(&encoder(), &EngineOptions::with_threads(2)).expect("it loads");
    let mut hash = VectorsHash::default();
    let inputs = ["a list", "a tuple and a dictionary"].map(|text| {
        hash.add(embedder.embed(text).expect("it fits").values());
        embedder.tokens(text).into()
    });
    let embedded = Embedded { inputs: inputs.into(), vectors: hash.finish() };
    kit.receipt.usage = Usage { prompt_tokens: embedded.tokens() as u32, ..Usage::default() };
    (kit.opening.run, kit.opening.vectors) = (None, Some(embedded));
    kit.model = encoder();
    kit
}

#[test]
fn vectors_are_made_again_to_the_bit_from_a_folder_and_from_its_archive() {
    let mut kit = kit_of_vectors();
    let report = kit.keep().replay();
    assert_eq!((report.word(), report.why()), (Word::Same, None));
    let tokens = kit.opening.vectors.as_ref().expect("it has them").tokens();
    assert_eq!(report.as_json()["compared_tokens"], tokens);
    let mut archive = Vec::new();
    pack(&encoder(), &mut archive).expect("it is packed");
    kit.put("encoder.tar", &archive);
    kit.model = kit.folder.path().join("encoder.tar");
    kit.comes_to(Word::Same, "");
}

#[test]
fn vectors_of_which_one_thing_was_changed_are_not_the_same() {
    fn embedded(kit: &mut Kit) -> &mut Embedded {
        kit.opening.vectors.as_mut().expect("it has them")
    }
    let changes: [(Change, Word, &str); 6] = [
        (|kit| embedded(kit).vectors[0] ^= 1, Word::Different, "other vectors"),
        (|kit| embedded(kit).inputs[0][1] ^= 1, Word::Different, "other vectors"),
        (|kit| embedded(kit).inputs.swap(0, 1), Word::Different, "other vectors"),
        (|kit| embedded(kit).inputs[1][0] = 704, Word::Different, "input 1: this engine refuses it"),
        (|kit| kit.receipt.usage.prompt_tokens += 1, Word::Different, "bills"),
        (|kit| kit.model = tiny(), Word::Unavailable, "it needs the model of SHA-256"),
    ];
    for (change, word, words) in changes {
        let mut kit = kit_of_vectors();
        change(&mut kit);
        kit.keep().comes_to(word, words);
    }
    // A model that writes text, of which the receipt says that it made vectors; and the other way round.
    let mut kit = kit_of_vectors();
    let weights = std::fs::read(tiny()).expect("it lies in the repository");
    let weights = ring::digest::digest(&ring::digest::SHA256, &weights);
    kit.attest_model(weights.as_ref().try_into().expect("32 bytes"));
    kit.model = tiny();
    kit.keep().comes_to(Word::Different, "makes no vectors");
    let mut writing = self::kit();
    writing.attest_model(kit_of_vectors().receipt.model);
    writing.model = encoder();
    writing.keep().comes_to(Word::Different, "writes no text");
}
