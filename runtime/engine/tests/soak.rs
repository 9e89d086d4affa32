//! Thousands of mixed requests of ever new payers: nothing is left behind. `examples/soak.rs` does the same for longer.

mod common;
#[path = "common/soak.rs"]
mod soak;

use cocoon_engine::Engine;
use soak::{resident, run, settle};

/// Requests of the soak, unless `COCOON_SOAK_REQUESTS` says otherwise.
const REQUESTS: usize = 3_000;
/// What may be resident more at the end than after the warm-up: allocators round.
const SLACK: usize = 6 << 20;

#[test]
fn thousands_of_requests_leave_no_block_no_payer_and_no_memory_behind() {
    let given = std::env::var("COCOON_SOAK_REQUESTS").ok().and_then(|text| text.parse().ok());
    let requests: usize = given.unwrap_or(REQUESTS);
    let model = common::tiny();
    let engine = Engine::new(model.clone(), soak::options(&model, 2));
    let mut tally = run(&engine, 0..requests / 4, None);
    settle(&engine);
    let (warm, first) = (resident(), engine.status());
    tally.add(run(&engine, requests / 4..requests, None));
    settle(&engine);
    let (end, last) = (resident(), engine.status());
    println!("{tally:?}; {warm} bytes after a quarter, {end} at the end; {last:?}");
    assert!(tally.whole >= requests * 6 / 10 && tally.left >= requests / 10, "{tally:?}");
    assert!(tally.deaf > 0 && tally.failed >= requests / 200, "{tally:?}");
    assert!(tally.refused >= requests / 100, "{tally:?}");
    assert!(last.preemptions > first.preemptions && first.preemptions > 0, "{last:?}");
    assert!(end < warm + SLACK, "{warm} bytes after a quarter, {end} at the end");
}
