//! Other processes of a test: this program, started again with a role.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    os::unix::{net::UnixStream, process::CommandExt},
    path::Path,
    process::{self, Child, ChildStdin, ChildStdout, Command, Stdio},
    str::FromStr,
    thread,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use socket2::{Domain, Socket, Type};

use crate::sockets::{Kind, keep_over_exec};

const ROLE: &str = "SOCKSTATE_TEST_ROLE";
const VALUE: &str = "SOCKSTATE_TEST_VALUE";

/// A process with a role. It does one step each time that the test lets it go on.
pub struct Actor {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// Puts a copy of this program at `path`, for [`Actor::start_as`].
pub fn copy_to(path: &Path) {
    std::fs::copy(env::current_exe().expect("this program"), path).expect("a copy");
}

impl Actor {
    /// Starts a process in this thread's namespaces.
    pub fn start(role: &str, value: impl ToString) -> Self {
        Self::start_as(&env::current_exe().expect("this program"), role, value)
    }

    /// Starts a process that runs `program`, a copy of this program.
    pub fn start_as(program: &Path, role: &str, value: impl ToString) -> Self {
        Self::of(&mut part(program, role, value))
    }

    /// Starts a process by a command that [`part`] has made.
    pub fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("actor");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("stdout"));
        Self { child, input, output }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line from the process.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }

    /// Lets the process do its next step.
    pub fn go_on(&mut self) {
        self.input.as_mut().expect("stdin").write_all(b"\n").expect("write");
    }

    /// Lets the process end, and waits for its end.
    pub fn end(mut self) {
        self.input = None;
        assert!(self.child.wait().expect("wait").success());
    }

    /// Waits until the process has ended. Processes that it has started may still run.
    pub fn wait(&mut self) {
        assert!(self.child.wait().expect("wait").success());
    }

    /// Lets the process and the processes that it has started end, and waits until all of them have ended.
    pub fn release(mut self) {
        self.input = None;
        let mut rest = String::new();
        // Each of these processes has the other end of the pipe.
        self.output.read_to_string(&mut rest).expect("the end");
    }

    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `sleep`, a program that knows nothing of the descriptors that it inherits.
pub struct Sleeper(Child);

impl Sleeper {
    /// Starts a process in this thread's namespaces.
    pub fn start() -> Self {
        Self::spawn(Command::new("sleep").arg("600").stdin(Stdio::null()))
    }

    /// Starts a command that sleeps.
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().expect("sleep"))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that runs this program, or a copy of it, with a role.
pub fn part(program: &Path, role: &str, value: impl ToString) -> Command {
    let mut command = Command::new(program);
    command.env(ROLE, role).env(VALUE, value.to_string());
    command
}

