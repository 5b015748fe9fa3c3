//! Everything that talks to the kernel's BPF side before events flow: BTF offsets, filters as constants, loading,
//! attaching, and the reasons where something is not to be had. Only this and `source` know aya.

mod btf;
mod diagnostics;
mod facts;
mod failure;
mod filter;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hunt;
mod iter;
mod lifecycle;
mod links;
mod load;
mod pin;
mod pinned;
mod pod;
mod privilege;
mod symbols;
mod tracefs;

pub use btf::verify_btf;
pub use diagnostics::show_diagnostics;
pub use facts::{Capability, Facts};
pub use failure::KernelError;
pub use hunt::Hunt;
pub use iter::{IterOpener, Walk};
pub use lifecycle::Tier;
pub use links::Links;
pub use load::{Attempt, Hook, HookChoice, Loaded, Request, for_walks, load};
pub use pin::{Adopted, PinError, Pinned, adopt, asked, unpin, verify_pins};
pub(crate) use pod::{is_plain, pod};
pub use privilege::{drop_privileges, may_trace};
