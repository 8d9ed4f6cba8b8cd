//! Standard streams: nothing wedges and no byte is lost, whoever reads or does not.

use std::fs;
use std::io::Read;
use std::time::Duration;

use myshim_integration::claim::Claim;
use myshim_integration::command::LIMIT;
use myshim_integration::shim::{
    Bundle, Dialect, Ends, EventSink, Invocation, Stdio3, make_fifo, open_fifo, shell,
};
use myshim_integration::wait;
use myshim_integration::{Test, claims};
use sha2::{Digest, Sha256};

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    a_hundred_megabytes_arrive_whole.within(120),
    the_last_byte_before_the_exit_is_not_lost,
    standard_input_arrives_whole_and_ends,
    a_reader_that_is_slow_loses_nothing.once().within(120),
    a_reader_that_is_gone_wedges_nothing.once(),
    a_reader_that_never_reads_does_not_hold_up_the_exit.once(),
    a_reader_that_comes_back_reads_on.once(),
    closing_standard_input_is_seen_as_its_end.once(),
    a_stream_that_is_not_given_is_dev_null.once(),
    null_io_works,
    a_file_takes_both_streams,
    a_file_is_appended_to.once(),
    a_logger_gets_both_streams_and_its_arguments,
    a_logger_that_fails_fails_the_create,
    a_logger_that_is_not_there_fails_the_create,
    an_unknown_scheme_is_refused.once(),
    an_execs_streams_are_its_own,
    an_unprivileged_program_may_open_its_streams_again,
    background_children_do_not_hold_up_the_delete.once(),
    a_failed_create_closes_its_fifos.once(),
    endless_output_leaves_the_daemons_memory_alone.once(),
];

fn a_hundred_megabytes_arrive_whole(t: &Test) {
    let script = "head -c 104857600 /dev/zero | tr '\\0' x";
    let out = t.run(&[], &["sh", "-c", script]);
    assert_eq!((out.code(), out.stdout.len()), (Some(0), 104_857_600));
    let wanted = Sha256::digest(vec![b'x'; 104_857_600]);
    assert_eq!(Sha256::digest(&out.stdout), wanted);
}

fn the_last_byte_before_the_exit_is_not_lost(t: &Test) {
    for n in 0..5 {
        let size = 60_000 + n * 5_000;
        let out = t.run(&[], &["sh", "-c", &format!("head -c {size} /dev/zero; printf END")]);
        assert!(
            out.stdout.len() == size + 3 && out.stdout.ends_with(b"END"),
            "{}",
            out.stdout.len()
        );
    }
}

fn standard_input_arrives_whole_and_ends(t: &Test) {
    let args = t.run_args(&t.id("run"), &["--rm"], &["sha256sum"]);
    let mut running = t.ctr_start(args);
    let data: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    running.write(&data);
    let out = running.finish(LIMIT).ok();
    let wanted = myshim_integration::containerd::hex(&Sha256::digest(&data));
    assert_eq!(out.split_whitespace().next(), Some(wanted.as_str()));
}

/// A container by hand with fifos that the test holds.
struct Rig<'a> {
    t: &'a Test,
    sink: EventSink,
    bundle: Bundle,
    shim: myshim_integration::shim::Shim,
    stdio: Stdio3,
}

impl<'a> Rig<'a> {
    fn new(t: &'a Test, script: &str) -> Self {
        let sink = EventSink::listen(t);
        let bundle = Bundle::new(t, "web", |spec| spec.shell(script));
        let path = |name: &str| {
            let path = bundle.dir.join(name);
            make_fifo(&path);
            path.to_string_lossy().into_owned()
        };
        let stdio =
            Stdio3 { terminal: false, stdin: path("in"), stdout: path("out"), stderr: path("err") };
        let shim = Invocation::new(t, &bundle, &sink).start(Dialect::Bootstrap);
        Self { t, sink, bundle, shim, stdio }
    }

    /// Creates and starts with a reader that holds the fifos open, as a client does.
    fn run(&self) -> (fs::File, fs::File) {
        let files = (self.open(&self.stdio.stdout), self.open(&self.stdio.stderr));
        self.shim.create(&self.bundle, &self.stdio).unwrap();
        self.shim.start(&self.bundle.id, "").unwrap();
        files
    }

    /// A client's end for reading.
    fn open(&self, fifo: &str) -> fs::File {
        use std::os::unix::fs::OpenOptionsExt;
        let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
        fs::File::options().read(true).custom_flags(nonblock).open(fifo).unwrap()
    }

