//! Writing a [`Value`] in either protocol.

use super::Value;
use crate::{Protocol, write};

impl Value {
    /// Appends the reply as a connection of this protocol would see it. RESP2 has no word for
    /// maps, sets, pushes (arrays), doubles, big numbers, verbatim strings (bulks), booleans
    /// (integers), bulk errors (error lines) and attributes (left out); RESP3 has only one null.
    pub fn encode(&self, protocol: Protocol, out: &mut Vec<u8>) {
        let resp3 = protocol == Protocol::Resp3;
        match self {
            Self::Simple(text) => write::line(out, b'+', text),
            Self::Error(text) => write::line(out, b'-', text),
            Self::Integer(value) => write::integer(out, *value),
            Self::Bulk(bytes) => write::bulk(out, bytes),
            Self::NullBulk | Self::Null => write::null(out, protocol),
            Self::NullArray => write::null_array(out, protocol),
            Self::Array(items) => {
                write::array(out, items.len());
                encode_all(items, protocol, out);
            }
            Self::Set(items) => {
                write::set(out, protocol, items.len());
                encode_all(items, protocol, out);
            }
            Self::Push(items) => {
                write::push(out, protocol, items.len());
                encode_all(items, protocol, out);
            }
            Self::Map(pairs) => {
                write::map(out, protocol, pairs.len());
                encode_pairs(pairs, protocol, out);
            }
            Self::Double(value) => write::double(out, protocol, *value),
            Self::Boolean(value) => write::boolean(out, protocol, *value),
            Self::BigNumber(digits) if resp3 => write::line(out, b'(', digits),
            Self::BigNumber(digits) => write::bulk(out, digits),
            Self::BulkError(text) if resp3 => write::body(out, b'!', text),
            Self::BulkError(text) => write::line(out, b'-', text),
            Self::Verbatim { format, text } => write::verbatim(out, protocol, format, text),
            Self::Attributed { attributes, value } => {
                if resp3 {
                    write::header(out, b'|', attributes.len());
                    encode_pairs(attributes, protocol, out);
                }
                value.encode(protocol, out);
            }
        }
    }

    /// [`Self::encode`] into a new buffer.
    #[must_use]
    pub fn to_vec(&self, protocol: Protocol) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(protocol, &mut out);
        out
    }
}

fn encode_all(items: &[Value], protocol: Protocol, out: &mut Vec<u8>) {
    for item in items {
        item.encode(protocol, out);
    }
}

fn encode_pairs(pairs: &[(Value, Value)], protocol: Protocol, out: &mut Vec<u8>) {
    for (key, value) in pairs {
        key.encode(protocol, out);
        value.encode(protocol, out);
    }
}
