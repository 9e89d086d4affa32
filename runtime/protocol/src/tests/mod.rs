//! Both ends of the wire in one process, and what a hostile relay does between them.

mod answers;
mod openings;
mod requests;
mod roundtrip;

use crate::keys::public_key;
use crate::request::seal_to;
use crate::*;

/// A guest with its keys, and the header of a request to it.
struct Guest {
    seal: SealKey,
    receipt: ReceiptKey,
    guard: ReplayGuard,
    header: RequestHeader,
}

const BODY: &[u8] = br#"{"messages":[{"role":"user","content":"the secret question"}]}"#;

impl Guest {
    fn new() -> Self {
        let header = RequestHeader {
            network: -3,
            request_id: [1; 16],
            statement: [2; 32],
            model: [3; 32],
            budget: Budget { prompt_tokens: 100, completion_tokens: 200 },
            price: Price::new(1_000_000, 1_000_000, 3_000_000),
        };
        let guard = ReplayGuard::new(4, 1000);
        guard.issue(header.statement);
        Self { seal: SealKey::generate(), receipt: ReceiptKey::generate(), guard, header }
    }

    fn sealed(&self, header: &RequestHeader, body: &[u8]) -> (Vec<u8>, AnswerOpener) {
        let key = public_key(self.seal.public_bytes()).expect("a generated key is a key");
        let body = Prompt::new(body.to_vec());
        let sealed = seal_to(&key, self.receipt.public_bytes(), header, Endpoint::ChatCompletions, body);
        let (request, opener) = sealed.expect("the body is short");
        (request.into_bytes(), opener)
    }

    fn open(&self, wire: &[u8]) -> Result<Opened, RequestError> {
        let expected = Expected { network: -3, models: &[[3; 32]], guard: &self.guard };
        open(&self.seal, &expected, wire)
    }

    /// A request with a fresh id, opened: both ends of an answer.
    fn exchange(&self, id: u8) -> (AnswerSealer, AnswerOpener) {
        let header = RequestHeader { request_id: [id; 16], ..self.header.clone() };
        let (wire, opener) = self.sealed(&header, BODY);
        let Ok(opened) = self.open(&wire) else { panic!("an honest request opens") };
        (opened.answer, opener)
    }

    /// A tick, two chunks and the end, as bytes.
    fn answer(&self, mut sealer: AnswerSealer) -> Vec<u8> {
        let mut wire = sealer.preamble();
        let events = [
            (AnswerEvent::Tick, usage(10, 0)),
            (AnswerEvent::Chunk(Answer::new(b"first".to_vec())), usage(10, 1)),
            (AnswerEvent::Chunk(Answer::new(b"second".to_vec())), usage(10, 2)),
        ];
        for (event, usage) in &events {
            wire.extend(sealer.seal(event, *usage).expect("within the rules"));
        }
        wire.extend(sealer.finish(ending(usage(10, 2)), &self.receipt).expect("within the rules"));
        wire
    }
}

fn usage(prompt_tokens: u32, completion_tokens: u32) -> Usage {
    Usage { prompt_tokens, cached_tokens: 0, completion_tokens }
}

fn ending(usage: Usage) -> Ending {
    let outcome = Outcome::Stop;
    Ending { usage, started_ms: 1000, finished_ms: 2000, outcome, engine: engine(), run: Some(run(2)) }
}

fn engine() -> EngineId {
    EngineId { kind: EngineKind::Cocoon, version: [1, 2, 3], digest: [6; 32], kernels: Kernels::Cpu }
}

/// A run that wrote so many tokens.
fn run(tokens: usize) -> Run {
    Run {
        prompt: vec![1, 2, 3].into(),
        sampling: Sampling {
            seed: 7,
            temperature: 0.4,
            top_p: 0.9,
            top_k: 40,
            min_p: 0.1,
            repetition_penalty: 1.1,
            presence_penalty: 0.5,
            frequency_penalty: -0.5,
            max_tokens: 200,
        },
        stop: vec!["end".to_owned()],
        logit_bias: vec![(9, -1.5)],
        constrained: false,
        grammar: None,
        written: vec![Written { tokens: vec![70_000; tokens].into(), outcome: Outcome::Stop }],
    }
}

/// What a client saw: kind and bytes of each event, then how it ended.
type Seen = (Vec<(u8, Vec<u8>)>, Result<Receipt, AnswerError>);

fn shown(event: AnswerEvent) -> (u8, Vec<u8>) {
    match event {
        AnswerEvent::Chunk(answer) => (1, answer.expose().to_vec()),
        AnswerEvent::Tick => (2, Vec::new()),
        AnswerEvent::Error { status, body } => (3, [&status.to_be_bytes(), body.expose()].concat()),
        AnswerEvent::End { .. } => (4, Vec::new()),
    }
}

/// Receives an answer in pieces of `step` bytes.
fn receive(mut opener: AnswerOpener, wire: &[u8], step: usize) -> Seen {
    let mut seen = Vec::new();
    for piece in wire.chunks(step) {
        match opener.push(piece) {
            Ok(events) => seen.extend(events.into_iter().map(|(event, _)| shown(event))),
            Err(error) => return (seen, Err(error)),
        }
    }
    (seen, opener.finish().map(|verified| verified.receipt().clone()))
}

/// Cuts an answer into preamble, frames and receipt.
fn pieces(header: &RequestHeader, wire: &[u8]) -> Vec<Vec<u8>> {
    let metered = Meter::new(header).push(wire).expect("an honest answer");
    metered.into_iter().map(|piece| piece.bytes).collect()
}

fn meter(header: &RequestHeader, wire: &[u8]) -> Result<Usage, MeterError> {
    let mut meter = Meter::new(header);
    meter.push(wire)?;
    meter.finish()
}
