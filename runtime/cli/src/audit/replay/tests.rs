//! Replays of what an engine wrote, and refusals of papers in which one thing was changed.

use std::path::PathBuf;
use std::sync::Arc;

use cocoon_attestation::statement::{Beacon, Freshness, Keys, ModelIdentity, digest};
use cocoon_attestation::{Bundle, Statement, Tee};
use cocoon_engine::{Engine, EngineOptions, Event, Finish, Model, Params, Payer, Request, Salt, Sampling};
use cocoon_grammar::{Grammar, Grammars};
use cocoon_protocol::{
    EngineId, EngineKind, Kernels, Opening, Outcome, Price, ReceiptKey, Run, SignedReceipt, Usage, Written,
};

use super::rerun::{Difference, Said};
use super::*;

#[path = "vectors_tests.rs"]
mod vectors;

fn tiny() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models/tiny.gguf"))
}

fn sampled() -> Params {
    Params {
        sampling: Sampling { seed: 5, temperature: 0.9, ..Sampling::default() },
        max_tokens: 24,
        ..Params::default()
    }
}

fn greedy() -> Params {
    Params { sampling: Sampling::greedy(), max_tokens: 24, ..Params::default() }
}

/// An engine with answers of others in progress, as a guest has it.
struct Worker(Engine);

impl Worker {
    fn new() -> Self {
        let model = Arc::new(Model::open(&tiny()).expect("the tiny model loads"));
        Self(Engine::new(model, EngineOptions::with_threads(2)))
    }

    fn prompt(&self, text: &str) -> Vec<u32> {
        let text = format!(
            "<|im_start|>user\nPlease write what you know about {text}.<|im_end|>\n<|im_start|>assistant\n"
        );
        self.0.model().tokenizer().encode(&text, true)
    }

    /// What it writes, up to `most` tokens of each answer, and how many of the prompt's tokens were cached.
    fn write(&self, request: Request, most: usize) -> (Run, usize) {
        let (prompt, params) = (request.prompt().to_vec(), request.params().clone());
        let cut = |_| Written { tokens: Vec::new().into(), outcome: Outcome::Cancelled };
        let mut written: Vec<Written> = (0..request.choices()).map(cut).collect();
        let mut cached = 0;
        for event in self.0.submit(request).expect("it is a fine request") {
            match event {
                Event::Started { cached_tokens } => cached = cached_tokens,
                Event::Token { choice, token, .. } => {
                    let tokens = &mut written[choice as usize].tokens;
                    tokens.push(token);
                    if tokens.len() == most {
                        break;
                    }
                }
                Event::End { choice, outcome } => {
                    written[choice as usize].outcome = match outcome.expect("it goes well") {
                        Finish::Stop => Outcome::Stop,
                        Finish::Length => Outcome::Length,
                        Finish::Cancelled => Outcome::Cancelled,
                    };
                }
                Event::Read { .. } | Event::Text { .. } => {}
            }
        }
        let Sampling {
            temperature,
            top_p,
            top_k,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            seed,
        } = params.sampling;
        let max_tokens = params.max_tokens as u32;
        let sampling = cocoon_protocol::Sampling {
            seed,
            temperature,
            top_p,
            top_k,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            max_tokens,
        };
        let (stop, logit_bias) = (params.stop, params.logit_bias);
        (
            Run {
                prompt: prompt.into(),
                sampling,
                stop,
                logit_bias,
                constrained: false,
                grammar: None,
                written,
            },
            cached,
        )
    }
}

/// Papers that an honest guest would have given out, each of which can be changed.
struct Kit {
    folder: tempfile::TempDir,
    key: ReceiptKey,
    bundle: Bundle,
    receipt: Receipt,
    opening: Opening,
    model: PathBuf,
    threads: u32,
}

