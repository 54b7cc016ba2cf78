//! Writing a file whole or not at all.
use graft_ir::{Code, Error, Result};
use std::{io::Write, path::Path};

/// Writes `bytes` to `path` under a temporary name in the same folder, which is then renamed: a reader sees the old file
/// or the new one, and a failure leaves nothing behind. What `path` named before is replaced.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<()> {
    atomic_write_with(path, |file| file.write_all(bytes))
}

/// The same for content that is written piece by piece.
pub fn atomic_write_with(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let failed = |e: std::io::Error| {
        Error::new(Code::IO, format!("cannot write: {e}")).at(path.display().to_string())
    };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new();
    temporary.prefix(".graft-").suffix(".tmp");
    #[cfg(unix)]
    {
        // Temporary files are private by default; what is written here is an ordinary file.
        use std::os::unix::fs::PermissionsExt;
        temporary.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let file = temporary.tempfile_in(folder).map_err(failed)?;
    let mut buffered = std::io::BufWriter::with_capacity(1 << 20, file);
    write(&mut buffered).and_then(|()| buffered.flush()).map_err(failed)?;
    let file = buffered.into_inner().map_err(|e| failed(e.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        atomic_write(&path, b"old").unwrap();
        let broken = atomic_write_with(&path, |f| {
            f.write_all(b"new")?;
            Err(std::io::Error::other("stop"))
        });
        assert_eq!(broken.unwrap_err().code, Code::IO);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(atomic_write(&dir.path().join("none/a"), b"").unwrap_err().code, Code::IO);
    }
}
