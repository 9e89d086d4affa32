//! Thousands of mixed requests, one after the other and at the same time: nothing is left behind.

mod common;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use cocoon_engine::{Answer, Engine, EngineOptions, Event, Finish, Params, Payer, Request, Salt, Sampling};

/// Requests of the soak, unless `COCOON_SOAK_REQUESTS` says otherwise.
const REQUESTS: usize = 4_000;
const CLIENTS: usize = 8;
/// What may be resident more after the second half than after the first: allocators round.
const SLACK: usize = 6 << 20;

/// Resident bytes of this process.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number of pages") * 4096
}

fn engine() -> Engine {
    let mut options = EngineOptions::with_threads(2);
    // Less than the clients want, so that blocks are forgotten and answers put back.
    options.cache_bytes = EngineOptions::bytes_of_context(&common::tiny(), 512 + 256);
    options.max_running = 6;
    Engine::new(common::tiny(), options)
}

fn request(number: usize) -> Request {
    let prompt = (0..1 + number * 37 % 90).map(|n| (300 + n * (1 + number % 3)) as u32).collect();
    let sampling = Sampling { seed: number as u64, temperature: 1.0, ..Sampling::default() };
    let params = Params { sampling, max_tokens: 1 + number % 40, ignore_eos: true, ..Params::default() };
    let request = Request::new(prompt, params).with_payer(Payer([(number % 5) as u8; 32]));
    let request = if number.is_multiple_of(7) { request.with_choices(3) } else { request };
    if number.is_multiple_of(2) { request.with_salt(Salt::new(&[(number % 11) as u8])) } else { request }
}

/// Reads an answer in one of several ways; whether it came to its end.
fn read(number: usize, mut answer: Answer) -> bool {
    match number % 10 {
        0 => false,                                // leaves at once
        1 => answer.by_ref().take(3).count() == 0, // leaves in between
        2 => {
            std::thread::sleep(Duration::from_millis(10)); // its answer pauses meanwhile
            is_whole(answer)
        }
        _ => is_whole(answer),
    }
}

fn is_whole(answer: Answer) -> bool {
    answer.filter(|event| matches!(event, Event::End { outcome: Ok(Finish::Length), .. })).count() > 0
}

/// A part of the soak.
fn soak(engine: &Engine, numbers: std::ops::Range<usize>) -> usize {
    let (next, whole) = (AtomicUsize::new(numbers.start), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    let answer = engine.submit(request(number)).expect("limits are wide");
                    if read(number, answer) {
                        whole.fetch_add(1, Ordering::Relaxed);
                    } else {
                        assert!(number % 10 < 2, "request {number} did not come to its end");
                    }
                }
            });
        }
    });
    whole.into_inner()
}

fn settle(engine: &Engine) {
    let until = Instant::now() + Duration::from_secs(60);
    while (engine.status().running, engine.status().waiting) != (0, 0) {
        assert!(Instant::now() < until, "{:?}", engine.status());
        std::thread::sleep(Duration::from_millis(1));
    }
    let status = engine.status();
    assert_eq!(status.held_blocks, 0, "{status:?}");
    assert!(status.cached_blocks <= status.limit_blocks);
}

#[test]
fn thousands_of_requests_leave_no_block_and_no_memory_behind() {
    let given = std::env::var("COCOON_SOAK_REQUESTS").ok().and_then(|text| text.parse().ok());
    let requests: usize = given.unwrap_or(REQUESTS);
    let engine = engine();
    let whole = soak(&engine, 0..requests / 2);
    settle(&engine);
    let (half, first) = (resident(), engine.status());
    let whole = whole + soak(&engine, requests / 2..requests);
    settle(&engine);
    let (end, last) = (resident(), engine.status());
    println!("{whole} whole answers; {half} bytes at half time, {end} at the end; {last:?}");
    assert!(whole >= requests * 8 / 10);
    assert!(last.preemptions > first.preemptions && first.preemptions > 0, "{last:?}");
    assert!(end < half + SLACK, "{half} bytes at half time, {end} at the end");
}
