//! The CPU engine's scheduler over the PTX that ships: the same tokens for every kind of request, and an end with words
//! for every kind of device that fails.

mod common;

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use cocoon_engine::{
    Accelerator, AcceleratorError, Answer, Constraint, ConstraintError, Engine, EngineOptions, Event, Finish,
    Format, GenerateError, Model, Needs, Params, Payer, Pick, Request, Salt, Sampling, StepAnswer, StepRow,
    StepWork, SubmitError, TokenMask,
};
use cocoon_kernels::{Arg, Backend, Device, Grid, Kernel, Target, digest};
use cocoon_ptx_check::Order;
use common::{Interpreter, Recorded, bits, gguf::Gguf, law};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models")
}

fn model() -> Arc<Model> {
    Arc::new(Model::open(&models().join("tiny.gguf")).expect("the repository's tiny model"))
}

/// Six blocks for at most four answers at once: they are put back, and blocks change hands.
fn options(model: &Model) -> EngineOptions {
    let mut options = EngineOptions::with_threads(1);
    options.max_context = 96;
    options.max_running = 4;
    options.step_tokens = 24;
    options.cache_bytes = EngineOptions::bytes_of_context(model, 96);
    options.device_patience = Duration::from_secs(600);
    options
}

fn interpreted(model: &Arc<Model>) -> Engine {
    let open = |model: &Model, needs: Needs| {
        let device = Device::open(Interpreter::new(Target::Sm90, Order::Forward), model, needs)?;
        Ok(Box::new(device) as Box<dyn Accelerator>)
    };
    Engine::accelerated(Arc::clone(model), options(model), open).unwrap_or_else(|error| panic!("{error}"))
}

/// Allows each second token alone.
struct Even;

impl Constraint for Even {
    fn mask(&mut self, mask: &mut TokenMask) -> Result<(), ConstraintError> {
        (0..mask.len() as u32).filter(|token| token % 2 == 1).for_each(|token| mask.forbid(token));
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        if token.is_multiple_of(2) { Ok(()) } else { Err(ConstraintError("an odd token")) }
    }
}

fn params(sampling: Sampling, max_tokens: usize) -> Params {
    Params { sampling, max_tokens, ignore_eos: true, ..Params::default() }
}

/// Requests of every kind.
fn requests(model: &Model) -> Vec<Request> {
    let tokens = |text: &str| model.tokenizer().encode(text, true);
    let text = tokens(
        "The iterator returns the next item of the list, and raises an exception when there are none.",
    );
    let long = tokens(&"A class can define methods, and objects of the class can be used. ".repeat(3));
    let drawn = |seed| Sampling { temperature: 0.9, seed, ..Sampling::default() };
    let greedy = Sampling::greedy();
    let topped = Sampling { top_k: 7, presence_penalty: 0.5, ..drawn(9) };
    let of = |payer: u8, prompt: &[u32], params| {
        Request::new(prompt.to_vec(), params).with_payer(Payer([payer; 32]))
    };
    vec![
        of(1, &text, params(greedy, 14)),
        of(1, &text[3..], params(drawn(1), 14)).with_choices(2),
        of(2, &text[5..], params(topped, 10)),
        of(3, &text[8..], params(drawn(2), 8)).with_constraints(vec![Box::new(Even)]),
        of(2, &long[..60.min(long.len())], params(Sampling { top_p: 1.0, ..drawn(3) }, 6)),
        of(3, &text[..7], Params { logprobs: Some(2), logit_bias: vec![(40, 2.0)], ..params(greedy, 8) }),
    ]
}

/// A choice, its tokens and its end.
type Written = (u32, Vec<u32>, Option<Result<Finish, GenerateError>>);

/// What was written of each choice.
fn read(answer: Answer) -> Vec<Written> {
    let mut choices: Vec<Written> = Vec::new();
    for event in answer {
        let choice = match &event {
            Event::Token { choice, .. } | Event::Text { choice, .. } | Event::End { choice, .. } => *choice,
            Event::Started { .. } | Event::Read { .. } => continue,
        };
        if !choices.iter().any(|(known, ..)| *known == choice) {
            choices.push((choice, Vec::new(), None));
        }
        let place = choices.iter_mut().find(|(known, ..)| *known == choice).expect("just made");
        match event {
            Event::Token { token, .. } => place.1.push(token),
            Event::End { outcome, .. } => place.2 = Some(outcome),
            _ => {}
        }
    }
    choices.sort_by_key(|(choice, ..)| *choice);
    choices
}

