//! What several test programs share. `xtask-full` measures with a part of it.
#![cfg_attr(
    feature = "tests",
    expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")
)]

pub mod blind;
pub mod load;
pub mod netns;

#[cfg(feature = "tests")]
pub mod api_server;
#[cfg(feature = "tests")]
pub mod daemon;
#[cfg(feature = "tests")]
pub mod documents;
#[cfg(feature = "tests")]
pub mod golden;
#[cfg(feature = "tests")]
pub mod lab;
#[cfg(feature = "tests")]
pub mod observer;
#[cfg(feature = "tests")]
pub mod pythons;
#[cfg(feature = "tests")]
pub mod roles;
#[cfg(feature = "tests")]
pub mod schema;
#[cfg(feature = "tests")]
pub mod skipping;
#[cfg(feature = "tests")]
pub mod sockets;
#[cfg(feature = "tests")]
pub mod terminal;
#[cfg(feature = "tests")]
pub mod tools;
#[cfg(feature = "tests")]
pub mod tun;
