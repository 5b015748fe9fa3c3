//! The user's filter, with a file for each group of flags. A file has the flags, how they are compared with a record, and
//! which of them the kernel programs can decide: a flag is one entry. `route` applies the filter to the stream, and
//! `kernel` gives the programs the conditions that they can decide.

mod ends;
mod place;
mod processes;
mod states;
mod workloads;

pub use ends::{Ends, EndsCondition};
pub use place::{Place, PlaceArgs};
pub use processes::Processes;
pub use states::{States, StatesArgs};
pub use workloads::Workloads;

use crate::model::Tuple;

/// Conditions that must all hold. The default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub ends: Ends,
    pub processes: Processes,
    pub place: Place,
    pub workloads: Workloads,
    pub states: States,
}

impl Filter {
    /// Whether the kernel programs drop the events of a connection with these ends. Conditions that only user space decides,
    /// such as several prefixes, hide no event: the connection is tracked, and not reported.
    #[must_use]
    pub fn hides(&self, tuple: &Tuple) -> bool {
        self.ends.hides(tuple)
    }
}

/// The decision of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    No,
    /// A value that the filter compares is not known yet.
    Open,
}

impl Verdict {
    fn of(wanted: bool) -> Self {
        if wanted { Self::Yes } else { Self::No }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;
    use crate::model::Ports;

    #[test]
    fn what_the_kernel_hides() {
        // 127.0.0.1:1 and 127.0.0.1:2.
        let tuple = Tuple::example();
        let ports = |first: u16, last: u16| Some(Ports(vec![first..=last]));
        let net = |text: &str| vec![text.parse::<IpNet>().expect("prefix")];
        let all = Ends::default();
        for (ends, hides) in [
            (all.clone(), false),
            (Ends { local_port: ports(1, 1), ..all.clone() }, false),
            (Ends { local_port: ports(2, 9), ..all.clone() }, true),
            (Ends { remote_port: ports(2, 9), ..all.clone() }, false),
            (Ends { remote_port: ports(1, 1), ..all.clone() }, true),
            (Ends { port: ports(2, 2), ..all.clone() }, false),
            (Ends { port: ports(3, 9), ..all.clone() }, true),
            (Ends { ipv6: true, ..all.clone() }, true),
            (Ends { ipv4: true, ..all.clone() }, false),
            (Ends { local: net("127.0.0.0/8"), ..all.clone() }, false),
            (Ends { remote: net("10.0.0.0/8"), ..all.clone() }, true),
            // User space decides.
            (Ends { remote: [net("10.0.0.0/8"), net("::1/128")].concat(), ..all }, false),
        ] {
            let filter = Filter { ends, ..Filter::default() };
            assert_eq!(filter.hides(&tuple), hides, "{filter:?}");
            let (unbound, listener) = (Tuple { local_port: 0, ..tuple }, Tuple { remote_port: 0, ..tuple });
            assert!(!filter.hides(&unbound) && !filter.hides(&listener), "{filter:?}");
        }
        let processes = Processes { pid: vec![1], comm: Vec::new() };
        let place = Place { netns: Some(5), ..Place::default() };
        assert!(!Filter { processes, place, ..Filter::default() }.hides(&tuple));
    }
}
