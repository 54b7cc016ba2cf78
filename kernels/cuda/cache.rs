//! Compiled modules on disk: an entry is named by all that its content depends on, and holds its own digest, so that one
//! that was cut off or overwritten is known for it and made anew.
use graft_ir::{Code, Error, Result};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// A folder of compiled modules.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: Option<PathBuf>,
}

/// What an entry's name is made of.
pub(crate) type Key = [u8; 32];

/// The length of a SHA-256 digest.
const DIGEST: usize = 32;

impl Cache {
    /// That of this user: in `$GRAFT_CACHE`, `$XDG_CACHE_HOME/graft` or `$HOME/.cache/graft`, whichever is set first; one
    /// that keeps nothing where none is.
    pub fn of_user() -> Cache {
        let folder = |variable: &str| std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = || Some(folder("HOME")?.join(".cache/graft"));
        let own = || folder("XDG_CACHE_HOME").map(|f| f.join("graft"));
        Cache { folder: folder("GRAFT_CACHE").or_else(own).or_else(home).map(|f| f.join("kernels")) }
    }
    /// One in this folder.
    pub fn at(folder: &Path) -> Cache {
        Cache { folder: Some(folder.into()) }
    }
    /// Where it is; none if it keeps nothing.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }
    /// Where the fastest tiles that were measured on this machine stand.
    pub fn tiles(&self) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join("tiles.txt"))
    }
    /// The content of an entry, if it is there and whole.
    pub(crate) fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.path(key)?).ok()?;
        let (digest, content) = bytes.split_at_checked(DIGEST)?;
        let is_whole = digest == Sha256::digest(content).as_slice();
        is_whole.then(|| bytes.split_off(DIGEST))
    }
    /// Writes an entry under a temporary name and renames it, so that nobody ever reads half of it.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub(crate) fn put(&self, key: &Key, content: &[u8]) -> Result<()> {
        let (Some(folder), Some(path)) = (&self.folder, self.path(key)) else { return Ok(()) };
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(folder)?;
            let mut file = tempfile::Builder::new().prefix(".graft-").tempfile_in(folder)?;
            file.write_all(&Sha256::digest(content))?;
            file.write_all(content)?;
            file.persist(&path).map_err(|e| e.error)?;
            Ok(())
        };
        write()
            .map_err(|e| Error::new(Code::IO, format!("cannot keep a kernel in `{}`: {e}", folder.display())))
    }
    fn path(&self, key: &Key) -> Option<PathBuf> {
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(self.folder.as_ref()?.join(name))
    }
}

/// The key of what depends on these parts, whose boundaries count.
pub(crate) fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Key {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_got_unless_it_is_damaged() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(&folder.path().join("a/b"));
        let (one, two) = (key([&b"ab"[..], b"c"]), key([&b"a"[..], b"bc"]));
        assert_ne!(one, two);
        assert_eq!(cache.get(&one), None);
        cache.put(&one, b"code").expect("it is written");
        assert_eq!((cache.get(&one), cache.get(&two)), (Some(b"code".to_vec()), None));
        let path = cache.path(&one).expect("a name");
        for damaged in [&b""[..], b"short", &fs::read(&path).expect("it is there")[..35]] {
            fs::write(&path, damaged).expect("it is written");
            assert_eq!(cache.get(&one), None);
        }
        cache.put(&one, b"again").expect("it is written");
        assert_eq!(cache.get(&one), Some(b"again".to_vec()));
        assert_eq!(fs::read_dir(folder.path().join("a/b")).expect("the folder").count(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("it is written");
        let error = Cache::at(&file.join("kernels")).put(&key([]), b"").expect_err("no folder can be there");
        assert!(error.message.contains("file/kernels"), "{error}");
    }
}
