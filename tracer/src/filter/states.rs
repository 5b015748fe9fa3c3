//! The filter by states. The kernel programs decide about pairs of states (`kernel/filter_constants.rs`).

use clap::Args;

use crate::{
    model::{State, StateSet},
    values::parse_states,
};

/// The flags.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct StatesArgs {
    /// State before the transition: CLOSE_WAIT, close-wait, or a group of ss, such as connected (all but LISTEN and CLOSE).
    ///
    /// The other groups are synchronized (every state except LISTEN, CLOSE and SYN_SENT), bucket (SYN_RECV and TIME_WAIT), big (every
    /// state except these two) and all. `sockstate explain connected` lists the states of a group.
    #[arg(long, value_name = "STATES", value_parser = parse_states, value_delimiter = ',', help_heading = "Filter")]
    pub from: Vec<StateSet>,
    /// State after the transition; takes the same names.
    #[arg(long, value_name = "STATES", value_parser = parse_states, value_delimiter = ',', help_heading = "Filter")]
    pub to: Vec<StateSet>,
}

/// The states of all flags; an empty set means any state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct States {
    pub from: StateSet,
    pub to: StateSet,
}

impl From<&StatesArgs> for States {
    fn from(args: &StatesArgs) -> Self {
        Self { from: args.from.iter().collect(), to: args.to.iter().collect() }
    }
}

impl States {
    /// Whether no flag is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from.is_empty() && self.to.is_empty()
    }

    /// Whether a transition is wanted; `from` is `None` if the state before is not known.
    #[must_use]
    pub fn wants(&self, from: Option<State>, to: State) -> bool {
        (self.from.is_empty() || from.is_some_and(|from| self.from.contains(from)))
            && (self.to.is_empty() || self.to.contains(to))
    }
}
