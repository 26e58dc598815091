//! `queue drop`: only what nobody owns, only by its name, and all of it.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::{READINGS, STATES, Scene, stdout, told};

fn outbox(scene: &Scene) -> PathBuf {
    scene.gateway.data_dir().join("central")
}

/// Rows wait in the outbox of `central`; the configuration as it was, and as it is without that destination.
async fn with_a_former_destination() -> (Scene, String, String) {
    let mut scene = Scene::set().await;
    scene.central.kill();
    told(&scene.once().await, 1, &[]);
    let owned = fs::read_to_string(scene.gateway.config()).unwrap();
    (scene, owned.clone(), owned.replace("name = \"central\"", "name = \"other\""))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_no_destination_owns_is_told_dropped_by_its_name_and_gone() {
    let (scene, owned, unowned) = with_a_former_destination().await;
    fs::write(scene.gateway.config(), unowned).unwrap();
    told(&scene.check().await, 1, &["warning ", "remove it: packhorse queue drop --name central"]);
    told(&scene.gateway.output(&["queue", "status"]).await, 0, &["central: an outbox that no destination owns"]);
    let status = scene.gateway.output(&["queue", "status", "--json"]).await;
    let status: Value = serde_json::from_str(&stdout(&status)).unwrap();
    assert_eq!(status["unowned"], json!(["central"]));

    for (args, words) in [
        (&[][..], "nothing was dropped: write --name NAME; no destination owns central"),
        (&["--yes"], "nothing was dropped: write --name NAME"),
        (&["--destination", "central", "--yes"], "nothing was dropped: write --name NAME"),
        (&["--name", "central"], "nothing was dropped: --yes drops it without asking"),
        (&["--name", "centra", "--yes"], "holds no outbox of \"centra\"; there is central"),
        (&["--name", "Central", "--yes"], "holds no outbox of \"Central\"; there is central"),
        (&["--name", "", "--yes"], "holds no outbox of \"\"; there is central"),
        (&["--name", "../data/central", "--yes"], "holds no outbox of"),
        (&["--name", "lock", "--yes"], "holds no outbox of \"lock\""),
        (&["--name", "other", "--yes"], "destination 'other' is configured: its outbox is kept"),
        (&["--name", "central", "--destination", "other", "--yes"], "destination 'other' is configured"),
        (&["--name", "other", "--destination", "central", "--yes"], "\"other\" is not the name of destination \"central\""),
        (&["central"], "unexpected argument 'central'"),
    ] {
        told(&scene.gateway.output(&[&["queue", "drop"], args].concat()).await, 2, &[words]);
        assert!(outbox(&scene).join("CURRENT").exists(), "{args:?}");
    }

    let dropped = scene.gateway.output(&["queue", "drop", "--name", "central", "--yes"]).await;
    told(&dropped, 0, &[&format!("{READINGS} readings wait in it and 0 are parked; 0 were delivered")]);
    told(&dropped, 0, &[&format!("these {} rows are lost for that destination; in the source they stay", READINGS + STATES)]);
    told(&dropped, 0, &["central: its outbox is gone"]);
    assert!(!outbox(&scene).exists());
    told(&scene.gateway.output(&["queue", "drop"]).await, 0, &["nothing to drop"]);
    told(
        &scene.gateway.output(&["queue", "drop", "--name", "central", "--yes"]).await,
        2,
        &["there is none that could be dropped"],
    );

    // A destination of that name begins anew, and nothing is missing.
    fs::write(scene.gateway.config(), owned).unwrap();
    let mut scene = scene;
    scene.central.restart().await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_destination_owns_is_not_dropped_even_when_it_is_disabled_nor_while_the_daemon_runs() {
    let (mut scene, owned, unowned) = with_a_former_destination().await;
    let drop = ["queue", "drop", "--name", "central", "--yes"];
    told(&scene.gateway.output(&drop).await, 2, &["destination 'central' is configured: its outbox is kept"]);
    fs::write(scene.gateway.config(), owned.replace("name = \"central\"", "name = \"central\"\nenabled = false")).unwrap();
    told(&scene.gateway.output(&drop).await, 2, &["destination 'central' is configured, though disabled"]);

    fs::write(scene.gateway.config(), unowned).unwrap();
    let mut daemon = scene.daemon();
    daemon.says("capture begins").await;
    told(&scene.gateway.output(&drop).await, 3, &["is running on"]);
    daemon.ends_well().await;
    assert!(outbox(&scene).join("CURRENT").exists());

    // Nor is a folder that holds no outbox.
    let folder = scene.gateway.data_dir().join("photos");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("one.jpg"), "x").unwrap();
    told(&scene.gateway.output(&["queue", "drop", "--name", "photos", "--yes"]).await, 2, &["holds no outbox of \"photos\""]);
    assert!(folder.join("one.jpg").exists());

    fs::write(scene.gateway.config(), owned).unwrap();
    scene.central.restart().await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_outbox_is_dropped_with_what_was_set_aside() {
    let (mut scene, owned, unowned) = with_a_former_destination().await;
    // One damage is set aside by a run, a second one stays.
    for _ in 0..2 {
        let store = fs::read_to_string(outbox(&scene).join("CURRENT")).unwrap();
        fs::write(outbox(&scene).join(store.trim()).join("db"), vec![0xa5; 4_096]).unwrap();
        if !outbox(&scene).join("aside").exists() {
            told(&scene.once().await, 1, &["it is set aside"]);
        }
    }
    fs::write(scene.gateway.config(), unowned).unwrap();
    let dropped = scene.gateway.output(&["queue", "drop", "--name", "central", "--yes"]).await;
    told(&dropped, 0, &["how many rows wait in it cannot be told", "damaged"]);
    told(&dropped, 0, &["1 damaged stores that were set aside"]);
    assert!(!outbox(&scene).exists());
    fs::write(scene.gateway.config(), owned).unwrap();
    scene.central.restart().await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_that_was_interrupted_is_told_and_gone_on_with() {
    let (mut scene, owned, unowned) = with_a_former_destination().await;
    fs::write(scene.gateway.config(), unowned).unwrap();
    // As it is when the power goes in the middle: under its other name, some of its files gone.
    let half = scene.gateway.data_dir().join("central~dropped");
    fs::rename(outbox(&scene), &half).unwrap();
    fs::remove_file(half.join("sidecar")).unwrap();
    told(
        &scene.check().await,
        1,
        &["warning ", "removing the outbox of central was interrupted: packhorse queue drop goes on with it"],
    );
    let status = scene.gateway.output(&["queue", "status"]).await;
    told(&status, 0, &["other: no outbox yet"]);
    assert!(!stdout(&status).contains("central"), "{}", stdout(&status));

    // Nobody takes it for the outbox of that destination, which begins with every row.
    fs::write(scene.gateway.config(), owned).unwrap();
    scene.central.restart().await;
    told(&scene.once().await, 0, &[]);
    told(&scene.gateway.output(&["queue", "drop"]).await, 0, &["central: what an interrupted drop had left is removed"]);
    assert!(!half.exists() && outbox(&scene).exists());
    scene.all_is_well().await;
}