#[test]
fn every_kind_of_request_gets_the_tokens_of_the_cpu_engine() {
    let model = model();
    let (cpu, gpu) = (Engine::new(Arc::clone(&model), options(&model)), interpreted(&model));
    assert_eq!((cpu.kernels(), gpu.kernels()), (None, Some(digest())));
    let submit = |engine: &Engine| -> Vec<Answer> {
        let submitted = requests(&model).into_iter().map(|request| engine.submit(request).expect("taken"));
        submitted.collect()
    };
    let expected: Vec<_> = submit(&cpu).into_iter().map(read).collect();
    let mut answers = submit(&gpu);
    // One reader leaves after its first token.
    let mut left = gpu.submit(requests(&model).remove(0)).expect("taken");
    let found: Vec<_> = answers.drain(..).map(read).collect();
    assert!(left.any(|event| matches!(event, Event::Token { .. })));
    drop(left);
    assert_eq!(found, expected);
    assert!(
        expected
            .iter()
            .flatten()
            .all(|(_, tokens, end)| tokens.len() >= 6 && *end == Some(Ok(Finish::Length)))
    );
    let status = gpu.status();
    println!("{status:?}");
    assert!(status.preemptions > 0, "blocks were short");
    assert!(gpu.is_serving() && gpu.failure().is_none());
}

#[test]
fn a_beginning_that_was_read_is_shared_and_changes_no_token() {
    let model = model();
    let (cpu, gpu) = (Engine::new(Arc::clone(&model), options(&model)), interpreted(&model));
    let prompt = model.tokenizer().encode(&"def function(argument): return value ".repeat(4), true);
    let ask = |engine: &Engine, seed| {
        let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
        let request = Request::new(prompt.clone(), params(sampling, 6)).with_salt(Salt::new(b"mine"));
        let (mut cached, mut tokens) = (0, Vec::new());
        for event in engine.submit(request).expect("taken") {
            match event {
                Event::Started { cached_tokens } => cached = cached_tokens,
                Event::Token { token, .. } => tokens.push(token),
                _ => {}
            }
        }
        (cached, tokens)
    };
    for seed in [1, 2] {
        let (expected, found) = (ask(&cpu, seed), ask(&gpu, seed));
        assert_eq!(found, expected);
        assert_eq!(found.0 > 0, seed == 2, "the second finds what the first read");
    }
}

/// What goes wrong with a device, from when a test says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// A launch is an error.
    Launch,
    /// What is launched does not run.
    Stale,
    /// Pages are not wiped.
    Dirty,
    /// Pages are not looked at.
    Unproven,
    /// A bit of what is read flips.
    Flipped,
}

/// A device that goes wrong.
struct Faulty {
    inner: Interpreter,
    fault: Arc<Mutex<Fault>>,
}

#[derive(Debug)]
struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Error for Wrong {}

fn wrong<E: Error>(error: E) -> Wrong {
    Wrong(error.to_string())
}

impl Faulty {
    fn fault(&self) -> Fault {
        *self.fault.lock().expect("nobody panics here")
    }
}

impl Backend for Faulty {
    type Buffer = cocoon_ptx_check::Buffer;
    type Error = Wrong;
    type Recording = Vec<Recorded>;

    fn allocate(&mut self, bytes: usize) -> Result<Self::Buffer, Wrong> {
        self.inner.allocate(bytes).map_err(wrong)
    }

    fn write(&mut self, buffer: &Self::Buffer, content: &[u8]) -> Result<(), Wrong> {
        self.inner.write(buffer, content).map_err(wrong)
    }

    fn read(&mut self, buffer: &Self::Buffer, bytes: usize) -> Result<Vec<u8>, Wrong> {
        let mut content = self.inner.read(buffer, bytes).map_err(wrong)?;
        if self.fault() == Fault::Flipped {
            content[9] ^= 4;
        }
        Ok(content)
    }

    fn wipe(&mut self, buffer: &Self::Buffer) -> Result<(), Wrong> {
        self.inner.wipe(buffer).map_err(wrong)
    }