    fn code(&self) -> u32 {
        self.shim.wait(&self.bundle.id, "").unwrap().exit_status
    }

    fn end(self) {
        crate::rpc::end(&self.shim, &self.bundle);
        Invocation::new(self.t, &self.bundle, &self.sink).run("delete", b"").ok();
    }
}

/// Reads what is there until `done`; the fifo does not block.
fn drain(file: &mut fs::File, bytes: &mut Vec<u8>) {
    let mut buffer = [0; 65536];
    while let Ok(n @ 1..) = file.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..n]);
    }
}

fn a_reader_that_is_slow_loses_nothing(t: &Test) {
    let rig = Rig::new(t, "head -c 4000000 /dev/zero; printf END");
    let (mut out, _err) = rig.run();
    let (mut bytes, mut buffer) = (Vec::new(), [0; 8192]);
    wait::within(Duration::from_secs(90), || {
        for _ in 0..20 {
            if let Ok(n @ 1..) = out.read(&mut buffer) {
                bytes.extend_from_slice(&buffer[..n]);
            }
        }
        (bytes.len() >= 4_000_003).then_some(())
    });
    assert!(bytes.len() == 4_000_003 && bytes.ends_with(b"END"), "{}", bytes.len());
    assert_eq!(rig.code(), 0);
    rig.end();
}

fn a_reader_that_is_gone_wedges_nothing(t: &Test) {
    // More than a pipe holds; without a reader it is as if a client had crashed.
    let rig = Rig::new(
        t,
        "echo first; while [ ! -e /go ]; do sleep 0.02; done; head -c 1000000 /dev/zero; exit 3",
    );
    let (mut out, err) = rig.run();
    let mut bytes = Vec::new();
    wait::until_true("the first line", || {
        drain(&mut out, &mut bytes);
        bytes == b"first\n"
    });
    drop((out, err));
    rig.shim.exec(&rig.bundle.id, "go", &shell("touch /go"), &Stdio3::default()).unwrap();
    rig.shim.start(&rig.bundle.id, "go").unwrap();
    // The program may block on its full pipe; the shim and its other calls may not.
    assert_eq!(rig.shim.wait(&rig.bundle.id, "go").unwrap().exit_status, 0);
    assert_eq!(rig.shim.status(&rig.bundle.id, "go"), "stopped");
    rig.end();
}

fn a_reader_that_never_reads_does_not_hold_up_the_exit(t: &Test) {
    let rig = Rig::new(t, "head -c 1000000 /dev/zero & exec sleep 3600");
    let (_out, _err) = rig.run();
    facts::process(t, "sleep 3600");
    rig.shim.kill(&rig.bundle.id, "", 9).unwrap();
    assert_eq!(rig.code(), 137);
    assert_eq!(rig.sink.until(&rig.bundle.id, "exit:137"), ["create", "start", "exit:137"]);
    rig.end();
}

fn a_reader_that_comes_back_reads_on(t: &Test) {
    let script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.005; done";
    let rig = Rig::new(t, script);
    let (mut out, err) = rig.run();
    let mut first = Vec::new();
    wait::until_true("the first lines", || {
        drain(&mut out, &mut first);
        first.len() > 50
    });
    drop((out, err));
    let mut out = rig.open(&rig.stdio.stdout);
    let mut rest = Vec::new();
    wait::until_true("the last line", || {
        drain(&mut out, &mut rest);
        rest.ends_with(b"line 299\n")
    });
    let all = String::from_utf8([first, rest].concat()).unwrap();
    let wanted: String = (0..300).map(|n| format!("line {n}\n")).collect();
    assert_eq!(all, wanted);
    assert_eq!(rig.code(), 0);
    rig.end();
}

fn closing_standard_input_is_seen_as_its_end(t: &Test) {
    let rig = Rig::new(t, "cat; echo end");
    let (mut out, _err) = rig.run();
    let stdin = fs::File::options().write(true).open(&rig.stdio.stdin).unwrap();
    std::io::Write::write_all(&mut &stdin, b"words\n").unwrap();
    let mut bytes = Vec::new();
    wait::until_true("the echo", || {
        drain(&mut out, &mut bytes);
        bytes == b"words\n"
    });
    // As containerd does: its end closes, and the shim is told.
    drop(stdin);
    rig.shim.close_stdin(&rig.bundle.id, "").unwrap();
    wait::until_true("the end", || {
        drain(&mut out, &mut bytes);
        bytes == b"words\nend\n"
    });
    assert_eq!(rig.code(), 0);
    rig.end();
}

