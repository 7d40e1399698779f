//! Integers as the server reads and writes them: decimal, canonical, nothing else.

/// Digits taken on the fast path; ten reach beyond every legal length and can not overflow.
const FAST_DIGITS_MAX: usize = 10;

/// What stands where a length should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Digits {
    /// Nothing wrong so far; the line goes on beyond the bytes at hand.
    More,
    /// A canonical number and its CRLF, `size` bytes together.
    Number {
        /// At most ten digits.
        value: u64,
        /// Bytes of the digits and the CRLF.
        size: usize,
    },
    /// Anything else: a sign, a leading zero, no digit, too many of them, no LF after the CR.
    Other,
}

/// Reads a length line whose type byte is already behind us. One pass, no lookahead.
#[inline]
pub(crate) fn digits(line: &[u8]) -> Digits {
    // Nearly every length has one digit or two.
    let digit = |byte: u8| u64::from(byte - b'0');
    match *line {
        [one @ b'0'..=b'9', b'\r', b'\n', ..] => Digits::Number {
            value: digit(one),
            size: 3,
        },
        [ten @ b'1'..=b'9', one @ b'0'..=b'9', b'\r', b'\n', ..] => Digits::Number {
            value: 10 * digit(ten) + digit(one),
            size: 4,
        },
        _ => any_digits(line),
    }
}

fn any_digits(line: &[u8]) -> Digits {
    let mut value = 0u64;
    for (index, &byte) in line.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                if index == FAST_DIGITS_MAX || (index == 1 && value == 0) {
                    return Digits::Other;
                }
                value = value * 10 + u64::from(byte - b'0');
            }
            b'\r' if index > 0 => {
                return match line.get(index + 1) {
                    Some(b'\n') => Digits::Number {
                        value,
                        size: index + 2,
                    },
                    Some(_) => Digits::Other,
                    None => Digits::More,
                };
            }
            _ => return Digits::Other,
        }
    }
    Digits::More
}

/// A canonical 64-bit integer: what `string2ll` of the server takes. No `+`, no leading zero, no
/// `-0`, no spaces, no overflow.
pub(crate) fn canonical(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, text),
    };
    match digits.split_first()? {
        (b'0', []) => return if negative { None } else { Some(0) },
        (b'1'..=b'9', _) => {}
        _ => return None,
    }
    let mut value = 0i64;
    for &byte in digits {
        let digit = match byte {
            b'0'..=b'9' => i64::from(byte - b'0'),
            _ => return None,
        };
        // Built on the negative side: i64::MIN has no positive twin.
        value = value.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative {
        Some(value)
    } else {
        value.checked_neg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_is_exactly_what_the_server_writes() {
        for value in [0, 1, -1, 9, 10, -10, i64::MAX, i64::MIN, 536_870_912] {
            assert_eq!(canonical(value.to_string().as_bytes()), Some(value));
        }
        for text in [
            "",
            "-",
            "+1",
            "01",
            "-0",
            "00",
            " 1",
            "1 ",
            "1a",
            "0x1",
            "-01",
            "--1",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999999",
        ] {
            assert_eq!(canonical(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn digits_tell_unfinished_from_wrong() {
        let number = |value, size| Digits::Number { value, size };
        for (line, expected) in [
            ("", Digits::More),
            ("1", Digits::More),
            ("12\r", Digits::More),
            ("12\r\n", number(12, 4)),
            ("0\r\nrest", number(0, 3)),
            ("9999999999\r\n", number(9_999_999_999, 12)),
            ("99999999990\r\n", Digits::Other),
            ("\r\n", Digits::Other),
            ("01\r\n", Digits::Other),
            ("-1\r\n", Digits::Other),
            ("+1\r\n", Digits::Other),
            ("1\rx", Digits::Other),
            ("1\n", Digits::Other),
        ] {
            assert_eq!(digits(line.as_bytes()), expected, "{line:?}");
        }
    }
}