impl Kit {
    fn new(run: Run) -> Self {
        let key = ReceiptKey::generate();
        let weights = std::fs::read(tiny()).expect("it lies in the repository");
        let weights = ring::digest::digest(&ring::digest::SHA256, &weights);
        let weights: [u8; 32] = weights.as_ref().try_into().expect("32 bytes");
        let statement = Statement {
            network: -3,
            keys: Keys {
                seal: vec![1; cocoon_protocol::SEAL_KEY_BYTES],
                receipt: *key.public_bytes(),
                tls: None,
            },
            models: vec![ModelIdentity { name: "tiny".into(), weights }],
            configuration: [4; 32],
            engine: [5; 32],
            kernels: Vec::new(),
            gpu_evidence: Vec::new(),
            freshness: Freshness { beacon: Beacon { seqno: 7, root_hash: [8; 32] }, nonce: None, serial: 0 },
        };
        let statement = statement.encode();
        let Identity { version, digest: engine } = Identity::current();
        let receipt = Receipt {
            network: -3,
            request_id: [9; 16],
            statement: digest(&statement),
            model: weights,
            usage: Usage {
                prompt_tokens: run.prompt.len() as u32,
                cached_tokens: 0,
                completion_tokens: run.completion_tokens() as u32,
            },
            price: Price::new(1, 1, 1),
            started_ms: 1,
            finished_ms: 2,
            outcome: run.written[0].outcome,
            engine: EngineId { kind: EngineKind::Cocoon, version, digest: engine, kernels: Kernels::Cpu },
            commitment: [0; 32],
        };
        let bundle = Bundle {
            statement,
            quote: vec![4; 100],
            tee: Tee::Tdx,
            gpu: Vec::new(),
            event_log: None,
            endorsements: Vec::new(),
        };
        let opening = Opening {
            salt: [6; 32],
            request_hash: [1; 32],
            answer_hash: [2; 32],
            run: Some(run),
            vectors: None,
        };
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, key, bundle, receipt, opening, model: tiny(), threads: 1 }
    }

    /// Changes the statement that the receipt was signed under.
    fn run(&mut self) -> &mut Run {
        self.opening.run.as_mut().expect("it has one")
    }

    /// The guest has, and its receipt names, a model of this root.
    fn attest_model(&mut self, weights: [u8; 32]) {
        self.receipt.model = weights;
        self.restate(|statement| statement.models[0].weights = weights);
    }

    /// Another statement of the guest, which its receipt names.
    fn restate(&mut self, change: impl FnOnce(&mut Statement)) {
        let mut statement = Statement::decode(&self.bundle.statement).expect("ours");
        change(&mut statement);
        self.bundle.statement = statement.encode();
        self.receipt.statement = digest(&self.bundle.statement);
    }

    /// Writes the papers, the receipt committing to the opening, and signed.
    fn keep(&mut self) -> &mut Self {
        self.receipt.commitment = self.opening.commitment();
        let signed = SignedReceipt::sign(self.receipt.clone(), &self.key);
        self.put("receipt.cbor", &signed.encode());
        self.put("opening.cbor", &self.opening.encode());
        self.put("bundle.cmw", &self.bundle.encode());
        self
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join(name), bytes).expect("our folder");
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(name)).expect("it was kept")
    }

    fn replay(&self) -> Report {
        let arguments = Arguments {
            receipt: self.folder.path().join("receipt.cbor"),
            opening: None,
            bundle: None,
            model: Some(self.model.clone()),
            threads: Some(self.threads),
            text: false,
            json: true,
        };
        report(&arguments, &Screen::new(true)).expect("the files can be read")
    }

    #[track_caller]
    fn comes_to(&self, word: Word, words: &str) {
        let report = self.replay();
        let why = report.why().unwrap_or_default();
        assert_eq!(report.word(), word, "{why}");
        assert!(why.contains(words), "{why}");
        assert_eq!(word == Word::Same, report.as_json()["same"] == true);
    }
}

/// A kit with a sampled answer of some tokens.
fn kit() -> Kit {
    let worker = Worker::new();
    let (run, _) = worker.write(Request::new(worker.prompt("tuples"), sampled()), usize::MAX);
    assert!(run.completion_tokens() > 8, "there is something to change");
    Kit::new(run)
}

#[test]
fn answers_that_ran_among_others_replay_alone_with_any_threads() {
    let worker = Worker::new();
    let asked = [
        (sampled(), 1),
        (greedy(), 1),
        (Params { stop: vec!["e".to_owned()], ..sampled() }, 1),
        (Params { logit_bias: vec![(40, 8.0), (41, -100.0)], ..greedy() }, 1),
        (
            Params {
                sampling: Sampling {
                    top_k: 9,
                    min_p: 0.02,
                    presence_penalty: 0.4,
                    frequency_penalty: 0.3,
                    ..sampled().sampling
                },
                ..sampled()
            },
            1,
        ),
        (sampled(), 3),
    ];
    let salt = || Salt::new(b"one secret of theirs");
    // Read once, so that all that follow find the beginning in the cache.
    let first = Request::new(worker.prompt("lists, tuples and sets"), greedy()).with_salt(salt());
    worker.write(first, usize::MAX);
    let runs: Vec<(Run, usize)> = std::thread::scope(|scope| {
        let each = (0..).zip(asked).map(|(number, (params, choices))| {
            let worker = &worker;
            scope.spawn(move || {
                let request = Request::new(worker.prompt("lists, tuples and sets"), params);
                let request = request.with_choices(choices).with_salt(salt()).with_payer(Payer([number; 32]));
                worker.write(request, usize::MAX)
            })
        });
        let all: Vec<_> = each.collect();
        all.into_iter().map(|one| one.join().expect("it runs")).collect()
    });
    for (threads, (run, cached)) in (1..).zip(runs) {
        assert!(cached >= 16, "the beginning was cached");
        let tokens = run.completion_tokens();
        let mut kit = Kit::new(run);
        kit.threads = 1 + threads % 3;
        let report = kit.keep().replay();
        assert_eq!(report.word(), Word::Same, "{:?}", report.why());
        assert_eq!(report.compared, Some(Compared { tokens, difference: None }));
    }
}

