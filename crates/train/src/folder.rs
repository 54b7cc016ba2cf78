//! The folder of a run's results: taken before the work begins, left untouched if the first step fails.
use crate::{config::Config, state};
use graft_ir::{Code, Error, Result};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The folder, which is taken away again unless it was kept.
pub(crate) struct Folder {
    path: PathBuf,
    /// The folders that were made for it, outermost first.
    made: Vec<PathBuf>,
}

impl Folder {
    /// Makes the folder where it does not exist, and sees that files can be written there.
    ///
    /// # Errors
    /// [`Code::EXISTS`] where it holds something and neither `resume` nor `force` is set; [`Code::IO`].
    pub(crate) fn take(config: &Config) -> Result<Folder> {
        let path = config.out.clone();
        let failed = |e: io::Error| {
            Error::new(Code::IO, format!("the results cannot be written: {e}")).at(path.display().to_string())
        };
        if path.exists() && !path.is_dir() {
            return Err(Error::new(
                Code::EXISTS,
                format!("`{}` is a file, expected a folder", path.display()),
            ));
        }
        let is_empty = !path.exists() || fs::read_dir(&path).map_err(failed)?.next().is_none();
        if !is_empty && !config.resume && !config.force {
            let message = format!("`{}` is not empty", path.display());
            let help = "`--resume` goes on with the run in it, `--force` begins anew";
            return Err(Error::new(Code::EXISTS, message).help(help));
        }
        let missing = |p: &&Path| !p.as_os_str().is_empty() && !p.exists();
        let mut made: Vec<PathBuf> = path.ancestors().take_while(missing).map(Path::to_path_buf).collect();
        made.reverse();
        let folder = Folder { path: path.clone(), made };
        fs::create_dir_all(&path).map_err(failed)?;
        tempfile::tempfile_in(&path).map_err(failed)?;
        Ok(folder)
    }

    /// Keeps the folder; a run that begins anew removes what an earlier one left.
    pub(crate) fn keep(&mut self, anew: bool) -> Result<()> {
        self.made.clear();
        if !anew {
            return Ok(());
        }
        let remove = |e: io::Result<()>| match e {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                let message = format!("the earlier run cannot be removed: {e}");
                Err(Error::new(Code::IO, message).at(self.path.display().to_string()))
            }
            _ => Ok(()),
        };
        remove(fs::remove_dir_all(self.path.join(state::FOLDER)))?;
        // A run writes what it trains: an adapter, a head, or both.
        let files = [graft_adapter::MODEL_FILE, graft_adapter::CONFIG_FILE, graft_adapter::HEAD_FILE];
        files.iter().try_for_each(|file| remove(fs::remove_file(self.path.join(file))))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Only empty folders go; whatever came into them meanwhile is not ours.
        self.made.iter().rev().for_each(|path| drop(fs::remove_dir(path)));
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn digest(path: &Path) -> Result<String> {
    let failed =
        |e: io::Error| Error::new(Code::IO, format!("cannot read: {e}")).at(path.display().to_string());
    let mut file = fs::File::open(path).map_err(failed)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(digest.finalize().iter().map(|b| format!("{b:02x}")).collect()),
            n => digest.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_kept_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let config = |out: PathBuf| Config::new("d.npz", out, "mse");
        let deep = dir.path().join("a/b/c");
        drop(Folder::take(&config(deep.clone())).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut kept = Folder::take(&config(deep.clone())).unwrap();
        kept.keep(false).unwrap();
        drop(kept);
        assert!(deep.is_dir());
    }

    #[test]
    fn what_is_there_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new("d.npz", dir.path(), "mse");
        drop(Folder::take(&config).unwrap());
        fs::write(dir.path().join("notes"), "mine").unwrap();
        let code = |config: &Config| Folder::take(config).err().map(|e| e.code);
        assert_eq!(code(&config), Some(Code::EXISTS));
        assert_eq!(code(&Config { force: true, ..config.clone() }), None);
        assert_eq!(code(&Config { resume: true, ..config.clone() }), None);
        assert_eq!(code(&Config { out: dir.path().join("notes"), ..config.clone() }), Some(Code::EXISTS));
        assert_eq!(code(&Config { out: dir.path().join("notes/in"), ..config }), Some(Code::IO));
        assert_eq!(fs::read_to_string(dir.path().join("notes")).unwrap(), "mine");
    }

    #[test]
    fn digests_are_sha256() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        fs::write(&path, "abc").unwrap();
        assert!(digest(&path).unwrap().starts_with("ba7816bf8f01cfea"));
    }
}