fn a_stream_that_is_not_given_is_dev_null(t: &Test) {
    let mut rig = Rig::new(
        t,
        "readlink /proc/self/fd/0; readlink /proc/self/fd/2; cat; echo lost >&2; echo end",
    );
    rig.stdio.stdin.clear();
    rig.stdio.stderr.clear();
    let mut out = rig.open(&rig.stdio.stdout);
    rig.shim.create(&rig.bundle, &rig.stdio).unwrap();
    rig.shim.start(&rig.bundle.id, "").unwrap();
    assert_eq!(rig.code(), 0);
    let mut bytes = Vec::new();
    wait::until_true("the output", || {
        drain(&mut out, &mut bytes);
        bytes.ends_with(b"end\n")
    });
    assert_eq!(String::from_utf8_lossy(&bytes), "/dev/null\n/dev/null\nend\n");
    rig.end();
}

fn null_io_works(t: &Test) {
    let out = t.run(&["--null-io"], &["sh", "-c", "echo lost; cat; exit 3"]);
    assert_eq!(out.exits(3), "");
}

fn a_file_takes_both_streams(t: &Test) {
    let file = t.dir.join("log");
    let uri = format!("file://{}", file.display());
    let c = t.detached("web", &["--log-uri", &uri], &["sh", "-c", "echo out; echo err >&2"]);
    c.wait_status("STOPPED");
    // Two streams have no order between them.
    let text = fs::read_to_string(&file).unwrap();
    assert!(["out\nerr\n", "err\nout\n"].contains(&text.as_str()), "{text}");
    c.remove();
}

fn a_file_is_appended_to(t: &Test) {
    let sink = EventSink::listen(t);
    let file = t.file("log", "before\n");
    let bundle = Bundle::new(t, "web", |spec| spec.shell("echo out"));
    let shim = Invocation::new(t, &bundle, &sink).start(Dialect::Bootstrap);
    shim.create(&bundle, &Stdio3::to_file(&file)).unwrap();
    shim.start(&bundle.id, "").unwrap();
    shim.wait(&bundle.id, "").unwrap();
    shim.delete(&bundle.id, "").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "before\nout\n");
    shim.shutdown(&bundle.id, Ends::Yes);
    Invocation::new(t, &bundle, &sink).run("delete", b"").ok();
}

fn a_logger_gets_both_streams_and_its_arguments(t: &Test) {
    let dir = t.folder("logged");
    let place = dir.display();
    let logger = t.script(
        "logger",
        &format!(
            "trap : TERM; echo \"$@\" >{place}/args; echo \"$CONTAINER_ID $CONTAINER_NAMESPACE\" >{place}/env\n\
             exec 5>&-; /bin/cat <&3 >{place}/out & /bin/cat <&4 >{place}/err &\n\
             wait; echo end >{place}/end"
        ),
    );
    let uri = format!("binary://{}?one=1", logger.display());
    let c = t.detached("web", &["--log-uri", &uri], &["sh", "-c", "echo out; echo err >&2"]);
    c.wait_status("STOPPED");
    let id = c.id.clone();
    c.remove();
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    wait::until_true("the logger has ended", || read("end") == "end\n");
    assert_eq!((read("out").as_str(), read("err").as_str()), ("out\n", "err\n"));
    assert_eq!(read("args"), "one 1\n");
    assert_eq!(read("env"), format!("{id} {}\n", t.endpoint.namespace));
}

fn a_logger_that_fails_fails_the_create(t: &Test) {
    let logger = t.script("logger", "exit 9");
    let uri = format!("binary://{}", logger.display());
    t.run(&["--log-uri", &uri], &["true"]).fails(&["logg"]);
}

fn a_logger_that_is_not_there_fails_the_create(t: &Test) {
    t.run(&["--log-uri", "binary:///not/there"], &["true"]).fails(&["/not/there"]);
}

fn an_unknown_scheme_is_refused(t: &Test) {
    let mut rig = Rig::new(t, "true");
    rig.stdio.stdout = "juggle:///somewhere".to_owned();
    let error = rig.shim.create(&rig.bundle, &rig.stdio).unwrap_err();
    assert!(error.message.contains("juggle"), "{error:?}");
    rig.shim.shutdown(&rig.bundle.id, Ends::Yes);
    Invocation::new(t, &rig.bundle, &rig.sink).run("delete", b"").ok();
}

