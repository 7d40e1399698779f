//! Ports nobody else has: reserved by a locked file each, so that tests in other processes keep
//! away, and checked to be free.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below 32768, from where on Linux picks ports for outgoing connections (`ip_local_port_range`): a
/// port of those may be taken by one between its reservation and its use.
const RANGE: Range<u16> = 23_000..32_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A reserved port; free again when dropped, or when the process ends however it does.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// The port's number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// Reserves a port on which nothing listens.
///
/// # Panics
/// All are taken, or the lock folder cannot be written.
#[must_use]
pub fn reserve() -> Port {
    let folder = std::env::temp_dir().join("keyway-tests-ports");
    fs::create_dir_all(&folder).expect("the folder for port locks");
    // Each process begins somewhere else.
    let first = process::id() as usize * 7;
    for _ in 0..RANGE.len() {
        let step = usize::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = (first + step) % RANGE.len();
        let number = RANGE.start + u16::try_from(offset).expect("below the range's length");
        let lock = File::create(folder.join(number.to_string())).expect("a port lock file");
        if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
            return Port {
                number,
                _lock: lock,
            };
        }
    }
    panic!("no port free in {RANGE:?}");
}
