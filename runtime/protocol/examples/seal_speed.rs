//! How long sealing takes: `cargo run --release -p cocoon-protocol --example seal_speed`. Medians, one thread.

#[path = "../tests/common/mod.rs"]
#[expect(dead_code, reason = "the tests' helpers; some are theirs alone")]
mod common;

use cocoon_protocol::{Answer, AnswerEvent, Endpoint, Meter, Usage, seal};
use common::{Guest, body, header};
use std::time::Instant;

/// Median of 1001 runs, in microseconds.
fn median<T>(mut run: impl FnMut(u64) -> T) -> f64 {
    let mut times: Vec<u128> = (0..1001)
        .map(|round| {
            let begun = Instant::now();
            std::hint::black_box(run(round));
            begun.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2] as f64 / 1000.0
}

fn main() {
    let guest = Guest::new();
    let peer = guest.trusted();
    let sealed = |id| seal(&peer, &header(&peer, id), Endpoint::ChatCompletions, body()).expect("it fits");
    println!("seal a request (client)        {:8.2} µs", median(sealed));
    let mut wires = (10_000..11_001).map(|id| sealed(id).0.into_bytes()).collect::<Vec<_>>().into_iter();
    let open = |_| guest.open(&wires.next().expect("one for each round")).expect("it is for this guest");
    println!("open a request (guest)         {:8.2} µs", median(open));

    let (request, mut opener) = sealed(20_000);
    let mut sealer = guest.open(request.as_bytes()).expect("it is for this guest").answer;
    let chunk = AnswerEvent::Chunk(Answer::new(vec![b'a'; 200]));
    let usage = Usage { prompt_tokens: 5, cached_tokens: 0, completion_tokens: 1 };
    let preamble = sealer.preamble();
    let mut frames = Vec::new();
    let time = median(|_| frames.push(sealer.seal(&chunk, usage).expect("within the rules")));
    println!("seal one token's frame (guest) {time:8.2} µs, {} bytes", frames[0].len());
    let mut meter = Meter::new(&header(&peer, 20_000));
    meter.push(&preamble).expect("honest");
    let mut next = frames.iter();
    let time = median(|_| meter.push(next.next().expect("one for each round")).expect("honest"));
    println!("meter it (gateway, host)       {time:8.2} µs");
    opener.push(&preamble).expect("honest");
    let mut next = frames.iter();
    let time = median(|_| opener.push(next.next().expect("one for each round")).expect("honest"));
    println!("open it (client)               {time:8.2} µs");
}
