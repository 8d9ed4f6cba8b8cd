//! Inputs without end, or larger than anybody needs: time and memory stay bounded, and the error
//! says what was too much.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use myshim_integration::claim::Claim;
use myshim_integration::process::Process;
use myshim_integration::shim::{Rpc, Shim, Stdio3, make_fifo, open_fifo};
use myshim_integration::{Test, claims, wait};
use serde_json::{Value, json};

use super::{Hand, peak, process};
use crate::{deaths, facts};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_config_of_a_gigabyte_is_refused_unread.once(),
    a_config_nested_without_end_is_refused.once(),
    an_unknown_field_nested_without_end_is_passed_over.once(),
    passwd_and_group_of_a_gigabyte_are_not_read_whole.once(),
    an_exec_does_not_read_a_gigabyte_of_passwd.once(),
    a_passwd_that_is_no_file_holds_nothing_up.once(),
    more_arguments_than_the_kernel_takes_are_told.once(),
    ten_thousand_of_everything.once().within(120),
    annotations_of_megabytes_are_carried.once(),
    a_hook_that_never_stops_talking_is_cut_short.once(),
    an_endless_exec_with_a_stalled_reader_costs_no_memory.once(),
    an_endless_terminal_with_a_stalled_reader_costs_no_memory.once(),
];

/// What any process of the shim may have, in kB, whatever it is given: the build that is held half
/// way is a debug build, with some 10 MB of code.
const ENOUGH: u64 = 64 << 10;

/// How long anything may take that is bounded, on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// A sparse file of a gigabyte that begins with `text`.
fn gigabyte(path: &Path, text: &str) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_len(1 << 30).unwrap();
}

/// The answer of `call`, and the largest memory that the process `name` had when it was held.
fn with_peak<T: Send>(
    t: &Test,
    shim: &Shim,
    name: &str,
    call: impl FnOnce(&Shim) -> Rpc<T> + Send,
) -> (Rpc<T>, u64) {
    let begin = Instant::now();
    let result = std::thread::scope(|scope| {
        let answer = scope.spawn(|| call(shim));
        let pid = deaths::held(t, name);
        let peak = peak(pid);
        deaths::let_go(pid);
        (answer.join().unwrap(), peak)
    });
    assert!(begin.elapsed() < wait::scaled(SOON), "took {:?}", begin.elapsed());
    assert!(result.1 > 0, "no figure");
    result
}

fn a_config_of_a_gigabyte_is_refused_unread(t: &Test) {
    // Seen to fail (it is read to its end) without the comparison of the size in spec/json.rs.
    let rig = deaths::Rig::new(t, "web", "myshim:main/Failed", |spec| spec.args(&["true"]));
    let text = fs::read_to_string(rig.bundle.dir.join("config.json")).unwrap();
    gigabyte(&rig.bundle.dir.join("config.json"), &text);
    let create = |shim: &Shim| shim.create(&rig.bundle, &Stdio3::default());
    let (answer, peak) = with_peak(t, &rig.shim, "myshim:main", create);
    let error = answer.unwrap_err().message;
    assert!(error.contains("config.json: has 1073741824 bytes, at most 8388608"), "{error}");
    assert!(peak < ENOUGH, "{peak} kB");
    rig.end();
}

/// `good` with a field that has a value within a value, a million times.
fn nested(good: &str, field: &str, (open, close): (&str, &str)) -> String {
    const DEPTH: usize = 1 << 20;
    let value = format!("{}1{}", open.repeat(DEPTH), close.repeat(DEPTH));
    good.replacen('{', &format!("{{\"{field}\":{value},"), 1)
}

const BRACKETS: [(&str, &str); 2] = [("[", "]"), ("{\"a\":", "}")];

fn a_config_nested_without_end_is_refused(t: &Test) {
    let rig = deaths::Rig::new(t, "web", "myshim:main/Failed", |spec| spec.args(&["true"]));
    let config = rig.bundle.dir.join("config.json");
    let good = fs::read_to_string(&config).unwrap();
    for brackets in BRACKETS {
        for field in ["annotations", "linux"] {
            fs::write(&config, nested(&good, field, brackets)).unwrap();
            let create = |shim: &Shim| shim.create(&rig.bundle, &Stdio3::default());
            let (answer, peak) = with_peak(t, &rig.shim, "myshim:main", create);
            let error = answer.unwrap_err().message;
            assert!(error.contains(field) || error.contains("config.json"), "{error}");
            assert!(error.len() < 1500, "{} bytes to read", error.len());
            assert!(peak < ENOUGH, "{peak} kB");
        }
    }
    rig.end();
}

