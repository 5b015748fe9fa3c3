//! Addresses of kernel functions.

use std::{
    fs::File,
    io::{BufRead, BufReader},
};

const KALLSYMS: &str = "/proc/kallsyms";

/// Whether neither the running kernel nor its modules have any of these functions. False if that is not known.
pub(super) fn lacks(names: &[&str]) -> bool {
    // All symbols of the kernel and its modules: about 10 MB.
    std::fs::read_to_string(KALLSYMS).is_ok_and(|symbols| lacks_in(&symbols, names))
}

pub(super) fn lacks_in(symbols: &str, names: &[&str]) -> bool {
    let function =
        |line: &str| line.split_ascii_whitespace().nth(2).is_some_and(|name| names.contains(&name));
    !symbols.is_empty() && !symbols.lines().any(function)
}

/// The addresses of these functions.
///
/// # Errors
/// Why a symbol is not available.
pub(super) fn addresses<const N: usize>(names: [&str; N]) -> Result<[u64; N], String> {
    let file = File::open(KALLSYMS).map_err(|error| format!("cannot read {KALLSYMS}: {error}"))?;
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut found = [0; N];
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).map_err(|error| format!("cannot read {KALLSYMS}: {error}"))? > 0
    {
        let text = std::str::from_utf8(&line).unwrap_or_default();
        let mut fields = text.split_ascii_whitespace();
        if let (Some(address), Some(_), Some(name)) = (fields.next(), fields.next(), fields.next()) {
            // LTO appends a suffix to the name; other suffixes (".cold", ".part") name parts of the function.
            let plain = name.split_once(".llvm.").map_or(name, |(plain, _)| plain);
            if let Some(at) = names.iter().position(|wanted| *wanted == plain) {
                found[at] = u64::from_str_radix(address, 16).unwrap_or(0);
            }
        }
        line.clear();
        if found.iter().all(|address| *address != 0) {
            return Ok(found);
        }
    }
    Err(format!(
        "{KALLSYMS} does not show {} (kernel.kptr_restrict must be 0 or 1, and CAP_SYSLOG held)",
        names.join(" and ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_ipv6_lacks_its_functions() {
        let v4 =
            "0000000000000000 t tcp_v4_reqsk_destructor\n0000000000000000 T tcp_v6_reqsk_destructor_not\n";
        let module = "0000000000000000 t tcp_v6_reqsk_destructor\t[ipv6]\n";
        let names = &["tcp_v6_reqsk_destructor"];
        assert!(lacks_in(v4, names));
        assert!(!lacks_in(&format!("{v4}{module}"), names));
        // Nothing could be read.
        assert!(!lacks_in("", names));
    }
}
