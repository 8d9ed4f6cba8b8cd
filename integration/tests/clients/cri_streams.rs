//! exec, attach, port-forward and logs, through the streaming server of CRI.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use myshim_integration::claim::Claim;
use myshim_integration::command::LIMIT;
use myshim_integration::cri::{Cri, exec};
use myshim_integration::{Test, claims, wait};
use rustix::process::Signal;
use serde_json::json;

use crate::cri_pods::on_host_network;

pub(crate) const CLAIMS: &[Claim] = claims![
    an_exec_has_streams_a_code_and_a_deadline.own_network(),
    an_exec_on_a_terminal_is_resized.own_network(),
    an_attach_reads_and_writes_the_running_container.own_network(),
    a_port_is_forwarded_into_the_pod.own_network(),
    probes_at_a_rate_of_twenty_a_second_are_all_answered.own_network().alone(),
];

const SLEEP: &[&str] = &["sleep", "3600"];

fn an_exec_has_streams_a_code_and_a_deadline(t: &Test) {
    let cri = Cri::start(t);
    let pod = cri.pod("web", on_host_network);
    let c = pod.container("app", SLEEP, on_host_network);
    let output = c.exec(&["sh", "-c", "echo out; echo err >&2; exit 5"]);
    // Of a failed one, crictl shows only its errors.
    output.fails(&["exited with 5: err"]);
    // Of another one, both, with an empty line between them.
    assert_eq!(c.exec(&["sh", "-c", "echo out; echo err >&2"]).ok(), "out\n\nerr\n");
    c.exec(&["no-such-program"]).fails(&["no-such-program"]);
    // What is late is killed; the container goes on.
    let late = ["exec", "--sync", "--timeout", "1", &c.id, "sleep", "1234"];
    cri.crictl(late).fails(&["timed out after 1s"]);
    wait::until_true("nothing of the late exec is left", || {
        !c.exec(&["ps"]).ok().contains("sleep 1234")
    });

    let mut cat = cri.crictl_start(["exec", "-i", &c.id, "sh", "-c", "cat; echo end; exit 4"]);
    cat.write(b"one\ntwo\n");
    cat.close_stdin();
    let output = cat.finish(LIMIT);
    assert_eq!(output.out(), "one\ntwo\nend\n", "{output}");
    output.fails(&["4"]);
    pod.remove();
    cri.finish();
}

fn an_exec_on_a_terminal_is_resized(t: &Test) {
    let cri = Cri::start(t);
    let pod = cri.pod("web", on_host_network);
    let c = pod.container("app", SLEEP, on_host_network);
    let mut terminal = cri.crictl_on_terminal(["exec", "-i", "-t", &c.id, "sh"]);
    terminal.send("stty size; tty\n");
    terminal.expect("24 80\n/dev/pts/0\n");
    terminal.resize(100, 40);
    wait::until_true("the new size arrives", || {
        terminal.send("stty size\n");
        terminal.shown().contains("40 100")
    });
    terminal.send("exit 0\n");
    let (status, shown) = terminal.finish(LIMIT);
    assert!(status.success(), "{shown}");
    pod.remove();
    cri.finish();
}

fn an_attach_reads_and_writes_the_running_container(t: &Test) {
    let cri = Cri::start(t);
    let pod = cri.pod("web", on_host_network);
    let c =
        pod.container("app", &["sh", "-c", "while read line; do echo got $line; done"], |config| {
            on_host_network(config);
            config["stdin"] = json!(true);
            config["stdin_once"] = json!(true);
        });
    let mut attach = cri.crictl_start(["attach", "-i", &c.id]);
    // Output before the attach is there is only in the log.
    wait::until_true("the attach answers", || {
        attach.write(b"ping\n");
        attach.out_so_far().contains("got ping")
    });
    attach.write(b"last\n");
    wait::until_true("the last line comes back", || attach.out_so_far().contains("got last"));
    drop(attach.finish(LIMIT));
    // stdin was given once: with its end the container ends.
    c.wait_exited();
    c.wait_said("got last\n");
    assert_eq!(c.status("/exitCode"), "0");
    assert!(cri.crictl(["logs", &c.id]).ok().ends_with("got last\n"));
    pod.remove();
    cri.finish();
}

fn a_port_is_forwarded_into_the_pod(t: &Test) {
    let cri = Cri::start(t);
    let pod = cri.pod("web", |_| ());
    let serve =
        "mkdir /www; echo hello from the pod >/www/index.html; httpd -f -p 127.0.0.1:8080 -h /www";
    let c = pod.container("app", &["sh", "-c", serve], |_| ());
    wait::until_true("the server listens", || {
        c.exec(&["wget", "-q", "-O", "-", "http://127.0.0.1:8080/"]).status.success()
    });
    let forward = cri.crictl_start(["port-forward", &pod.id, "18080:8080"]);
    wait::until_true("the port is open", || TcpStream::connect("127.0.0.1:18080").is_ok());
    let mut stream = TcpStream::connect("127.0.0.1:18080").unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("hello from the pod\n"), "{answer}");
    forward.signal(Signal::TERM);
    drop(forward.finish(LIMIT));
    pod.remove();
    cri.finish();
}

fn probes_at_a_rate_of_twenty_a_second_are_all_answered(t: &Test) {
    const PROBES: u32 = 80;
    let cri = Cri::start(t);
    let pod = cri.pod("web", on_host_network);
    let c = pod.container("app", SLEEP, on_host_network);
    let (endpoint, id) = (&cri.test.endpoint, c.id.as_str());
    let (next, answered) = (AtomicU32::new(0), AtomicU32::new(0));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= PROBES {
                        break;
                    }
                    let due = begin + Duration::from_millis(50) * n;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let probe = format!("echo {n}; exit {}", n % 2);
                    let output = exec(endpoint, id, &["sh", "-c", &probe]);
                    if n % 2 == 0 {
                        assert_eq!(output.ok(), format!("{n}\n"));
                    } else {
                        output.fails(&["exited with 1"]);
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(answered.into_inner(), PROBES);
    let left = c.exec(&["ps"]).ok();
    assert!(!left.contains("sh -c echo"), "{left}");
    assert_eq!(c.status("/state"), "CONTAINER_RUNNING");
    pod.remove();
    cri.finish();
}