#[test]
fn an_answer_that_was_broken_off_replays_as_far_as_it_went() {
    let worker = Worker::new();
    for most in [1, 5, 11] {
        let (run, _) = worker.write(Request::new(worker.prompt("tuples"), sampled()), most);
        assert_eq!((run.completion_tokens(), run.written[0].outcome), (most, Outcome::Cancelled));
        let report = Kit::new(run).keep().replay();
        assert_eq!(report.compared, Some(Compared { tokens: most, difference: None }), "{:?}", report.why());
    }
}

#[test]
fn an_answer_that_ended_at_its_limit_replays_and_one_token_less_is_not_the_same() {
    let worker = Worker::new();
    let params = Params { max_tokens: 7, ..greedy() };
    let (run, _) = worker.write(Request::new(worker.prompt("tuples"), params), usize::MAX);
    assert_eq!((run.completion_tokens(), run.written[0].outcome), (7, Outcome::Length));
    Kit::new(run.clone()).keep().comes_to(Word::Same, "");
    let mut less = run;
    let last = less.written[0].tokens.pop().expect("seven");
    let report = Kit::new(less).keep().replay();
    let (expected, found) = (Said::End(Outcome::Length), Said::Token(last));
    let difference = Some(Difference { choice: 0, position: 6, expected, found });
    assert_eq!(report.compared, Some(Compared { tokens: 6, difference }));
    assert_eq!(report.word(), Word::Different);
}

#[test]
fn one_token_that_was_changed_is_named_by_its_place_and_not_as_text() {
    let mut kit = kit();
    let honest = kit.run().written[0].tokens[4];
    kit.run().written[0].tokens[4] = honest + 1;
    let report = kit.keep().replay();
    let (expected, found) = (Said::Token(honest + 1), Said::Token(honest));
    let difference = Some(Difference { choice: 0, position: 4, expected, found });
    assert_eq!(report.compared, Some(Compared { tokens: 4, difference }));
    let why = format!("position 4: the receipt has token {}, this engine says token {honest}", honest + 1);
    assert!(report.why().expect("it says why").contains(&why));
    assert_eq!(report.as_json()["difference"]["expected"]["token"], honest + 1);
    assert_eq!(report.as_json()["answers"], serde_json::Value::Null);
}

/// One change of an honest kit, before it is signed.
type Change = fn(&mut Kit);

