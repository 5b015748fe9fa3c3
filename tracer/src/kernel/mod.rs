//! Loads and attaches the kernel programs: BTF offsets, filter constants, hooks, tiers, iterators, pins, capabilities; and why a
//! feature is not available. Only this module and `source/ring.rs` use aya.

mod attach;
mod attempt;
mod bpf_links;
mod btf;
mod diagnostics;
mod error;
mod filter_constants;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod host_info;
mod hunt;
mod iter;
mod load;
mod loaded;
mod mini_sockets;
mod object;
mod pin;
mod pinned;
pub(crate) mod pod;
mod privilege;
mod symbols;
mod tracefs;
pub mod upgrade;

pub use attempt::Attempt;
pub use bpf_links::Links;
pub use btf::verify_btf;
pub use diagnostics::show_diagnostics;
pub use error::KernelError;
pub use host_info::{Capability, HostInfo};
pub use hunt::{Hunt, HuntGap};
pub use iter::{IterKind, IterOpener};
pub use load::{HookChoice, Request, for_iterators, load, load_beside};
pub use loaded::{Adopted, Hook, Loaded};
pub use mini_sockets::{ESTIMATED, Tier};
pub use pin::{PinnedPrograms, adopt, unpin, verify_pins};
pub use pinned::PinError;
pub use privilege::{drop_privileges, keep_privileges_to_look, may_trace};
pub use tracefs::TracefsError;
