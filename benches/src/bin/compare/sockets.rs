//! A process's files, and which of them are connections to the nodes, out of /proc.

use std::collections::HashSet;
use std::fs;

use anyhow::{Context, Result};

/// The state of a connection in /proc/net/tcp.
const ESTABLISHED: &str = "01";

/// The file numbers of the connections that process `pid` has made to any of `ports`.
pub(crate) fn to_ports(pid: u32, ports: &[u16]) -> Result<Vec<u32>> {
    let table = fs::read_to_string("/proc/net/tcp").context("/proc/net/tcp")?;
    let inodes = inodes_to(&table, ports);
    let folder = format!("/proc/{pid}/fd");
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.clone())? {
        let path = entry.with_context(|| folder.clone())?.path();
        // One that was closed meanwhile is none.
        let Ok(link) = fs::read_link(&path) else {
            continue;
        };
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        if let (Some(number), Some(inode)) = (number, inode_of(&link.to_string_lossy()))
            && inodes.contains(&inode)
        {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// How many files process `pid` has open.
pub(crate) fn files(pid: u32) -> Result<usize> {
    let folder = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&folder).context(folder)?.count())
}

/// Of `socket:[123]`.
fn inode_of(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// The inodes of connections whose other end is one of `ports`.
fn inodes_to(table: &str, ports: &[u16]) -> HashSet<u64> {
    let row = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let (_, port) = fields.next()?.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let state = fields.next()?;
        let inode = fields.nth(5)?.parse().ok()?;
        (state == ESTABLISHED && ports.contains(&port)).then_some(inode)
    };
    table.lines().skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:8235 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100
   1: 0100007F:C001 0100007F:8235 01 00000000:00000000 00:00000000 00000000     0        0 22 1 0 100
   2: 0100007F:8235 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 33 1 0 100
   3: 0100007F:C002 0100007F:8235 06 00000000:00000000 00:00000000 00000000     0        0 44 1 0 100
";

    #[test]
    fn only_live_connections_to_the_ports_count() {
        assert_eq!(inodes_to(TABLE, &[0x8235]), HashSet::from([22]));
        assert_eq!(inodes_to(TABLE, &[1, 0x8235]), HashSet::from([22]));
        assert_eq!(inodes_to(TABLE, &[1]), HashSet::new());
    }

    #[test]
    fn own_connections_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let to = || to_ports(std::process::id(), &[port]).expect("/proc").len();
        assert_eq!(to(), 0);
        let sockets =
            [(); 3].map(|()| TcpStream::connect(("127.0.0.1", port)).expect("a listener"));
        assert_eq!(to(), 3);
        drop(sockets);
    }
}
