//! The command line as an ordinary user, with the real newuidmap and newgidmap (Debian's uidmap).
//!
//! The user is there in a private mount namespace alone, where /etc/passwd and the others are
//! covered by files of the test: the host has no such user.

use std::fs;
use std::os::unix::fs::chown;

use serde_json::json;

use crate::bench::{Bench, Output};

/// An id that is nobody's.
const USER: u32 = 60_001;

/// As root: makes the user, and runs the rest of the line as that user.
const AS_USER: &str = r#"
set -e
mount --make-rprivate /
cp /etc/passwd passwd
cp /etc/group group
echo "someone:x:60001:60001::/:/bin/sh" >>passwd
echo "someone:x:60001:" >>group
printf 'someone:2000000:1000\nsomeone:3000000:500\n' >subuid
cp subuid subgid
for file in passwd group subuid subgid; do mount --bind $file /etc/$file; done
touch oci
mount --bind "$1" oci
shift
exec setpriv --reuid 60001 --regid 60001 --clear-groups \
    env -i PATH=/usr/bin:/bin "$PWD/oci" "$@"
"#;

/// A bundle whose container has a user namespace with several ranges.
fn bench() -> Bench {
    let bench = Bench::new();
    let maps = json!([
        {"containerID": 0, "hostID": USER, "size": 1},
        {"containerID": 1, "hostID": 2_000_000, "size": 1000},
        {"containerID": 1001, "hostID": 3_000_000, "size": 500},
    ]);
    bench.change(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = maps.clone();
        config["linux"]["gidMappings"] = maps.clone();
    });
    chown(&bench.dir, Some(USER), Some(USER)).unwrap();
    bench
}

#[track_caller]
fn oci(bench: &Bench, args: &[&str]) -> Output {
    let mut line = ["unshare", "--mount", "sh", "-c", AS_USER, "sh"].map(str::to_owned).to_vec();
    line.extend(bench.line(args));
    bench.start_line(&line).finish()
}

#[test]
fn a_user_has_a_container_with_several_ranges_of_ids() {
    let bench = bench();
    bench.change(|config| {
        config["process"]["user"] = json!({"uid": 1200, "gid": 1201, "additionalGids": [5, 1400]});
        // Seen from its own, every cgroup is the root.
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
    });
    bench.script("cat /proc/self/uid_map /proc/self/setgroups; id; cat /proc/self/cgroup");
    let bundle = bench.bundle();
    let out = oci(&bench, &["run", "--bundle", &bundle, "c"]).ok();
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words[..3], ["0", "60001", "1"], "{out}");
    assert_eq!(words[3..9], ["1", "2000000", "1000", "1001", "3000000", "500"], "{out}");
    assert!(out.contains("\nallow\nuid=1200 gid=1201 groups=5,1400\n"), "{out}");
    // The user may make no cgroup here: the container is where its runtime is.
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    assert!(out.ends_with(&own), "{out} does not end with {own}");
    bench.finish();
}

#[test]
fn a_users_container_lives_from_create_to_delete() {
    let bench = bench();
    let bundle = bench.bundle();
    oci(&bench, &["create", "--bundle", &bundle, "c"]).ok();
    oci(&bench, &["start", "c"]).ok();
    let id = oci(&bench, &["exec", "c", "id", "-u"]).ok();
    assert_eq!(id, "0\n");
    let state = oci(&bench, &["state", "c"]).ok();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", state["pid"])).unwrap();
    assert!(status.contains("Uid:\t60001\t60001\t60001\t60001"), "{status}");
    oci(&bench, &["kill", "c", "KILL"]).ok();
    oci(&bench, &["delete", "--force", "c"]).ok();
    bench.finish();
}

#[test]
fn a_user_without_ranges_maps_the_own_id_alone() {
    let bench = bench();
    bench.change(|config| {
        let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        // The group tty is not mapped.
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev/pts");
    });
    bench.script("cat /proc/self/uid_map /proc/self/setgroups; id -u");
    let out = oci(&bench, &["run", "--bundle", &bench.bundle(), "c"]).ok();
    // setgroups(2) is denied where no privileged program has mapped the ids (CVE-2014-8989).
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "60001", "1", "deny", "0"]);
    bench.finish();
}

#[test]
fn what_a_user_cannot_have_is_refused_by_name() {
    let bench = bench();
    let run = |change: &dyn Fn(&mut serde_json::Value)| {
        bench.change(change);
        oci(&bench, &["run", "--bundle", &bench.bundle(), "c"])
    };
    let ids = run(&|config| config["linux"]["uidMappings"][1]["hostID"] = json!(5_000_000));
    ids.fails("newuidmap");
    let memory = run(&|config| {
        config["linux"]["uidMappings"][1]["hostID"] = json!(2_000_000);
        config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
    });
    memory.fails("linux.resources.memory.limit: a limit needs a cgroup");
    memory.fails("mkdir(");
    let score = run(&|config| {
        config["linux"]["resources"].as_object_mut().unwrap().remove("memory");
        config["process"]["oomScoreAdj"] = json!(-500);
    });
    score.fails("process.oomScoreAdj: write(/proc/self/oom_score_adj, \"-500\"): EACCES");
    let none = run(&|config| {
        config["process"].as_object_mut().unwrap().remove("oomScoreAdj");
        let linux = config["linux"].as_object_mut().unwrap();
        linux["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != "user");
        linux.remove("uidMappings");
        linux.remove("gidMappings");
    });
    none.fails("linux.namespaces: a user namespace is needed: the runtime is not root");
    bench.finish();
}
