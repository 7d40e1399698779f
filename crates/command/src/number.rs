//! Numbers in arguments, read as the server reads them.

/// The server's strict reading of a whole number: an optional minus, digits without leading
/// zeros, nothing else, within 64 bits.
pub(crate) fn strict(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        b"0" if digits.len() == text.len() => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    if digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// C's `atoi` on a 64-bit Linux: leading white space, a sign, as many digits as there are; more
/// than 64 bits saturate, and of the 64 the low 32 remain.
pub(crate) fn atoi(text: &[u8]) -> i32 {
    let start = text
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\t'..=b'\r'))
        .unwrap_or(text.len());
    let text = text.get(start..).unwrap_or_default();
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let mut value: i64 = 0;
    for digit in digits.iter().take_while(|byte| byte.is_ascii_digit()) {
        let digit = i64::from(digit - b'0');
        value = value
            .saturating_mul(10)
            .saturating_add(if negative { -digit } else { digit });
    }
    #[expect(clippy::cast_possible_truncation, reason = "what C does here")]
    {
        value as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_is_strict() {
        for (text, value) in [
            ("0", 0),
            ("1", 1),
            ("-1", -1),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(strict(text.as_bytes()), Some(value), "{text}");
        }
        assert_eq!(strict(i64::MIN.to_string().as_bytes()), Some(i64::MIN));
        for text in [
            "",
            "-",
            "-0",
            "01",
            "+1",
            " 1",
            "1 ",
            "1a",
            "9223372036854775808",
            "--1",
        ] {
            assert_eq!(strict(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn atoi_is_lax() {
        let cases = [
            ("", 0),
            ("x", 0),
            (" \t\n12abc", 12),
            ("-3", -3),
            ("+4", 4),
            ("4294967297", 1),
            ("2147483648", i32::MIN),
            ("99999999999999999999", -1),
            ("-99999999999999999999", 0),
            ("- 1", 0),
        ];
        for (text, value) in cases {
            assert_eq!(atoi(text.as_bytes()), value, "{text}");
        }
    }
}
