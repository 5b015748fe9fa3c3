//! The parts of the name of a container's image, which collectors have separate fields for.

/// `NAME[:TAG][@ALGORITHM:HEX]`, or only the digest of an image without a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Image<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) tag: Option<&'a str>,
    pub(super) digest: Option<&'a str>,
}

impl<'a> Image<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        if is_digest(text) {
            return Self { digest: Some(text), ..Self::default() };
        }
        let (rest, digest) = match text.rsplit_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest)),
            _ => (text, None),
        };
        // A colon before the last slash belongs to the port of the registry.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        Self { name: Some(name), tag, digest }
    }
}

/// Whether the text is a digest, with or without its algorithm.
fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_tag_and_digest() {
        let hex = "0123456789abcdef".repeat(4);
        let digest = format!("sha256:{hex}");
        for (text, name, tag, of_digest) in [
            ("nginx".to_owned(), Some("nginx"), None, None),
            ("nginx:1.27".to_owned(), Some("nginx"), Some("1.27"), None),
            ("localhost:5000/web".to_owned(), Some("localhost:5000/web"), None, None),
            ("localhost:5000/web:v1".to_owned(), Some("localhost:5000/web"), Some("v1"), None),
            (format!("ghcr.io/o/web@{digest}"), Some("ghcr.io/o/web"), None, Some(&*digest)),
            (format!("ghcr.io/o/web:v1@{digest}"), Some("ghcr.io/o/web"), Some("v1"), Some(&*digest)),
            ("web@home".to_owned(), Some("web@home"), None, None),
            (digest.clone(), None, None, Some(&*digest)),
            (hex.clone(), None, None, Some(&*hex)),
        ] {
            assert_eq!(Image::of(&text), Image { name, tag, digest: of_digest }, "{text}");
        }
    }
}