fn an_execs_streams_are_its_own(t: &Test) {
    let running =
        t.ctr_start(t.run_args(&t.id("web"), &["--rm"], &["sh", "-c", "echo up; sleep 3600"]));
    facts::says(&running, "up");
    let c = t.container("web");
    assert_eq!(c.exec(&["echo", "mine"]).ok(), "mine\n");
    assert_eq!(running.out_so_far(), "up\n");
    c.kill("SIGKILL").ok();
    running.finish(LIMIT).exits(137);
}

fn an_unprivileged_program_may_open_its_streams_again(t: &Test) {
    let out = t.run_spec(|spec| {
        spec.with("/process/user", serde_json::json!({"uid": 1000, "gid": 1000}))
            .capabilities(&[])
            .shell("echo one >/dev/stdout; echo two >/proc/self/fd/1; echo three >/dev/stderr")
    });
    assert_eq!(out.ok(), "one\ntwo\n", "{out}");
    assert_eq!(out.err(), "three\n");
}

fn background_children_do_not_hold_up_the_delete(t: &Test) {
    let rig = Rig::new(t, "sleep 3600");
    let (_out, _err) = rig.run();
    let mut stdio = rig.stdio.clone();
    for (name, place) in [("eo", &mut stdio.stdout), ("ee", &mut stdio.stderr)] {
        let path = rig.bundle.dir.join(name);
        make_fifo(&path);
        *place = path.to_string_lossy().into_owned();
    }
    stdio.stdin.clear();
    let mut reader = rig.open(&stdio.stdout);
    let _other = rig.open(&stdio.stderr);
    let process = shell("sleep 1000 & echo out");
    rig.shim.exec(&rig.bundle.id, "e", &process, &stdio).unwrap();
    rig.shim.start(&rig.bundle.id, "e").unwrap();
    assert_eq!(rig.shim.wait(&rig.bundle.id, "e").unwrap().exit_status, 0);
    let begin = std::time::Instant::now();
    rig.shim.delete(&rig.bundle.id, "e").unwrap();
    assert!(begin.elapsed() < wait::scaled(Duration::from_secs(12)), "{:?}", begin.elapsed());
    let mut bytes = Vec::new();
    drain(&mut reader, &mut bytes);
    assert_eq!(bytes, b"out\n");
    rig.end();
}

fn a_failed_create_closes_its_fifos(t: &Test) {
    let rig = Rig::new(t, "true");
    let daemon = rig.shim.connect(&rig.bundle.id).unwrap().shim_pid;
    let file = rig.bundle.dir.join("config.json");
    let spec: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let bad = myshim_integration::spec::Spec(spec).args(&["no-such-program"]);
    bad.write(&file);
    let before = facts::settled_descriptors(daemon);
    let holders = (open_fifo(rig.stdio.stdout.as_ref()), open_fifo(rig.stdio.stderr.as_ref()));
    for _ in 0..5 {
        rig.shim.create(&rig.bundle, &rig.stdio).unwrap_err();
    }
    drop(holders);
    let same = wait::within(wait::SOON, || {
        (facts::settled_descriptors(daemon).len() <= before.len()).then_some(())
    });
    let after = facts::settled_descriptors(daemon);
    assert!(same.is_some(), "before: {before:#?}\nafter: {after:#?}");
    rig.shim.shutdown(&rig.bundle.id, Ends::Yes);
    Invocation::new(t, &rig.bundle, &rig.sink).run("delete", b"").ok();
}

fn endless_output_leaves_the_daemons_memory_alone(t: &Test) {
    let rig = Rig::new(t, "exec cat /dev/zero");
    let (mut out, _err) = rig.run();
    let daemon = rig.shim.connect(&rig.bundle.id).unwrap().shim_pid;
    let memory = || -> u64 {
        let text = myshim_integration::process::status(daemon, "VmRSS").unwrap();
        text.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (before, mut buffer, mut seen) = (memory(), vec![0; 1 << 16], 0_usize);
    rustix::fs::fcntl_setfl(&out, rustix::fs::OFlags::empty()).unwrap();
    while seen < 200_000_000 {
        seen += out.read(&mut buffer).unwrap();
    }
    assert!(memory() < before + 4096, "{before} kB before, {} kB after", memory());
    rig.end();
}
