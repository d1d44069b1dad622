//! The data folder: its secrets, made on the first start, and the address of the running server.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::secret::{Secret, random_digits};

/// The file of the operator's token.
pub const OPERATOR_TOKEN: &str = "operator-token";
/// The file of the secret key.
pub const SECRET_KEY: &str = "secret-key";
/// The file that says where the running server listens.
pub const ADDRESS: &str = "server-address";

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path}: {cause}")]
pub struct DataDirError {
    path: PathBuf,
    cause: io::Error,
}

/// Makes the folder, for its owner only, when it is not there.
///
/// # Errors
/// [`DataDirError`].
pub fn create(folder: &Path) -> Result<(), DataDirError> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(folder)
        .and_then(|()| sync_parent(folder))
        .map_err(|cause| DataDirError { path: folder.to_owned(), cause })
}

/// Reads a secret from its file, or makes one; the file is its owner's only.
///
/// # Errors
/// [`DataDirError`].
pub fn secret(folder: &Path, name: &str) -> Result<Secret, DataDirError> {
    if let Some(known) = read_secret(folder, name)? {
        return Ok(known);
    }
    let path = folder.join(name);
    let failed = |cause| DataDirError { path: path.clone(), cause };
    let digits = random_digits().map_err(|error| failed(io::Error::other(error)))?;
    // A form by which it is recognised where it does not belong.
    let kind = name.split('-').next().unwrap_or(name);
    let made = Secret::new(format!("bur_{kind}_{}", digits.expose()));
    publish_once(&path, made.expose()).map_err(failed)?;
    // Another process that starts here now may have been first: what stands in the file counts.
    let missing = || failed(io::Error::from(io::ErrorKind::NotFound));
    read_secret(folder, name)?.ok_or_else(missing)
}

/// Reads a secret from its file, if there is one.
///
/// # Errors
/// [`DataDirError`].
pub fn read_secret(folder: &Path, name: &str) -> Result<Option<Secret>, DataDirError> {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(Secret::new(text.trim().to_owned()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(DataDirError { path, cause }),
    }
}

/// Writes a file for its owner only, whole or not at all, and makes it durable.
///
/// # Errors
/// What the system says.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let beside = write_beside(path, text)?;
    fs::rename(&beside, path)?;
    sync_parent(path)
}

/// Writes a file like [`write_private`], unless there is one already.
fn publish_once(path: &Path, text: &str) -> io::Result<()> {
    let beside = write_beside(path, text)?;
    let linked = fs::hard_link(&beside, path);
    fs::remove_file(&beside)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => sync_parent(path),
    }
}

/// Writes a durable file beside another, under a name of this process.
fn write_beside(path: &Path, text: &str) -> io::Result<PathBuf> {
    use std::os::unix::fs::OpenOptionsExt;
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let mut file =
        File::options().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
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
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let first = secret(folder.path(), SECRET_KEY).expect("made");
        let again = secret(folder.path(), SECRET_KEY).expect("read");
        assert_eq!(first.expose(), again.expose());
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
        let mode = fs::metadata(folder.path().join(SECRET_KEY)).expect("there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }
}