/// A role: its name, and what a process with this role does with its value.
pub type Role = (&'static str, fn(&str));

/// The roles that several tests use.
const COMMON: &[Role] = &[
    ("client", |value| client(number(value))),
    ("accepter", |value| accepter(number(value))),
    ("holder", |value| holder(number(value))),
    ("receiver", |value| receiver(number(value))),
    ("headless holder", |_| headless_holder()),
    ("reuseport", |value| reuseport(number(value))),
    ("idle reuseport", |value| idle_listener(Kind::V4.bind_shared(number(value)))),
    ("dual stack", |value| idle_listener(Kind::Mapped.bind_shared_all(number(value)))),
    ("bystander", |_| bystander()),
    ("unix closer", |_| unix_closer()),
    ("late listener", |value| late_listener(number(value))),
    ("listener that leaves", |value| drop(share_listener(value))),
    ("listener that stays", listener_that_stays),
    ("listener that lets go", listener_that_lets_go),
    ("server", |value| server(number(value))),
    ("service", service),
    ("launcher", launcher),
    ("renamer", |value| renamer(number(value))),
    ("thread listener", |value| thread_listener(number(value))),
];

/// Plays the role that the environment asks for: one of `roles`, or one that several tests use. False if this process has
/// no role.
///
/// # Panics
/// There is no such role.
pub fn play(roles: &[Role]) -> bool {
    let Ok(role) = env::var(ROLE) else { return false };
    let value = env::var(VALUE).unwrap_or_default();
    let (_, part) = COMMON
        .iter()
        .chain(roles)
        .find(|(name, _)| *name == role)
        .unwrap_or_else(|| panic!("no role {role}"));
    part(&value);
    true
}

/// A port or descriptor that is a role's whole value.
///
/// # Panics
/// The value is not a number.
pub fn number<T: FromStr>(value: &str) -> T {
    value.parse().ok().expect("a number")
}

pub fn say(text: impl std::fmt::Display) {
    println!("{text}");
}

/// Waits until the test lets this process go on. False if the process is to end.
pub fn next_step() -> bool {
    std::io::stdin().read(&mut [0]).expect("stdin") == 1
}

/// Connects, waits, and exits with the connection open.
fn client(port: u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("connect");
    say("connected");
    while next_step() {}
}

/// Takes over an inherited listener: accepts one connection, and closes it at the next step.
fn accepter(fd: i32) {
    // SAFETY: inherited for us, and nobody else in this process uses it.
    let listener = unsafe { Socket::from_raw_fd(fd) };
    let connection = listener.accept().expect("accept").0;
    say("accepted");
    next_step();
    drop(connection);
    say("closed");
    while next_step() {}
}

/// Holds an inherited connection, and closes it at the next step.
fn holder(fd: i32) {
    // SAFETY: inherited for us, and nobody else in this process uses it.
    let connection = unsafe { OwnedFd::from_raw_fd(fd) };
    say("here");
    next_step();
    drop(connection);
    say("closed");
    while next_step() {}
}

/// Holds an inherited connection in a thread, after the leader has ended.
fn headless_holder() {
    thread::spawn(|| {
        say("here");
        while next_step() {}
        process::exit(0);
    });
    // SAFETY: ends this thread alone, which holds nothing that others wait for.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// Has no socket.
fn bystander() {
    say("here");
    while next_step() {}
}

/// Closes sockets that are not TCP sockets.
fn unix_closer() {
    while next_step() {
        drop(UnixStream::pair().expect("pair"));
        say("closed");
    }
}

/// Keeps a listener that other processes accept from.
fn listener_that_stays(value: &str) {
    let _listener = share_listener(value);
    while next_step() {}
}

/// Closes a listener that other processes accept from, and stays.
fn listener_that_lets_go(value: &str) {
    drop(share_listener(value));
    say("closed");
    while next_step() {}
}

/// Listens and accepts nothing.
fn idle_listener(socket: Socket) {
    socket.listen(64).expect("listen");
    say("listening");
    while next_step() {}
}

/// Receives a connection over a unix socket, and closes it at the next step.
fn receiver(fd: i32) {
    // SAFETY: inherited for us, and nobody else in this process uses it.
    let stream = unsafe { UnixStream::from_raw_fd(fd) };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(&stream, &mut [std::io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())
        .expect("recvmsg");
    let received: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(received.len(), 1);
    say("received");
    next_step();
    drop(received);
    say("closed");
    while next_step() {}
}

/// Sends a descriptor over a unix socket.
pub fn send_fd(stream: &UnixStream, fd: BorrowedFd<'_>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(stream, &[std::io::IoSlice::new(b"x")], &mut control, SendFlags::empty()).expect("sendmsg");
}

/// Lets processes that this process starts inherit one end of a unix stream. Returns its descriptor.
pub fn inheritable(stream: &UnixStream) -> i32 {
    rustix::io::fcntl_setfd(stream.as_fd(), rustix::io::FdFlags::empty()).expect("fcntl");
    stream.as_raw_fd()
}

/// Sends some descriptors over a unix socket.
pub fn send_fds(socket: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    sendmsg(socket, &[std::io::IoSlice::new(b"x")], &mut control, SendFlags::empty()).expect("sendmsg");
}

/// Starts a process that has a copy of this socket open, and says its process id.
///
/// # Panics
/// The process cannot be started.
pub fn start_holder(socket: &Socket) {
    let program = env::current_exe().expect("this program");
    let mut holder = part(&program, "holder", keep_over_exec(socket));
    say(holder.stdout(Stdio::null()).spawn().expect("another process").id());
}

/// What a process does with its own copy of a socket that other processes have open, too: it keeps the copy open and
/// stays ("KeepsOpen"), closes the copy and stays ("Closes"), or returns.
pub fn keep_or_let_go(socket: Socket, what: &str) {
    match what {
        "KeepsOpen" => while next_step() {},
        "Closes" => {
            drop(socket);
            say("closed");
            while next_step() {}
        }
        _ => {}
    }
}

fn listen(port: u16) -> Socket {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("bind");
    listener.listen(16).expect("listen");
    listener
}

/// Listens, starts other processes that accept ("PORT COUNT"), and prints their process ids.
pub fn share_listener(value: &str) -> Socket {
    let (port, count) = value.split_once(' ').expect("port and count");
    let listener = listen(port.parse().expect("port"));
    listener.set_cloexec(false).expect("cloexec");
    for _ in 0..count.parse().expect("count") {
        let mut other = Command::new(env::current_exe().expect("this program"));
        other.env(ROLE, "server").env(VALUE, listener.as_raw_fd().to_string());
        say(other.spawn().expect("another process").id());
    }
    listener
}

/// Takes over an inherited listener: closes each connection when its peer has closed it.
fn server(fd: i32) {
    // SAFETY: inherited for us, and nobody else in this process uses it.
    serve(unsafe { Socket::from_raw_fd(fd) });
}

/// As [`server`], but first tells the test that it runs.
fn service(value: &str) {
    say("here");
    server(number(value));
}

fn serve(listener: Socket) {
    thread::spawn(move || {
        while let Ok((mut connection, _)) = listener.accept() {
            while connection.read(&mut [0]).is_ok_and(|read| read > 0) {}
        }
    });
    while next_step() {}
    process::exit(0);
}

/// Listens, then becomes another program ("PORT PATH") that serves.
fn launcher(value: &str) {
    let (port, path) = value.split_once(' ').expect("port and path");
    let listener = listen(port.parse().expect("port"));
    listener.set_cloexec(false).expect("cloexec");
    let mut service = Command::new(path);
    service.arg0("realsvc").env(ROLE, "service").env(VALUE, listener.as_raw_fd().to_string());
    panic!("exec: {}", service.exec());
}

/// Listens, then changes the name of its process, and serves.
fn renamer(port: u16) {
    let listener = listen(port);
    // The name of the first thread is the name of the process.
    std::fs::write(format!("/proc/self/task/{}/comm", process::id()), "new name").expect("comm");
    say("here");
    serve(listener);
}

/// One of several listeners on one port: prints the port of each client that it has accepted.
fn reuseport(port: u16) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    listener.set_reuse_port(true).expect("reuseport");
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("bind");
    listener.listen(64).expect("listen");
    say("listening");
    thread::spawn(move || {
        while let Ok((_, peer)) = listener.accept() {
            say(peer.as_socket().expect("address").port());
        }
    });
    while next_step() {}
    // All connections were accepted already, because the clients have waited for the close.
    process::exit(0);
}

/// Listens and accepts in a thread that has a name of its own.
fn thread_listener(port: u16) {
    let work = move || {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("bind");
        listener.listen(16).expect("listen");
        say("listening");
        let connection = listener.accept().expect("accept").0;
        drop(connection);
        say("closed");
    };
    thread::Builder::new().name("other-name".into()).spawn(work).expect("thread").join().expect("join");
    while next_step() {}
}

/// Listens at the next step.
fn late_listener(port: u16) {
    next_step();
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("bind");
    listener.listen(16).expect("listen");
    say("listening");
    while next_step() {}
}
