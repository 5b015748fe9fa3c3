//! The formats of collectors for lines of our JSON: used in a sink's own thread, so that the thread that reads records
//! waits for none of it.

pub use super::{
    ecs::ecs_label,
    journald::journal,
    otlp::{otlp_json, otlp_json_envelope, otlp_protobuf, otlp_protobuf_envelope, otlp_resource},
    syslog::Syslog,
};
