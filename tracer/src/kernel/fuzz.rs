//! The readers of the kernel's descriptions of itself (BTF, formats of tracepoints, symbols), with any bytes as input.

use std::path::Path;

use super::{btf, symbols, tracefs};

/// Type information.
pub(crate) fn btf(bytes: &[u8]) {
    if let Ok(types) = btf::parse(Path::new("any"), bytes.to_vec()) {
        let names: usize = types.reset_reasons.iter().map(String::len).sum();
        assert!(types.reset_reasons.len() <= bytes.len() && names <= bytes.len() * bytes.len());
    }
}

/// A tracepoint's format, and the list of the kernel's functions.
pub(crate) fn tracepoint(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if tracefs::parse(&text).is_some() {
        assert!(text.contains("skaddr"));
    }
    symbols::lacks_in(&text, &["tcp_v6_reqsk_destructor"]);
}
