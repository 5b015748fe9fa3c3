//! A JSON object that is written member by member.

use serde::Serialize;

use crate::wire::append;

/// The object, open until its end.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl Object<'_> {
    /// Appends an object with the members that `fill` puts into it.
    pub(super) fn append(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
        out.push(b'{');
        let mut object = Object { out };
        fill(&mut object);
        object.out.push(b'}');
    }

    /// Adds a member, unless its value is null. The name is written as it is.
    pub(super) fn put(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) {
        self.member(|out| raw(name, out), |out| append(value, out), b":null");
    }

    /// The same for a name that may need escaping.
    pub(super) fn put_foreign(&mut self, name: &str, value: &impl Serialize) {
        self.member(|out| append(name, out), |out| append(value, out), b":null");
    }

    /// Adds a member that is an object, unless `fill` puts nothing into it.
    pub(super) fn object(&mut self, name: &'static str, fill: impl FnOnce(&mut Object<'_>)) {
        self.member(|out| raw(name, out), |out| Self::append(out, fill), b":{}");
    }

    /// Adds a member, and removes it again if its value is `empty`.
    fn member(&mut self, name: impl FnOnce(&mut Vec<u8>), value: impl FnOnce(&mut Vec<u8>), empty: &[u8]) {
        let before = self.out.len();
        if !self.out.ends_with(b"{") {
            self.out.push(b',');
        }
        name(self.out);
        self.out.push(b':');
        value(self.out);
        if self.out.ends_with(empty) {
            self.out.truncate(before);
        }
    }
}

fn raw(name: &'static str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.push(b'"');
}
