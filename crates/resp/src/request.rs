//! One request, as a view into bytes or owning them.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::error::ProtocolError;
use crate::{RequestDecoder, RequestLimits, write};

/// Where an argument lies in its frame. Frames are shorter than 4 GiB, see
/// [`RequestLimits::request_bytes_max`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    len: u32,
}

/// Most requests have few arguments; these need no allocation.
pub(crate) type Spans = SmallVec<[Span; 8]>;

impl Span {
    pub(crate) const NONE: Self = Self { start: 0, len: 0 };

    pub(crate) fn new(start: usize, len: usize) -> Self {
        let narrow = |wide| u32::try_from(wide).unwrap_or(u32::MAX);
        debug_assert!(
            u32::try_from(start.saturating_add(len)).is_ok(),
            "a frame of 4 GiB"
        );
        Self {
            start: narrow(start),
            len: narrow(len),
        }
    }

    /// Where what follows its CRLF begins.
    fn end(self) -> usize {
        self.start as usize + self.len as usize + 2
    }

    fn of(self, frame: &[u8]) -> &[u8] {
        let start = self.start as usize;
        frame
            .get(start..start + self.len as usize)
            .unwrap_or_default()
    }
}

/// One request, cut out of a buffer; argument 0 is the command's name. Its bytes are canonical
/// multibulk always, also when the client typed a line.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    frame: &'a [u8],
    /// Never empty; every span lies within `frame`.
    spans: &'a [Span],
}

impl<'a> Request<'a> {
    pub(crate) fn new(frame: &'a [u8], spans: &'a [Span]) -> Self {
        debug_assert!(!spans.is_empty(), "a request without a name");
        Self { frame, spans }
    }

    /// Number of arguments, the name included: at least 1.
    #[must_use]
    pub fn argc(&self) -> usize {
        self.spans.len()
    }

    /// The argument at `index`; 0 is the name.
    #[must_use]
    pub fn arg(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|span| span.of(self.frame))
    }

    /// So many arguments from the one at `index` (at least 1) on, as they are framed: each with its length
    /// line and the end of its line.
    #[must_use]
    pub fn framed(&self, index: usize, count: usize) -> Option<&'a [u8]> {
        let before = self.spans.get(index.checked_sub(1)?)?;
        let last = self.spans.get(index + count - 1)?;
        self.frame.get(before.end()..last.end())
    }

    /// All arguments, the name first.
    pub fn args(&self) -> impl DoubleEndedIterator<Item = &'a [u8]> + ExactSizeIterator + 'a {
        let frame = self.frame;
        self.spans.iter().map(move |span| span.of(frame))
    }

    /// The command's name as the client wrote it, in any case.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        self.arg(0).unwrap_or_default()
    }

    /// The whole canonical multibulk frame.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.frame
    }

    /// A copy that owns its bytes.
    #[must_use]
    pub fn to_owned_request(&self) -> OwnedRequest {
        OwnedRequest {
            bytes: Bytes::copy_from_slice(self.frame),
            spans: self.spans.into(),
        }
    }
}

/// A request that owns its bytes: for queues, the simulator and tests. Cloning copies no bytes.
#[derive(Clone, Debug)]
pub struct OwnedRequest {
    bytes: Bytes,
    spans: Spans,
}

impl OwnedRequest {
    /// Reads exactly one request (multibulk or inline) with the limits of an authenticated client.
    ///
    /// # Errors
    /// What the decoder refuses, [`ProtocolError::Incomplete`] when the bytes end early or hold no
    /// command, [`ProtocolError::Trailing`] when more bytes follow.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self, ProtocolError> {
        let bytes = bytes.into();
        let mut decoder = RequestDecoder::new(RequestLimits::AUTHENTICATED);
        match decoder.decode(&bytes)? {
            Some(len) if len < bytes.len() => Err(ProtocolError::Trailing),
            Some(_) if !decoder.is_empty() => Ok(decoder.into_owned(bytes)),
            _ => Err(ProtocolError::Incomplete),
        }
    }

    /// Builds a request from its arguments. Without any, it is a request of one empty name, which
    /// every server refuses as unknown.
    pub fn from_args<I, A>(args: I) -> Self
    where
        I: IntoIterator<Item = A>,
        A: AsRef<[u8]>,
    {
        let args: SmallVec<[A; 8]> = args.into_iter().collect();
        let mut frame = Vec::new();
        let spans = if args.is_empty() {
            write_frame(&mut frame, &[b"".as_slice()])
        } else {
            write_frame(&mut frame, &args)
        };
        Self {
            bytes: frame.into(),
            spans,
        }
    }

    pub(crate) fn from_parts(bytes: Bytes, spans: Spans) -> Self {
        Self { bytes, spans }
    }

    /// The view everything else works with.
    #[must_use]
    pub fn as_request(&self) -> Request<'_> {
        Request::new(&self.bytes, &self.spans)
    }

    /// The whole canonical multibulk frame.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl PartialEq for OwnedRequest {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for OwnedRequest {}

/// Appends the canonical frame of `args` to an empty `frame` and says where they lie in it.
pub(crate) fn write_frame<A: AsRef<[u8]>>(frame: &mut Vec<u8>, args: &[A]) -> Spans {
    let mut spans = Spans::new();
    write::header(frame, b'*', args.len());
    for arg in args {
        let arg = arg.as_ref();
        write::header(frame, b'$', arg.len());
        spans.push(Span::new(frame.len(), arg.len()));
        frame.extend_from_slice(arg);
        frame.extend_from_slice(b"\r\n");
    }
    spans
}
