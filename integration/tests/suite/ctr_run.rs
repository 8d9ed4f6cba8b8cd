//! `ctr run`: its flags, exit codes and errors.

use std::fs;

use myshim_integration::claim::Claim;
use myshim_integration::command::LIMIT;
use myshim_integration::process::{cgroup_dir, status};
use myshim_integration::{Test, Version, claims};

use crate::facts::{self, cap};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_container_prints_and_ends_with_0,
    standard_output_and_error_stay_apart,
    the_exit_code_is_the_programs,
    a_killed_container_ends_with_128_and_the_signal,
    a_missing_program_is_named,
    a_file_that_is_no_program_is_named,
    a_directory_is_no_program,
    env_reaches_the_program,
    cwd_is_where_the_program_starts,
    a_user_by_name_has_its_ids_and_groups,
    a_read_only_root_takes_no_writes,
    a_bind_mount_shows_the_hosts_folder,
    a_read_only_bind_mount_takes_no_writes,
    net_host_shows_the_hosts_devices,
    a_network_namespace_has_lo_and_it_is_up,
    privileged_has_every_capability_and_the_hosts_devices,
    a_memory_limit_is_the_cgroups,
    cpus_is_the_cgroups_quota,
    cpu_shares_are_the_cgroups,
    the_default_seccomp_profile_is_loaded,
    capabilities_are_added_and_dropped,
    no_pivot_still_confines_the_root,
    a_hostname_is_the_containers,
    the_pid_file_holds_the_inits_pid,
    a_root_folder_without_snapshot_runs,
    a_device_is_there_and_allowed,
    a_namespace_is_joined_by_path,
    a_container_without_a_cgroup_path_runs,
    a_new_run_may_take_the_id_of_an_old_one,
    a_megabyte_of_arguments_and_environment_arrives,
];

fn a_container_prints_and_ends_with_0(t: &Test) {
    assert_eq!(t.run(&[], &["echo", "hello"]).ok(), "hello\n");
}

fn standard_output_and_error_stay_apart(t: &Test) {
    let out = t.run(&[], &["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((out.ok().as_str(), out.err().as_str()), ("out\n", "err\n"));
}

fn the_exit_code_is_the_programs(t: &Test) {
    for code in [1, 3, 127, 255] {
        t.run(&[], &["sh", "-c", &format!("exit {code}")]).exits(code);
    }
}

fn a_killed_container_ends_with_128_and_the_signal(t: &Test) {
    for (signal, code) in [("SIGKILL", 137), ("SIGTERM", 143)] {
        let id = t.id(&signal.to_lowercase());
        let script = "trap 'trap - TERM; exit 143' TERM; echo up; while :; do sleep 0.05; done";
        let running = t.ctr_start(t.run_args(&id, &["--rm"], &["sh", "-c", script]));
        facts::says(&running, "up");
        t.ctr(["tasks", "kill", "--signal", signal, &id]).ok();
        assert_eq!(running.finish(LIMIT).code(), Some(code), "after {signal}");
    }
}

fn a_missing_program_is_named(t: &Test) {
    t.run(&[], &["no-such-program"])
        .fails(&["no-such-program", "executable file not found in $PATH"]);
    t.run(&[], &["/bin/no-such-program"])
        .fails(&["/bin/no-such-program", "no such file or directory"]);
}

fn a_file_that_is_no_program_is_named(t: &Test) {
    t.run(&[], &["/etc/plain"]).fails(&["/etc/plain", "permission denied"]);
}

fn a_directory_is_no_program(t: &Test) {
    t.run(&[], &["/etc"]).fails(&["/etc"]);
}

fn env_reaches_the_program(t: &Test) {
    let out = t.shell(&["--env", "A=1", "--env", "B=two words"], "echo \"$A,$B,$PATH\"");
    assert_eq!(out, "1,two words,/bin\n");
}

fn cwd_is_where_the_program_starts(t: &Test) {
    assert_eq!(t.run(&["--cwd", "/home/app"], &["pwd"]).ok(), "/home/app\n");
}

fn a_user_by_name_has_its_ids_and_groups(t: &Test) {
    // ctr 1.6 has no --user at run.
    if t.version() == Version::V2 {
        assert_eq!(t.run(&["--user", "app"], &["id", "-u"]).ok(), "1000\n");
        assert_eq!(t.run(&["--user", "app"], &["id", "-g"]).ok(), "1000\n");
        let groups = t.run(&["--user", "app"], &["id", "-G"]).ok();
        assert!(groups.split_whitespace().any(|gid| gid == "2000"), "{groups}");
    }
    let c = t.sleeper("web", &[]);
    assert_eq!(c.exec_as("e", &["--user", "app"], &["id", "-u"]).ok(), "1000\n");
    c.remove();
}

fn a_read_only_root_takes_no_writes(t: &Test) {
    let out = t.run(&["--read-only"], &["touch", "/file"]);
    out.fails(&["Read-only file system"]);
    let out = t.run(&["--read-only"], &["mount", "-o", "remount,rw", "/"]);
    assert!(!out.status.success(), "{out}");
}

fn a_bind_mount_shows_the_hosts_folder(t: &Test) {
    let folder = t.folder("shared");
    let mount = format!("type=bind,src={},dst=/new/place,options=rbind:rw", folder.display());
    t.shell(&["--mount", &mount], "echo text >/new/place/file");
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "text\n");
}

fn a_read_only_bind_mount_takes_no_writes(t: &Test) {
    let folder = t.folder("shared");
    let mount = format!("type=bind,src={},dst=/place,options=rbind:ro", folder.display());
    t.run(&["--mount", &mount], &["touch", "/place/file"]).fails(&["Read-only file system"]);
    assert!(!folder.join("file").exists());
}

fn net_host_shows_the_hosts_devices(t: &Test) {
    let out = t.run(&["--net-host"], &["readlink", "/proc/self/ns/net"]).ok();
    assert_eq!(out.trim(), facts::namespace("self", "net"));
}

fn a_network_namespace_has_lo_and_it_is_up(t: &Test) {
    let out = t.shell(&[], "ls /sys/class/net; readlink /proc/self/ns/net; ip link show lo");
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("lo"), "{out}");
    assert_ne!(lines.next(), Some(facts::namespace("self", "net").as_str()));
    assert!(out.contains("LOOPBACK,UP"), "{out}");
    assert_eq!(t.run(&[], &["ping", "-c1", "-W1", "127.0.0.1"]).code(), Some(0));
}

