//! A filled outbox as its files are, and every state that it went through: what damage is done to copies of.

use std::{collections::BTreeMap, path::Path};

use packhorse::domain::Epoch;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    ends,
    shadow::{State, observe},
    workload,
};

/// The files of a folder, by their names in it.
pub type Files = BTreeMap<String, Vec<u8>>;

/// An outbox at rest.
#[derive(Clone)]
pub struct Image {
    pub files: Files,
    /// Every state from its first one to the last.
    pub history: Vec<State>,
    /// What an earlier copy of the files holds.
    pub earlier: Files,
}

impl Image {
    /// One that has seen so many changes; its process ended well, or was killed.
    pub async fn fill(seed: u64, changes: usize, killed: bool) -> Self {
        let (dir, mut chance) = (tempfile::tempdir().unwrap(), StdRng::seed_from_u64(seed));
        let mut outbox = ends::open(dir.path(), seed).unwrap();
        let (mut history, mut earlier) = (vec![State::fresh(Epoch(seed))], Files::new());
        while history.len() <= changes {
            let before = history.last().unwrap();
            let next = workload::fitted(&outbox, workload::next(before, &mut chance)).await;
            let after = before.after(&next);
            workload::make(&outbox, next).await.unwrap();
            history.push(after);
            if chance.random_bool(0.1) {
                drop(outbox);
                outbox = ends::open(dir.path(), seed).unwrap();
            }
            if history.len() == changes / 2 {
                earlier = read(dir.path());
            }
        }
        assert_eq!(history.last().unwrap().difference(&observe(&outbox).await.unwrap()), None);
        let image = |files| Self { files, history, earlier };
        if killed {
            return image(read(dir.path()));
        }
        drop(outbox);
        image(read(dir.path()))
    }

    pub fn last(&self) -> &State {
        self.history.last().unwrap()
    }
}

/// Reads a folder and those in it.
pub fn read(folder: &Path) -> Files {
    let (mut files, mut folders) = (Files::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                files.insert(entry.strip_prefix(folder).unwrap().to_str().unwrap().to_owned(), std::fs::read(&entry).unwrap());
            }
        }
    }
    files
}

/// Writes files into a folder that is empty.
pub fn write(files: &Files, folder: &Path) {
    for (name, content) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}
