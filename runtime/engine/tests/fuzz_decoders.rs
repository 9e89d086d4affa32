//! Seeded mutations of sound files against everything that reads a model: GGUF, safetensors, `config.json`,
//! `tokenizer.json`, chat templates. Nothing may panic, take long or take much memory; and what still loads is asked for
//! tokens, text and a prompt.
//!
//! `COCOON_FUZZ_ITERATIONS` sets the budget for each decoder, `COCOON_FUZZ_SEED` another start.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use cocoon_engine::{
    ChatMessage, Embedder, Engine, EngineOptions, GenerateError, Model, Params, Sampling, TextStream,
    Tokenizer, Vocabulary,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Counts what is taken at a moment, and remembers the most.
struct Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator that counts")]
// SAFETY: all work is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let taken = TAKEN.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(taken, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a file of some hundred kilobytes may take while it is read and asked, and for how long. Both are far more than is
/// needed, and far less than what goes wrong takes.
const ROOM: usize = 96 << 20;
const TIME: Duration = Duration::from_secs(8);

/// Runs one case within its limits; `what` says how to find it again.
fn within<T>(what: impl Fn() -> String, body: impl FnOnce() -> T) -> T {
    let (before, start) = (TAKEN.load(Ordering::Relaxed), Instant::now());
    MOST.store(before, Ordering::Relaxed);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    let value = caught.unwrap_or_else(|_| panic!("it panicked: {}", what()));
    let (most, took) = (MOST.load(Ordering::Relaxed).saturating_sub(before), start.elapsed());
    assert!(most < ROOM, "{most} bytes: {}", what());
    assert!(took < TIME, "{took:?}: {}", what());
    value
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The seeds of a decoder's cases: each case has one of its own, so that it can be run alone.
fn seeds(name: &str, cases: u64) -> impl Iterator<Item = u64> {
    let (first, cases) = (number("COCOON_FUZZ_SEED", 0xC0C0_0001), number("COCOON_FUZZ_ITERATIONS", cases));
    println!("{name}: seeds {first} to {}", first + cases);
    first..first + cases
}

/// SplitMix64: small, seeded, good enough to choose mutations.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }

    fn one_of<'t, T>(&mut self, items: &'t [T]) -> &'t T {
        &items[self.below(items.len())]
    }

    /// A number that means trouble, or any.
    fn boundary(&mut self) -> u64 {
        const NUMBERS: [u64; 14] = [
            0,
            1,
            2,
            31,
            255,
            256,
            65_535,
            1 << 20,
            u32::MAX as u64,
            1 << 32,
            1 << 62,
            i64::MAX as u64,
            u64::MAX - 1,
            u64::MAX,
        ];
        match self.below(3) {
            0 => self.next() >> self.below(64),
            _ => *self.one_of(&NUMBERS),
        }
    }

    /// One to four mutations before `end`: flips, boundary values in four and eight bytes, cuts, doublings, splices.
    fn mutated(&mut self, valid: &[u8], end: usize) -> Vec<u8> {
        let mut bytes = valid.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len().min(end));
            let length = self.below(40).min(bytes.len().saturating_sub(at));
            match self.below(10) {
                0..3 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                3 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                4 | 5 if at + 8 <= bytes.len() => {
                    let number = self.boundary().to_le_bytes();
                    bytes[at..at + 8].copy_from_slice(&number);
                }
                6 if at + 4 <= bytes.len() => {
                    let number = (self.boundary() as u32).to_le_bytes();
                    bytes[at..at + 4].copy_from_slice(&number);
                }
                7 => {
                    bytes.drain(at..at + length);
                }
                8 => {
                    let copy = bytes[at..at + length].to_vec();
                    let to = self.below(bytes.len().min(end));
                    bytes.splice(to..to, copy);
                }
                _ if self.below(8) == 0 => bytes.truncate(at),
                _ => {}
            }
        }
        bytes
    }

    /// One to three nodes of a document changed, each second time a number: sizes and ids are what lies.
    fn changed(&mut self, valid: &Value) -> Value {
        let mut document = valid.clone();
        for _ in 0..=self.below(3) {
            if self.below(2) == 0 {
                let mut found = numbers(&mut document);
                if !found.is_empty() {
                    let place = self.below(found.len());
                    *found[place] = json!(self.boundary());
                }
                continue;
            }
            let donor = self.node(&mut valid.clone()).clone();
            let new = self.replacement(donor);
            let node = self.node(&mut document);
            match (node, self.below(6)) {
                (Value::Object(map), 0) if !map.is_empty() => {
                    let key = map.keys().nth(self.below(map.len())).cloned().expect("it is not empty");
                    map.remove(&key);
                }
                (Value::Object(map), 1) => {
                    map.insert(self.text(), new);
                }
                (Value::Array(list), 0) if !list.is_empty() => drop(list.remove(self.below(list.len()))),
                (Value::Array(list), 1) => list.push(new),
                (Value::Array(list), 2) => list.reverse(),
                (node @ Value::Number(_), 0..3) => {
                    let factor = *self.one_of(&[-1.0, 0.0, 0.5, 2.0, 1e-40, 1e30, 1e300]);
                    *node = json!(node.as_f64().unwrap_or(0.0) * factor);
                }
                (node, _) => *node = new,
            }
        }
        document
    }

    /// Any node, deep ones as often as others.
    fn node<'v>(&mut self, document: &'v mut Value) -> &'v mut Value {
        let mut node = document;
        loop {
            let stop = self.below(4) == 0;
            let children = match &*node {
                Value::Object(map) => map.len(),
                Value::Array(list) => list.len(),
                _ => 0,
            };
            if children == 0 || stop {
                return node;
            }
            let child = self.below(children);
            node = match node {
                Value::Object(map) => map.values_mut().nth(child).expect("counted"),
                Value::Array(list) => &mut list[child],
                _ => unreachable!("it has children"),
            };
        }
    }

    fn replacement(&mut self, donor: Value) -> Value {
        match self.below(12) {
            0 => Value::Null,
            1 => json!(true),
            2..5 => json!(self.boundary()),
            5 => json!(-1),
            6 => json!(*self.one_of(&[0.0, -0.5, 1e-320, 1e39, 1.7e308])),
            7 => json!(self.text()),
            8 => json!([donor.clone(), donor]),
            9 => json!({ self.text(): donor }),
            10 => (0..100).fold(donor, |inner, _| json!([inner])),
            _ => donor,
        }
    }

    fn text(&mut self) -> String {
        let parts =
            ["", "a", "<|end|>", "\u{2581}", "Ġ", "<0x41>", "##", " ", "\u{0}", "🏳️‍🌈", "x y", "\\p{L}+"];
        let mut text = String::new();
        for _ in 0..self.below(4) {
            text.push_str(self.one_of::<&str>(&parts));
        }
        if self.below(20) == 0 { text.repeat(3_000) } else { text }
    }
}

