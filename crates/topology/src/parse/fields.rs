//! The fields both answers share.

use std::sync::Arc;

use resp::Value;

use crate::{NodeAddr, NodeId, ParseError, Slot, SlotRange};

/// Longest zone name that is believed.
const ZONE_BYTES_MAX: usize = 128;

/// The elements of the whole answer.
pub(super) fn rows(value: &Value) -> Result<&[Value], ParseError> {
    if let Some(text) = value.as_error() {
        let text = text.get(..text.len().min(128)).unwrap_or_default();
        return Err(ParseError::Refused(text.escape_ascii().to_string().into()));
    }
    value.as_array().ok_or(ParseError::Shape("list"))
}

pub(super) fn node_id(value: Option<&Value>) -> Result<NodeId, ParseError> {
    value
        .and_then(Value::as_bytes)
        .and_then(NodeId::parse)
        .ok_or(ParseError::Shape("node id"))
}

/// The host to connect to. The preferred endpoint, unless the cluster does not know it: null and
/// empty mean the host that was asked; `?` (hostname wanted, none set) means the IP address, and
/// the host that was asked when there is none either.
pub(super) fn host<'a>(
    endpoint: Option<&'a Value>,
    ip: Option<&'a Value>,
    asked: &'a NodeAddr,
) -> Result<&'a str, ParseError> {
    let known = || -> Result<&'a str, ParseError> {
        let text = text(ip, "ip")?.and_then(|bytes| std::str::from_utf8(bytes).ok());
        let text = text.filter(|text| !text.is_empty() && *text != "?");
        Ok(text.unwrap_or(&asked.host))
    };
    match endpoint {
        Some(value) if value.is_null() => Ok(&asked.host),
        Some(value) => match value.as_bytes() {
            None => Err(ParseError::Shape("endpoint")),
            Some(b"") => Ok(&asked.host),
            Some(b"?") => known(),
            Some(_) => value.as_str().ok_or(ParseError::Shape("endpoint")),
        },
        None => known(),
    }
}

pub(super) fn address(host: &str, port: Option<&Value>) -> Result<NodeAddr, ParseError> {
    let port = port
        .and_then(Value::as_int)
        .and_then(|port| u16::try_from(port).ok());
    let port = port
        .filter(|&port| port != 0)
        .ok_or(ParseError::Shape("port"))?;
    NodeAddr::new(host, port).ok_or(ParseError::Shape("endpoint"))
}

/// What a field says that need not be there. Another type than a string is refused, not left out: RESP2
/// has some of them as strings, and both protocols would say different things.
fn text<'a>(value: Option<&'a Value>, what: &'static str) -> Result<Option<&'a [u8]>, ParseError> {
    match value.filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => value.as_bytes().map(Some).ok_or(ParseError::Shape(what)),
    }
}

/// `None` when the cluster has no zones (no field, an empty one), or sends a text that is no name.
pub(super) fn zone(value: Option<&Value>) -> Result<Option<Arc<str>>, ParseError> {
    let bytes = text(value, "availability zone")?.unwrap_or_default();
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let legal = !text.is_empty() && text.len() <= ZONE_BYTES_MAX;
    Ok((legal && !text.chars().any(char::is_control)).then(|| text.into()))
}

pub(super) fn range(first: Option<&Value>, last: Option<&Value>) -> Result<SlotRange, ParseError> {
    let slot = |value: Option<&Value>| {
        let number = value
            .and_then(Value::as_int)
            .ok_or(ParseError::Shape("slot range"))?;
        u16::try_from(number)
            .ok()
            .and_then(Slot::new)
            .ok_or(ParseError::NoSuchSlot)
    };
    SlotRange::new(slot(first)?, slot(last)?).ok_or(ParseError::NoSuchSlot)
}
