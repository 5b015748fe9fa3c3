//! The service of the sinks' process, as systemd has it: a process for each connection to a named socket.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use crate::{
    lab::sockstate,
    restart::{chown_to_nobody, nobody},
};

/// What the sinks of a daemon have a process of their own by.
pub(crate) enum SinksProcess {
    /// The key `sinks-user`.
    User,
    /// The key `sinks-socket`.
    Service(SinksService),
}

impl SinksProcess {
    /// The line of the configuration.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::User => "sinks-user = \"nobody\"\n".to_owned(),
            Self::Service(service) => format!("sinks-socket = \"{}\"\n", service.path.display()),
        }
    }
}

/// Listens at a socket of the test, which stands for systemd.
pub(crate) struct SinksService {
    pub(crate) path: PathBuf,
    listener: Arc<UnixListener>,
    started: Arc<Mutex<Vec<u32>>>,
    thread: Option<JoinHandle<()>>,
}

impl SinksService {
    /// Its processes have the user `nobody`.
    pub(crate) fn start(path: &Path) -> Self {
        // The RuntimeDirectory of the unit.
        let notes = Path::new("/run/sockstate-sinks");
        fs::create_dir_all(notes).expect("directory");
        chown_to_nobody(notes);
        Self::start_as(path, nobody().expect("a user"), 0o600)
    }

    pub(crate) fn start_as(path: &Path, (uid, gid): (u32, u32), mode: u32) -> Self {
        let listener = Arc::new(UnixListener::bind(path).expect("a socket"));
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
        let started: Arc<Mutex<Vec<u32>>> = Arc::default();
        let (listens, pids) = (Arc::clone(&listener), Arc::clone(&started));
        let serve = move |stream: UnixStream| {
            let mut command = sockstate();
            command.arg("process-of-sinks").stdin(OwnedFd::from(stream)).stdout(Stdio::null());
            let mut child = command.stderr(Stdio::null()).uid(uid).gid(gid).spawn().expect("sockstate");
            pids.lock().expect("lock").push(child.id());
            thread::spawn(move || child.wait());
        };
        let thread = thread::spawn(move || listens.incoming().map_while(Result::ok).for_each(serve));
        Self { path: path.to_owned(), listener, started, thread: Some(thread) }
    }

    /// The process that it has started last.
    pub(crate) fn latest(&self) -> u32 {
        *self.started.lock().expect("lock").last().expect("a process")
    }
}

impl Drop for SinksService {
    fn drop(&mut self) {
        // Ends the wait for connections.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Does something with the effective user id `uid`, in a thread of its own.
pub(crate) fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    let restricted = || {
        // SAFETY: takes numbers. Unlike the function of the C library, the call is for this thread only.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, -1, uid, -1) };
        assert_eq!(changed, 0, "{}", std::io::Error::last_os_error());
        work()
    };
    thread::scope(|scope| scope.spawn(restricted).join().expect("a thread"))
}