fn privileged_has_every_capability_and_the_hosts_devices(t: &Test) {
    let out =
        t.shell(&["--privileged"], "grep CapEff /proc/self/status; ls -d /dev/kmsg /dev/fuse");
    let caps = out.lines().next().and_then(|line| line.split_whitespace().nth(1)).unwrap();
    // What the suite itself lacks, no container can have.
    assert_eq!(caps, status(std::process::id(), "CapBnd").unwrap(), "{out}");
    for device in ["/dev/kmsg", "/dev/fuse"] {
        let on_host = std::path::Path::new(device).exists();
        assert_eq!(out.contains(device), on_host, "{device}: {out}");
    }
}

fn a_memory_limit_is_the_cgroups(t: &Test) {
    let c = t.sleeper("web", &["--memory-limit", "67108864"]);
    let dir = cgroup_dir(c.pid(), "memory").unwrap();
    assert_eq!(facts::first_of(&dir, &["memory.limit_in_bytes", "memory.max"]), "67108864");
    c.remove();
}

fn cpus_is_the_cgroups_quota(t: &Test) {
    let c = t.sleeper("web", &["--cpus", "0.5"]);
    let dir = cgroup_dir(c.pid(), "cpu").unwrap();
    let quota = facts::first_of(&dir, &["cpu.cfs_quota_us", "cpu.max"]);
    assert!(["50000", "50000 100000"].contains(&quota.as_str()), "{quota}");
    c.remove();
}

fn cpu_shares_are_the_cgroups(t: &Test) {
    let c = t.sleeper("web", &["--cpu-shares", "512"]);
    let dir = cgroup_dir(c.pid(), "cpu").unwrap();
    if dir.join("cpu.shares").exists() {
        assert_eq!(facts::first_of(&dir, &["cpu.shares"]), "512");
    } else {
        // The weight for 512 shares: below the default's 100, above the least.
        let weight: u32 = facts::first_of(&dir, &["cpu.weight"]).parse().unwrap();
        assert!((15..100).contains(&weight), "{weight}");
    }
    c.remove();
}

fn the_default_seccomp_profile_is_loaded(t: &Test) {
    let out = t.shell(&["--seccomp"], "grep Seccomp: /proc/self/status; dmesg 2>&1 | tail -n1");
    assert!(out.starts_with("Seccomp:\t2\n"), "{out}");
    let out = t.shell(&[], "grep Seccomp: /proc/self/status");
    assert_eq!(out, "Seccomp:\t0\n");
}

