//! The redb file against the model, in any order.

mod common;
mod suite;

use common::File;
use proptest::prelude::*;
use suite::model::{agrees, step};

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_account_agrees_with_the_model_in_any_order(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(agrees(&File::new(), 1, &steps));
    }
}