/// As the specification demands of what is not known.
fn an_unknown_field_nested_without_end_is_passed_over(t: &Test) {
    let hand = Hand::new(t);
    let good = hand.spec().args(&["true"]).0.to_string();
    for brackets in BRACKETS {
        fs::write(hand.config(), nested(&good, "unknown", brackets)).unwrap();
        assert_eq!(hand.create(), Ok(()));
        assert_eq!(hand.finish().unwrap().code, 0);
    }
    hand.end();
}

fn passwd_and_group_of_a_gigabyte_are_not_read_whole(t: &Test) {
    let etc = t.rootfs().join("etc");
    gigabyte(&etc.join("passwd"), "root:x:0:0:root:/root:/bin/sh\n");
    gigabyte(&etc.join("group"), "root:x:0:\n");
    let user = json!({"uid": 4711, "gid": 4711});
    let rig = deaths::Rig::new(t, "web", "init/Ready", |spec| {
        spec.with("/process/user", user).args(&["sleep", "3600"])
    });
    let create = |shim: &Shim| shim.create(&rig.bundle, &Stdio3::default());
    let (answer, peak) = with_peak(t, &rig.shim, "init", create);
    answer.unwrap();
    assert!(peak < ENOUGH, "{peak} kB");
    rig.shim.start(&rig.bundle.id, "").unwrap();
    crate::rpc::end(&rig.shim, &rig.bundle);
    rig.delete();
}

fn an_exec_does_not_read_a_gigabyte_of_passwd(t: &Test) {
    let etc = t.rootfs().join("etc");
    gigabyte(&etc.join("passwd"), "root:x:0:0:root:/root:/bin/sh\n");
    let rig = deaths::Rig::new(t, "web", "tenant/Ready", |spec| spec.args(&["sleep", "3600"]));
    let (shim, id) = (&rig.shim, rig.bundle.id.as_str());
    shim.create(&rig.bundle, &Stdio3::default()).unwrap();
    shim.start(id, "").unwrap();
    let mut exec = process(&["true"]);
    exec["user"] = json!({"uid": 4711, "gid": 4711});
    shim.exec(id, "e", &exec, &Stdio3::default()).unwrap();
    let (answer, peak) = with_peak(t, shim, "tenant", |shim| shim.start(id, "e"));
    answer.unwrap();
    assert!(peak < ENOUGH, "{peak} kB");
    crate::rpc::end(shim, &rig.bundle);
    rig.delete();
}

fn a_passwd_that_is_no_file_holds_nothing_up(t: &Test) {
    let hand = Hand::new(t);
    let passwd = t.rootfs().join("etc/passwd");
    let begin = Instant::now();
    let preparations: [&dyn Fn(); 5] = [
        &|| make_fifo(&passwd),
        &|| std::os::unix::fs::symlink("/dev/zero", &passwd).unwrap(),
        &|| std::os::unix::fs::symlink("/proc/1/mem", &passwd).unwrap(),
        &|| std::os::unix::fs::symlink("passwd", &passwd).unwrap(),
        &|| fs::create_dir(&passwd).unwrap(),
    ];
    for prepare in preparations {
        fs::remove_file(&passwd).ok();
        prepare();
        let spec = hand.spec().with("/process/env", json!(["PATH=/bin"]));
        match hand.run(&spec.shell("echo $HOME")) {
            Ok(ran) => assert_eq!(ran.out, "/\n"),
            // Of a memory that cannot be read.
            Err(error) => assert!(error.contains("read(\"/etc/passwd\"): EIO"), "{error}"),
        }
    }
    assert!(begin.elapsed() < wait::scaled(SOON), "took {:?}", begin.elapsed());
    fs::remove_dir(&passwd).unwrap();
    hand.end();
}