    fn launch(&mut self, kernel: Kernel, grid: Grid, args: &[Arg<'_, Self::Buffer>]) -> Result<(), Wrong> {
        match (self.fault(), kernel) {
            (Fault::Launch, _) => Err(Wrong("Xid 79".into())),
            (Fault::Stale, _) | (Fault::Dirty, Kernel::Scrub) | (Fault::Unproven, Kernel::ScrubCheck) => {
                Ok(())
            }
            _ => self.inner.launch(kernel, grid, args).map_err(wrong),
        }
    }

    fn record(
        &mut self,
        body: &mut dyn FnMut(&mut Self) -> Result<(), Wrong>,
    ) -> Result<Vec<Recorded>, Wrong> {
        self.inner.begin_recording();
        let result = body(self);
        let recording = self.inner.end_recording();
        result.map(|()| recording)
    }

    fn replay(&mut self, recording: &Vec<Recorded>) -> Result<(), Wrong> {
        match self.fault() {
            Fault::Launch => Err(Wrong("Xid 79".into())),
            Fault::Stale => Ok(()),
            _ => self.inner.replay(recording).map_err(wrong),
        }
    }
}

fn faulty(model: &Arc<Model>, fault: &Arc<Mutex<Fault>>) -> Result<Engine, AcceleratorError> {
    let fault = Arc::clone(fault);
    let open = move |model: &Model, needs: Needs| {
        let inner = Interpreter::new(Target::Sm80, Order::Forward);
        Ok(Box::new(Device::open(Faulty { inner, fault }, model, needs)?) as Box<dyn Accelerator>)
    };
    Engine::accelerated(Arc::clone(model), options(model), open)
}

#[test]
fn a_device_that_fails_in_mid_flight_ends_every_answer_with_words_and_takes_no_more() {
    let faults = [
        (Fault::Launch, &["the device failed: Xid 79"][..]),
        // Whichever comes first: a step that did not run, or a page that nobody looked at.
        (Fault::Stale, &["another step", "was not looked at"]),
        (Fault::Dirty, &["it must not change its tenant"]),
        (Fault::Unproven, &["was not looked at"]),
    ];
    let model = model();
    let prompt = model.tokenizer().encode("A class can define methods, and objects", true);
    for (fault, words) in faults {
        let switch = Arc::new(Mutex::new(Fault::None));
        let engine = faulty(&model, &switch).expect("it works when it is opened");
        let ask = |choices| {
            let request = Request::new(prompt.clone(), params(Sampling::default(), 70));
            engine.submit(request.with_choices(choices)).expect("taken")
        };
        let (mut first, second) = (ask(1), ask(2));
        assert!(first.any(|event| matches!(event, Event::Token { .. })), "it writes");
        *switch.lock().expect("nobody panics here") = fault;
        let ends: Vec<_> = read(first).into_iter().chain(read(second)).map(|(_, _, end)| end).collect();
        assert_eq!(ends, vec![Some(Err(GenerateError::Device)); 3], "{fault:?}");
        let failure = engine.failure().expect("it says how").to_string();
        assert!(words.iter().any(|words| failure.contains(words)), "{fault:?}: {failure}");
        assert!(!engine.is_serving());
        let refused = engine.submit(Request::new(prompt.clone(), Params::default())).map(drop);
        assert_eq!(refused, Err(SubmitError::Device));
    }
}

#[test]
fn a_device_that_answers_wrongly_at_the_start_serves_nobody() {
    let model = model();
    for (fault, words) in [
        (Fault::Flipped, "do not serve"),
        (Fault::Launch, "Xid 79"),
        (Fault::Stale, "do not serve"),
        (Fault::Unproven, "was not looked at"),
    ] {
        let switch = Arc::new(Mutex::new(fault));
        let error = faulty(&model, &switch).map(drop).expect_err("it is not opened").to_string();
        assert!(error.contains(words), "{fault:?}: {error}");
    }
}

/// The small Llama of halves, with each half as the upper half of the same single: GGUF's type 1 as type 30.
fn in_bf16() -> Vec<u8> {
    let mut bytes = std::fs::read(models().join("families/llama.gguf")).expect("the repository's model");
    let file = Gguf::new(bytes.clone());
    for (name, (start, length)) in file.tensors_of(1) {
        // In the directory its name is followed by the number of dimensions, two dimensions, and the type.
        let entry = [&(name.len() as u64).to_le_bytes(), name.as_bytes()].concat();
        let at = bytes.windows(entry.len()).position(|window| window == entry).expect("its name");
        let kind = at + entry.len() + 4 + 16;
        assert_eq!(bytes[kind..kind + 4], [1, 0, 0, 0], "{name}");
        bytes[kind] = 30;
        for half in bytes[start..start + length].chunks_exact_mut(2) {
            let single = law::widen(u16::from_le_bytes([half[0], half[1]]));
            half.copy_from_slice(&single.to_le_bytes()[2..]);
        }
    }
    bytes
}

/// The same Llama as a folder of singles: all offsets of its safetensors doubled.
fn in_f32() -> tempfile::TempDir {
    let (from, to) = (models().join("families/llama"), tempfile::tempdir().expect("a folder"));
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(from.join(name), to.path().join(name)).expect("the repository's model");
    }
    let bytes = std::fs::read(from.join("model.safetensors")).expect("the repository's model");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight")) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + length]).expect("JSON").replace("\"F16\"", "\"F32\"");
    let mut parts = header.split("\"data_offsets\":[");
    let mut doubled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (offsets, rest) = part.split_once(']').expect("a list");
        let offset = |text: &str| (text.trim().parse::<usize>().expect("a number") * 2).to_string();
        let offsets: Vec<String> = offsets.split(',').map(offset).collect();
        doubled += &format!("\"data_offsets\":[{}]{rest}", offsets.join(","));
    }
    let halves = bytes[8 + length..].chunks_exact(2);
    let singles = halves.flat_map(|half| law::widen(u16::from_le_bytes([half[0], half[1]])).to_le_bytes());
    let mut out = (doubled.len() as u64).to_le_bytes().to_vec();
    out.extend(doubled.as_bytes());
    out.extend(singles);
    std::fs::write(to.path().join("model.safetensors"), out).expect("our folder");
    to
}

