//! Writing files so that nobody ever sees half of one: under a temporary name, then renamed.
use graft_ir::{Code, Error, Result};
use std::{
    fs::{File, Permissions},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// Replaces the file `path` by `bytes`, as a whole or not at all.
///
/// # Errors
/// `IO` if the folder cannot be written to; nothing is left behind then and an old file stays as it was.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<()> {
    atomic_write_with(path, true, |w| w.write_all(bytes))
}

/// Writes a file as a whole or not at all: `write` fills a temporary file in the same folder, which is then made
/// durable and renamed to `path`.
///
/// # Errors
/// `EXISTS` if `path` exists and `force` is not given, `IO` if `write` fails or the folder cannot be written to.
/// In each case nothing is left behind and an old file stays as it was.
pub fn atomic_write_with<T>(
    path: &Path,
    force: bool,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<T>,
) -> Result<T> {
    let mut pending = Pending::create(path, force)?;
    let result = write(&mut pending.out).map_err(|e| unwritable(path, &e))?;
    pending.commit()?;
    Ok(result)
}

/// Refuses a target that cannot be written: one that exists, where `force` is not given, and what is no regular file.
/// To be asked before hours of work, not after.
///
/// # Errors
/// `EXISTS`, `IO`.
pub fn check_target(target: &Path, force: bool) -> Result<()> {
    if !force && target.symlink_metadata().is_ok() {
        return Err(exists(target));
    }
    // A rename would put a file in the place of the folder, the device or the pipe.
    if target.exists() && !target.is_file() {
        let message = format!("`{}` cannot be written: it is no regular file", target.display());
        return Err(Error::new(Code::IO, message).help("name a new file, or one to replace with --force"));
    }
    // The dot makes it an error where the folder is a file.
    folder(target).join(".").metadata().map(drop).map_err(|e| unwritable(target, &e))
}

/// A file that is being written under a temporary name; dropping it removes it.
pub(crate) struct Pending {
    /// Where the content goes.
    pub(crate) out: BufWriter<NamedTempFile>,
    target: PathBuf,
    force: bool,
}

impl Pending {
    /// Starts a file that shall be called `target`, as far as [`check_target`] lets it.
    pub(crate) fn create(target: &Path, force: bool) -> Result<Pending> {
        check_target(target, force)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".graft-").suffix(".tmp");
        #[cfg(unix)]
        {
            // As for any new file: the process's umask takes from this what it should.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(Permissions::from_mode(0o666));
        }
        let temporary = builder.tempfile_in(folder(target)).map_err(|e| unwritable(target, &e))?;
        Ok(Pending { out: BufWriter::new(temporary), target: target.into(), force })
    }
    /// Gives the file its name, once its content is on the disk.
    pub(crate) fn commit(self) -> Result<()> {
        let failed = |e: &std::io::Error| unwritable(&self.target, e);
        let temporary = self.out.into_inner().map_err(|e| failed(e.error()))?;
        temporary.as_file().sync_all().map_err(|e| failed(&e))?;
        let renamed = if self.force {
            temporary.persist(&self.target)
        } else {
            temporary.persist_noclobber(&self.target)
        };
        renamed.map_err(|e| match e.error.kind() {
            std::io::ErrorKind::AlreadyExists => exists(&self.target),
            _ => failed(&e.error),
        })?;
        // The new name is durable once the folder is; some file systems cannot do that, and lose no data by it.
        if let Ok(folder) = File::open(folder(&self.target)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

/// The folder that holds `path`.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

/// The error for a file that cannot be written.
pub(crate) fn unwritable(path: &Path, e: &std::io::Error) -> Error {
    // What `tempfile` adds to the cause, the temporary name, says nothing to anyone.
    let cause = e.get_ref().and_then(std::error::Error::source).map(ToString::to_string);
    let e = cause.unwrap_or_else(|| e.to_string());
    Error::new(Code::IO, format!("`{}` cannot be written: {e}", path.display()))
}

fn exists(path: &Path) -> Error {
    Error::new(Code::EXISTS, format!("`{}` exists already", path.display()))
        .help("choose another name, or replace it with --force")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        atomic_write_with(&path, false, |w| w.write_all(b"1")).unwrap();
        let refused = atomic_write_with(&path, false, |w| w.write_all(b"2")).unwrap_err();
        assert_eq!(refused.code, Code::EXISTS);
        assert_eq!(std::fs::read(&path).unwrap(), b"1");
        atomic_write_with(&path, true, |w| w.write_all(b"3")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"3");
        assert_eq!(entries(folder.path()), ["a"]);
    }

    #[test]
    fn a_failing_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let failing = |w: &mut dyn Write| {
            w.write_all(&[0; 100_000])?;
            Err::<(), _>(std::io::Error::other("disk full"))
        };
        assert_eq!(atomic_write_with(&path, false, failing).unwrap_err().code, Code::IO);
        assert!(entries(folder.path()).is_empty());
        std::fs::write(&path, b"old").unwrap();
        assert!(atomic_write_with(&path, true, failing).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let missing = folder.path().join("no/such/folder");
        assert_eq!(atomic_write_with(&missing, false, |_| Ok(())).unwrap_err().code, Code::IO);
        assert_eq!(atomic_write_with(folder.path(), true, |_| Ok(())).unwrap_err().code, Code::IO);
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let refused = atomic_write_with(&path, false, |_| std::fs::write(&path, b"theirs")).unwrap_err();
        assert_eq!(refused.code, Code::EXISTS);
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
        assert_eq!(entries(folder.path()), ["a"]);
    }

    #[test]
    #[cfg(unix)]
    fn permissions_are_those_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        atomic_write_with(&ours, false, |_| Ok(())).unwrap();
        std::fs::write(&plain, b"").unwrap();
        let mode = |p: &Path| p.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