/// E2BIG: of all strings together, and of one (MAX_ARG_STRLEN, 128 KiB).
fn more_arguments_than_the_kernel_takes_are_told(t: &Test) {
    let hand = Hand::new(t);
    let many = vec!["a".repeat(1 << 16); 48];
    let one = vec!["a".repeat(3 << 20)];
    let with_true = |more: &[String]| json!([&["true".to_owned()], more].concat());
    for more in [&many, &one] {
        let spec = hand.spec().with("/process/args", with_true(more));
        let error = hand.run(&spec).expect_err("E2BIG");
        assert!(error.contains("exec: \"true\": argument list too long"), "{error:.500}");
        let env: Vec<String> = more.iter().enumerate().map(|(n, v)| format!("V{n}={v}")).collect();
        let spec = hand.spec().args(&["true"]).with("/process/env", json!(env));
        let error = hand.run(&spec.push("/process/env", json!("PATH=/bin"))).expect_err("E2BIG");
        assert!(error.contains("exec: \"true\": argument list too long"), "{error:.500}");
    }
    hand.sleep();
    for more in [&many, &one] {
        let mut exec = process(&["true"]);
        exec["args"] = with_true(more);
        let error = hand.exec(&exec).expect_err("E2BIG");
        assert!(error.contains("exec: \"true\": argument list too long"), "{error:.500}");
    }
    hand.wake();
    hand.end();
}

/// Each works, or is refused with the place of the one that was too much.
fn ten_thousand_of_everything(t: &Test) {
    const MANY: usize = 10_000;
    let hand = Hand::new(t);
    let daemon = hand.daemon();
    let before = peak(daemon);
    let source = t.folder("source").to_string_lossy().into_owned();
    let each = |what: &dyn Fn(usize) -> Value| (0..MANY).map(what).collect::<Vec<_>>();
    let binds = each(
        &|n| json!({"destination": format!("/m/{n}"), "type": "bind", "source": source, "options": ["bind"]}),
    );
    // The kernel makes a file system of each.
    let mut tmpfs =
        each(&|n| json!({"destination": format!("/m/{n}"), "type": "tmpfs", "source": "tmpfs"}));
    tmpfs.truncate(MANY / 10);
    let devices =
        each(&|n| json!({"path": format!("/dev/d{n}"), "type": "c", "major": 1, "minor": 3}));
    let env = each(&|n| if n == 0 { json!("PATH=/bin") } else { json!(format!("V{n}=x")) });
    let paths = each(&|n| json!(format!("/etc/none{n}")));
    let shown = |error: &str, word: &str| {
        assert!(error.contains(word) && error.len() < 1500, "{word}: {error:.2000}");
    };
    for (pointer, list, word) in [
        ("/mounts", binds, "mount"),
        ("/mounts", tmpfs, "mount"),
        ("/linux/devices", devices, "device"),
        ("/process/env", env, "env"),
        ("/linux/maskedPaths", paths.clone(), "maskedPaths"),
        ("/linux/readonlyPaths", paths, "readonlyPaths"),
    ] {
        let mut spec = hand.spec().args(&["true"]);
        for value in list {
            spec = spec.push(pointer, value);
        }
        match hand.run(&spec) {
            Ok(ran) => assert_eq!(ran.code, 0, "{pointer}"),
            Err(error) => shown(&error, word),
        }
    }
    let grown = peak(daemon) - before;
    assert!(grown < 16 << 10, "the daemon grew by {grown} kB");
    hand.end();
}

fn annotations_of_megabytes_are_carried(t: &Test) {
    let hand = Hand::new(t);
    let before = peak(hand.daemon());
    let hook = t.script("hook", &format!("cat >{}/state", t.dir.display()));
    let big = "x".repeat(6 << 20);
    let mut spec =
        hand.spec().push("/hooks/poststop", json!({"path": hook, "env": ["PATH=/bin:/usr/bin"]}));
    spec.0["annotations"] = json!({"big": big});
    assert_eq!(hand.run(&spec.args(&["true"])).unwrap().code, 0);
    // The hook has the state whole.
    let state: Value = serde_json::from_slice(&fs::read(t.dir.join("state")).unwrap()).unwrap();
    assert_eq!(state["annotations"]["big"].as_str().map(str::len), Some(6 << 20));
    let grown = peak(hand.daemon()) - before;
    assert!(grown < 32 << 10, "the daemon grew by {grown} kB");
    let many: serde_json::Map<String, Value> =
        (0..50_000).map(|n| (format!("a{n}"), json!("value"))).collect();
    let mut spec = hand.spec().args(&["true"]);
    spec.0["annotations"] = Value::Object(many);
    assert_eq!(hand.run(&spec).unwrap().code, 0);
    hand.end();
}

