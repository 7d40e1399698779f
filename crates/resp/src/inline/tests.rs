use proptest::prelude::*;

use super::*;

fn unhex(text: &str) -> Vec<u8> {
    let nibbles: Vec<u8> = text.bytes().map(hex).collect();
    nibbles
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

#[test]
fn lines_are_split_as_the_server_split_them() {
    let recorded = include_str!("../../testdata/inline-9.1.2.txt");
    let rows: Vec<&str> = recorded
        .lines()
        .filter(|row| !row.starts_with('#'))
        .collect();
    assert!(rows.len() > 200);
    for row in rows {
        let (line, words) = row.split_once(" = ").unwrap();
        let line = unhex(line);
        let expected: Result<Vec<Vec<u8>>, Unbalanced> = match words {
            "error" => Err(Unbalanced),
            words => Ok(words
                .split_ascii_whitespace()
                .map(|word| if word == "-" { Vec::new() } else { unhex(word) })
                .collect()),
        };
        let found = Words::split(&line).map(|words| words.iter().map(<[u8]>::to_vec).collect());
        assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(&line));
    }
}

#[test]
fn the_byte_ff_survives() {
    let words = Words::split(b"a\xffb '\xff' \"\xff\"").unwrap();
    assert_eq!(
        words.iter().collect::<Vec<_>>(),
        [&b"a\xffb"[..], b"\xff", b"\xff"]
    );
}

proptest! {
    /// What the server's own `sdscatrepr` would write reads back, whatever the bytes.
    #[test]
    fn quoted_words_read_back(words in prop::collection::vec(any::<Vec<u8>>(), 0..6)) {
        let line = words.iter().map(|word| {
            let hex: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            format!("\"{hex}\"")
        });
        let line = line.collect::<Vec<_>>().join(" ");
        let read = Words::split(line.as_bytes()).unwrap();
        prop_assert_eq!(read.iter().map(<[u8]>::to_vec).collect::<Vec<_>>(), words);
    }
}
