//! Each claim has a fork with a user namespace, whose maps are read back from /proc.

use std::fs::{read_to_string, write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{Gid, Uid, set_thread_res_gid, set_thread_res_uid};

use super::*;
use crate::sys::testing::in_fork;

fn map(container: u32, host: u32, size: u32) -> IdMap {
    IdMap { container, host, size }
}

/// Looks at a process that waits in a new user namespace.
fn with_new_namespace(single: &SingleThreaded, look: impl FnOnce(i32, BorrowedFd<'_>)) {
    let (waits, releases) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let clone = Clone { flags: NEWUSER, exit_signal: Signal::CHILD.as_raw(), ..Clone::default() };
    match process::clone3(single, &clone).unwrap() {
        Forked::Child(_) => {
            drop(releases);
            rustix::io::read(&waits, &mut [0_u8; 1][..]).unwrap();
            process::exit(0)
        }
        Forked::Parent { pid, pidfd } => {
            look(pid, open_proc(pid).unwrap().as_fd());
            drop(releases);
            waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        }
    }
}

/// The numbers of a map file.
fn numbers(pid: i32, file: &str) -> Vec<Vec<u32>> {
    let text = read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    text.lines()
        .map(|line| line.split_whitespace().map(|number| number.parse().unwrap()).collect())
        .collect()
}

/// This fork becomes an ordinary user that may be looked at in /proc.
fn become_nobody() {
    let (gid, uid) = (Gid::from_raw(65534), Uid::from_raw(65534));
    set_thread_res_gid(gid, gid, gid).unwrap();
    set_thread_res_uid(uid, uid, uid).unwrap();
    set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
}

#[test]
fn several_ranges_are_mapped_and_setgroups_stays_allowed_with_privileges() {
    in_fork(|single| {
        let maps = IdMaps {
            uids: vec![map(0, 100_000, 1000), map(5000, 200_000, 10)],
            gids: vec![map(0, 300_000, 7), map(7, 1, 1)],
        };
        let writer = MapWriter::choose(&maps, OsStr::new("")).unwrap();
        assert_eq!(writer, MapWriter::Ourselves);
        with_new_namespace(single, |pid, proc| {
            writer.write(single, proc, pid, &maps).unwrap();
            assert_eq!(numbers(pid, "uid_map"), [[0, 100_000, 1000], [5000, 200_000, 10]]);
            assert_eq!(numbers(pid, "gid_map"), [[0, 300_000, 7], [7, 1, 1]]);
            assert_eq!(read_to_string(format!("/proc/{pid}/setgroups")).unwrap(), "allow\n");
        });
    });
}

#[test]
fn without_privileges_our_own_ids_are_mapped_and_setgroups_is_denied() {
    in_fork(|single| {
        become_nobody();
        let maps = IdMaps { uids: vec![map(0, 65534, 1)], gids: vec![map(0, 65534, 1)] };
        let writer = MapWriter::choose(&maps, OsStr::new("")).unwrap();
        assert_eq!(writer, MapWriter::OwnIds);
        with_new_namespace(single, |pid, proc| {
            writer.write(single, proc, pid, &maps).unwrap();
            assert_eq!(numbers(pid, "gid_map"), [[0, 65534, 1]]);
            assert_eq!(read_to_string(format!("/proc/{pid}/setgroups")).unwrap(), "deny\n");
        });
    });
}

#[test]
fn without_privileges_and_programs_other_ids_are_refused_in_words() {
    in_fork(|_| {
        become_nobody();
        let maps = IdMaps { uids: vec![map(0, 0, 2)], gids: vec![map(0, 65534, 1)] };
        let error = MapWriter::choose(&maps, OsStr::new("/nowhere:relative")).unwrap_err();
        assert!(error.to_string().ends_with("need newuidmap, which is not in $PATH"), "{error}");
    });
}

#[test]
fn the_programs_get_the_pid_and_all_ranges_and_a_failure_carries_what_they_print() {
    let folder = std::env::temp_dir().join(format!("idmap-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
    let log = folder.join("log");
    let program = |name: &str, script: &str| {
        write(folder.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    };
    program("newuidmap", &format!("echo $0 $* >> {}", log.display()));
    program("newgidmap", "echo 'gid range [0-7) -> [1-8) not allowed' >&2; exit 1");
    in_fork(|single| {
        become_nobody();
        let uids = vec![map(0, 65534, 1), map(1, 100_000, 65536)];
        let maps = IdMaps { uids, gids: vec![map(0, 1, 7)] };
        let writer = MapWriter::choose(&maps, folder.as_os_str()).unwrap();
        let error = writer.write(single, CWD, 77, &maps).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "{}/newgidmap 77 0 1 7: exit status 1; \
                 stderr: gid range [0-7) -> [1-8) not allowed",
                folder.display()
            )
        );
    });
    let logged = read_to_string(&log).unwrap();
    assert_eq!(logged, format!("{}/newuidmap 77 0 65534 1 1 100000 65536\n", folder.display()));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_map_has_up_to_340_lines() {
    in_fork(|single| {
        let many = |count: u32| (0..count).map(|id| map(id, 1000 + id, 1)).collect::<Vec<_>>();
        let maps = IdMaps { uids: many(340), gids: many(340) };
        with_new_namespace(single, |pid, proc| {
            MapWriter::Ourselves.write(single, proc, pid, &maps).unwrap();
            assert_eq!(numbers(pid, "uid_map").len(), 340);
        });
        let error = check_size(&many(341), "linux.uidMappings").unwrap_err();
        assert_eq!(error.to_string(), "linux.uidMappings: 341 lines, at most 340");
        let long: Vec<IdMap> =
            (0..200).map(|id| map(1_000_000_000 + id, 2_000_000_000, 1)).collect();
        let error = check_size(&long, "linux.gidMappings").unwrap_err().to_string();
        assert!(error.starts_with("linux.gidMappings: 4800 bytes as a map"), "{error}");
    });
}

#[test]
fn a_map_the_kernel_refuses_is_named_with_its_lines() {
    in_fork(|single| {
        let maps = IdMaps { uids: vec![map(0, 0, 5), map(3, 9, 1)], gids: vec![map(0, 0, 1)] };
        with_new_namespace(single, |pid, proc| {
            let error = MapWriter::Ourselves.write(single, proc, pid, &maps).unwrap_err();
            assert_eq!(
                error.to_string(),
                "write(</proc/pid/uid_map>, \"0 0 5\\n3 9 1\\n\"): EINVAL: Invalid argument"
            );
        });
    });
}

#[test]
fn a_namespace_for_idmapped_mounts_has_the_maps_and_leaves_no_process() {
    in_fork(|single| {
        let maps = IdMaps { uids: vec![map(0, 1234, 9)], gids: vec![map(0, 4321, 9)] };
        let namespace = namespace_for(single, &MapWriter::Ourselves, &maps).unwrap();
        let children = nix::sys::wait::waitpid(None, None);
        assert_eq!(children, Err(nix::errno::Errno::ECHILD));
        process::setns(single, namespace.as_fd(), NEWUSER).unwrap();
        assert_eq!(numbers(std::process::id().try_into().unwrap(), "uid_map"), [[0, 1234, 9]]);
        assert_eq!(numbers(std::process::id().try_into().unwrap(), "gid_map"), [[0, 4321, 9]]);
    });
}

#[test]
fn a_namespace_for_refused_maps_is_an_error_and_leaves_nothing() {
    in_fork(|single| {
        let maps = IdMaps { uids: vec![map(0, 0, 0)], gids: vec![map(0, 0, 1)] };
        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = count();
        let error = namespace_for(single, &MapWriter::Ourselves, &maps).unwrap_err().to_string();
        assert!(error.starts_with("user namespace for an idmapped mount: write("), "{error}");
        assert_eq!(count(), before);
        let children = nix::sys::wait::waitpid(None, None);
        assert_eq!(children, Err(nix::errno::Errno::ECHILD));
    });
}

#[test]
fn the_directory_of_a_process_is_never_that_of_a_later_one() {
    in_fork(|single| {
        let mut stale = None;
        with_new_namespace(single, |pid, _| stale = Some(open_proc(pid).unwrap()));
        let proc = stale.unwrap();
        assert!(proc.as_raw_fd() > 2);
        let maps = IdMaps { uids: vec![map(0, 0, 1)], gids: vec![map(0, 0, 1)] };
        let error = MapWriter::Ourselves.write(single, proc.as_fd(), 1, &maps).unwrap_err();
        assert!(matches!(
            error.errno(),
            Some(nix::errno::Errno::ENOENT | nix::errno::Errno::ESRCH)
        ));
    });
}
