//! Gives memory back that only the start needed.

use std::fs;

use rustix::mm::{Advice, madvise};

/// Frees heap pages and unmodified code pages: loading has used megabytes for BTF, and code that tracing does not run.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, keeps the heap as it is.
    unsafe {
        libc::malloc_trim(0);
    }
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for (start, len) in clean(&smaps) {
        // SAFETY: all pages are unmodified pages of a file and not writable; the kernel reads them again when they are needed.
        let _ = unsafe { madvise(start as *mut _, len, Advice::LinuxDontNeed) };
    }
}

/// Start and length of private, read-only mappings of files without anonymous pages (proc_pid_smaps(5)).
fn clean(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut mapping = None;
    for line in smaps.lines() {
        if let Some(anonymous) = line.strip_prefix("Anonymous:") {
            found.extend(mapping.take().filter(|_| anonymous.trim() == "0 kB"));
        } else if !line.split(' ').next().is_some_and(|word| word.ends_with(':')) {
            mapping = constant(line);
        }
    }
    found
}

/// The mapping in a header line, if it is private, of a file, and read-only.
fn constant(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_constant = matches!(fields.next()?, "r-xp" | "r--p");
    let is_file = fields.nth(3)?.starts_with('/');
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    (is_constant && is_file).then(|| (start, end.saturating_sub(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_page_of_its_own_stays() {
        let mapping = |line: &str, anonymous| {
            format!("{line}\nRss: 4 kB\nAnonymous:      {anonymous} kB\nVmFlags: rd mr\n")
        };
        let smaps = [
            mapping("1000-3000 r-xp 00180000 08:01 42    /usr/bin/sock state", 0),
            mapping("3000-4000 r--p 00300000 08:01 42    /usr/bin/sock state", 4),
            mapping("4000-5000 rw-p 00310000 08:01 42    /usr/bin/sock state", 0),
            mapping("5000-6000 rw-p 00000000 00:00 0", 0),
            mapping("7f2a00000000-7f2a00100000 r--p 00000000 08:01 43    /usr/lib/libc.so.6", 0),
            mapping("7f2a00200000-7f2a00300000 r--s 00002000 00:0e 13    anon_inode:bpf-map", 0),
            mapping("7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0     [vdso]", 0),
        ]
        .concat();
        assert_eq!(clean(&smaps), [(0x1000, 0x2000), (0x7f2a_0000_0000, 0x10_0000)]);
        assert_eq!(clean("nonsense\nAnonymous: 0 kB"), []);
    }
}
