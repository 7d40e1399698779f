//! Reading arguments as the server does.

use super::Call;

pub(crate) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
pub(super) const SYNTAX: &str = "ERR syntax error";

/// A canonical decimal number.
pub(crate) fn integer(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// A number with a fraction, `inf` too; not NaN.
pub(crate) fn float(bytes: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(bytes).ok()?;
    if text.is_empty()
        || text.starts_with(char::is_whitespace)
        || text.ends_with(char::is_whitespace)
    {
        return None;
    }
    text.parse::<f64>().ok().filter(|number| !number.is_nan())
}

impl Call<'_> {
    pub(super) fn integer(&self, index: usize) -> Result<i64, String> {
        integer(self.arg(index)).ok_or_else(|| NOT_AN_INTEGER.to_owned())
    }

    pub(super) fn float(&self, index: usize) -> Result<f64, String> {
        float(self.arg(index)).ok_or_else(|| "ERR value is not a valid float".to_owned())
    }

    /// How many elements to take out.
    pub(super) fn positive(&self, index: usize) -> Result<usize, String> {
        let count = integer(self.arg(index)).and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| "ERR value is out of range, must be positive".to_owned())
    }

    /// Whether an argument is this word, in any case.
    pub(super) fn is(&self, index: usize, word: &str) -> bool {
        self.arg(index).eq_ignore_ascii_case(word.as_bytes())
    }

    pub(super) fn wrong_arity<T>(&self) -> Result<T, String> {
        let name = String::from_utf8_lossy(self.arg(0)).to_lowercase();
        Err(format!(
            "ERR wrong number of arguments for '{name}' command"
        ))
    }
}

/// From an index pair as `LRANGE` takes it to places in a list of this length.
pub(super) fn range(start: i64, stop: i64, length: usize) -> std::ops::Range<usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let from_end = |index: i64| {
        if index < 0 {
            length.saturating_add(index)
        } else {
            index
        }
    };
    let start = from_end(start).max(0);
    let stop = from_end(stop).min(length - 1);
    if start > stop || start >= length {
        return 0..0;
    }
    let place = |index: i64| usize::try_from(index).unwrap_or_default();
    place(start)..place(stop) + 1
}

/// A float as the server writes it into a string.
pub(super) fn show_float(number: f64) -> String {
    if number == number.trunc() && number.abs() < 1e17 {
        format!("{number:.0}")
    } else {
        format!("{number}")
    }
}
