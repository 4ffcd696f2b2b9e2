//! Memory and CPU of the machine, the container and the process.

use std::{fs, path::Path};

/// Returns the memory of the machine, or the container's limit if it is less, in bytes. `None` if
/// unknown.
#[must_use]
pub fn memory_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo(&text));
    // Control groups, version 2 and 1. A process in a container sees its own group at these paths.
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let container = limits
        .into_iter()
        .filter_map(|path| limit(&fs::read_to_string(Path::new(path)).ok()?))
        .min();
    [machine, container].into_iter().flatten().min()
}

/// Returns the free space of the file system with this path, without what is reserved for root,
/// and its size, both in bytes.
///
/// # Errors
/// The path does not exist or cannot be read.
pub fn disk_bytes(path: &Path) -> std::io::Result<(u64, u64)> {
    let disk = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok((bytes(disk.f_bavail), bytes(disk.f_blocks)))
}

/// Number of file descriptors reserved for the database, the spool, the pack and the log.
const OTHER_DESCRIPTORS: u64 = 256;

/// Returns the number of connections that a limit of file descriptors allows.
#[must_use]
pub fn connections_of(limit: u64) -> usize {
    usize::try_from(limit.saturating_sub(OTHER_DESCRIPTORS).max(limit / 2)).unwrap_or(usize::MAX)
}

/// Returns the resident memory of the process, in bytes.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Returns the peak resident memory of the process, in bytes.
#[must_use]
pub fn peak_bytes() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Returns the CPU time of the process over all threads, in seconds.
#[must_use]
pub fn processor_seconds() -> Option<f64> {
    ticks(&fs::read_to_string("/proc/self/stat").ok()?).map(|ticks| ticks as f64 / TICKS_A_SECOND)
}

/// Unit of times in `/proc` on Linux, independent of the kernel's clock (`proc_pid_stat(5)`,
/// `USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;

/// Returns the sum of `utime` and `stime`. The program's name before them may contain spaces and
/// parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// Returns the CPU architecture and the instruction sets that select the kernels of graphs.
///
/// Kernels differ in the order of sums, and so in rounding.
#[must_use]
pub fn description() -> String {
    let sets = fs::read_to_string("/proc/cpuinfo")
        .map_or_else(|_| Vec::new(), |text| instruction_sets(&text));
    let words = std::iter::once(std::env::consts::ARCH.to_owned()).chain(sets);
    words.collect::<Vec<_>>().join(" ")
}

fn instruction_sets(cpuinfo: &str) -> Vec<String> {
    const SETS: [&str; 14] = [
        "avx2",
        "fma",
        "avx_vnni",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_int8",
        "amx_bf16",
        "asimddp",
        "asimdhp",
        "i8mm",
        "bf16",
        "sve",
    ];
    // "flags" on x86, "Features" on ARM, the same for all cores.
    let line =
        cpuinfo.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let has = line.and_then(|line| line.split_once(':')).map_or("", |(_, words)| words);
    let is_there = |set: &&str| has.split_whitespace().any(|word| word == *set);
    SETS.into_iter().filter(is_there).map(str::to_owned).collect()
}

fn meminfo(text: &str) -> Option<u64> {
    kibibytes(text, "MemTotal:")
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Parses the limit of a control group. `max` means none.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_limits_are_parsed() {
        assert_eq!(meminfo("MemTotal:       24567 kB\nMemFree: 1 kB\n"), Some(24567 * 1024));
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("536870912\n"), Some(512 << 20));
    }

    #[test]
    fn instruction_sets_are_whole_words_of_the_first_core() {
        let text = "processor\t: 0\nflags\t\t: fpu avx avx2 avx512_vnni amx_int8x\n\nprocessor\t: \
            1\nflags\t\t: fma\n";
        assert_eq!(instruction_sets(text), ["avx2", "avx512_vnni"]);
        assert_eq!(instruction_sets("Features\t: fp asimd asimddp i8mm\n"), ["asimddp", "i8mm"]);
        assert!(instruction_sets("").is_empty());
        assert!(description().starts_with(std::env::consts::ARCH));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_and_cpu_time_are_available_on_linux() {
        assert!(resident_bytes().unwrap() < memory_bytes().unwrap());
        assert!(peak_bytes().unwrap() >= resident_bytes().unwrap());
        assert!(processor_seconds().unwrap() >= 0.0);
    }

    #[test]
    fn ticks_are_found_after_the_name_of_the_program() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 31 0 0 20 0 8 0 1 2 3";
        assert_eq!(ticks(stat), Some(281));
        assert_eq!(ticks("7 (a"), None);
    }
}
