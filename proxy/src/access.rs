//! The access log: one in so many commands as a line of JSON, without keys and values.
//!
//! Owns the choice of the commands, and the thread that writes. A worker never waits for it: what it
//! cannot hand over is counted, and the next line tells the count. Never here: slow commands, which
//! are kept in memory (`slow`).

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Access, access},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::config::Log;

/// Lines that may wait to be written.
const WAITING_MAX: usize = 4096;
/// How often it is looked whether the file is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One command that is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// When it was done, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// From its arrival to its whole reply.
    pub(crate) took_us: u64,
    /// Its name.
    pub(crate) command: String,
    /// Whose it was.
    pub(crate) client: String,
    /// As whom it ran.
    pub(crate) user: String,
    /// The cluster's name, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<String>,
    /// The slot of its keys, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slot: Option<u16>,
    /// The node that answered; without one, Keyway did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    /// For so many commands it stands.
    pub(crate) one_in: u32,
    /// Lines that could not be written since the last one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) left_out: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Where lines go, for the workers.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    lines: SyncSender<Line>,
    left_out: Arc<AtomicU64>,
    one_in: u32,
    file: Option<PathBuf>,
    /// What the next lines are written to.
    next: Arc<Mutex<Option<Out>>>,
}

/// A log as a configuration wants it, opened; the file is not in use yet.
#[derive(Debug)]
pub(crate) struct Opened {
    log: AccessLog,
    out: Option<Out>,
}

impl Opened {
    /// Lines go there from now on.
    pub(crate) fn begin(self) -> AccessLog {
        if let Some(out) = self.out {
            *self.log.next() = Some(out);
        }
        self.log
    }
}

impl AccessLog {
    /// The log that a configuration wants, if it wants one; the one in force goes on to its file.
    ///
    /// # Errors
    /// The file cannot be opened, or there can be no more threads.
    pub(crate) fn open(log: &Log, before: Option<&Self>) -> io::Result<Option<Opened>> {
        if log.access_one_in == 0 {
            return Ok(None);
        }
        let file = log.access_file.clone();
        if let Some(before) = before {
            let other = before.file != file;
            let out = other.then(|| Out::open(file.clone())).transpose()?;
            let log = Self {
                one_in: log.access_one_in,
                file,
                ..before.clone()
            };
            return Ok(Some(Opened { log, out }));
        }
        let mut out = Out::open(file.clone())?;
        let (lines, waiting) = sync_channel(WAITING_MAX);
        let next = Arc::<Mutex<Option<Out>>>::default();
        let coming = Arc::clone(&next);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&waiting, &mut out, &coming))?;
        let log = Self {
            lines,
            left_out: Arc::default(),
            one_in: log.access_one_in,
            file,
            next,
        };
        Ok(Some(Opened { log, out: None }))
    }

    /// Whether the file that a configuration names could be written, as far as that can be told without
    /// making it.
    ///
    /// # Errors
    /// It could not.
    pub(crate) fn check(log: &Log) -> io::Result<()> {
        let Some(path) = log.access_file.as_deref().filter(|_| log.access_one_in > 0) else {
            return Ok(());
        };
        let looked = match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(Errno::ISDIR),
            Ok(_) => access(path, Access::WRITE_OK),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                access(folder_of(path), Access::WRITE_OK | Access::EXEC_OK)
            }
            Err(error) => return Err(unwritable(&error, path)),
        };
        looked.map_err(|error| unwritable(&error.into(), path))
    }

    fn next(&self) -> std::sync::MutexGuard<'_, Option<Out>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a worker: which of its commands are written.
    #[must_use]
    pub(crate) fn sampler(&self, seed: u64) -> Sampler {
        Sampler {
            state: seed,
            below: u32::MAX / self.one_in,
        }
    }

    /// Hands a line over, if there is room for it.
    pub(crate) fn write(&self, line: Line) {
        let left_out = self.left_out.swap(0, Relaxed);
        let line = Line {
            one_in: self.one_in,
            left_out,
            ..line
        };
        if self.lines.try_send(line).is_err() {
            self.left_out.fetch_add(left_out + 1, Relaxed);
        }
    }
}

/// Chooses commands by chance, so that no rhythm of a client's escapes or fills the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sampler {
    state: u64,
    /// Of all 2^32 numbers, those below.
    below: u32,
}

impl Sampler {
    /// Whether the next command is chosen.
    #[inline]
    pub(crate) fn takes_next(&mut self) -> bool {
        if self.below == 0 {
            return false;
        }
        // Knuth's MMIX generator: its high bits are good enough for a choice.
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.state >> 32 <= u64::from(self.below)
    }
}

