//! What a figure is worth nothing without: of which commit it is, and on which machine.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use myshim_integration::containerd::workspace;

/// The heading of a file of figures.
pub(crate) fn heading(took: Duration) -> String {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    format!(
        "# Figures\n\nWritten by the bench (see [performance](../performance.md)); not by hand.\n\n\
         | | |\n|---|---|\n| commit | {} |\n| date | {} |\n| kernel | {} |\n| processors | {} × {} \
         |\n| memory | {} |\n| cgroups | {} |\n| load before and now | {} |\n| arguments | `{}` |\n\
         | took | {} s |\n\n",
        commit(),
        output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        output("uname", &["-r"]),
        std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        field("/proc/cpuinfo", "model name"),
        field("/proc/meminfo", "MemTotal"),
        cgroups(),
        fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
        // As from the top of the tree, wherever that is.
        arguments.join(" ").replace(&format!("{}/", workspace().display()), ""),
        took.as_secs(),
    )
}

/// With a mark when the tree is not that commit's.
fn commit() -> String {
    let top = workspace();
    let top = top.to_string_lossy();
    let changed = output("git", &["-C", &top, "status", "--porcelain", "--untracked-files=no"]);
    let mark = if changed.is_empty() { "" } else { ", with changes" };
    format!("{}{mark}", output("git", &["-C", &top, "rev-parse", "--short", "HEAD"]))
}

fn cgroups() -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let count = |kind: &str| table.lines().filter(|line| line.contains(kind)).count();
    format!("{} hierarchies of v1, {} of v2", count(" - cgroup "), count(" - cgroup2 "))
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map_or("?", |(_, value)| value).trim().to_owned()
}

fn output(program: &str, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}