fn capabilities_are_added_and_dropped(t: &Test) {
    let flags = ["--cap-add", "CAP_SYS_ADMIN", "--cap-drop", "CAP_CHOWN"];
    let out = t.shell(&flags, "grep -E 'Cap(Eff|Bnd|Prm)' /proc/self/status");
    for line in out.lines() {
        let mask = line.split_whitespace().nth(1).unwrap();
        assert!(cap(mask, 21) && !cap(mask, 0) && cap(mask, 1), "{out}");
    }
    assert_eq!(out.lines().count(), 3, "{out}");
}

fn no_pivot_still_confines_the_root(t: &Test) {
    let out =
        t.shell(&["--no-pivot"], "ls / | tr '\\n' ' '; ls -d /../work 2>&1; cat /etc/hostname");
    assert!(out.contains("bin ") && out.ends_with("image\n"), "{out}");
    assert!(!out.contains("boot"), "the host's root: {out}");
}

fn a_hostname_is_the_containers(t: &Test) {
    // ctr 1.6 has no --hostname.
    let out = t.run_spec(|s| s.with("/hostname", "box".into()).args(&["hostname"]));
    assert_eq!(out.ok(), "box\n");
}

fn the_pid_file_holds_the_inits_pid(t: &Test) {
    let file = t.dir.join("pid");
    let c = t.sleeper("web", &["--pid-file", &file.to_string_lossy()]);
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), c.pid().to_string());
    assert_eq!(fs::read_to_string(format!("/proc/{}/comm", c.pid())).unwrap(), "sleep\n");
    c.remove();
}

fn a_root_folder_without_snapshot_runs(t: &Test) {
    let (id, root) = (t.id("web"), t.rootfs());
    let mut args = t.run_args(&id, &["--rm", "--rootfs"], &["/bin/cat", "/etc/hostname"]);
    let image = args.iter().position(|word| word == myshim_integration::image::NAME).unwrap();
    args[image] = root.to_string_lossy().into_owned();
    assert_eq!(t.ctr(args).ok(), "image\n");
}

fn a_device_is_there_and_allowed(t: &Test) {
    let some = ["/dev/fuse", "/dev/loop-control", "/dev/net/tun"];
    let device = some.into_iter().find(|path| fs::metadata(path).is_ok()).expect("a device");
    let script = format!("exec 3<>{device} && echo opened");
    assert_eq!(t.shell(&["--device", device], &script), "opened\n");
    // A container that may make nodes can make this one; the device cgroup forbids its use.
    let number = rustix::fs::stat(device).unwrap().st_rdev;
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let script = format!("mknod /node c {major} {minor} && exec 3<>/node && echo opened");
    t.run(&["--cap-add", "CAP_MKNOD"], &["sh", "-c", &script]).fails(&["Operation not permitted"]);
}

fn a_namespace_is_joined_by_path(t: &Test) {
    let c = t.sleeper("first", &[]);
    for kind in ["network", "ipc", "uts"] {
        let name = if kind == "network" { "net" } else { kind };
        let flag = format!("{kind}:/proc/{}/ns/{name}", c.pid());
        let link = format!("/proc/self/ns/{name}");
        let out = t.run(&["--with-ns", &flag], &["readlink", &link]).ok();
        assert_eq!(out.trim(), facts::namespace(&c.pid().to_string(), name));
    }
    c.remove();
}

fn a_container_without_a_cgroup_path_runs(t: &Test) {
    assert_eq!(t.run(&["--cgroup", ""], &["echo", "hello"]).ok(), "hello\n");
}

fn a_new_run_may_take_the_id_of_an_old_one(t: &Test) {
    for n in ["1", "2", "3"] {
        assert_eq!(t.run(&[], &["echo", n]).ok().trim(), n);
    }
}

fn a_megabyte_of_arguments_and_environment_arrives(t: &Test) {
    let word = "x".repeat(100_000);
    let env: Vec<String> = (0..5).map(|n| format!("E{n}={word}")).collect();
    let mut program = vec!["sh", "-c", "echo $# ${#1} ${#E4}", "sh"];
    program.extend([word.as_str(); 5]);
    let mut flags = Vec::new();
    env.iter().for_each(|e| flags.extend(["--env", e.as_str()]));
    assert_eq!(t.run(&flags, &program).ok(), "5 100000 100000\n");
}
