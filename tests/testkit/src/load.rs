//! Makes a given number of connections on loopback, and returns the exact number of their transitions.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::netns::sysctl;

/// How long the load waits for the kernel; only a load that fails waits that long.
const PATIENCE: Duration = Duration::from_secs(180);

/// How a connection ends, or what is done instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// The client closes, then the server: 10 transitions a connection.
    Fin,
    /// The client resets: 6 transitions a connection.
    Rst,
    /// listen and shutdown on one socket, no packet: 2 transitions a round.
    Flap,
}

/// The load to make.
#[derive(Clone, Debug, clap::Args)]
pub struct Load {
    #[arg(long, value_enum)]
    pub mode: Mode,
    /// Threads that connect.
    #[arg(long, default_value_t = 1)]
    pub threads: u32,
    /// Connections (or rounds) of each thread.
    #[arg(long)]
    pub count: u32,
    /// Accept in threads of their own.
    #[arg(long)]
    pub acceptors: bool,
    /// Microseconds between two connections of a thread.
    #[arg(long, default_value_t = 0)]
    pub gap_us: u64,
    /// The first thread's port; the others follow.
    #[arg(long, default_value_t = 7701)]
    pub port: u16,
}

/// The load that was made.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Transitions of full TCP sockets, by the kernel's own rules.
    pub transitions: u64,
    pub took: Duration,
}

impl Load {
    /// Makes the load in this thread's network namespace, which no other process should use.
    ///
    /// # Errors
    /// A socket fails.
    pub fn run(&self) -> io::Result<Made> {
        sysctl("ipv4/ip_local_port_range", "10000 65000")?;
        sysctl("ipv4/tcp_max_tw_buckets", "262144")?;
        let barrier = Barrier::new(self.threads as usize + 1);
        let mut took = Duration::ZERO;
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads)
                .map(|index| {
                    let barrier = &barrier;
                    scope.spawn(move || self.work(index as u16, barrier))
                })
                .collect();
            barrier.wait();
            let start = Instant::now();
            barrier.wait();
            took = start.elapsed();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        let connections = u64::from(self.threads) * u64::from(self.count);
        let listeners = 2 * u64::from(self.threads);
        let transitions = match self.mode {
            Mode::Fin => 10 * connections + listeners,
            Mode::Rst => 6 * connections + listeners,
            Mode::Flap => 2 * connections,
        };
        Ok(Made { transitions, took })
    }

    /// A socket bound to one thread's port. A program that lists descriptors (sockstate, `ss -p`) may hold the previous
    /// socket of this port for a moment.
    fn bind(&self, index: u16) -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, self.port + index).into();
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = socket.bind(&address) {
            if error.kind() != io::ErrorKind::AddrInUse || Instant::now() > deadline {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(1));
        }
        if self.mode != Mode::Flap {
            socket.listen(4096)?;
        }
        Ok(socket)
    }

    /// Makes one thread's connections, between the two waits of the barrier.
    fn work(&self, index: u16, barrier: &Barrier) -> io::Result<()> {
        let address = |round: u32| {
            // Many addresses, so that ports in TIME_WAIT do not run out.
            SockAddr::from(SocketAddrV4::new(
                Ipv4Addr::new(127, 200, index as u8, 1 + (round % 250) as u8),
                self.port + index,
            ))
        };
        let socket = self.bind(index);
        if socket.is_err() {
            // The other threads wait at the barrier.
            barrier.wait();
            barrier.wait();
        }
        let socket = socket?;
        if self.mode == Mode::Flap {
            barrier.wait();
            let result = (0..self.count).try_for_each(|_| {
                socket.listen(1)?;
                socket.shutdown(std::net::Shutdown::Read)
            });
            barrier.wait();
            return result;
        }
        let result = thread::scope(|scope| {
            let accepting = self.acceptors.then(|| scope.spawn(|| accept_all(&socket)));
            barrier.wait();
            let result = (0..self.count).try_for_each(|round| {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                client.connect(&address(round))?;
                let server = if self.acceptors { None } else { Some(socket.accept()?.0) };
                if self.mode == Mode::Rst {
                    client.set_linger(Some(Duration::ZERO))?;
                }
                drop(client);
                drop(server);
                if self.gap_us > 0 {
                    thread::sleep(Duration::from_micros(self.gap_us));
                }
                Ok(())
            });
            barrier.wait();
            // A softirq may not have handled the last packets yet.
            let done = wait_until_all_is_done();
            if let Some(accepting) = accepting {
                socket.shutdown(std::net::Shutdown::Read)?;
                accepting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
            result.and(done)
        });
        drop(socket);
        result
    }
}

/// Accepts, reads to the end and closes, until the listener is shut down.
fn accept_all(listener: &Socket) {
    use std::io::Read;
    while let Ok((mut connection, _)) = listener.accept() {
        let mut buffer = [0; 64];
        while connection.read(&mut buffer).is_ok_and(|count| count > 0) {}
    }
}

/// Waits until every socket of this namespace is a listener or a timewait socket. Sometimes a timewait socket stays in
/// FIN_WAIT2: the peer's FIN came while the timewait socket replaced the full socket, and the kernel answered it with a
/// reset.
fn wait_until_all_is_done() -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let table = std::fs::read_to_string("/proc/thread-self/net/tcp")?;
        let is_done = |line: &str| {
            // The state, the queues, and the kind of timer (Documentation/networking/proc_net_tcp.rst).
            let mut fields = line.split_whitespace().skip(3);
            fields.next() == Some("0A") || fields.nth(1).is_some_and(|timer| timer.starts_with("03:"))
        };
        if table.lines().skip(1).all(is_done) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(5));
    }
}
