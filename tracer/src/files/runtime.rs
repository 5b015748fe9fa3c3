//! The directory of the files that one process leaves to the next on the same boot of the machine.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// The directory without the key `runtime-dir`.
pub const DEFAULT_RUNTIME: &str = "/run/sockstate";

static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// Uses `path` for the rest of this process. Only the first call has an effect.
pub fn use_runtime_directory(path: &Path) {
    let _ = DIRECTORY.set(path.to_owned());
}

/// The directory that this process uses.
#[must_use]
pub fn runtime_directory() -> &'static Path {
    DIRECTORY.get().map_or(Path::new(DEFAULT_RUNTIME), PathBuf::as_path)
}
