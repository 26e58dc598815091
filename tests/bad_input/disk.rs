//! Trouble with the data directory and the outboxes in it.

use std::{fs, path::PathBuf, time::Duration};

use tokio::time::sleep;

use super::{Scene, compare, stdout, told};

/// The folder of the one outbox.
fn outbox(scene: &Scene) -> PathBuf {
    scene.gateway.data_dir().join("central")
}

fn store(scene: &Scene) -> PathBuf {
    outbox(scene).join("gen-000001")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_dir_that_cannot_be_made_or_written() {
    let scene = Scene::set().await;
    fs::write(scene.dir.path().join("file"), "").unwrap();
    let good = fs::read_to_string(scene.gateway.config()).unwrap();
    for below in ["file", "file/data"] {
        let wrong = scene.dir.path().join(below);
        let data_dir = scene.gateway.data_dir();
        fs::write(scene.gateway.config(), good.replace(&*data_dir.to_string_lossy(), &wrong.to_string_lossy())).unwrap();
        told(&scene.check().await, 1, &["problem ", "data_dir: ", "set gateway.data_dir"]);
        for args in [&["run"][..], &["run", "--once"]] {
            told(&scene.gateway.output(args).await, 1, &["cannot use data_dir", "set gateway.data_dir"]);
        }
    }
    fs::write(scene.gateway.config(), good).unwrap();
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_dir_in_use_by_another_packhorse() {
    let scene = Scene::set().await;
    let mut daemon = scene.daemon();
    daemon.says("capture begins").await;
    let pid = daemon.running.0.id();
    told(&scene.once().await, 1, &[&format!("in use by another packhorse (process {pid}): stop that one first")]);
    told(&scene.gateway.output(&["run"]).await, 1, &["in use by another packhorse"]);
    told(&scene.check().await, 0, &["ok ", &format!("in use by a running packhorse (process {pid})")]);
    for args in [&["queue", "status"][..], &["queue", "status", "--json"], &["queue", "list"], &["queue", "list", "--json"]] {
        told(&scene.gateway.output(args).await, 0, &[]);
    }
    // Without its socket it cannot be asked, and what it owns is not opened.
    let deaf = scene.dir.path().join("nobody-listens-here");
    for args in [&["queue", "status"][..], &["queue", "list", "--json"], &["queue", "verify"]] {
        let asked = scene.gateway.command(args).env("PACKHORSE_STATUS_SOCKET", &deaf).output().unwrap();
        told(&asked, 3, &[&format!("packhorse (process {pid}) is running on"), "does not answer at"]);
    }
    scene.arrives().await;
    daemon.ends_well().await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_hinders_no_daemon_and_leaves_nothing() {
    let scene = Scene::set().await;
    told(&scene.once().await, 0, &[]);
    let listed = || {
        let mut names: Vec<_> = fs::read_dir(scene.gateway.data_dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = listed();
    // While checks look again and again, the program starts every time.
    let checks = async {
        for _ in 0..8 {
            told(&scene.check().await, 0, &["ok ", "destination central has an outbox"]);
        }
    };
    let runs = async {
        for _ in 0..4 {
            told(&scene.once().await, 0, &[]);
        }
    };
    tokio::join!(checks, runs);
    assert_eq!(listed(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_with_less_free_than_the_reserve() {
    let scene = Scene::set().await;
    let good = fs::read_to_string(scene.gateway.config()).unwrap();
    fs::write(scene.gateway.config(), good.replace("disk_reserve = \"1MiB\"", "disk_reserve = \"8EiB\"")).unwrap();
    told(&scene.check().await, 1, &["problem ", "less than source.disk_reserve", "capture pauses"]);
    let mut daemon = scene.daemon();
    daemon.says("capture pauses").await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(daemon.lines("capture pauses").len(), 1, "{}", daemon.log());
    daemon.ends_well().await;
    told(&scene.once().await, 1, &["the disk has less free than disk_reserve"]);
    fs::write(scene.gateway.config(), good).unwrap();
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outboxes_of_former_destinations_are_told() {
    let scene = Scene::set().await;
    told(&scene.check().await, 0, &["ok ", "is not there yet: packhorse run makes it in"]);
    told(&scene.once().await, 0, &[]);
    let good = fs::read_to_string(scene.gateway.config()).unwrap();
    fs::write(scene.gateway.config(), good.replace("name = \"central\"", "name = \"other\"")).unwrap();
    told(&scene.check().await, 0, &["warning ", "there is an outbox of central, which is no destination now"]);
    told(&scene.check().await, 0, &["ok ", "destination other has no outbox yet"]);
    let disabled = good.replace("name = \"central\"", "name = \"central\"\nenabled = false");
    fs::write(scene.gateway.config(), disabled).unwrap();
    let check = scene.check().await;
    told(&check, 2, &["ok ", "destination central: disabled, not looked at"]);
    told(&check, 2, &["problem ", "every [[destination]] is disabled", "set enabled = true for one"]);
    assert!(!stdout(&check).contains("warning "), "{}", stdout(&check));
}

/// A first run, with rows that wait.
async fn with_waiting_rows() -> Scene {
    let mut scene = Scene::set().await;
    scene.central.kill();
    told(&scene.once().await, 1, &[]);
    scene
}

/// Damage through all commands that open the outbox; the files are not touched, and all goes on when they are mended.
async fn damage(scene: &mut Scene, words: &[&str], at_check: Option<&str>, mend: impl FnOnce(&Scene)) {
    let check = scene.check().await;
    if let Some(words) = at_check {
        told(&check, 1, &["problem ", "data_dir: ", words]);
    }
    for args in [&["queue", "status"][..], &["queue", "status", "--json"], &["queue", "list"], &["queue", "list", "--json"]] {
        told(&scene.gateway.output(args).await, 1, words);
    }
    scene.central.restart().await;
    told(&scene.once().await, 1, words);
    let mut daemon = scene.daemon();
    daemon.says(words[0]).await;
    sleep(Duration::from_secs(4)).await;
    assert!(!daemon.running.ended());
    assert_eq!(daemon.lines(words[0]).len(), 1, "{}", daemon.log());
    mend(scene);
    scene.arrives().await;
    daemon.ends_well().await;
    scene.all_is_well().await;
}

/// Damage that whoever only looks is told of, and that `run` mends: the store is set aside, and every row arrives from the source again.
async fn rebuilt(scene: &mut Scene, words: &[&str], at_check: Option<&str>) {
    if let Some(words) = at_check {
        told(&scene.check().await, 1, &["problem ", "data_dir: ", words]);
    }
    for args in [&["queue", "status"][..], &["queue", "status", "--json"], &["queue", "list"], &["queue", "list", "--json"]] {
        told(&scene.gateway.output(args).await, 1, words);
    }
    scene.central.restart().await;
    let once = scene.once().await;
    told(&once, 0, &["it is set aside, and the source is captured again from here", words[0]]);
    assert!(!String::from_utf8_lossy(&once.stderr).contains("panicked"), "sled's panics are told as errors");
    let kept = fs::read_dir(outbox(scene).join("aside")).unwrap().count();
    assert_eq!(kept, 1, "the damaged store is kept");
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_current_that_names_nothing() {
    for (content, words) in
        [("gen-000007\n", "CURRENT names gen-000007, which is not there"), ("../elsewhere", "CURRENT does not name a store")]
    {
        let mut scene = with_waiting_rows().await;
        fs::write(outbox(&scene).join("CURRENT"), content).unwrap();
        rebuilt(&mut scene, &[words, "sets it aside"], Some(words)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store() {
    let mut scene = with_waiting_rows().await;
    let db = store(&scene).join("db");
    let bytes = fs::metadata(&db).unwrap().len() as usize;
    fs::write(&db, vec![0xa5; bytes]).unwrap();
    rebuilt(&mut scene, &["is damaged", "sets it aside"], None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_format_version() {
    let mut scene = with_waiting_rows().await;
    let good = scene.dir.path().join("good");
    copy(&store(&scene), &good);
    {
        let db = sled::open(store(&scene)).unwrap();
        let mut meta = db.get(b"m").unwrap().unwrap().to_vec();
        meta[0] = 99;
        db.insert(b"m", meta).unwrap();
        db.flush().unwrap();
    }
    let told = format!("has format version 99, this program knows version {}", packhorse::outbox::format::FORMAT_VERSION);
    damage(&mut scene, &[&told], None, |scene| {
        fs::remove_dir_all(store(scene)).unwrap();
        copy(&good, &store(scene));
    })
    .await;
}

/// A restored image of the disk: everything that was captured since is captured again, because the watermark is as old as the rest.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_the_data_dir_put_back_loses_nothing() {
    let mut scene = with_waiting_rows().await;
    let (data_dir, kept) = (scene.gateway.data_dir(), scene.dir.path().join("kept"));
    copy(&data_dir, &kept);
    for round in 0..3 {
        scene.central.restart().await;
        let later = format!(
            "INSERT INTO Reading (time, nodeId, type, locationId, value)
                 SELECT '2026-02-0{day}' + INTERVAL seq MINUTE, 1, 0, 509, seq FROM seq_1_to_500;
             INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi)
                 SELECT '2026-02-0{day}' + INTERVAL seq MINUTE, 1, 0, seq, seq % 256, -70 FROM seq_1_to_100",
            day = round + 1
        );
        scene.source.run(&later).await;
        // The second image was taken when everything had arrived.
        told(&scene.once().await, 0, &[]);
        let taken = scene.dir.path().join(format!("taken-{round}"));
        copy(&data_dir, &taken);
        fs::remove_dir_all(&data_dir).unwrap();
        copy(&kept, &data_dir);
        told(&scene.once().await, 0, &[]);
        compare(&scene.source, scene.central.database()).await.assert_equal();
        fs::remove_dir_all(&kept).unwrap();
        copy(&taken, &kept);
    }
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_garbled_source_id_stops_everything_and_is_kept() {
    let mut scene = with_waiting_rows().await;
    let file = scene.gateway.data_dir().join("source-id");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, "garbled\n").unwrap();
    let words = "does not hold a source id (32 hexadecimal digits): restore it from a backup";
    scene.central.restart().await;
    told(&scene.check().await, 1, &["problem ", "data_dir: ", "restore it from a backup"]);
    for args in [&["run"][..], &["run", "--once"], &["queue", "status"], &["queue", "list"]] {
        told(&scene.gateway.output(args).await, 1, &[words]);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "garbled\n");
    fs::write(&file, good).unwrap();
    scene.all_is_well().await;
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let path = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &path);
        } else {
            fs::copy(entry.path(), path).unwrap();
        }
    }
}
