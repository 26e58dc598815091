//! Legacy servers, which cannot tell a repeat for free, over a link that loses requests and answers, with kills between: real parts, and multisets
//! compared by SQL.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use support::{Scene, Schema, assert_exit, gateway::Gateway};
use tokio::time::{Instant, sleep};

fn rounds(short: usize, long: usize) -> usize {
    if std::env::var_os("PACKHORSE_LONG").is_some() { long } else { short }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_mins(2), "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// In each round an answer is lost after the commit, a request is lost before it, in random order, and the program is killed at some moment
/// after; then it finishes.
async fn storm(scene: &Scene, gateway: &Gateway, rounds: usize) {
    let seed = std::env::var("PACKHORSE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("PACKHORSE_TEST_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let proxy = &scene.proxy;
    for round in 0..rounds {
        let mut running = gateway.spawn(&["-q", "run"]);
        let mut losses = [true, false];
        if chance.random_bool(0.5) {
            losses.reverse();
        }
        for is_answer in losses {
            let before = (proxy.answers_lost(), proxy.requests_lost());
            if is_answer {
                proxy.lose_next_answer_of("/rest/bulk/");
            } else {
                proxy.lose_next_request_of("/rest/bulk/");
            }
            until(&format!("round {round}: something is lost"), || {
                (proxy.answers_lost(), proxy.requests_lost()) != before || running.ended()
            })
            .await;
            assert!(!running.ended(), "the daemon never ends by itself");
            if chance.random_bool(0.5) {
                let (bulks, more) = (proxy.requests_of("/rest/bulk/"), chance.random_range(1..3));
                until("it goes on", || proxy.requests_of("/rest/bulk/") >= bulks + more).await;
            }
        }
        sleep(Duration::from_millis(chance.random_range(0..250))).await;
        running.kill();
        // The gateway of these tests does not wait as long as it would.
        until("the server is done", || !proxy.is_at_work()).await;
    }
    println!("{} answers and {} requests lost, {rounds} kills", proxy.answers_lost(), proxy.requests_lost());
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "300s"]).await, 0);
}

async fn scene(schema: Schema, manner: &'static str, rounds: usize) -> Option<(Scene, Gateway)> {
    let scene = Scene::set(schema, manner, 4_000 + 3_500 * rounds).await?;
    let gateway = scene.gateway().with_request_max("2KiB");
    Some((scene, gateway))
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_losses_each_way_and_kills_double_nothing_at_the_older_table() {
    let rounds = rounds(20, 150);
    let Some((scene, gateway)) = scene(Schema::classic(), "legacy-old", rounds).await else { return };
    storm(&scene, &gateway, rounds).await;
    scene.compare().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_losses_each_way_and_kills_double_nothing_at_the_newer_table() {
    let rounds = rounds(20, 150);
    let Some((scene, gateway)) = scene(Schema::newest(), "legacy", rounds).await else { return };
    storm(&scene, &gateway, rounds).await;
    scene.compare().await.assert_equal();
}

/// The negative control.
#[tokio::test(flavor = "multi_thread")]
async fn without_asking_the_older_table_shows_doubles() {
    let Some((scene, gateway)) = scene(Schema::classic(), "legacy-old", 10).await else { return };
    let gateway = gateway.with_env("PACKHORSE_TEST_SEND_BLIND", "1");
    // Each answer that is lost is one to node states then: a repeated reading is merged, and proves nothing.
    scene.source.run("DELETE FROM Reading").await;
    storm(&scene, &gateway, 5).await;
    let comparison = scene.compare().await;
    assert!(comparison.node_states.duplicated > 0, "the control must fail:\n{comparison}");
}
