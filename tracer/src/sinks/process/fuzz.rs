//! What the other process sends, as bytes.

use std::{io::Write, os::unix::net::UnixStream};

use serde::{Serialize, de::DeserializeOwned};

use super::{FromSinks, Kind, Receiver, ToSinks, protocol};

/// The longest message. Real limits would only cost memory here.
const MOST: usize = 1 << 16;

/// Reads messages until one is wrong. A message is the same after it was written again.
pub(crate) fn messages(bytes: &[u8]) {
    check(Kind::Batch, bytes);
    check(Kind::Message, bytes);
    let Ok((mut ours, theirs)) = UnixStream::pair() else { return };
    if bytes.len() > MOST || ours.write_all(bytes).is_err() {
        return;
    }
    drop(ours);
    let mut receiver = Receiver::new(theirs, MOST);
    while let Ok(Some((kind, message))) = receiver.next_message() {
        assert!(message.len() <= bytes.len());
        check(kind, &message);
    }
    assert!(receiver.descriptor().is_err(), "none was sent");
}

fn check(kind: Kind, bytes: &[u8]) {
    if kind == Kind::Message {
        again::<ToSinks>(bytes);
        return again::<FromSinks>(bytes);
    }
    if let Some((queue, batch)) = protocol::batch(bytes) {
        let head = protocol::batch_head(queue, &batch).unwrap_or_default();
        assert_eq!([head, batch.bytes].concat(), bytes);
    }
}

fn again<T: DeserializeOwned + PartialEq + Serialize + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&message).unwrap_or_default();
    assert_eq!(serde_json::from_slice::<T>(&written).ok(), Some(message));
}
