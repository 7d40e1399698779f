//! Cuts a client's bytes into requests.
//!
//! ```text
//! Start --'*N'--> Arguments --last CRLF--> Complete --next()--> Start
//!   |------'*0', '*-N', empty line-------> Empty ----next()--> Start
//!   '--anything else--> Line --LF--> Complete or Empty
//! ```

use bytes::Bytes;
use memchr::{memchr, memchr2};

use crate::error::ProtocolError;
use crate::inline::Words;
use crate::limits::{ARGS_COUNTABLE, BULK_BYTES_MAX, LENGTH_LINE_BYTES_MAX, RequestLimits};
use crate::number::{Digits, canonical, digits};
use crate::request::{OwnedRequest, Request, Span, Spans, write_frame};

/// Argument positions kept between requests (eight bytes each); beyond it their memory goes back.
const SPANS_KEPT_MAX: usize = 64;

/// [`RequestDecoder::wanted`] asks for no more than this, or than what already arrived.
const WANTED_BYTES_MIN: usize = 64 * 1024;

/// A request of so many arguments, one digit's worth, is looked for as a whole first.
const QUICK_ARGS_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing of the request was understood yet.
    Start,
    /// Awaiting the rest of the arguments.
    Arguments,
    /// Awaiting the end of an inline request.
    Line,
    /// A request lies in the first `pos` bytes.
    Complete,
    /// Something without a reply lies in the first `pos` bytes.
    Empty,
    /// The client broke the protocol; for good.
    Broken(ProtocolError),
}

/// Finds the end of a request, and its arguments, in bytes that arrive in any pieces. It resumes
/// where it stopped and never looks at a byte twice, but for one unfinished line of digits.
///
/// Allocates nothing for requests of up to eight arguments, and never ahead of arrival: memory
/// grows with the arguments that came, not with the number announced.
#[derive(Debug)]
pub struct RequestDecoder {
    limits: RequestLimits,
    stage: Stage,
    /// Bytes of the current request that are understood.
    pos: usize,
    /// Bytes from `pos` known to hold no line end.
    scanned: usize,
    /// Arguments still to come; at least 1 in `Arguments`.
    args_left: usize,
    /// The length of the argument at `pos`, once its line is read.
    bulk: Option<usize>,
    spans: Spans,
    /// The canonical frame of an inline request; empty for multibulk ones.
    rewritten: Vec<u8>,
    wanted: usize,
    /// Bytes of an unfinished request were seen.
    begun: bool,
}

impl RequestDecoder {
    /// A decoder between requests.
    #[must_use]
    pub fn new(limits: RequestLimits) -> Self {
        Self {
            limits,
            stage: Stage::Start,
            pos: 0,
            scanned: 0,
            args_left: 0,
            bulk: None,
            spans: Spans::new(),
            rewritten: Vec::new(),
            wanted: 1,
            begun: false,
        }
    }

    /// Changes the limits for every line not read yet: to be called when a client authenticates.
    pub fn set_limits(&mut self, limits: RequestLimits) {
        self.limits = limits;
    }

    /// Looks for the end of the current request. `buf` starts at its first byte in every call,
    /// and only grows until the request is complete.
    ///
    /// `Some(len)`: the first `len` bytes are one request. Read it with [`Self::request`] (unless
    /// [`Self::is_empty`]), consume `len` bytes, call [`Self::next`]. `None`: more bytes are
    /// wanted, [`Self::wanted`] says how many.
    ///
    /// # Errors
    /// The client broke the protocol or a limit. Every further call says the same; close.
    #[inline]
    pub fn decode(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolError> {
        debug_assert!(
            buf.len() >= self.pos + self.scanned,
            "the buffer shrank within a request"
        );
        let complete = match self.stage {
            Stage::Start => match self.whole(buf) {
                Some(end) => self.pass(buf, end),
                None => self.start(buf),
            },
            Stage::Arguments => self.arguments(buf),
            Stage::Line => self.line(buf),
            Stage::Complete | Stage::Empty => Ok(true),
            Stage::Broken(error) => Err(error),
        };
        let complete = complete.inspect_err(|&error| self.stage = Stage::Broken(error))?;
        self.begun = self.begun || !buf.is_empty();
        Ok(complete.then_some(self.pos))
    }

    /// What was decoded is no command (an empty line, `*0`, `*-5`): consume it and go on, it has
    /// no reply.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stage == Stage::Empty
    }

