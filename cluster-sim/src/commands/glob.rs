//! Patterns of `KEYS` and `MATCH`.

/// Whether `text` matches: `*`, `?`, `[a-c]`, `[^x]`, and `\` to take a character as it is.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on after the last `*` when what follows it does not match here.
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
            continue;
        }
        match text
            .get(t)
            .and_then(|byte| one(pattern.get(p..).unwrap_or_default(), *byte))
        {
            Some(used) => {
                p += used;
                t += 1;
            }
            None => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .unwrap_or_default()
        .iter()
        .all(|byte| *byte == b'*')
}

/// How many bytes of the pattern this character used; `None` when it does not match.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', class @ ..] => {
            let end = class
                .iter()
                .skip(1)
                .position(|byte| *byte == b']')
                .map_or(class.len(), |e| e + 1);
            let (negated, set) = match class.get(..end)? {
                [b'^', set @ ..] => (true, set),
                set => (false, set),
            };
            let mut found = false;
            let mut at = 0;
            while let Some(low) = set.get(at) {
                if let (Some(b'-'), Some(high)) = (set.get(at + 1), set.get(at + 2)) {
                    found |= (*low..=*high).contains(&byte);
                    at += 3;
                } else {
                    found |= *low == byte;
                    at += 1;
                }
            }
            (found != negated).then_some(end + 2)
        }
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "abc", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbbd", false),
            ("h?llo", "hello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[a-c]llo", "hdllo", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("user:*:x*", "user:1:xyz", true),
            ("abc", "abcd", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }
}
