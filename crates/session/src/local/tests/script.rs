//! Reads a file of captured requests and replies.

use std::collections::HashMap;

/// One line of the file, understood.
pub(super) enum Step<'a> {
    /// What is told of the server that the next connections are to.
    Server(HashMap<&'a str, &'a str>),
    /// A new connection.
    Connection(HashMap<&'a str, &'a str>),
    /// A request and what came back.
    Exchange {
        line: usize,
        request: Vec<Vec<u8>>,
        reply: Vec<u8>,
    },
}

/// All steps, in order.
pub(super) fn steps(text: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty());
    while let Some((number, line)) = lines.next() {
        if let Some(words) = line.strip_prefix("[server ") {
            steps.push(Step::Server(fields(words)));
        } else if let Some(words) = line.strip_prefix("[connection ") {
            steps.push(Step::Connection(fields(words)));
        } else if let Some(request) = line.strip_prefix("> ") {
            let (_, reply) = lines.next().unwrap();
            let reply = reply.strip_prefix("< ").unwrap();
            steps.push(Step::Exchange {
                line: number + 1,
                request: request.split(' ').map(unescape).collect(),
                reply: unescape(reply),
            });
        } else {
            assert!(line.starts_with('#'), "line {}: {line}", number + 1);
        }
    }
    steps
}

fn fields(words: &str) -> HashMap<&str, &str> {
    let words = words.strip_suffix(']').unwrap();
    words
        .split(' ')
        .map(|word| word.split_once('=').unwrap())
        .collect()
}

fn unescape(text: &str) -> Vec<u8> {
    if text == "\"\"" {
        return Vec::new();
    }
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                itself => itself,
            },
            _ => byte,
        });
    }
    bytes
}
