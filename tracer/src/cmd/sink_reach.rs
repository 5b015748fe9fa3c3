//! The files that the process of the sinks needs.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use crate::{
    files,
    settings::{Settings, Sink},
    sinks::process::Reach,
};

/// The variables by which systemd names the directories of a service, separated by colons.
const OF_SERVICE: [&str; 2] = ["STATE_DIRECTORY", "LOGS_DIRECTORY"];

/// The directories that the service manager has made for this process: a later configuration may use them, too.
pub(super) fn of_service() -> impl Iterator<Item = PathBuf> {
    let all = OF_SERVICE.into_iter().filter_map(env::var_os);
    let split = |all| env::split_paths(&all).collect::<Vec<_>>();
    all.flat_map(split).filter(|path| path.is_absolute())
}

/// The files that the sinks of a configuration need, and those of the API server.
pub(super) fn reach(settings: &Settings) -> Reach {
    let mut reach = Reach::default();
    let cluster = settings.kubernetes.iter().flat_map(|args| [&args.token_file, &args.ca]);
    reach.read.extend(cluster.filter_map(|path| path.parent()).map(Path::to_owned));
    for Sink { section, .. } in &settings.sinks {
        let config = &section.config;
        reach.write.extend(config.output().and_then(place_of));
        reach.write.extend(section.common.spool.as_deref().map(|spool| existing(spool).to_owned()));
        let tls = config.tls().into_iter().flat_map(|files| files.paths());
        let files = config.secrets().into_iter().map(|(_, path)| path).chain(tls);
        // A renewed file has another inode.
        reach.read.extend(files.filter_map(Path::parent).map(Path::to_owned));
        // librdkafka's properties name files.
        let texts = section.tables.values().flat_map(BTreeMap::values).map(Path::new);
        reach.read.extend(texts.filter(|path| path.is_absolute()).map(Path::to_owned));
    }
    reach
}

/// The directory of an output, in which it is rotated. What the process has inherited, it need not open, unless it is a file.
fn place_of(path: &Path) -> Option<PathBuf> {
    if !files::is_inherited(path) {
        return std::path::absolute(path).ok()?.parent().map(Path::to_owned);
    }
    let kind = fs::metadata(path).ok()?.file_type();
    (kind.is_file() || kind.is_char_device()).then(|| path.to_owned())
}

/// The directory `path`, or the one in which it can be made.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(path)
}
