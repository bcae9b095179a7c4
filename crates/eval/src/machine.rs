//! What a result says of where it came from: machine, commit, date, peak memory.

use std::fs;
use std::process::{Command, Stdio};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Processor model, the logical cores this process may use, and memory: `Intel(R) Xeon(R) …, 2 cores, 8 GiB`.
pub fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = format!("{}, {cores} core{}", processor(), if cores == 1 { "" } else { "s" });
    if let Some(bytes) = kibibyte_field("/proc/meminfo", "MemTotal") {
        text.push_str(&format!(", {:.0} GiB", bytes as f64 / f64::from(1u32 << 30)));
    }
    text
}

fn processor() -> String {
    let from_proc = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| proc_field(&text, "model name"));
    let found = from_proc.or_else(|| {
        let asks_sysctl = cfg!(target_os = "macos");
        asks_sysctl.then(|| output_of("sysctl", &["-n", "machdep.cpu.brand_string"])).flatten()
    });
    found.unwrap_or_else(|| format!("unnamed {} processor", std::env::consts::ARCH))
}

/// The commit of the checkout that holds the current folder, with `-dirty` behind it when tracked files were changed;
/// `unknown` outside a checkout.
pub fn commit() -> String {
    // `--exclude=*` keeps tags out: the answer is always the full hash.
    output_of("git", &["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])
        .unwrap_or_else(|| "unknown".into())
}

/// Now, as RFC 3339 in UTC to the second: `2026-01-02T03:04:05Z`.
pub fn date() -> String {
    let now = OffsetDateTime::now_utc();
    let whole_seconds = now.replace_nanosecond(0).unwrap_or(now);
    whole_seconds.format(&Rfc3339).unwrap_or_else(|_| "unknown".into())
}

/// The most memory this process has held at once, in bytes; `None` where the system does not say (only Linux does).
pub fn peak_rss_bytes() -> Option<u64> {
    kibibyte_field("/proc/self/status", "VmHWM")
}

/// A field of a `/proc` file that is given as `Name:  1234 kB`, in bytes.
fn kibibyte_field(path: &str, name: &str) -> Option<u64> {
    let value = proc_field(&fs::read_to_string(path).ok()?, name)?;
    value.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The first `name : value` line of a `/proc` file.
fn proc_field(text: &str, name: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What a command printed, or `None` if it is missing, failed or printed nothing.
fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_is_rfc3339_utc_to_the_second() {
        let date = date();
        assert_eq!(date.len(), "2026-01-02T03:04:05Z".len(), "{date}");
        assert!(date.ends_with('Z') && OffsetDateTime::parse(&date, &Rfc3339).is_ok(), "{date}");
    }

    #[test]
    fn machine_is_described() {
        assert!(describe().contains(" core"));
        assert!(!commit().is_empty());
        if cfg!(target_os = "linux") {
            assert!(peak_rss_bytes().is_some_and(|bytes| bytes > 1 << 20));
        }
    }

    #[test]
    fn proc_fields_are_found_by_whole_name() {
        let text = "MemTotalX: 1 kB\nMemTotal:   24 kB\n";
        assert_eq!(proc_field(text, "MemTotal").as_deref(), Some("24 kB"));
        assert_eq!(proc_field(text, "Mem"), None);
    }
}
