//! Leaks what it accepts: for tests/live/hunt.rs. Says "ready", and ends when its standard input does.

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
};

#[inline(always)]
fn take_one(listener: &TcpListener) -> TcpStream {
    listener.accept().expect("accept").0 // here
}

#[inline(never)]
fn serve(listener: &TcpListener) {
    loop {
        std::mem::forget(take_one(listener));
    }
}

fn main() {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("port");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("listen");
    println!("ready");
    std::thread::spawn(move || serve(&listener));
    std::io::stdin().read_to_end(&mut Vec::new()).expect("stdin");
}