    /// The decoded request; `frame` is the slice [`Self::decode`] measured.
    #[must_use]
    pub fn request<'a>(&'a self, frame: &'a [u8]) -> Request<'a> {
        debug_assert_eq!(self.stage, Stage::Complete, "no request was decoded");
        let frame = if self.rewritten.is_empty() {
            frame
        } else {
            &self.rewritten
        };
        Request::new(frame, &self.spans)
    }

    /// Turns to the next request. Gives back all memory beyond half a kilobyte.
    pub fn next(&mut self) {
        self.stage = Stage::Start;
        self.pos = 0;
        self.scanned = 0;
        self.bulk = None;
        self.wanted = 1;
        self.begun = false;
        self.spans.clear();
        if self.spans.capacity() > SPANS_KEPT_MAX {
            self.spans = Spans::new();
        }
        if self.rewritten.capacity() > 0 {
            self.rewritten = Vec::new();
        }
    }

    /// At least this many bytes are missing (>= 1). Safe to reserve: never more than 64 KiB or
    /// what has already arrived, whichever is greater, whatever length the client announced.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Between requests: nothing half read, and no memory beyond half a kilobyte.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Start && !self.begun
    }

    /// The decoded request with its bytes, which are exactly the frame measured.
    pub(crate) fn into_owned(self, frame: Bytes) -> OwnedRequest {
        let frame = if self.rewritten.is_empty() {
            frame
        } else {
            self.rewritten.into()
        };
        OwnedRequest::from_parts(frame, self.spans)
    }

    /// A request of few arguments that is there as a whole and within every limit, as nearly all
    /// are; its length. `None` is for the others, and says nothing about them.
    #[inline]
    fn whole(&mut self, buf: &[u8]) -> Option<usize> {
        let [b'*', count @ b'1'..=b'8', b'\r', b'\n', ref rest @ ..] = *buf else {
            return None;
        };
        let mut rest = rest;
        let count = usize::from(count - b'0');
        let mut spans = [Span::NONE; QUICK_ARGS_MAX];
        for span in spans.iter_mut().take(count) {
            let (argument, behind) = self.whole_argument(buf, rest)?;
            *span = argument;
            rest = behind;
        }
        let end = buf.len() - rest.len();
        let bytes_max = self.limits.request_bytes_max.min(u32::MAX as usize);
        if count > self.limits.args_max || end > bytes_max {
            return None;
        }
        self.spans = Spans::from_buf_and_len(spans, count);
        Some(end)
    }

    /// The argument at the start of `rest`, the end of `buf`, and what follows it, if it is there as a
    /// whole and no longer than it may be.
    #[inline]
    fn whole_argument<'a>(&self, buf: &[u8], rest: &'a [u8]) -> Option<(Span, &'a [u8])> {
        let [b'$', line @ ..] = rest else {
            return None;
        };
        let Digits::Number { value, size } = digits(line) else {
            return None;
        };
        let body = line.get(size..)?;
        let len = usize::try_from(value).ok()?;
        let Some((_, [b'\r', b'\n', behind @ ..])) = body.split_at_checked(len) else {
            return None;
        };
        let fits = len <= self.limits.bulk_bytes_max;
        fits.then(|| (Span::new(buf.len() - body.len(), len), behind))
    }

    /// The arguments at `pos` that are there as a whole and within every limit, as nearly all are. Those
    /// behind the first that is not are left alone.
    #[inline]
    fn whole_arguments(&mut self, buf: &[u8]) {
        let bytes_max = self.limits.request_bytes_max.min(u32::MAX as usize);
        let mut rest = buf.get(self.pos..).unwrap_or_default();
        let before = rest.len();
        while self.args_left > 0
            && let Some((span, behind)) = self.whole_argument(buf, rest)
            && buf.len() - behind.len() <= bytes_max
        {
            self.spans.push(span);
            self.args_left -= 1;
            rest = behind;
        }
        if rest.len() < before {
            self.advance_to(buf.len() - rest.len());
        }
    }

    /// The request whose arguments are known ends here.
    #[inline]
    fn pass(&mut self, buf: &[u8], end: usize) -> Result<bool, ProtocolError> {
        self.pos = end;
        self.complete(buf)
    }

    #[inline]
    fn start(&mut self, buf: &[u8]) -> Result<bool, ProtocolError> {
        let line = match buf.split_first() {
            None => return Ok(false),
            Some((b'*', line)) => line,
            Some(_) => {
                self.stage = Stage::Line;
                return self.line(buf);
            }
        };
        let (count, size) = match digits(line) {
            Digits::More => return Ok(self.want(buf, 1)),
            Digits::Number { value, size } => (i64::try_from(value).ok(), size),
            Digits::Other => match self.odd_line(line, ProtocolError::TooBigCountLine)? {
                Some((value, size)) => (value, size),
                None => return Ok(self.want(buf, 1)),
            },
        };
        let count = count
            .filter(|&count| count <= ARGS_COUNTABLE)
            .ok_or(ProtocolError::InvalidMultibulkLength)?;
        self.advance_to(1 + size);
        match usize::try_from(count) {
            Ok(0) | Err(_) => {
                self.stage = Stage::Empty;
                Ok(true)
            }
            Ok(count) => {
                self.check_count(count)?;
                self.stage = Stage::Arguments;
                self.args_left = count;
                self.arguments(buf)
            }
        }
    }

    #[inline]
    fn arguments(&mut self, buf: &[u8]) -> Result<bool, ProtocolError> {
        loop {
            if self.bulk.is_none() {
                self.whole_arguments(buf);
            }
            if self.args_left == 0 {
                return self.complete(buf);
            }
            let len = match self.bulk {
                Some(len) => len,
                None => match self.bulk_length(buf)? {
                    Some(len) => len,
                    None => return Ok(self.want(buf, 4)),
                },
            };
            let end = self.pos + len;
            match buf.get(end..end + 2) {
                Some(b"\r\n") => {}
                Some(_) => return Err(ProtocolError::InvalidCrlf),
                None if buf.get(end).is_some_and(|&byte| byte != b'\r') => {
                    return Err(ProtocolError::InvalidCrlf);
                }
                None => {
                    self.bulk = Some(len);
                    return Ok(self.want(buf, end + 2 - buf.len()));
                }
            }
            self.spans.push(Span::new(self.pos, len));
            self.bulk = None;
            self.advance_to(end + 2);
            self.args_left -= 1;
        }
    }

    /// Reads the `$<length>` line at `pos`.
    #[inline]
    fn bulk_length(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let line = match buf.get(self.pos..).and_then(<[u8]>::split_first) {
            None => return Ok(None),
            Some((b'$', line)) => line,
            Some((&other, _)) => return Err(ProtocolError::ExpectedDollar(other)),
        };
        let (len, size) = match digits(line) {
            Digits::More => return Ok(None),
            Digits::Number { value, size } => (usize::try_from(value).ok(), size),
            Digits::Other => match self.odd_line(line, ProtocolError::TooBigLengthLine)? {
                Some((value, size)) => (value.and_then(|value| usize::try_from(value).ok()), size),
                None => return Ok(None),
            },
        };
        let len = len
            .filter(|&len| len <= self.limits.bulk_bytes_max.max(BULK_BYTES_MAX))
            .ok_or(ProtocolError::InvalidBulkLength)?;
        if len > self.limits.bulk_bytes_max {
            return Err(if self.limits.authenticated {
                ProtocolError::InvalidBulkLength
            } else {
                ProtocolError::UnauthenticatedBulkLength
            });
        }
        let start = self.pos + 1 + size;
        let bytes_max = self.limits.request_bytes_max.min(u32::MAX as usize);
        if start.saturating_add(len).saturating_add(2) > bytes_max {
            return Err(ProtocolError::TooBigRequest);
        }
        self.advance_to(start);
        Ok(Some(len))
    }

    /// A length line that is not plain digits: its value if it is canonical nevertheless (a
    /// negative number), its size with CRLF, `None` while it has no end.
    #[cold]
    fn odd_line(
        &mut self,
        line: &[u8],
        too_long: ProtocolError,
    ) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
        let unseen = line.get(self.scanned..).unwrap_or_default();
        let Some(end) = memchr(b'\r', unseen).map(|at| self.scanned + at) else {
            self.scanned = line.len();
            return if line.len() > LENGTH_LINE_BYTES_MAX {
                Err(too_long)
            } else {
                Ok(None)
            };
        };
        self.scanned = end;
        if end > LENGTH_LINE_BYTES_MAX {
            return Err(too_long);
        }
        match line.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some((
                canonical(line.get(..end).unwrap_or_default()),
                end + 2,
            ))),
            Some(_) => Err(ProtocolError::InvalidCrlf),
        }
    }

    /// An inline request: everything up to LF or CRLF. A NUL byte hides every line end behind it,
    /// as in the server, where the line is a C string: such a request never completes, and is
    /// refused when it is too long.
    #[cold]
    fn line(&mut self, buf: &[u8]) -> Result<bool, ProtocolError> {
        let unseen = buf.get(self.scanned..).unwrap_or_default();
        let stop = memchr2(b'\n', 0, unseen).map(|at| self.scanned + at);
        self.scanned = stop.unwrap_or(buf.len());
        let Some(end) = stop.filter(|&at| buf.get(at) == Some(&b'\n')) else {
            if buf.len() > self.limits.inline_bytes_max {
                return Err(ProtocolError::TooBigInline);
            }
            return Ok(self.want(buf, 1));
        };
        if end > self.limits.inline_bytes_max {
            return Err(ProtocolError::TooBigInline);
        }
        let line = buf.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let words = Words::split(line).map_err(|_| ProtocolError::UnbalancedQuotes)?;
        if words.len() > 0 {
            self.check_count(words.len())?;
            let args: Vec<&[u8]> = words.iter().collect();
            self.spans = write_frame(&mut self.rewritten, &args);
            self.advance_to(end + 1);
            self.complete(buf)
        } else {
            self.advance_to(end + 1);
            self.stage = Stage::Empty;
            Ok(true)
        }
    }

    /// All arguments are there. The server's guard against cross-protocol attacks comes here: it
    /// closes at a command of such a name, however it was framed.
    #[inline]
    fn complete(&mut self, buf: &[u8]) -> Result<bool, ProtocolError> {
        self.stage = Stage::Complete;
        let name = self.request(buf).name();
        if matches!(name.len(), 4 | 5)
            && (name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:"))
        {
            return Err(ProtocolError::CrossProtocol);
        }
        Ok(true)
    }

    fn check_count(&self, count: usize) -> Result<(), ProtocolError> {
        if count <= self.limits.args_max {
            Ok(())
        } else if self.limits.authenticated {
            Err(ProtocolError::InvalidMultibulkLength)
        } else {
            Err(ProtocolError::UnauthenticatedMultibulkLength)
        }
    }

    fn advance_to(&mut self, pos: usize) {
        self.pos = pos;
        self.scanned = 0;
    }

    /// Notes how much is missing; always false, "not complete".
    fn want(&mut self, buf: &[u8], missing: usize) -> bool {
        self.wanted = missing.clamp(1, buf.len().max(WANTED_BYTES_MIN));
        false
    }
}

#[cfg(test)]
mod tests;
