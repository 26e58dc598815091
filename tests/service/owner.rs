//! Root among the files of the daemon's user.

use std::os::unix::fs::{MetadataExt as _, chown};

use super::*;

const NOBODY: u32 = 65_534;

fn everything(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = vec![dir.to_owned()];
    let mut next = 0;
    while next < all.len() {
        if all[next].is_dir() {
            let inside: Vec<_> = std::fs::read_dir(&all[next]).unwrap().map(|entry| entry.unwrap().path()).collect();
            all.extend(inside);
        }
        next += 1;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_root_does_leaves_every_file_to_the_owner_of_the_data_directory() {
    if std::env::var_os("USER").is_some_and(|user| user != "root") || std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("only root can do this: skipped");
        return;
    }
    let scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    readings(&scene, 100).await;
    scene.proxy.cut().await;
    let gateway = scene.gateway();
    support::assert_exit(&gateway.output(&["run", "--once", "--deadline", "4s"]).await, 1);
    chown(scene.dir.path(), Some(NOBODY), None).unwrap();
    chown(gateway.config().parent().unwrap(), Some(NOBODY), None).unwrap();
    for path in everything(&gateway.data_dir()) {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    for args in [
        &["queue", "status"][..],
        &["queue", "list"],
        &["queue", "pause"],
        &["queue", "resume"],
        &["queue", "compact"],
        &["queue", "rewind", "--since", "beginning", "--yes"],
    ] {
        support::assert_exit(&gateway.output(args).await, 0);
    }
    scene.proxy.restore().await;
    support::assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    for path in everything(&gateway.data_dir()) {
        let found = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (NOBODY, NOBODY), "{}", path.display());
    }
    scene.compare().await.assert_equal();
}
