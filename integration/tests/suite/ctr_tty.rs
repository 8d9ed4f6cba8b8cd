//! Terminals: `-t` on a real pseudo terminal, resizing, keys, `attach`.

use myshim_integration::claim::Claim;
use myshim_integration::command::LIMIT;
use myshim_integration::process::descriptors;
use myshim_integration::wait;
use myshim_integration::{Test, claims};

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    a_terminal_runs_a_shell,
    a_terminals_exit_code_arrives,
    a_terminal_has_a_name_a_size_and_follows_a_resize,
    a_terminal_is_the_controlling_one,
    a_terminal_sends_interrupt_and_end_of_file,
    the_console_device_is_the_terminal,
    an_exec_has_a_terminal_of_its_own,
    attach_shows_and_types,
    a_terminal_container_holds_one_ptmx_and_returns_it,
    a_terminals_last_words_are_not_lost,
];

fn a_terminal_runs_a_shell(t: &Test) {
    let mut tty = t.ctr_on_terminal(t.run_args(&t.id("tty"), &["--rm", "-t"], &["sh"]));
    tty.send("echo $((6*7))\n");
    tty.expect("42\n");
    tty.send("exit\n");
    assert!(tty.finish(LIMIT).0.success());
}

fn a_terminals_exit_code_arrives(t: &Test) {
    let args = t.run_args(&t.id("tty"), &["--rm", "-t"], &["sh", "-c", "echo bye; exit 7"]);
    let (status, shown) = t.ctr_on_terminal(args).finish(LIMIT);
    assert_eq!(status.code(), Some(7), "{shown}");
    assert!(shown.contains("bye\n"), "{shown}");
}

fn a_terminal_has_a_name_a_size_and_follows_a_resize(t: &Test) {
    let mut tty = t.ctr_on_terminal(t.run_args(&t.id("tty"), &["--rm", "-t"], &["sh"]));
    tty.send("tty\n");
    tty.expect("/dev/pts/0\n");
    // ctr sets the size after start: ask until it is there.
    let size = |tty: &mut myshim_integration::pty::Terminal, wanted: &str| {
        wait::until(&format!("a size of {wanted}"), || {
            tty.send("stty size\n");
            tty.shown().contains(wanted).then_some(())
        });
    };
    size(&mut tty, "24 80\n");
    tty.resize(123, 45);
    size(&mut tty, "45 123\n");
    tty.send("exit\n");
    assert!(tty.finish(LIMIT).0.success());
}

fn a_terminal_is_the_controlling_one(t: &Test) {
    let script = "echo text >/dev/tty; ps -o pid,sid,tty | head -n2";
    let args = t.run_args(&t.id("tty"), &["--rm", "-t"], &["sh", "-c", script]);
    let (status, shown) = t.ctr_on_terminal(args).finish(LIMIT);
    assert!(status.success() && shown.contains("text\n"), "{shown}");
    assert!(shown.contains("136,0"), "{shown}");
}

fn a_terminal_sends_interrupt_and_end_of_file(t: &Test) {
    let script = "trap 'echo caught' INT; echo ready-1; read line; echo \"read $?\"; \
                  cat >/dev/null; echo end";
    let args = t.run_args(&t.id("tty"), &["--rm", "-t"], &["sh", "-c", script]);
    let mut tty = t.ctr_on_terminal(args);
    tty.expect("ready-1");
    tty.send("\x03");
    tty.expect("caught");
    tty.send("\n");
    tty.send("\x04");
    tty.send("\x04");
    tty.expect("end");
    assert!(tty.finish(LIMIT).0.success());
}

fn the_console_device_is_the_terminal(t: &Test) {
    let script = "echo text >/dev/console; ls -l /dev/console; stat -c %t:%T /dev/console";
    let args = t.run_args(&t.id("tty"), &["--rm", "-t"], &["sh", "-c", script]);
    let (status, shown) = t.ctr_on_terminal(args).finish(LIMIT);
    assert!(status.success() && shown.contains("text\n"), "{shown}");
    // Major 136 is a pseudo terminal.
    assert!(shown.contains("88:"), "{shown}");
}

fn an_exec_has_a_terminal_of_its_own(t: &Test) {
    let c = t.sleeper("web", &[]);
    let mut tty = t.ctr_on_terminal(c.exec_args("e", &["-t"], &["sh"]));
    tty.send("tty; echo $((6*7))\n");
    tty.expect("/dev/pts/0\n");
    tty.expect("42\n");
    tty.send("exit 5\n");
    let (status, shown) = tty.finish(LIMIT);
    assert_eq!(status.code(), Some(5), "{shown}");
    c.remove();
}

fn attach_shows_and_types(t: &Test) {
    let id = t.id("tty");
    // ctr needs a terminal to give to a detached container, too.
    let (status, shown) =
        t.ctr_on_terminal(t.run_args(&id, &["-t", "--detach"], &["sh"])).finish(LIMIT);
    assert!(status.success(), "{shown}");
    let c = t.container("tty");
    let mut tty = t.ctr_on_terminal(["tasks", "attach", &c.id]);
    wait::until("the shell answers", || {
        tty.send("echo $((6*7))\n");
        tty.shown().contains("42\n").then_some(())
    });
    tty.send("exit 4\n");
    let (status, shown) = tty.finish(LIMIT);
    assert_eq!(status.code(), Some(4), "{shown}");
    c.remove();
}

fn a_terminal_container_holds_one_ptmx_and_returns_it(t: &Test) {
    let ptmx = |pid: u32| descriptors(pid).iter().filter(|link| link.contains("ptmx")).count();
    let c = t.sleeper("web", &[]);
    let shim = c.shim().pid;
    assert_eq!(ptmx(shim), 0);
    let mut tty = t.ctr_on_terminal(c.exec_args("e", &["-t"], &["sh"]));
    tty.send("echo $((6*7))\n");
    tty.expect("42\n");
    assert_eq!(ptmx(shim), 1, "{:#?}", descriptors(shim));
    tty.send("exit\n");
    assert!(tty.finish(LIMIT).0.success());
    wait::until_true("the daemon has closed the terminal", || ptmx(shim) == 0);
    // The name that no program has: nothing may stay of it either.
    let failed = t.ctr_on_terminal(c.exec_args("f", &["-t"], &["no-such-program"]));
    assert!(!failed.finish(LIMIT).0.success());
    wait::until_true("the daemon has closed the terminal", || ptmx(shim) == 0);
    c.remove();
}

fn a_terminals_last_words_are_not_lost(t: &Test) {
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo -n LAST";
    let args = t.run_args(&t.id("tty"), &["--rm", "-t"], &["sh", "-c", script]);
    let (status, shown) = t.ctr_on_terminal(args).finish(LIMIT);
    assert!(status.success(), "{status}");
    let lines = shown.lines().filter(|line| line.starts_with("line ")).count();
    assert!(
        lines == 2000 && shown.ends_with("LAST"),
        "{lines} lines, then {:?}",
        facts::tail(&shown)
    );
}
