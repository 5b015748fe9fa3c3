//! The programs, one file a hook family. Each says its hook's prototype, the first kernel that has it, and what for.

mod emit;
mod iter;
mod retransmit;
mod set_state;
mod set_state_classic;
