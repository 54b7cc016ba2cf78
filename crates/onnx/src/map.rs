//! Whole files as bytes, memory-mapped where that is possible: the one place of this crate with `unsafe`.
use bytes::Bytes;
use std::{fs::File, io::Read, path::Path};

/// The contents of a file. A regular file is mapped, so that it costs address space until it is touched; what cannot
/// be mapped (a pipe, an empty file, some network file systems) is read.
///
/// Whoever truncates or edits the file in place while it is mapped changes the bytes under us. Our own writers never
/// do: they replace files by renaming, which leaves the mapped one as it was.
pub(crate) fn open(path: &Path) -> std::io::Result<Bytes> {
    let mut file = File::open(path)?;
    let data = file.metadata()?;
    if data.is_file()
        && data.len() > 0
        && let Ok(map) = map(&file)
    {
        return Ok(Bytes::from_owner(map));
    }
    let mut all = Vec::new();
    file.read_to_end(&mut all)?;
    Ok(all.into())
}

fn map(file: &File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the mapping is read-only and private to us. The one hazard is that another process truncates the file
    // meanwhile (reading then raises SIGBUS) or writes into it; every reader of mapped model files accepts that, and
    // nothing here relies on the bytes staying the same: each is validated where it is used.
    unsafe { memmap2::Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_files_and_reads_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let full = folder.path().join("full");
        std::fs::write(&full, b"abc").unwrap();
        assert_eq!(&open(&full).unwrap()[..], b"abc");
        let empty = folder.path().join("empty");
        std::fs::write(&empty, b"").unwrap();
        assert!(open(&empty).unwrap().is_empty());
        assert!(open(&folder.path().join("missing")).is_err());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn reads_what_is_no_regular_file() {
        assert!(!open(Path::new("/proc/self/status")).unwrap().is_empty());
    }
}
