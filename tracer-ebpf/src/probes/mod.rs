//! The programs, one file a hook family. Each says its hook's prototype, the first kernel that has it, and what for.

mod calls;
mod emit;
mod iter;
mod mini;
mod no_socket;
mod opened;
mod processes;
mod python;
mod resets;
mod retransmit;
mod set_state;
mod set_state_classic;
mod timers;
