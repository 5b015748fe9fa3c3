//! Everything that talks to the kernel's BPF side before events flow: BTF offsets, filters as constants, loading,
//! attaching, and the reasons where something is not available. Only this and `source` know aya.

mod attach;
mod attempt;
mod btf;
mod diagnostics;
mod error;
mod facts;
mod filter;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hunt;
mod iter;
mod links;
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

pub use attempt::Attempt;
pub use btf::verify_btf;
pub use diagnostics::show_diagnostics;
pub use error::KernelError;
pub use facts::{Capability, Facts};
pub use hunt::Hunt;
pub use iter::{IterOpener, Walk};
pub use links::Links;
pub use load::{HookChoice, Request, for_walks, load};
pub use loaded::{Adopted, Hook, Loaded};
pub use mini_sockets::Tier;
pub use pin::{PinnedPrograms, adopt, asked, unpin, verify_pins};
pub use pinned::PinError;
pub use privilege::{drop_privileges, may_trace};
