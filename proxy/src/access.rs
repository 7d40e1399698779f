//! The access log: one in so many commands as a line of JSON, without keys and values.
//!
//! Owns the choice of the commands, and the thread that writes. A worker never waits for it: what it
//! cannot hand over is counted, and the next line tells the count. Never here: slow commands, which
//! are kept in memory (`slow`).

use std::{
    fs::{self, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::config::Log;

/// Lines that may wait to be written.
const WAITING_MAX: usize = 4096;
/// How often it is looked whether the file is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One command that is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it was done, in milliseconds since 1970.
    pub at_ms: u64,
    /// From its arrival to its whole reply.
    pub took_us: u64,
    /// Its name.
    pub command: String,
    /// Whose it was.
    pub client: String,
    /// As whom it ran.
    pub user: String,
    /// The cluster's name, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The slot of its keys, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u16>,
    /// The node that answered; without one, Keyway did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// For so many commands it stands.
    pub one_in: u32,
    /// Lines that could not be written since the last one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Where lines go, for the workers.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: SyncSender<Line>,
    left_out: Arc<AtomicU64>,
    one_in: u32,
}

impl AccessLog {
    /// Begins the log, if the configuration wants one.
    ///
    /// # Errors
    /// The file cannot be opened, or there can be no more threads.
    pub fn begin(log: &Log) -> io::Result<Option<Self>> {
        if log.access_one_in == 0 {
            return Ok(None);
        }
        let mut out = Out::open(log.access_file.clone())?;
        let (lines, waiting) = sync_channel(WAITING_MAX);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&waiting, &mut out))?;
        Ok(Some(Self {
            lines,
            left_out: Arc::default(),
            one_in: log.access_one_in,
        }))
    }

    /// For a worker: which of its commands are written.
    #[must_use]
    pub fn sampler(&self, seed: u64) -> Sampler {
        Sampler {
            state: seed,
            below: u32::MAX / self.one_in,
        }
    }

    /// Hands a line over, if there is room for it.
    pub fn write(&self, line: Line) {
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
pub struct Sampler {
    state: u64,
    /// Of all 2^32 numbers, those below.
    below: u32,
}

impl Sampler {
    /// Whether the next command is chosen.
    #[inline]
    pub fn takes_next(&mut self) -> bool {
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

impl Out {
    fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let (to, inode): (Box<dyn Write + Send>, u64) = match &path {
            None => (Box::new(io::stdout()), 0),
            Some(path) => {
                let opened = OpenOptions::new().create(true).append(true).open(path);
                let of = opened.and_then(|file| Ok((file.metadata()?.ino(), file)));
                let (inode, file) = of.map_err(|error| {
                    let advice = advice(&error, path);
                    let text = format!("log.access_file {}: {error}{advice}", path.display());
                    io::Error::new(error.kind(), text)
                })?;
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

/// What to do about a file that cannot be opened.
fn advice(error: &io::Error, path: &Path) -> String {
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).display();
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
fn write_all(waiting: &Receiver<Line>, out: &mut Out) {
    let mut trouble = false;
    while let Ok(first) = waiting.recv() {
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
        let error = AccessLog::begin(&log).unwrap_err().to_string();
        assert!(
            error.contains("log.access_file /nowhere/access.json"),
            "{error}"
        );
        assert!(error.ends_with("make the folder /nowhere first"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let log = Log {
            access_file: Some(folder.path().to_owned()),
            ..log
        };
        let error = AccessLog::begin(&log).unwrap_err().to_string();
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
