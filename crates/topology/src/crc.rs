//! CRC16 in the variant that hash slots use (XMODEM: polynomial 0x1021, from 0, not reflected),
//! eight bytes at a time.
//!
//! The `crc16` crate takes a byte at a time, four times as long for a key of 24 bytes; it is the
//! oracle in the tests.

/// `TABLES[n][byte]` is the remainder of `byte` followed by `n` zero bytes.
static TABLES: [[u16; 256]; 8] = tables();

#[allow(clippy::indexing_slicing, reason = "runs when this is compiled")]
const fn tables() -> [[u16; 256]; 8] {
    let mut tables = [[0_u16; 256]; 8];
    let mut byte = 0;
    let mut value = 0_u16;
    while byte < 256 {
        let mut crc = value << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
        value = value.wrapping_add(1);
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[zeros - 1][byte];
            tables[zeros][byte] = (before << 8) ^ tables[0][(before >> 8) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

/// The checksum of `bytes`.
#[allow(clippy::indexing_slicing, reason = "every byte is an index below 256")]
pub(crate) fn crc16(bytes: &[u8]) -> u16 {
    let at = |zeros: usize, byte: u8| TABLES[zeros][usize::from(byte)];
    let (eights, rest) = bytes.as_chunks::<8>();
    let mut crc = 0_u16;
    for &[a, b, c, d, e, f, g, h] in eights {
        let [high, low] = crc.to_be_bytes();
        crc = at(7, a ^ high)
            ^ at(6, b ^ low)
            ^ at(5, c)
            ^ at(4, d)
            ^ at(3, e)
            ^ at(2, f)
            ^ at(1, g)
            ^ at(0, h);
    }
    for byte in rest {
        let [high, low] = crc.to_be_bytes();
        crc = u16::from_be_bytes([low, 0]) ^ at(0, byte ^ high);
    }
    crc
}

#[cfg(test)]
mod tests {
    use crc16::{State, XMODEM};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_check_value_of_the_variant() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b""), 0);
    }

    proptest! {
        #[test]
        fn is_what_the_crate_says(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(crc16(&bytes), State::<XMODEM>::calculate(&bytes));
        }
    }
}
