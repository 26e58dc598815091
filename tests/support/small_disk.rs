//! Small file systems of their own, to be filled: ext4 in a file over a loop device, and tmpfs.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

/// What a small disk is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext4 over a loop device.
    Ext4,
    /// tmpfs.
    Tmpfs,
}

/// A mounted small disk; unmounted when it is dropped.
pub struct SmallDisk {
    dir: tempfile::TempDir,
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())) }
}

impl SmallDisk {
    /// Mounts one, or says SKIPPED and why.
    pub fn mount(kind: Kind, mebibytes: u64) -> Option<Self> {
        Self::mount_with(kind, mebibytes, None)
    }

    /// One on which only so many files can be made.
    pub fn with_inodes(kind: Kind, mebibytes: u64, inodes: u64) -> Option<Self> {
        Self::mount_with(kind, mebibytes, Some(inodes))
    }

    fn mount_with(kind: Kind, mebibytes: u64, inodes: Option<u64>) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (image, place) = (dir.path().join("image"), dir.path().join("disk"));
        std::fs::create_dir(&place).unwrap();
        let (image_name, place_name) = (image.to_str().unwrap(), place.to_str().unwrap());
        let mounted = match kind {
            Kind::Ext4 => {
                File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
                let inodes = inodes.map_or_else(|| "1024".to_owned(), |inodes| inodes.to_string());
                run("mkfs.ext4", &["-q", "-F", "-m", "0", "-N", &inodes, image_name])
                    .and_then(|()| run("mount", &["-o", "loop", image_name, place_name]))
            }
            Kind::Tmpfs => {
                let inodes = inodes.map(|inodes| format!(",nr_inodes={inodes}")).unwrap_or_default();
                run("mount", &["-t", "tmpfs", "-o", &format!("size={mebibytes}m{inodes}"), "none", place_name])
            }
        };
        match mounted {
            Ok(()) => Some(Self { dir }),
            Err(why) => {
                println!("SKIPPED: no small {kind:?} to fill (mounting needs root and, for ext4, loop devices): {why}");
                None
            }
        }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    pub fn free_bytes(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.path()).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Fills it from outside until so many bytes are left; gives the file to remove.
    pub fn fill(&self, left: u64) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = File::options().append(true).create(true).open(&path).unwrap();
        for block in [1 << 20, 64 << 10, 4 << 10, 512] {
            while self.free_bytes() > left
                && self.free_bytes() - left >= block.min(4_096)
                && file.write_all(&vec![7; block as usize]).is_ok()
            {
                let _ = file.sync_data();
            }
        }
        path
    }

    /// Takes every file that may still be made.
    pub fn fill_names(&self) -> PathBuf {
        let folder = self.path().join("names");
        let _ = std::fs::create_dir(&folder);
        let mut number = std::fs::read_dir(&folder).map_or(0, Iterator::count);
        while File::create_new(folder.join(number.to_string())).is_ok() {
            number += 1;
        }
        folder
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["--lazy", Path::new(&self.path()).to_str().unwrap()]);
    }
}