/// What lines are written to.
struct Out {
    /// Without one, standard output.
    path: Option<PathBuf>,
    to: BufWriter<Box<dyn Write + Send>>,
    /// Which file that is.
    inode: u64,
    looked: Instant,
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Out {
    fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let (to, inode): (Box<dyn Write + Send>, u64) = match &path {
            None => (Box::new(io::stdout()), 0),
            Some(path) => {
                let opened = OpenOptions::new().create(true).append(true).open(path);
                let of = opened.and_then(|file| Ok((file.metadata()?.ino(), file)));
                let (inode, file) = of.map_err(|error| unwritable(&error, path))?;
                (Box::new(file), inode)
            }
        };
        Ok(Self {
            path,
            to: BufWriter::new(to),
            inode,
            looked: Instant::now(),
        })
    }

    /// Whoever rotates logs has moved the file away: the next lines go to a new one.
    fn follow(&mut self) -> io::Result<()> {
        if self.looked.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.looked = Instant::now();
        let Some(path) = &self.path else {
            return Ok(());
        };
        if !fs::metadata(path).is_ok_and(|now| now.ino() == self.inode) {
            *self = Self::open(self.path.clone())?;
        }
        Ok(())
    }

    fn write(&mut self, first: &Line, rest: impl Iterator<Item = Line>) -> io::Result<()> {
        self.follow()?;
        write_line(&mut self.to, first)?;
        for line in rest {
            write_line(&mut self.to, &line)?;
        }
        self.to.flush()
    }
}

fn folder_of(path: &Path) -> &Path {
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

fn unwritable(error: &io::Error, path: &Path) -> io::Error {
    let text = format!(
        "cannot write {}: {error}{}",
        path.display(),
        advice(error, path)
    );
    io::Error::new(error.kind(), text)
}

/// What to do about a file that cannot be opened.
fn advice(error: &io::Error, path: &Path) -> String {
    let folder = folder_of(path).display();
    match error.kind() {
        io::ErrorKind::NotFound => format!("; make the folder {folder} first"),
        io::ErrorKind::PermissionDenied => format!(
            "; the user that Keyway runs as must be allowed to write the file, and to make files in {folder}"
        ),
        io::ErrorKind::ReadOnlyFilesystem => {
            format!(
                "; mount a folder that can be written at {folder}, or leave it out for standard output"
            )
        }
        io::ErrorKind::IsADirectory => "; it is a folder: name a file in it".to_owned(),
        _ => String::new(),
    }
}

/// Until nobody writes any more. What is there is written together.
fn write_all(waiting: &Receiver<Line>, out: &mut Out, next: &Mutex<Option<Out>>) {
    let mut trouble = false;
    while let Ok(first) = waiting.recv() {
        if let Some(next) = next.lock().unwrap_or_else(PoisonError::into_inner).take() {
            *out = next;
        }
        let written = out.write(&first, waiting.try_iter());
        if let Err(error) = &written
            && !trouble
        {
            tracing::error!(%error, "the access log cannot be written; its lines are lost until it can");
        }
        trouble = written.is_err();
    }
}

fn write_line(out: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_many_is_chosen() {
        for one_in in [1_u32, 10, 1000] {
            let mut sampler = Sampler {
                state: 7,
                below: u32::MAX / one_in,
            };
            let chosen = (0..100_000).filter(|_| sampler.takes_next()).count();
            let chosen = u32::try_from(chosen).unwrap();
            let expected = 100_000 / one_in;
            assert!(
                chosen.abs_diff(expected) <= expected / 5,
                "{chosen} of {expected}"
            );
        }
        let mut off = Sampler::default();
        assert!((0..1000).all(|_| !off.takes_next()));
    }

    #[test]
    fn lines_that_find_no_room_are_counted_by_the_next() {
        let (lines, waiting) = sync_channel(1);
        let log = AccessLog {
            lines,
            left_out: Arc::default(),
            one_in: 5,
            file: None,
            next: Arc::default(),
        };
        (0..4).for_each(|_| log.write(Line::default()));
        assert_eq!(waiting.recv().unwrap().left_out, 0);
        log.write(Line::default());
        let next = waiting.recv().unwrap();
        assert_eq!((next.left_out, next.one_in), (3, 5));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let log = Log {
            access_one_in: 1,
            access_file: Some("/nowhere/access.json".into()),
            ..Log::default()
        };
        let error = AccessLog::open(&log, None).unwrap_err().to_string();
        assert!(
            error.contains("cannot write /nowhere/access.json"),
            "{error}"
        );
        assert!(error.ends_with("make the folder /nowhere first"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let log = Log {
            access_file: Some(folder.path().to_owned()),
            ..log
        };
        let error = AccessLog::open(&log, None).unwrap_err().to_string();
        assert!(
            error.ends_with("it is a folder: name a file in it"),
            "{error}"
        );
    }

    #[test]
    fn a_line_is_json_and_leaves_out_what_there_is_not() {
        let mut out = Vec::new();
        let line = Line {
            command: "get".to_owned(),
            ..Line::default()
        };
        write_line(&mut out, &line).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("}\n") && !text.contains("node"), "{text}");
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
    }
}
