//! What an operator does with the program itself: look at the host, install, upgrade, package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use myshim_integration::claim::Claim;
use myshim_integration::command::{self, LIMIT, Output};
use myshim_integration::containerd::{shim_binary, workspace};
use myshim_integration::process::Process;
use myshim_integration::test::import;
use myshim_integration::{Daemon, Test, claims};

pub(crate) const CLAIMS: &[Claim] = claims![
    check_says_line_by_line_what_the_host_has.once(),
    check_fails_where_something_required_is_missing.once(),
    an_upgrade_leaves_running_containers_with_the_old_program.within(120),
    a_package_has_the_program_and_the_commit.once().within(240),
];

fn run(program: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(args);
    command::run(command, LIMIT)
}

/// The names of the lines, in their order: the second column.
fn names(table: &str) -> Vec<String> {
    table.lines().map(|line| line[9..31].trim().to_owned()).collect()
}

fn check_says_line_by_line_what_the_host_has(t: &Test) {
    let shim = shim_binary(t.version());
    let said = run(&shim, &["check"]).ok();
    for line in said.lines() {
        assert!(["ok       ", "absent   "].iter().any(|state| line.starts_with(state)), "{line}");
    }
    assert!(said.lines().last().unwrap().contains("host                   usable: 0 missing"));
    // The table is stable: docs/operate.md has a row for each line, in the same order.
    let document = fs::read_to_string(workspace().join("docs/operate.md")).unwrap();
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: Vec<String> = rows.map(|(name, _)| name.to_owned()).collect();
    let names = names(&said);
    assert_eq!(documented, names[..names.len() - 1]);
    // Twice the same: nothing of the first look is left.
    assert_eq!(run(&shim, &["check"]).ok(), said);
}

fn check_fails_where_something_required_is_missing(t: &Test) {
    let shim = shim_binary(t.version()).to_string_lossy().into_owned();
    let nobody = ["--reuid", "65534", "--clear-groups", "--", &shim, "check"];
    let said = run(Path::new("/usr/bin/setpriv"), &nobody).exits(1);
    let line = |name: &str| said.lines().find(|line| line[9..].starts_with(name)).unwrap();
    assert!(line("root ").starts_with("MISSING  root "), "{said}");
    assert!(line("root ").ends_with("without it: no container"), "{said}");
    assert!(line("host ").starts_with("MISSING  host                   not usable: "), "{said}");
    let bare = ["-i", "PATH=/none", &shim, "check"];
    let said = run(Path::new("/usr/bin/env"), &bare).ok();
    let line = said.lines().find(|line| line.contains(" newuidmap")).unwrap();
    assert!(line.starts_with("absent   ") && line.contains("newuidmap: is not in PATH"), "{said}");
    // A command that is none is not taken for one.
    run(Path::new(&shim), &["chekc"]).fails(&["\"chekc\"", "start, delete or check"]);
}

fn make(args: &[&str]) -> Output {
    let mut make = Command::new("make");
    // What is tested is what has been built: nothing is built here.
    make.arg("-C").arg(workspace()).args(["--old-file", "build"]).args(args);
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    command::run(make, Duration::from_secs(150))
}

/// `make install` of a program that stands in `dist`.
fn install(t: &Test, dist: &Path) -> PathBuf {
    let prefix = t.dir.join("p");
    let (dist, to) = (format!("DIST={}", dist.display()), format!("PREFIX={}", prefix.display()));
    make(&["install", &dist, &to, "DESTDIR="]).ok();
    prefix.join("bin")
}

fn an_upgrade_leaves_running_containers_with_the_old_program(t: &Test) {
    let shim = shim_binary(t.version());
    let bin = install(t, shim.parent().unwrap());
    let daemon =
        Daemon::start_with_path(t.version(), &t.dir.join("c"), &t.endpoint.namespace, &bin);
    import(daemon.endpoint(), &t.dir);
    let own = t.on(&daemon);
    let running = |pid: u32| fs::read(format!("/proc/{pid}/exe")).unwrap();
    let old = fs::read(&shim).unwrap();
    let web = own.sleeper("web", &[]);
    let served = web.shim().pid;
    assert!(running(served) == old);

    // Another program for the loader and the eye, the same in what it does.
    let mut new = old.clone();
    new.extend_from_slice(b"the next version");
    let dist = t.folder("dist");
    let file = dist.join(shim.file_name().unwrap());
    fs::write(&file, &new).unwrap();
    assert_eq!(install(t, &dist), bin);
    assert_eq!(fs::read(bin.join(shim.file_name().unwrap())).unwrap(), new);

    assert!(running(served) == old, "the daemon that runs is the old one");
    assert_eq!(web.exec(&["echo", "served by the old"]).ok(), "served by the old\n");
    let next = own.sleeper("next", &[]);
    let pids = || own.shims().iter().map(|shim| shim.pid).collect::<Vec<_>>();
    let newer = pids().into_iter().find(|pid| *pid != served).expect("a second daemon");
    assert!(running(newer) == new, "a new pod has the new one");
    assert_eq!(next.exec(&["echo", "served by the new"]).ok(), "served by the new\n");
    // The old one ends as ever; `delete` is asked of the new program.
    web.remove();
    assert!(Process::read(served).is_none_or(|process| process.state == 'Z'));
    next.remove();
    own.finish();
}

fn a_package_has_the_program_and_the_commit(t: &Test) {
    let shim = shim_binary(t.version());
    let deb = t.dir.join("myshim.deb");
    let dist = format!("DIST={}", shim.parent().unwrap().display());
    let root = format!("DEB_ROOT={}", t.dir.join("root").display());
    make(&["deb", &dist, &root, &format!("DEB={}", deb.display())]).ok();
    let field = |name: &str| {
        let mut command = Command::new("dpkg-deb");
        command.arg("--field").arg(&deb).arg(name);
        command::run(command, LIMIT).ok().trim().to_owned()
    };
    assert_eq!(field("Package"), "containerd-shim-myshim-v2");
    let unpacked = t.dir.join("unpacked");
    let mut command = Command::new("dpkg-deb");
    command.arg("-x").arg(&deb).arg(&unpacked);
    command::run(command, LIMIT).ok();
    let program = unpacked.join("usr/bin").join(shim.file_name().unwrap());
    assert!(fs::read(&program).unwrap() == fs::read(&shim).unwrap());
    // `-v` and the package name version and commit: 0.1.0 and 40 digits; 0.1.0+git and 12.
    let said = run(&program, &["-v"]).ok();
    let value =
        |key: &str| said.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap().trim();
    let (version, revision) = (value("Version:"), value("Revision:"));
    assert!(field("Version").starts_with(version), "{} {said}", field("Version"));
    if let Some((_, commit)) = field("Version").split_once("+git") {
        assert!(commit.len() == 12 && revision.len() == 40, "{commit} {revision}");
    }
    for example in [
        "containerd-2.x.toml",
        "containerd-1.x.toml",
        "myshim.toml",
        "kubernetes/runtimeclass.yaml",
    ] {
        let place = unpacked.join("usr/share/doc/containerd-shim-myshim-v2/examples").join(example);
        assert!(place.exists(), "{}", place.display());
    }
}
