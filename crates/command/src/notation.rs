//! The compact text form of `data/docs.txt`: replies as lines that people can read and diff.
//!
//! `{key value ...}` is a map, `[...]` an array, `<...>` a set, `+word` a simple string, digits
//! are an integer, `"..."` with `\"` and `\\` is a bulk string, and so is any other bare word.
//! Spaces separate. Only our own data is ever read this way.

use resp::Value;

/// Reads one value; `None` if the text is not exactly one.
pub(crate) fn parse(text: &str) -> Option<Value> {
    let mut reader = Reader { rest: text };
    let value = reader.value()?;
    reader.rest.trim_start().is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    /// Recursive: the data is ours, and nests less than ten deep.
    fn value(&mut self) -> Option<Value> {
        self.rest = self.rest.trim_start();
        match self.rest.chars().next()? {
            '{' => {
                let items = self.items('}')?;
                let pairs = items.chunks_exact(2).filter_map(|pair| match pair {
                    [key, value] => Some((key.clone(), value.clone())),
                    _ => None,
                });
                (items.len() % 2 == 0).then(|| Value::Map(pairs.collect()))
            }
            '[' => Some(Value::Array(self.items(']')?)),
            '<' => Some(Value::Set(self.items('>')?)),
            '"' => self.quoted(),
            _ => self.word(),
        }
    }

    fn items(&mut self, end: char) -> Option<Vec<Value>> {
        self.rest = self.rest.get(1..)?;
        let mut items = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            if let Some(rest) = self.rest.strip_prefix(end) {
                self.rest = rest;
                return Some(items);
            }
            items.push(self.value()?);
        }
    }

    fn quoted(&mut self) -> Option<Value> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' => text.push(chars.next()?.1),
                '"' => {
                    self.rest = self.rest.get(at + 1..)?;
                    return Some(Value::Bulk(text.into()));
                }
                _ => text.push(char),
            }
        }
        None
    }

    fn word(&mut self) -> Option<Value> {
        let end = self
            .rest
            .find([' ', '}', ']', '>'])
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some(match (word.strip_prefix('+'), word.parse::<i64>()) {
            _ if word.is_empty() => return None,
            (Some(simple), _) => Value::Simple(simple.to_owned().into()),
            (None, Ok(number)) => Value::Integer(number),
            (None, Err(_)) => Value::Bulk(word.to_owned().into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use resp::Protocol;

    #[test]
    fn reads_every_form() {
        let value = parse(r#"{a [1 -2 bare|word "quo \"te\" \\ "] flags <+x> e []}"#).unwrap();
        let bytes = value.to_vec(Protocol::Resp3);
        let expected = "%3\r\n$1\r\na\r\n*4\r\n:1\r\n:-2\r\n$9\r\nbare|word\r\n$11\r\nquo \"te\" \\ \
                        \r\n$5\r\nflags\r\n~1\r\n+x\r\n$1\r\ne\r\n*0\r\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn refuses_what_is_not_one_value() {
        for text in ["", "{a}", "[1", "\"open", "1 2", "]", "{a 1", "[1}"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
