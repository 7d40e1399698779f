//! How much memory this process may use: what its cgroup allows (containers), or what the machine
//! has.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The smallest limit of the cgroups that this process is in, or else the machine's memory.
#[must_use]
pub fn available() -> Option<usize> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let limit = of_groups(&groups, Path::new("/sys/fs/cgroup"));
    limit.into_iter().chain(total(&machine)).min()
}

/// The smallest limit on the way from each group up to the root of its hierarchy, in both versions
/// of cgroups.
fn of_groups(groups: &str, root: &Path) -> Option<usize> {
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            own if own.split(',').any(|own| own == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group: PathBuf = root.join(path.trim_start_matches('/'));
        let way = group
            .ancestors()
            .take_while(|folder| folder.starts_with(&root));
        way.filter_map(|folder| {
            let text = fs::read_to_string(folder.join(file)).ok()?;
            text.trim().parse::<usize>().ok() // `max` is none
        })
        .min()
    });
    limits.min()
}

/// `MemTotal` of `/proc/meminfo`.
fn total(machine: &str) -> Option<usize> {
    let line = machine
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_on_the_way_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("pod/container");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(of_groups("0::/pod/container\n", root.path()), None);
        fs::write(root.path().join("pod/memory.max"), "5000\n").unwrap();
        assert_eq!(of_groups("0::/pod/container\n", root.path()), Some(5000));
        fs::write(inner.join("memory.max"), "4000\n").unwrap();
        assert_eq!(of_groups("0::/pod/container\n", root.path()), Some(4000));
        let old = root.path().join("memory/pod");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("memory.limit_in_bytes"), "3000\n").unwrap();
        let both = "9:cpu:/x\n4:memory:/pod\n0::/pod/container\n";
        assert_eq!(of_groups(both, root.path()), Some(3000));
    }

    #[test]
    fn the_machine_has_some() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       2 kB\n"), Some(2048));
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
