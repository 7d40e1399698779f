//! The server's glob patterns, without regard to case: `*`, `?`, `[abc]`, `[^a]`, `[a-z]`, `\x`.

/// Longer patterns match nothing: no command's name could need one.
const PATTERN_BYTES_MAX: usize = 1024;

/// Whether the whole text matches. Takes at most the product of both lengths in steps: only the
/// last `*` is ever gone back to.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if pattern.len() > PATTERN_BYTES_MAX {
        return false;
    }
    let (mut pattern, mut text) = (pattern, text);
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some(rest) = pattern.strip_prefix(b"*") {
            pattern = rest;
            star = Some((rest, text));
            continue;
        }
        if let Some((byte, text_rest)) = text.split_first() {
            if let Some(rest) = one(pattern, *byte) {
                (pattern, text) = (rest, text_rest);
                continue;
            }
        } else if pattern.is_empty() {
            return true;
        }
        // Let the star take one byte more, if there is a star and a byte.
        let Some((behind, [_, from @ ..])) = star else {
            return false;
        };
        star = Some((behind, from));
        (pattern, text) = (behind, from);
    }
}

/// What is left of the pattern when its first element matches the byte.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let same = |one: u8| one.eq_ignore_ascii_case(&byte);
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => class(rest, byte),
        [b'\\', escaped, rest @ ..] => same(*escaped).then_some(rest),
        [plain, rest @ ..] => same(*plain).then_some(rest),
    }
}

/// A class behind its `[`. Without a `]` it goes on to the pattern's end.
fn class(inner: &[u8], byte: u8) -> Option<&[u8]> {
    let byte = byte.to_ascii_lowercase();
    let (negated, mut rest) = match inner {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, inner),
    };
    let mut found = false;
    loop {
        rest = match rest {
            [] => break,
            [b']', behind @ ..] => {
                rest = behind;
                break;
            }
            [b'\\', escaped, behind @ ..] => {
                found |= escaped.eq_ignore_ascii_case(&byte);
                behind
            }
            [from, b'-', to, behind @ ..] => {
                let (from, to) = (from.to_ascii_lowercase(), to.to_ascii_lowercase());
                found |= (from.min(to)..=from.max(to)).contains(&byte);
                behind
            }
            [plain, behind @ ..] => {
                found |= plain.eq_ignore_ascii_case(&byte);
                behind
            }
        };
    }
    (found != negated).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_the_server_does() {
        let cases = [
            ("*", "", true),
            ("*", "get", true),
            ("g?t", "get", true),
            ("G*T*", "getset", true),
            ("xinfo*", "xinfo|stream", true),
            ("*|help", "xinfo|help", true),
            ("*|help", "xinfo|helper", false),
            ("[gs]et", "set", true),
            ("[^g]et", "get", false),
            ("[a-h]et", "get", true),
            ("[h-a]et", "GET", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("get", "getx", false),
            ("[get", "g", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
        assert!(!matches(&[b'*'; PATTERN_BYTES_MAX + 1], b"get"));
    }
}