#[test]
fn one_thing_that_the_guest_committed_to_otherwise_is_not_the_same() {
    let changes: [(&str, Change, &str); 20] = [
        ("top_p", |kit| kit.run().sampling.top_p = 0.01, "position"),
        ("top_k", |kit| kit.run().sampling.top_k = 1, "position"),
        ("min_p", |kit| kit.run().sampling.min_p = 1.0, "position"),
        ("repetition", |kit| kit.run().sampling.repetition_penalty = 2.0, "position"),
        ("presence", |kit| kit.run().sampling.presence_penalty = -2.0, "position"),
        ("frequency", |kit| kit.run().sampling.frequency_penalty = 2.0, "position"),
        ("a parameter that is no number", |kit| kit.run().sampling.min_p = f32::NAN, "refuses the request"),
        ("stop", |kit| kit.run().stop.push("e".to_owned()), "the end (stop)"),
        ("a token of the prompt", |kit| kit.run().prompt[9] ^= 1, "position"),
        (
            "one more answer",
            |kit| {
                let twin = kit.run().written[0].clone();
                kit.receipt.usage.completion_tokens *= 2;
                kit.run().written.push(twin);
            },
            "answer 1, position",
        ),
        (
            "how the run ended",
            |kit| {
                let other = match kit.receipt.outcome {
                    Outcome::Stop => Outcome::Length,
                    _ => Outcome::Stop,
                };
                kit.receipt.outcome = other;
                kit.run().written[0].outcome = other;
            },
            "the receipt has the end",
        ),
        ("seed", |kit| kit.run().sampling.seed ^= 1, "position"),
        ("temperature", |kit| kit.run().sampling.temperature = 1.9, "position"),
        ("temperature out of range", |kit| kit.run().sampling.temperature = 3.0, "refuses the request"),
        (
            "bias",
            |kit| {
                let token = kit.run().written[0].tokens[2];
                kit.run().logit_bias.push((token, -100.0))
            },
            "position",
        ),
        ("limit", |kit| kit.run().sampling.max_tokens = 3, "position 3"),
        ("an unknown token", |kit| kit.run().prompt[1] = u32::MAX, "refuses the request"),
        ("prompt tokens", |kit| kit.receipt.usage.prompt_tokens += 1, "bills"),
        ("completion tokens", |kit| kit.receipt.usage.completion_tokens += 1, "bills"),
        ("outcome", |kit| kit.receipt.outcome = Outcome::Error, "the receipt says error"),
    ];
    for (what, change, words) in changes {
        let mut kit = kit();
        change(&mut kit);
        println!("{what}");
        kit.keep().comes_to(Word::Different, words);
    }
}

/// Of several answers the receipt says how they ended together.
#[test]
fn a_receipt_of_several_answers_says_how_they_ended() {
    let worker = Worker::new();
    let params = Params { max_tokens: 6, ..sampled() };
    let request = Request::new(worker.prompt("tuples"), params).with_choices(3);
    let (run, _) = worker.write(request, usize::MAX);
    assert!(run.written.iter().any(|written| written.outcome == Outcome::Length));
    let mut kit = Kit::new(run);
    for (outcome, word) in [
        (Outcome::Length, Word::Same),
        (Outcome::Stop, Word::Different),
        (Outcome::Error, Word::Different),
        (Outcome::Cancelled, Word::Same),
    ] {
        kit.receipt.outcome = outcome;
        assert_eq!(kit.keep().replay().word(), word, "{outcome:?}");
    }
}

#[test]
fn an_answer_that_was_broken_off_before_its_first_token_is_not_called_the_same() {
    for outcome in [Outcome::Cancelled, Outcome::Error] {
        let mut kit = kit();
        kit.run().written[0].tokens.clear();
        kit.run().written[0].outcome = outcome;
        kit.receipt.usage.completion_tokens = 0;
        kit.receipt.outcome = outcome;
        kit.keep().comes_to(Word::Unavailable, "nothing to compare");
    }
}

#[test]
fn a_receipt_about_what_its_guest_never_attested_is_unverified() {
    let changes: [Change; 4] = [
        |kit| kit.receipt.model[0] ^= 1,
        |kit| kit.receipt.network += 1,
        |kit| kit.restate(|statement| statement.models[0].weights[0] ^= 1),
        |kit| kit.restate(|statement| statement.network += 1),
    ];
    for change in changes {
        let mut kit = kit();
        change(&mut kit);
        kit.keep().comes_to(Word::Unverified, "its guest's statement does not");
    }
}

/// Whatever byte of whatever paper: not the same, but for what nobody compares.
#[test]
fn no_byte_of_a_paper_can_be_changed_unseen() {
    let mut kit = kit();
    kit.keep();
    for (name, step) in [("receipt.cbor", 1), ("opening.cbor", 3)] {
        let honest = kit.bytes(name);
        for at in (0..honest.len()).step_by(step) {
            let mut changed = honest.clone();
            changed[at] ^= 1 << (at % 8);
            kit.put(name, &changed);
            let word = kit.replay().word();
            assert!(matches!(word, Word::Unverified | Word::Malformed), "{name}, byte {at}: {word:?}");
        }
        kit.put(name, &honest);
    }
    kit.comes_to(Word::Same, "");
}

