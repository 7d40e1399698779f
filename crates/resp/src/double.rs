//! Doubles as the server writes and this crate reads them.

use std::io::Write as _;

use smallvec::SmallVec;

/// Room for every finite double in the forms below.
pub(crate) type DoubleText = SmallVec<[u8; 64]>;

/// Reads `inf`, `-inf`, `nan`, or a decimal number with optional fraction and exponent.
pub(crate) fn parse(text: &[u8]) -> Option<f64> {
    match text {
        b"inf" => return Some(f64::INFINITY),
        b"-inf" => return Some(f64::NEG_INFINITY),
        b"nan" | b"-nan" => return Some(f64::NAN),
        _ => {}
    }
    let plain = text
        .iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E'));
    if !plain || text.first() == Some(&b'+') {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Writes a double as `d2string` of the server does: integers plainly, everything else with the
/// fewest digits that read back the same, with an exponent when it is far from 1.
pub(crate) fn text(value: f64) -> DoubleText {
    let mut out = DoubleText::new();
    if value.is_nan() {
        out.extend_from_slice(b"nan");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"inf" } else { b"-inf" });
    } else if value == 0.0 {
        out.extend_from_slice(if value.is_sign_negative() {
            b"-0"
        } else {
            b"0"
        });
    } else if let Some(integer) = as_integer(value) {
        out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
    } else {
        shortest(value, &mut out);
    }
    out
}

/// The value as an integer when it is one, within the range where every integer has a double.
fn as_integer(value: f64) -> Option<i64> {
    const EXACT_MAX: f64 = 4_503_599_627_370_496.0; // 2^52, the server's bound in `double2ll`
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range is checked right here"
    )]
    (value.fract() == 0.0 && value.abs() <= EXACT_MAX).then_some(value as i64)
}

/// The layout of `fpconv_dtoa`: digits `d` and decimal exponent, laid out by their distance.
fn shortest(value: f64, out: &mut DoubleText) {
    // 17 digits, a point and an exponent of three: 24 bytes at most, so writing can not fail.
    let mut scientific = [0u8; 32];
    let mut room = scientific.as_mut_slice();
    let _ = write!(room, "{:e}", value.abs());
    let unused = room.len();
    let scientific = scientific
        .get(..scientific.len() - unused)
        .unwrap_or_default();
    let mut halves = scientific.split(|&byte| byte == b'e');
    let mantissa = halves.next().unwrap_or_default();
    let exponent = halves
        .next()
        .and_then(crate::number::canonical)
        .unwrap_or(0);
    let digits: SmallVec<[u8; 32]> = mantissa.iter().copied().filter(|&b| b != b'.').collect();
    let count = i64::try_from(digits.len()).unwrap_or(0);
    let scale = exponent - (count - 1); // value = digits x 10^scale
    let zeros = |n: i64| std::iter::repeat_n(b'0', usize::try_from(n).unwrap_or(0));
    if value < 0.0 {
        out.push(b'-');
    }
    if scale >= 0 && exponent.abs() < count + 7 {
        out.extend(digits);
        out.extend(zeros(scale));
    } else if scale < 0 && (scale > -7 || exponent.abs() < 4) {
        let whole = usize::try_from(count + scale).unwrap_or(0);
        let (before, after) = digits.split_at(whole.min(digits.len()));
        out.extend_from_slice(if before.is_empty() { b"0" } else { before });
        out.push(b'.');
        out.extend(zeros(-(count + scale)));
        out.extend_from_slice(after);
    } else {
        let (first, rest) = digits.split_at(1.min(digits.len()));
        out.extend_from_slice(first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        out.push(b'e');
        out.push(if exponent < 0 { b'-' } else { b'+' });
        out.extend_from_slice(itoa::Buffer::new().format(exponent.abs()).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_written_as_the_server_writes_them() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-3.0, "-3"),
            (0.1, "0.1"),
            (-0.25, "-0.25"),
            (3.25, "3.25"),
            (1e300, "1e+300"),
            (1e-300, "1e-300"),
            (1.5e-9, "1.5e-9"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (17179869184.5, "17179869184.5"),
            (1e17, "1e+17"),
        ] {
            let written = text(value);
            assert_eq!(std::str::from_utf8(&written).unwrap(), expected);
            assert_eq!(parse(&written), Some(value));
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "", "+1", "infinity", "Inf", "NaN", "0x1", "1_0", " 1", "1 ", "e", ".", "-",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
