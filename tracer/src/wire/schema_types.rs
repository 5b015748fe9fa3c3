//! Schemas of values that the types of the lines hold as text or as a number.

use std::{borrow::Cow, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{Text, names::one_of};
use crate::model::{ConnId, MissingStack, State, TCP_FLAGS};

/// A schema of its own among the definitions, or a schema that each use repeats.
macro_rules! schemas {
    ($($type:ty, $name:literal, inline: $inline:literal, $schema:tt;)*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                $inline
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

schemas! {
    Text<'_>, "text", inline: true, { "type": "string" };
    super::Time, "time", inline: false, {
        "description": "A time in UTC (RFC 3339), with nanoseconds.",
        "type": "string",
        "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z$",
    };
    ConnId, "conn", inline: false, {
        "description": "The identity of a connection or of a listener. The first six digits are the `instance` of the sockstate that saw it first.",
        "type": "string",
        "pattern": "^[0-9a-f]{16}$",
    };
    Instance, "instance", inline: false, {
        "description": "The identity of a stream: six hexadecimal digits.",
        "type": "string",
        "pattern": "^[0-9a-f]{6}$",
    };
    EpollEvent, "epoll_event", inline: true, {
        "type": "string",
        "enum": ["EPOLLIN", "EPOLLOUT", "EPOLLRDHUP", "EPOLLERR", "EPOLLHUP"],
    };
    TcpFlag, "tcp_flag", inline: true, {
        "type": "string",
        "enum": TCP_FLAGS,
    };
    Address, "address", inline: false, {
        "description": "An IPv4 or IPv6 address. A v4-mapped address is written as IPv4.",
        "type": "string",
        "minLength": 2,
    };
}

/// The ends of a segment that has no socket: the keys of `Ends` that do not come from a socket.
#[derive(JsonSchema)]
pub(super) struct SegmentEnds<'a> {
    /// The protocols, and an identity of the connection that both hosts compute alike.
    #[expect(dead_code, reason = "only its schema is used")]
    network: super::Network<'a>,
    /// This side, the segment's destination.
    #[expect(dead_code, reason = "only its schema is used")]
    local: super::End,
    /// The other side, the segment's source.
    #[expect(dead_code, reason = "only its schema is used")]
    remote: super::End,
}

/// The instance of a stream.
pub(super) struct Instance;

/// The address of one end of a connection.
pub(super) struct Address;

/// An event that epoll waits for.
pub(super) struct EpollEvent;

/// The name of a flag of a TCP header.
pub(super) struct TcpFlag;

/// Whether a hunt saw how a connection was opened.
pub(super) struct Opening;

impl JsonSchema for Opening {
    fn schema_name() -> Cow<'static, str> {
        "opening".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let reasons = MissingStack::ALL.into_iter().map(MissingStack::name);
        one_of([super::opened::SEEN].into_iter().chain(reasons))
    }
}

impl JsonSchema for State {
    fn schema_name() -> Cow<'static, str> {
        "state".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // 12 is a request socket, which has the name of state 3.
        one_of((1..=11).map(|number| Self::from_number(number).name()).chain([Self::Unknown(0).name()]))
    }
}

/// How many there are for each name: an object whose keys are the names.
pub(super) struct Counts<T>(PhantomData<T>);

impl<T: JsonSchema> JsonSchema for Counts<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("counts_of_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": generator.subschema_for::<T>(),
            "additionalProperties": { "type": "integer", "minimum": 1 },
        })
    }
}
