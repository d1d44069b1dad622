//! The data folder: its secrets, its permissions, and the address of the running server.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::auth::secret::{NoRandomness, OPERATOR_PREFIX, Secret, random_digits};

/// The file of the operator's token.
pub(crate) const OPERATOR_TOKEN: &str = "operator-token";
/// The file of the secret key.
pub const SECRET_KEY: &str = "secret-key";
/// The file with the URL of the running server.
pub(crate) const ADDRESS: &str = "server-address";

/// The permission bits of the group and of others.
const OTHERS: u32 = 0o077;

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path}: {cause}")]
pub struct DataDirError {
    path: PathBuf,
    cause: io::Error,
}

/// Creates the folder, accessible by its owner only, unless it exists.
///
/// # Errors
/// [`DataDirError`].
pub(crate) fn create(folder: &Path) -> Result<(), DataDirError> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(folder)
        .and_then(|()| sync_parent(folder))
        .map_err(|cause| DataDirError { path: folder.to_owned(), cause })
}

/// Reads a secret from its file, or creates it in a file that only the owner can read.
///
/// # Errors
/// [`DataDirError`].
pub fn secret(folder: &Path, name: &str) -> Result<Secret, DataDirError> {
    if let Some(known) = read_secret(folder, name)? {
        return Ok(known);
    }
    let path = folder.join(name);
    let failed = |cause| DataDirError { path: path.clone(), cause };
    let made = make_secret(name).map_err(|error| failed(io::Error::other(error)))?;
    publish_once(&path, made.expose()).map_err(failed)?;
    // Another process may have created the file first, so its content counts.
    let missing = || failed(io::Error::from(io::ErrorKind::NotFound));
    read_secret(folder, name)?.ok_or_else(missing)
}

/// A new secret with a prefix by which Bursar recognises it in other texts.
fn make_secret(name: &str) -> Result<Secret, NoRandomness> {
    let prefix = if name == OPERATOR_TOKEN { OPERATOR_PREFIX } else { "bur_secret_" };
    Ok(Secret::new(format!("{prefix}{}", random_digits()?.expose())))
}

/// A new operator's token, which is not stored.
///
/// # Errors
/// [`NoRandomness`].
pub(crate) fn new_operator_token() -> Result<Secret, NoRandomness> {
    make_secret(OPERATOR_TOKEN)
}

/// Reads a secret from its file, if there is one.
///
/// # Errors
/// [`DataDirError`].
pub(crate) fn read_secret(folder: &Path, name: &str) -> Result<Option<Secret>, DataDirError> {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(Secret::new(text.trim().to_owned()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(DataDirError { path, cause }),
    }
}

/// The given files and folders that exist and that users other than their owner can access.
pub(crate) fn open_to_others(paths: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let is_open = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|found| found.permissions().mode() & OTHERS != 0)
    };
    paths.into_iter().filter(is_open).collect()
}

/// A path quoted for a shell.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+:@".contains(letter);
    if text.chars().all(is_plain) && !text.starts_with('-') {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Writes a file atomically and durably, readable by its owner only.
///
/// # Errors
/// What the system says.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let beside = write_beside(path, text)?;
    fs::rename(&beside, path)?;
    sync_parent(path)
}

/// Writes a file like [`write_private`], unless it exists.
fn publish_once(path: &Path, text: &str) -> io::Result<()> {
    let beside = write_beside(path, text)?;
    let linked = fs::hard_link(&beside, path);
    fs::remove_file(&beside)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => sync_parent(path),
    }
}

/// Writes a durable temporary file beside another, named after this process.
fn write_beside(path: &Path, text: &str) -> io::Result<PathBuf> {
    use std::os::unix::fs::OpenOptionsExt;
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    // A leftover of an earlier process with the same id may be readable by others.
    let _ = fs::remove_file(&beside);
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    Ok(beside)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_second_takes_the_secret_of_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(SECRET_KEY);
        publish_once(&path, "first").expect("published");
        publish_once(&path, "second").expect("left alone");
        let known = read_secret(folder.path(), SECRET_KEY).expect("read").expect("there");
        assert_eq!(known.expose(), "first");
    }

    #[test]
    fn a_secret_is_made_once_and_is_its_owners_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = secret(folder.path(), SECRET_KEY).expect("made");
        let again = secret(folder.path(), SECRET_KEY).expect("read");
        assert_eq!(first.expose(), again.expose());
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
        let mode = fs::metadata(folder.path().join(SECRET_KEY)).expect("there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn what_others_can_read_is_found_and_named_for_a_shell() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for (name, mode) in [("a", 0o600), ("b", 0o640), ("c", 0o604), ("d", 0o700)] {
            fs::write(path(name), "").expect("written");
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(path(name), mode).expect("its owner's");
        }
        let found = open_to_others(["a", "b", "c", "d", "none"].map(path));
        assert_eq!(found, [path("b"), path("c")]);
        for (path, word) in [("/var/a-b.db", "/var/a-b.db"), ("/a b", "'/a b'")] {
            assert_eq!(shell_word(Path::new(path)), word);
        }
        assert_eq!(shell_word(Path::new("it's; -x")), r"'it'\''s; -x'");
    }

    #[test]
    fn a_file_that_was_left_readable_does_not_become_a_secret() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(SECRET_KEY);
        let left = path.with_extension(format!("new-{}", std::process::id()));
        fs::write(&left, "left").expect("written");
        fs::set_permissions(&left, fs::Permissions::from_mode(0o644)).expect("its owner's");
        write_private(&path, "secret").expect("written");
        assert_eq!(open_to_others([path.clone()]), [] as [PathBuf; 0]);
        assert_eq!(fs::read_to_string(&path).expect("there"), "secret\n");
    }
}
