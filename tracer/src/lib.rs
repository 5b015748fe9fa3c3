//! sockstate: every TCP state transition of a Linux host, live, with the process that owns the socket.
//!
//! Data flow: `kernel` programs -> ring -> `source` -> `decode` -> `track` -> `enrich` -> `route`
//! -> `format` and `sinks`. `model` has the types that they pass on; `pipeline` and `cmd` wire it together. Which module may
//! use which is checked by `cargo xtask check`; see docs/architecture.md.

#[macro_use]
pub mod messages;

pub mod capabilities;
pub mod cli;
pub mod cmd;

pub mod decode;
pub mod display;
pub mod draw;
pub mod enrich;
pub mod examiner;
pub mod explain;
pub mod files;
pub mod filter;
pub mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod hunter;
pub mod kernel;
pub mod knowledge;
pub mod kubernetes;
pub mod look;
pub mod metrics;
pub mod model;
pub mod pipeline;
pub mod procfs;
pub mod restart;
pub mod route;
pub mod service;
pub mod settings;
pub mod sinks;
pub mod source;
pub mod story;
pub mod track;
pub mod tui;
pub mod unwind;
pub mod values;
pub mod wire;
