//! Addresses of kernel functions.

use std::{
    fs::File,
    io::{BufRead, BufReader},
};

const KALLSYMS: &str = "/proc/kallsyms";

/// The addresses of these functions.
///
/// # Errors
/// Why one is not to be had.
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
            // LTO puts a suffix behind the name; others (".cold", ".part") are pieces of the function.
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
