//! Inline requests: a line of words, as a person types it into `openssl s_client`.
//!
//! The rules are those of the server's `sdssplitargs` as of 9.1.2, where a word may go on behind a
//! closing quote (`a"b c"d` is one word; 8.0 still refuses that) and a backslash before the last
//! byte of the line escapes nothing. One thing is not copied: 9.1.2 loses the byte 0xff.

/// The words of a line, back to back in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Words {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// A quote was left open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unbalanced;

impl Words {
    /// Splits a line (without its line end).
    pub(crate) fn split(line: &[u8]) -> Result<Self, Unbalanced> {
        let mut words = Self::default();
        let mut rest = line;
        loop {
            rest = skip_blanks(rest);
            if rest.is_empty() {
                return Ok(words);
            }
            rest = words.word(rest)?;
        }
    }

    /// How many words there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The words in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| self.bytes.get(start..end).unwrap_or_default())
    }

    /// Takes one word off the front of `rest`, which does not begin with a blank.
    fn word<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], Unbalanced> {
        while let Some((&byte, after)) = rest.split_first() {
            rest = match byte {
                b' ' | b'\n' | b'\r' | b'\t' => break,
                b'"' => self.double_quoted(after)?,
                b'\'' => self.single_quoted(after)?,
                other => {
                    self.bytes.push(other);
                    after
                }
            };
        }
        self.ends.push(self.bytes.len());
        Ok(rest)
    }

    /// Behind an opening `"`: escapes are `\xHH`, `\n`, `\r`, `\t`, `\b`, `\a`; any other escaped
    /// byte is itself. Returns what follows the closing quote.
    fn double_quoted<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], Unbalanced> {
        loop {
            rest = match rest {
                [b'"', after @ ..] => return Ok(after),
                [b'\\', b'x', high, low, after @ ..]
                    if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
                {
                    self.bytes.push(hex(*high) << 4 | hex(*low));
                    after
                }
                [b'\\', escaped, after @ ..] if !after.is_empty() => {
                    self.bytes.push(match escaped {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 0x08,
                        b'a' => 0x07,
                        other => *other,
                    });
                    after
                }
                [byte, after @ ..] => {
                    self.bytes.push(*byte);
                    after
                }
                [] => return Err(Unbalanced),
            };
        }
    }

    /// Behind an opening `'`: the only escape is `\'`.
    fn single_quoted<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], Unbalanced> {
        loop {
            rest = match rest {
                [b'\'', after @ ..] => return Ok(after),
                [b'\\', b'\'', after @ ..] if !after.is_empty() => {
                    self.bytes.push(b'\'');
                    after
                }
                [byte, after @ ..] => {
                    self.bytes.push(*byte);
                    after
                }
                [] => return Err(Unbalanced),
            };
        }
    }
}

/// `isspace` of C in the "C" locale; Rust's ASCII whitespace leaves the vertical tab out.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0, // the caller checked
    }
}

fn skip_blanks(line: &[u8]) -> &[u8] {
    let blanks = line.iter().take_while(|&&byte| is_space(byte)).count();
    line.get(blanks..).unwrap_or_default()
}

#[cfg(test)]
mod tests;
