//! Values that have a name in lines, from a fixed set.

use super::Text;
use crate::model::{
    Cause, ClosedFirst, GapKind, LostPlace, MissingStack, OpenedBy, OwnerSource, PeerKind, Reason, Role,
    State, TimerKind, Transport, Unnamed,
};

/// A value with a name. A name that this version does not know is no error: a later version may write it.
pub trait Named: Copy + 'static {
    /// All values.
    const ALL: &'static [Self];

    /// The name in lines.
    fn name(self) -> &'static str;
}

/// The value with this name.
#[must_use]
pub fn named<T: Named>(name: &str) -> Option<T> {
    T::ALL.iter().copied().find(|value| value.name() == name)
}

macro_rules! names {
    ($($type:ty: $all:expr;)*) => {$(
        impl Named for $type {
            const ALL: &'static [Self] = &$all;

            fn name(self) -> &'static str {
                <$type>::name(self)
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                one_of(<$type as Named>::ALL.iter().map(|value| value.name()))
            }
        }
    )*};
}

names! {
    Cause: Cause::ALL;
    ClosedFirst: ClosedFirst::ALL;
    GapKind: [GapKind::Processes, GapKind::Descriptors, GapKind::NetworkNamespaces, GapKind::Sockets];
    LostPlace: LostPlace::ALL;
    OpenedBy: [OpenedBy::Connect, OpenedBy::Accept];
    OwnerSource: OwnerSource::ALL;
    PeerKind: PeerKind::ALL;
    Reason: Reason::ALL;
    Role: Role::ALL;
    TimerKind: [TimerKind::Retransmit, TimerKind::Keepalive, TimerKind::TimeWait, TimerKind::Probe];
    Transport: [Transport::Tcp, Transport::Mptcp];
    Unnamed: Unnamed::ALL;
    MissingStack: MissingStack::ALL;
}

/// A state's name, and its number if it has no name of its own.
pub(super) fn state(state: State) -> (Text<'static>, Option<u8>) {
    let number = if let State::Unknown(number) = state { Some(number) } else { None };
    (state.name().into(), number)
}

/// The schema of a text from a fixed set.
#[cfg(feature = "schema")]
pub(super) fn one_of(names: impl Iterator<Item = &'static str>) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "enum": names.collect::<Vec<_>>() })
}