fn a_hook_that_never_stops_talking_is_cut_short(t: &Test) {
    let hand = Hand::new(t);
    let hook = t.script("hook", "exec /bin/busybox yes so-many-words");
    let hook = json!({"path": hook, "timeout": 1});
    for kind in ["createRuntime", "createContainer"] {
        let spec = hand.spec().push(&format!("/hooks/{kind}"), hook.clone()).args(&["true"]);
        spec.write(&hand.config());
        let (tag, done) = (&t.tag, AtomicBool::new(false));
        let (error, most) = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut most = 0;
                while !done.load(Ordering::Relaxed) {
                    let chain = Process::tagged(tag).into_values().filter(is_of_the_chain);
                    most = chain.map(|process| peak(process.pid)).fold(most, u64::max);
                }
                most
            });
            let error = hand.create().unwrap_err();
            done.store(true, Ordering::Relaxed);
            (error, watcher.join().unwrap())
        });
        assert!(error.contains(kind) && error.contains("so-many-words"), "{error:.500}");
        assert!(error.len() < 16 << 10, "{} bytes to read", error.len());
        assert!((1..ENOUGH).contains(&most), "{most} kB");
    }
    hand.end();
}

fn is_of_the_chain(process: &Process) -> bool {
    ["myshim:main", "init:"].iter().any(|name| process.comm.starts_with(name))
}

/// Waits until a process writes no more: what it writes to is full.
fn until_it_is_stuck(pid: u32) {
    let written = || {
        let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok())
    };
    let mut last = written();
    wait::until_true("the writer is stuck", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = written();
        let stuck = now == last && now > Some(4096);
        last = now;
        stuck
    });
}

fn an_endless_exec_with_a_stalled_reader_costs_no_memory(t: &Test) {
    let hand = Hand::new(t);
    hand.sleep();
    let id = &hand.bundle.id;
    let (before, fifo) = (peak(hand.daemon()), hand.bundle.dir.join("fifo"));
    make_fifo(&fifo);
    let _stalled = open_fifo(&fifo);
    let io = Stdio3 { stdout: fifo.to_string_lossy().into_owned(), ..Stdio3::default() };
    hand.shim.exec(id, "e", &process(&["cat", "/dev/zero"]), &io).unwrap();
    hand.shim.start(id, "e").unwrap();
    until_it_is_stuck(facts::process(t, "cat /dev/zero"));
    // Others are served meanwhile.
    assert_eq!(hand.shim.status(id, "e"), "running");
    hand.shim.kill(id, "e", 9).unwrap();
    assert_eq!(hand.shim.wait(id, "e").unwrap().exit_status, 137);
    hand.shim.delete(id, "e").unwrap();
    let grown = peak(hand.daemon()) - before;
    assert!(grown < 2 << 10, "the daemon grew by {grown} kB");
    hand.wake();
    hand.end();
}

/// The daemon itself copies a terminal's output.
fn an_endless_terminal_with_a_stalled_reader_costs_no_memory(t: &Test) {
    let hand = Hand::new(t);
    let id = &hand.bundle.id;
    let (before, fifo) = (peak(hand.daemon()), hand.bundle.dir.join("fifo"));
    make_fifo(&fifo);
    let _stalled = open_fifo(&fifo);
    let stdout = fifo.to_string_lossy().into_owned();
    let io = Stdio3 { terminal: true, stdout, ..Stdio3::default() };
    hand.spec().with("/process/terminal", json!(true)).args(&["yes"]).write(&hand.config());
    hand.shim.create(&hand.bundle, &io).unwrap();
    hand.shim.start(id, "").unwrap();
    until_it_is_stuck(facts::process(t, "yes"));
    assert_eq!(hand.shim.status(id, ""), "running");
    hand.wake();
    let grown = peak(hand.daemon()) - before;
    assert!(grown < 2 << 10, "the daemon grew by {grown} kB");
    hand.end();
}
