//! What must hold of a payee's accounts, over PostgreSQL: the same sentences and the same model as over the redb file.

mod cluster;
#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/suite/mod.rs"]
mod suite;

use cluster::{Cluster, WithoutAllowances};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use suite::model::{Step, agrees, step};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sentence_of_the_payee_holds_over_postgresql() {
    let cluster = Cluster::start();
    suite::every_payee_sentence!(cluster.database());
}

fn in_any_order(cases: u32, run: impl Fn(&[Step])) {
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let steps = prop::collection::vec(step(), 1..40);
    let done = runner.run(&steps, |steps| {
        run(&steps);
        Ok(())
    });
    done.unwrap_or_else(|error| panic!("{error}"));
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

#[test]
fn one_gateway_agrees_with_the_model_in_any_order() {
    let (cluster, runtime) = (Cluster::start(), runtime());
    in_any_order(24, |steps| {
        runtime.block_on(async { agrees(&cluster.database().await, 1, steps).await });
    });
}

#[test]
fn three_gateways_that_share_an_account_agree_with_the_model_in_any_order() {
    let (cluster, runtime) = (Cluster::start(), runtime());
    in_any_order(16, |steps| {
        runtime.block_on(async { agrees(&WithoutAllowances(cluster.database().await), 3, steps).await });
    });
}