/// All numbers of a document.
fn numbers(document: &mut Value) -> Vec<&mut Value> {
    match document {
        Value::Number(_) => vec![document],
        Value::Array(list) => list.iter_mut().flat_map(numbers).collect(),
        Value::Object(map) => map.values_mut().flat_map(numbers).collect(),
        _ => Vec::new(),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

fn family(name: &str) -> PathBuf {
    root().join("tests/models/families").join(name)
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("it lies in the repository")
}

fn document(path: &Path) -> Value {
    serde_json::from_slice(&read(path)).expect("it is JSON")
}

/// Text that asks a tokenizer for all that it knows.
const TEXT: &str = "It's 12345 °C — naïve <|end|> e\u{301}\u{323} 日本語 مرحبا\u{200d} \t\r\n\n  <s>👩‍👩‍👧‍👦\u{0}\u{7f}\u{10ffff}▁▁ x";

/// Whatever a file says of it, a tokenizer gives tokens that it has, and text of them.
fn ask_tokenizer(tokenizer: &Tokenizer) {
    for text in [TEXT, "", " ", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "\n\n\n\n<<<<"] {
        for special in [false, true] {
            let tokens = tokenizer.encode(text, special);
            assert!(tokens.iter().all(|token| (*token as usize) < tokenizer.vocab_size()));
            let _ = tokenizer.decode(&tokens);
            let (mut stream, mut out) = (TextStream::new(tokenizer), String::new());
            tokens.iter().chain([&u32::MAX]).for_each(|token| stream.push(*token, &mut out));
            stream.finish(&mut out);
        }
    }
    let ends = tokenizer
        .end_tokens()
        .iter()
        .chain(tokenizer.bos().as_ref())
        .all(|end| (*end as usize) < tokenizer.vocab_size());
    assert!(ends);
}

fn ask_vocabulary(vocabulary: &Vocabulary) {
    ask_tokenizer(vocabulary.tokenizer());
    let message = |role: &str| ChatMessage { role: role.into(), content: TEXT.into() };
    let _ = vocabulary.render_chat(&["system", "user", "assistant", "tool"].map(message), true);
}

/// A model that loads answers, or says that its weights are damaged.
fn ask_model(model: Model) {
    ask_vocabulary(model.vocabulary());
    let mut options = EngineOptions::with_threads(1);
    options.max_context = 40;
    options.cache_bytes = 1 << 20;
    let size = model.vocab_size() as u32;
    let engine = Engine::new(Arc::new(model), options);
    let prompt: Vec<u32> = (0..20).map(|token| token * 13 % size).collect();
    let params = Params {
        sampling: Sampling { temperature: 1.0, ..Sampling::default() },
        max_tokens: 3,
        logprobs: Some(3),
        ..Params::default()
    };
    match engine.generate(&prompt, &params, |_| ControlFlow::Continue(())) {
        Ok(_) | Err(GenerateError::NotANumber | GenerateError::ContextOverflow { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn mutated_gguf_files_neither_panic_nor_take_long_nor_much() {
    let names = ["llama", "qwen2", "qwen3", "gemma3", "phi3", "quants"];
    let mut files: Vec<Vec<u8>> = names.map(|name| read(&family(&format!("{name}.gguf")))).into();
    files.push(read(&fixture("tokenizers/sentencepiece.gguf")));
    let (mut loaded, mut refused) = (0, 0);
    for seed in seeds("gguf", 1_500) {
        let mut random = Random(seed);
        let which = random.below(files.len());
        // Most of the file is weights: the head is what lies.
        let end = if random.below(4) == 0 { usize::MAX } else { 14_000 };
        let bytes = random.mutated(&files[which], end);
        within(
            || format!("gguf, seed {seed}"),
            || match Model::from_bytes(bytes) {
                Ok(model) => {
                    ask_model(model);
                    loaded += 1;
                }
                Err(_) => refused += 1,
            },
        );
    }
    println!("{loaded} loaded, {refused} refused");
    assert!(loaded > 0 && refused > loaded / 4, "{loaded} loaded, {refused} refused");
}

/// A folder whose files can be written over.
fn copied(from: &Path) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(from).expect("it is there").flatten() {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("it is copied");
        }
    }
    folder
}

#[test]
fn mutated_folders_neither_panic_nor_take_long_nor_much() {
    const FILES: [&str; 4] = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];
    let names = ["llama", "qwen2", "qwen3", "gemma3", "phi3"];
    let folders: Vec<TempDir> = names.iter().map(|name| copied(&family(name))).collect();
    let (mut loaded, mut refused) = (0, 0);
    for seed in seeds("folder", 1_200) {
        let mut random = Random(seed);
        let folder = random.below(folders.len());
        let (file, original) = (*random.one_of(&FILES), family(names[folder]));
        let sound = read(&original.join(file));
        let bytes = match file {
            "model.safetensors" if random.below(3) > 0 => {
                let length = u64::from_le_bytes(sound[..8].try_into().expect("eight bytes")) as usize;
                let header: Value = serde_json::from_slice(&sound[8..8 + length]).expect("it is JSON");
                let header = random.changed(&header).to_string().into_bytes();
                [&(header.len() as u64).to_le_bytes(), header.as_slice(), &sound[8 + length..]].concat()
            }
            "model.safetensors" => random.mutated(&sound, 6_000),
            _ if random.below(4) > 0 => {
                random.changed(&serde_json::from_slice(&sound).expect("it is JSON")).to_string().into_bytes()
            }
            _ => random.mutated(&sound, usize::MAX),
        };
        let path = folders[folder].path();
        std::fs::write(path.join(file), bytes).expect("our folder");
        within(
            || format!("{file} of {}, seed {seed}", names[folder]),
            || match Model::open(path) {
                Ok(model) => {
                    ask_model(model);
                    loaded += 1;
                }
                Err(_) => refused += 1,
            },
        );
        std::fs::write(path.join(file), sound).expect("our folder");
    }
    println!("{loaded} loaded, {refused} refused");
    assert!(loaded > 0 && refused > loaded / 4, "{loaded} loaded, {refused} refused");
}

#[test]
fn mutated_encoders_neither_panic_nor_take_long_nor_much() {
    const FILES: [&str; 6] = [
        "config.json",
        "tokenizer.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "model.safetensors",
    ];
    let (original, folder) = (family("bert"), copied(&family("bert")));
    std::fs::create_dir(folder.path().join("1_Pooling")).expect("our folder");
    std::fs::copy(original.join(FILES[3]), folder.path().join(FILES[3])).expect("it is copied");
    let (mut loaded, mut refused) = (0, 0);
    for seed in seeds("encoder", 600) {
        let mut random = Random(seed);
        let file = *random.one_of(&FILES);
        let sound = read(&original.join(file));
        let bytes = match file {
            "model.safetensors" => random.mutated(&sound, 6_000),
            _ => {
                random.changed(&serde_json::from_slice(&sound).expect("it is JSON")).to_string().into_bytes()
            }
        };
        std::fs::write(folder.path().join(file), bytes).expect("our folder");
        within(
            || format!("{file} of bert, seed {seed}"),
            || match Embedder::open(folder.path(), &EngineOptions::with_threads(1)) {
                Ok(embedder) => {
                    ask_tokenizer(embedder.tokenizer());
                    let vector = embedder.embed("The class has a method.");
                    assert!(
                        vector.is_ok_and(|vector| vector.values().len() == embedder.dimensions())
                            || !is_sound(&embedder)
                    );
                    loaded += 1;
                }
                Err(_) => refused += 1,
            },
        );
        std::fs::write(folder.path().join(file), sound).expect("our folder");
    }
    println!("{loaded} loaded, {refused} refused");
    assert!(loaded > 0 && refused > loaded / 4, "{loaded} loaded, {refused} refused");
}

/// Whether a text fits it and its weights are no nonsense.
fn is_sound(embedder: &Embedder) -> bool {
    !matches!(
        embedder.embed("The class has a method."),
        Err(GenerateError::NotANumber | GenerateError::ContextOverflow { .. })
    )
}

#[test]
fn mutated_tokenizers_neither_panic_nor_take_long_nor_much() {
    let names =
        ["gpt2", "smollm", "llama3", "qwen2", "gpt4o", "llama2", "metaspace", "metasplit", "gemma", "bert"];
    let files: Vec<Value> =
        names.map(|name| document(&fixture(&format!("tokenizers/{name}/tokenizer.json")))).into();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokenizer.json");
    let (mut loaded, mut refused) = (0, 0);
    for seed in seeds("tokenizer", 2_000) {
        let mut random = Random(seed);
        let which = random.below(files.len());
        let bytes = match random.below(4) {
            0 => random.mutated(files[which].to_string().as_bytes(), usize::MAX),
            _ => random.changed(&files[which]).to_string().into_bytes(),
        };
        std::fs::write(&path, bytes).expect("our folder");
        within(
            || format!("tokenizer of {}, seed {seed}", names[which]),
            || match Vocabulary::open(folder.path()) {
                Ok(vocabulary) => {
                    ask_vocabulary(&vocabulary);
                    loaded += 1;
                }
                Err(_) => refused += 1,
            },
        );
    }
    println!("{loaded} loaded, {refused} refused");
    assert!(loaded > 0 && refused > loaded / 4, "{loaded} loaded, {refused} refused");
}

/// Words of Jinja that templates are made of, and numbers that are too large for anything.
const WORDS: [&str; 36] = [
    "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x | tojson }}",
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if m %}",
    "{% else %}",
    "{% endif %}",
    "{{ ",
    " }}",
    "{%- ",
    " -%}",
    "{# ",
    " #}",
    "{% generation %}",
    "{% endgeneration %}",
    "{% macro f(x) %}",
    "{% endmacro %}",
    "{{ f(f) }}",
    "{% set ns = namespace(x=messages) %}",
    "{% set ns.x = [ns.x, ns.x] %}",
    "{{ ns.x }}",
    "messages",
    "[::-1]",
    "[-1]",
    "['content']",
    ".content.split('')",
    ".strip()",
    " | tojson",
    " | tojson(indent=99999999999)",
    " | indent(99999999999)",
    " | join(messages)",
    " | list",
    " | length",
    "range(99999)",
    "raise_exception('x')",
    " * 3",
];

#[test]
fn mutated_templates_neither_panic_nor_take_long_nor_much() {
    let names = ["chatml", "gemma", "llama2", "llama3", "phi3", "python", "qwen3"];
    let sources = names
        .map(|name| String::from_utf8(read(&fixture(&format!("templates/{name}.jinja")))).expect("text"));
    let folder = copied(&fixture("tokenizers/llama3"));
    let (mut rendered, mut refused) = (0, 0);
    for seed in seeds("template", 2_500) {
        let mut random = Random(seed);
        let which = random.below(sources.len());
        let mut text = sources[which].clone();
        for _ in 0..=random.below(5) {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let at = *random.one_of(&places);
            let end = places
                .iter()
                .copied()
                .find(|place| *place >= at + random.0 as usize % 12)
                .unwrap_or(text.len());
            match random.below(4) {
                0 => text.replace_range(at..end.max(at), ""),
                1 => {
                    let copy = text[at..end.max(at)].to_owned();
                    text.insert_str(at, &copy);
                }
                _ => text.insert_str(at, random.one_of::<&str>(&WORDS)),
            }
            if text.is_empty() {
                text.push_str("{{ messages }}");
            }
        }
        std::fs::write(folder.path().join("chat_template.jinja"), &text).expect("our folder");
        within(
            || format!("template of {}, seed {seed}: {text}", names[which]),
            || {
                let vocabulary =
                    Vocabulary::open(folder.path()).expect("its template is looked at when it is used");
                let message = |role: &str| ChatMessage { role: role.into(), content: TEXT.repeat(3) };
                match vocabulary.render_chat(&["user", "assistant", "user"].map(message), true) {
                    Ok(_) => rendered += 1,
                    Err(_) => refused += 1,
                }
            },
        );
    }
    println!("{rendered} rendered, {refused} refused");
    assert!(rendered > 0 && refused > rendered / 4, "{rendered} rendered, {refused} refused");
}