#[test]
fn what_cannot_be_run_here_says_what_it_needs() {
    let changes: [(Change, &str); 5] = [
        (|kit| kit.receipt.engine.digest[0] ^= 1, "it needs an engine with the digest"),
        (|kit| kit.receipt.engine.kind = EngineKind::Child, "child engine"),
        (|kit| kit.run().constrained = true, "too long for the opening"),
        (|kit| kit.opening.run = None, "no tokens"),
        (
            |kit| {
                kit.receipt.model[0] ^= 1;
                kit.restate(|statement| statement.models[0].weights[0] ^= 1);
            },
            "it needs the model of SHA-256",
        ),
    ];
    for (change, words) in changes {
        let mut kit = kit();
        change(&mut kit);
        kit.keep().comes_to(Word::Unavailable, words);
    }
    let mut kit = kit();
    kit.model = kit.folder.path().join("other.gguf");
    let mut other = std::fs::read(tiny()).expect("it lies in the repository");
    *other.last_mut().expect("it is not empty") ^= 1;
    kit.put("other.gguf", &other);
    kit.keep().comes_to(Word::Unavailable, "it needs the model of SHA-256");
}

#[test]
fn answers_under_a_grammar_replay_by_it_and_by_no_other() {
    let worker = Worker::new();
    let schema =
        json!({"type": "object", "properties": {"a": {"enum": ["red", "green"]}}, "required": ["a"]});
    let grammar = Grammar::json(&schema);
    let constraints = Grammars::default().constraints(worker.0.model(), &grammar, 2).expect("a fine grammar");
    let request = Request::new(worker.prompt("colours"), sampled());
    let (mut run, _) = worker.write(request.with_choices(2).with_constraints(constraints), usize::MAX);
    (run.constrained, run.grammar) = (true, grammar.to_bytes());
    let mut kit = Kit::new(run);
    kit.keep().comes_to(Word::Same, "");
    let other = Grammar::json(&json!({"type": "array", "items": {"type": "null"}}));
    kit.run().grammar = other.to_bytes();
    kit.keep().comes_to(Word::Different, "position 0");
    kit.run().grammar = Some(b"?{}".to_vec().into());
    kit.keep().comes_to(Word::Different, "it is none");
    kit.run().grammar = Grammar::json(&json!({"type": "integer", "minimum": 2, "maximum": 1})).to_bytes();
    kit.keep().comes_to(Word::Different, "no answer can have been held");
    kit.run().grammar = None;
    kit.keep().comes_to(Word::Unavailable, "too long for the opening");
}

#[test]
fn an_answer_of_a_gpu_replays_on_the_cpu_if_the_statement_names_its_kernels() {
    let mut kit = kit();
    kit.receipt.engine.kernels = Kernels::Gpu([7; 32]);
    kit.keep().comes_to(Word::Unverified, "names GPU kernels that the statement");
    kit.restate(|statement| statement.kernels = vec![[8; 32], [7; 32]]);
    kit.keep().comes_to(Word::Same, "");
    let engine = &kit.replay().as_json()["engine"];
    assert_eq!(engine["kernels"], "07".repeat(32));
    // One token that a wrong GPU would have written.
    kit.run().written[0].tokens[3] ^= 1;
    kit.keep().comes_to(Word::Different, "answer 0, position 3");
}

#[test]
fn one_paper_that_was_changed_after_it_was_signed_is_unverified() {
    let mut kit = kit();
    kit.keep();
    let honest = kit.bytes("receipt.cbor");
    let mut signature = honest.clone();
    *signature.last_mut().expect("it ends with the signature") ^= 1;
    kit.put("receipt.cbor", &signature);
    kit.comes_to(Word::Unverified, "signature does not hold");
    kit.put("receipt.cbor", &SignedReceipt::sign(kit.receipt.clone(), &ReceiptKey::generate()).encode());
    kit.comes_to(Word::Unverified, "signature does not hold");
    kit.put("receipt.cbor", &honest);
    kit.comes_to(Word::Same, "");

    let mut opening = kit.opening.clone();
    opening.salt[0] ^= 1;
    kit.put("opening.cbor", &opening.encode());
    kit.comes_to(Word::Unverified, "the opening is not of this receipt's commitment");
    kit.put("opening.cbor", &kit.opening.encode());
    kit.comes_to(Word::Same, "");

    // The same key under another statement.
    let mut statement = Statement::decode(&kit.bundle.statement).expect("ours");
    statement.freshness.serial += 1;
    kit.bundle.statement = statement.encode();
    kit.put("bundle.cmw", &kit.bundle.encode());
    kit.comes_to(Word::Unverified, "another statement");
}

#[test]
fn one_paper_that_is_no_such_paper_is_malformed() {
    for name in ["receipt.cbor", "opening.cbor", "bundle.cmw"] {
        let mut kit = kit();
        let mut bytes = kit.keep().bytes(name);
        bytes.pop();
        kit.put(name, &bytes);
        kit.comes_to(Word::Malformed, name.split('.').next().expect("a name"));
    }
}
