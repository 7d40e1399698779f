//! What the tests of several modules need.

use resp::OwnedRequest;

/// A request of words separated by single spaces.
pub(crate) fn request(line: &str) -> OwnedRequest {
    OwnedRequest::from_args(line.split(' '))
}

/// Undoes the percent encoding of the captured data; a lone `%` is the empty word.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digits: Option<String> = (byte == b'%')
            .then(|| rest.by_ref().take(2).map(char::from).collect())
            .filter(|digits: &String| digits.len() == 2);
        match digits {
            Some(digits) => bytes.push(u8::from_str_radix(&digits, 16).unwrap()),
            None if byte == b'%' => {}
            None => bytes.push(byte),
        }
    }
    bytes
}
