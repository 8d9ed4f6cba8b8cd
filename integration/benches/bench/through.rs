//! Through containerd: a client that makes containers from an image, one and eight at a time.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use myshim_integration::containerd::{Daemon, Version, workspace};
use myshim_integration::{image, test};

use crate::budgets::Bound;
use crate::command_line::Options;
use crate::series;
use crate::shim::{Binary, Place};

/// Blocks of containers, all shims in turn.
const BLOCKS: usize = 5;

/// The peers that there is a budget against: how many times as many there are to be.
const BUDGETS: [(&str, f64); 2] = [("go+runc", 3.0), ("go+crun", 2.0)];

/// The table.
pub(crate) fn table(options: &Options, place: &Place<'_>) -> String {
    let dir = place.layers.base().with_file_name("c");
    let path: Vec<OsString> = options.shims.iter().flat_map(search).collect();
    let path = path.join(OsString::from(":").as_os_str());
    let daemon = Daemon::start_with_path(Version::V2, &dir, place.name, Path::new(&path));
    test::import(daemon.endpoint(), &place.dir);
    let address = daemon.endpoint().address();
    let mut text = format!(
        "### Through containerd\n\nA client of containerd's API makes containers from an image: \
         snapshot, container, task; start, exit, and all of it removed. Medians of {BLOCKS} \
         blocks, the shims in turn.\n\n| at a time | | ms per container | containers/s \
         | times the first |\n|---|---|---|---|---|\n"
    );
    for (parallel, count) in [(1, 15), (8, 48)] {
        let mut times = vec![Vec::new(); options.shims.len()];
        for block in 0..=BLOCKS {
            for (binary, times) in options.shims.iter().zip(&mut times) {
                let time = load(place, &address, binary, count, parallel);
                // The first block warms up.
                if block > 0 {
                    times.push(time);
                }
            }
        }
        let each = |times: &Vec<Duration>| series::ms(series::median(times) / count);
        for (binary, own) in options.shims.iter().zip(&times) {
            let (ms, first) = (each(own), each(&times[0]));
            if let Some((peer, budget)) = BUDGETS.iter().find(|(peer, _)| binary.name == *peer) {
                let what = format!("Through containerd, {parallel} at a time, as many as {peer}");
                options.budgets.note(&what, Bound::AtLeast, *budget, ms / first, "×");
            }
            text += &format!(
                "| {parallel} | {} | {ms:.1} | {:.1} | {:.2} |\n",
                binary.name,
                1000.0 / ms,
                ms / first
            );
        }
    }
    text + "\n"
}

fn search(binary: &Binary) -> [OsString; 2] {
    [binary.shim.parent().unwrap().as_os_str().to_owned(), binary.path.clone()]
}

fn load(place: &Place<'_>, address: &Path, binary: &Binary, count: u32, parallel: u32) -> Duration {
    let mut command = Command::new(workspace().join(".tools/bench/load"));
    command.arg("-address").arg(address).args(["-namespace", place.name]);
    command.args(["-runtime", &runtime(binary), "-image", image::NAME]);
    command.args(["-count", &count.to_string(), "-parallel", &parallel.to_string()]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{} through containerd fails", binary.name);
    let text = String::from_utf8(output.stdout).unwrap();
    Duration::from_nanos(text.trim().parse().unwrap())
}

/// `containerd-shim-runc-v2` is what containerd starts for `io.containerd.runc.v2`.
fn runtime(binary: &Binary) -> String {
    let file = binary.shim.file_name().unwrap().to_string_lossy().into_owned();
    let name = file.trim_start_matches("containerd-shim-").replace('-', ".");
    format!("io.containerd.{name}")
}