#[test]
fn models_of_every_other_format_have_the_bits_of_the_cpu_engine() {
    let open =
        |name: &str| Model::open(&models().join("families").join(name)).expect("the repository's model");
    let bf16 = Model::from_bytes(in_bf16()).expect("a model");
    let cases = [
        (open("quants.gguf"), &[Format::Q5_0, Format::Q4K, Format::Q5K, Format::Q6K][..]),
        (open("llama.gguf"), &[Format::F16]),
        (bf16, &[Format::Bf16]),
        (Model::open(in_f32().path()).expect("a model"), &[Format::F32]),
    ];
    for (model, formats) in cases {
        let blueprint = model.blueprint();
        let stored: Vec<Format> = blueprint
            .layers()
            .flat_map(|layer| layer.matrices())
            .chain([blueprint.embedding()])
            .map(|matrix| matrix.format())
            .collect();
        for format in formats {
            assert!(stored.contains(format), "{format:?}, but {stored:?}");
        }
        let model = Arc::new(model);
        let tokens: Vec<u32> = (0..21).map(|index| index * 37 % model.vocab_size() as u32).collect();
        let mut expected = Vec::new();
        let engine = Engine::new(Arc::clone(&model), EngineOptions::with_threads(1));
        engine.sequence(32).prefill_visiting(&tokens, |logits| expected.extend(bits(logits))).expect("fits");
        let needs = Needs { context: 32, rows: tokens.len(), pages: 2 };
        for (target, order) in [(Target::Sm80, Order::Reversed), (Target::Sm100, Order::Seeded(4))] {
            let device = Interpreter::new(target, order);
            let mut device = Device::open(device, &model, needs).unwrap_or_else(|error| panic!("{error}"));
            let row = |(position, token): (u32, &u32)| StepRow { token: *token, table: 0, position };
            let mut work = StepWork::default();
            work.rows = (0..).zip(&tokens).map(row).collect();
            work.tables = vec![vec![1, 0]];
            work.picks = vec![Pick::Logits; tokens.len()];
            let mut answer = StepAnswer::default();
            device.step(&work, &mut answer).unwrap_or_else(|error| panic!("{error}"));
            assert!(bits(&answer.logits) == expected, "{formats:?}, {target:?}: other logits");
        }
    }
}

#[test]
fn models_that_the_kernels_do_not_know_are_refused_by_what_is_missing() {
    let cases = [
        ("qwen2", &["biases", "halves"][..]),
        ("qwen3", &["norms of each head", "halves"]),
        ("gemma3", &["GELU", "scaled embeddings", "window", "norms after attention"]),
        ("phi3", &["halves"]),
    ];
    for (family, words) in cases {
        let path = models().join(format!("families/{family}.gguf"));
        let model = Model::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let needs = Needs { context: 32, rows: 32, pages: 2 };
        let device = Interpreter::new(Target::Sm80, Order::Forward);
        let error = Device::open(device, &model, needs).map(drop).expect_err("it is refused").to_string();
        println!("{error}");
        assert!(error.contains(&format!("({family})")) && error.contains("serve it on the CPU"), "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}
