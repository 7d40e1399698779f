//! From a request to its command, or to what the server would say instead.

use std::fmt;

use resp::Request;

use crate::table::{Command, CommandTable};

/// The server shows at most this many bytes of an unknown name, and of all its arguments together.
const SHOWN_BYTES_MAX: usize = 128;

/// A request that is no command; the text is the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupError {
    text: Box<[u8]>,
}

impl LookupError {
    /// The error line without `-` and CRLF, as Valkey 9.1.2 words it: unknown command, unknown
    /// subcommand, or wrong number of arguments. Free of CR and LF; otherwise any bytes.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    fn new(mut text: Vec<u8>) -> Self {
        for byte in &mut text {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        Self { text: text.into() }
    }

    fn unknown_command(request: Request<'_>) -> Self {
        let mut text = b"ERR unknown command '".to_vec();
        text.extend_from_slice(shown(request.name(), SHOWN_BYTES_MAX));
        text.extend_from_slice(b"', with args beginning with: ");
        let start = text.len();
        for arg in request.args().skip(1) {
            // Quotes and spaces count too, though they may go beyond the bound.
            let used = text.len() - start;
            if used >= SHOWN_BYTES_MAX {
                break;
            }
            text.push(b'\'');
            text.extend_from_slice(shown(arg, SHOWN_BYTES_MAX - used));
            text.extend_from_slice(b"' ");
        }
        Self::new(text)
    }

    fn unknown_subcommand(request: Request<'_>) -> Self {
        let mut text = b"ERR unknown subcommand '".to_vec();
        text.extend_from_slice(shown(request.arg(1).unwrap_or_default(), SHOWN_BYTES_MAX));
        text.extend_from_slice(b"'. Try ");
        text.extend_from_slice(&request.name().to_ascii_uppercase());
        text.extend_from_slice(b" HELP.");
        Self::new(text)
    }

    fn wrong_arity(command: &Command) -> Self {
        let name = command.name();
        Self::new(format!("ERR wrong number of arguments for '{name}' command").into_bytes())
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text))
    }
}

impl std::error::Error for LookupError {}

impl CommandTable {
    /// The command of a request, a container's subcommand included, with the right number of
    /// arguments. Names are compared without regard to case. Allocates only when it fails.
    ///
    /// # Errors
    /// [`LookupError`]: what to answer instead.
    #[inline]
    pub fn lookup(&self, request: Request<'_>) -> Result<&Command, LookupError> {
        let subcommand = request.arg(1);
        let Some(command) = self.resolve(request.name(), subcommand) else {
            return Err(match self.resolve(request.name(), None) {
                Some(_) => LookupError::unknown_subcommand(request),
                None => LookupError::unknown_command(request),
            });
        };
        if command.accepts_argc(request.argc()) {
            Ok(command)
        } else {
            Err(LookupError::wrong_arity(command))
        }
    }
}

/// What of an argument is shown: the server's `printf` stops at a NUL.
fn shown(bytes: &[u8], max: usize) -> &[u8] {
    let bytes = bytes.get(..max).unwrap_or(bytes);
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
