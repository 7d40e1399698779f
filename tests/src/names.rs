//! A name server whose answers a test changes: addresses of names, over UDP, for one second each.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long an answer may be believed; seconds.
const TTL: u32 = 1;
/// How soon the server sees that it is over.
const GLANCE: Duration = Duration::from_millis(50);
/// Bytes before the question.
const HEADER: usize = 12;
const TYPE_A: u16 = 1;

type Names = Arc<Mutex<HashMap<String, Vec<Ipv4Addr>>>>;

/// A name server at work; ends when dropped.
#[derive(Debug)]
pub struct NameServer {
    addr: SocketAddr,
    names: Names,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// Starts one that knows no name.
    ///
    /// # Panics
    /// There is no port for it.
    #[must_use]
    pub fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for names");
        socket.set_read_timeout(Some(GLANCE)).expect("a socket");
        let addr = socket.local_addr().expect("a bound socket");
        let (names, over) = (Names::default(), Arc::new(AtomicBool::new(false)));
        let (known, ended) = (Arc::clone(&names), Arc::clone(&over));
        let thread = thread::spawn(move || {
            let mut question = [0; 512];
            while !ended.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut question) else {
                    continue;
                };
                let names = known.lock().expect("the names");
                if let Some(answer) = answer(&question[..len], &names) {
                    let _ = socket.send_to(&answer, from); // who asked may be gone
                }
            }
        });
        Self {
            addr,
            names,
            over,
            thread: Some(thread),
        }
    }

    /// `address:port` to ask.
    #[must_use]
    pub fn addr(&self) -> String {
        self.addr.to_string()
    }

    /// From now on the name has these addresses.
    ///
    /// # Panics
    /// The server has failed.
    pub fn set(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().expect("IPv4"));
        let mut names = self.names.lock().expect("the names");
        names.insert(name.to_owned(), addresses.collect());
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The answer to a question; `None` when it is none.
fn answer(question: &[u8], names: &HashMap<String, Vec<Ipv4Addr>>) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (HEADER, Vec::new());
    loop {
        let len = usize::from(*question.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        let label = question.get(at..at + len)?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += len;
    }
    let kind = u16::from_be_bytes(question.get(at..at + 2)?.try_into().ok()?);
    let end = at + 4;
    let known = names.get(&labels.join("."));
    let addresses: &[Ipv4Addr] = match known {
        Some(addresses) if kind == TYPE_A => addresses,
        _ => &[],
    };
    let mut out = question.get(..2)?.to_vec();
    // An answer, recursion available; and that there is no such name.
    out.extend([0x81, if known.is_some() { 0x80 } else { 0x83 }]);
    out.extend([0, 1, 0, u8::try_from(addresses.len()).ok()?, 0, 0, 0, 0]);
    out.extend(question.get(HEADER..end)?);
    for address in addresses {
        out.extend([0xc0, 0x0c, 0, 1, 0, 1]); // the name in the question, its address
        out.extend(TTL.to_be_bytes());
        out.extend([0, 4]);
        out.extend(address.octets());
    }
    Some(out)
}
