use super::*;
use crate::plan::namespaces;
use crate::plan::{Host, IdMap, IdMaps, Propagation};
use crate::spec::Spec;

const NO_USER: &str = "[]";
const NEW_USER: &str = r#"[{"type":"user"}]"#;
const JOINED_USER: &str = r#"[{"type":"user","path":"/ns/user"}]"#;

fn plan_in(namespaces: &str, mount: &str) -> Result<(Mount, Vec<String>)> {
    let maps = if namespaces == NEW_USER {
        r#","uidMappings":[{"containerID":0,"hostID":1000,"size":10}],
        "gidMappings":[{"containerID":0,"hostID":2000,"size":10}]"#
    } else {
        ""
    };
    let text = format!(
        r#"{{"ociVersion":"1.3.0","mounts":[{{"destination":"/first","type":"proc"}},{mount}],
        "linux":{{"namespaces":{namespaces}{maps}}}}}"#
    );
    let spec = Spec::from_json(text.as_bytes()).unwrap();
    let planned = namespaces::plan(&spec, &Host::example()).unwrap();
    let mut warnings = Vec::new();
    let listed = spec.mounts.unwrap();
    let mut mounts = plan(&listed, Path::new("/bundle"), &planned, &mut warnings)?;
    Ok((mounts.remove(1), warnings))
}

fn mount_of(mount: &str) -> Mount {
    plan_in(NO_USER, mount).unwrap().0
}

fn refusal(mount: &str) -> String {
    plan_in(NO_USER, mount).unwrap_err().to_string()
}

fn bind(options: &str) -> String {
    format!(r#"{{"destination":"/a","source":"/src","options":[{options}]}}"#)
}

#[test]
fn a_mount_remembers_its_place_in_the_spec() {
    assert_eq!(mount_of(&bind(r#""bind""#)).field, "mounts[1]");
}

#[test]
fn a_quoted_context_is_the_context() {
    let mount = mount_of(
        r#"{"destination":"/a","type":"overlay","source":"overlay",
        "options":["lowerdir=\"/x\"","context=\"u:r:t:s0:c1,c2\"","fscontext=u:r:t:s0"]}"#,
    );
    let MountKind::Filesystem { data, .. } = mount.kind else { panic!("{:?}", mount.kind) };
    let values: Vec<_> = data.iter().filter_map(|(_, value)| value.as_deref()).collect();
    assert_eq!(values, ["\"/x\"", "u:r:t:s0:c1,c2", "u:r:t:s0"]);
}

#[test]
fn a_new_file_system_has_flags_and_data_in_order() {
    let mount = mount_of(
        r#"{"destination":"/a","type":"ext4","source":"/dev/sda1",
        "options":["sync","data=journal","ro","nosuid","quota","dirsync",""]}"#,
    );
    let kind = MountKind::Filesystem {
        fstype: "ext4".to_owned(),
        source: "/dev/sda1".to_owned(),
        flags: ["ro", "sync", "dirsync"].map(str::to_owned).into(),
        data: vec![("data".to_owned(), Some("journal".to_owned())), ("quota".to_owned(), None)],
    };
    assert_eq!(mount.kind, kind);
    assert_eq!((mount.attr_set, mount.attr_clear), (1 | 2, 0));
}

#[test]
fn a_shared_superblock_is_not_made_read_only() {
    for fstype in ["sysfs", "proc", "mqueue", "cgroup2", "tmpfs", "devpts"] {
        let json = format!(r#"{{"destination":"/a","type":"{fstype}","options":["ro"]}}"#);
        let mount = mount_of(&json);
        let MountKind::Filesystem { flags, source, .. } = mount.kind else { panic!() };
        assert!(flags.is_empty(), "{fstype}");
        assert_eq!(source, fstype);
        assert_eq!(mount.attr_set, 1);
    }
}

#[test]
fn a_tmpfs_and_dev_become_read_only_last() {
    let last = |json| mount_of(json).readonly_last();
    assert!(last(r#"{"destination":"/a","type":"tmpfs","options":["ro"]}"#));
    assert!(last(r#"{"destination":"/dev/","source":"/x","options":["bind","ro"]}"#));
    assert!(!last(r#"{"destination":"/a","type":"tmpfs"}"#));
    assert!(!last(r#"{"destination":"/a","type":"sysfs","options":["ro"]}"#));
}

#[test]
fn a_bind_mount_is_one_by_its_option_or_by_its_type() {
    let bound = |recursive| MountKind::Bind { source: "/src".into(), recursive };
    assert_eq!(mount_of(&bind(r#""bind""#)).kind, bound(false));
    assert_eq!(mount_of(&bind(r#""rbind""#)).kind, bound(true));
    let json = r#"{"destination":"/a","type":"bind","source":"/src"}"#;
    assert_eq!(mount_of(json).kind, bound(false));
    for fstype in ["none", "cgroup", "tmpfs"] {
        let json = format!(
            r#"{{"destination":"/a","type":"{fstype}","source":"/src","options":["rbind"]}}"#
        );
        assert_eq!(mount_of(&json).kind, bound(true), "{fstype}");
    }
}

#[test]
fn a_relative_source_is_in_the_bundle() {
    let mount = mount_of(r#"{"destination":"/a","source":"files/x","options":["bind"]}"#);
    let kind = MountKind::Bind { source: "/bundle/files/x".into(), recursive: false };
    assert_eq!(mount.kind, kind);
}

#[test]
fn a_bind_mount_loses_attributes_only_when_options_are_given() {
    let attributes = |options| {
        let mount = mount_of(&bind(options));
        (mount.attr_set, mount.attr_clear, mount.attr_clear_unlocked)
    };
    assert_eq!(attributes(r#""bind""#), (0, 0, 0));
    assert_eq!(attributes(r#""rbind","rprivate","defaults","rro""#), (0, 0, 0));
    assert_eq!(attributes(r#""bind","ro""#), (1, 0, 2 | 4 | 8));
    assert_eq!(attributes(r#""bind","rw""#), (0, 1, 2 | 4 | 8));
    assert_eq!(attributes(r#""bind","exec","nodev""#), (4, 8, 1 | 2));
    assert_eq!(attributes(r#""bind","noatime""#), (0x10, 0x70, 0x8F));
    assert_eq!(attributes(r#""bind","noatime","nodiratime""#), (0x90, 0x70, 0xF));
    assert_eq!(attributes(r#""bind","sync""#), (0, 0, 0xF));
}

#[test]
fn a_bind_mount_has_no_data() {
    assert_eq!(
        refusal(&bind(r#""bind","ro","size=5m""#)),
        "mounts[1].options[2]: \"size=5m\" is not a mount option, and a bind mount has no others"
    );
}

#[test]
fn propagation_goes_along() {
    let mount = mount_of(&bind(r#""rbind","rslave""#));
    assert_eq!(mount.propagation, Some((Propagation::Slave, true)));
    let mount = mount_of(&bind(r#""rbind","shared""#));
    assert_eq!(mount.propagation, Some((Propagation::Shared, false)));
}

#[test]
fn recursive_attributes_stand_beside_the_others() {
    let mount = mount_of(&bind(r#""rbind","rro","rnosuid","rnoatime","rdev""#));
    assert_eq!((mount.rec_attr_set, mount.rec_attr_clear), (1 | 2 | 0x10, 4 | 0x70));
}

#[test]
fn remount_changes_what_is_there() {
    let mount = mount_of(r#"{"destination":"/a","options":["remount","bind","ro"]}"#);
    assert_eq!((mount.kind, mount.attr_set), (MountKind::Remount, 1));
    let refused = refusal(r#"{"destination":"/a","options":["remount","size=1m"]}"#);
    assert!(refused.starts_with("mounts[1].options[1]: "), "{refused}");
}

#[test]
fn what_cannot_be_mounted_is_refused_by_field() {
    for (json, field) in [
        (r#"{"destination":"","type":"proc"}"#, "mounts[1].destination"),
        (r#"{"destination":"/a"}"#, "mounts[1].type"),
        (r#"{"destination":"/a","type":"none"}"#, "mounts[1].type"),
        (r#"{"destination":"/a","options":["bind"]}"#, "mounts[1].source"),
        (r#"{"destination":"/a","type":"bind","source":""}"#, "mounts[1].source"),
        (r#"{"destination":"/a","type":"cgroup","options":["x"]}"#, "mounts[1].options[0]"),
        (r#"{"destination":"/a","type":"proc","options":["tmpcopyup"]}"#, "mounts[1].options"),
        (r#"{"destination":"/a","type":"tmpfs","options":["idmap"]}"#, "mounts[1].options"),
    ] {
        let refused = refusal(json);
        assert!(refused.starts_with(&format!("{field}: ")), "{refused}");
    }
}

#[test]
fn tmpcopyup_is_for_a_tmpfs() {
    let mount = mount_of(r#"{"destination":"/a","type":"tmpfs","options":["tmpcopyup"]}"#);
    assert!(mount.tmpcopyup);
}

#[test]
fn a_relative_destination_is_taken_as_below_the_root_with_a_warning() {
    let (mount, warnings) = plan_in(NO_USER, r#"{"destination":"a/b","type":"proc"}"#).unwrap();
    assert_eq!(mount.destination, Path::new("/a/b"));
    assert_eq!(warnings, ["mounts[1].destination: a/b is taken as below /"]);
}

#[test]
fn idmap_means_the_containers_user_namespace() {
    let idmap =
        |namespaces, option| plan_in(namespaces, &bind(option)).map(|(mount, _)| mount.idmap);
    let container = Some((MountIdMap::Container, false));
    assert_eq!(idmap(NEW_USER, r#""bind","idmap""#).unwrap(), container);
    let container = Some((MountIdMap::Container, true));
    assert_eq!(idmap(NEW_USER, r#""rbind","ridmap""#).unwrap(), container);
    let joined = Some((MountIdMap::Namespace("/ns/user".into()), false));
    assert_eq!(idmap(JOINED_USER, r#""bind","idmap""#).unwrap(), joined);
    assert_eq!(
        idmap(NO_USER, r#""bind","idmap""#).unwrap_err().to_string(),
        "mounts[1].options: idmap needs uidMappings and gidMappings, or a user namespace"
    );
}

#[test]
fn a_mount_may_have_maps_of_its_own() {
    let json = r#"{"destination":"/a","source":"/s","options":["rbind","ridmap"],
        "uidMappings":[{"containerID":0,"hostID":5,"size":1}],
        "gidMappings":[{"containerID":0,"hostID":6,"size":1}]}"#;
    let Some((MountIdMap::Maps(maps), true)) = mount_of(json).idmap else { panic!() };
    assert_eq!((maps.uids[0].host, maps.gids[0].host), (5, 6));
    let json = r#"{"destination":"/a","source":"/s","options":["bind"],
        "uidMappings":[{"containerID":0,"hostID":5,"size":1}]}"#;
    assert_eq!(refusal(json), "mounts[1].gidMappings: missing beside uidMappings");
}

fn map(container: u32, host: u32, size: u32) -> IdMap {
    IdMap { container, host, size }
}

#[test]
fn maps_in_options_are_read_in_both_spellings() {
    let maps =
        IdMaps { uids: vec![map(0, 1000, 10), map(10, 5000, 1)], gids: vec![map(0, 2000, 10)] };
    for options in [
        r#""bind","uidmap=0:1000:10,10:5000:1","gidmap=0:2000:10""#,
        r#""bind","idmap=uids=0-1000-10#10-5000-1;gids=0-2000-10""#,
    ] {
        let idmap = mount_of(&bind(options)).idmap;
        assert_eq!(idmap, Some((MountIdMap::Maps(maps.clone()), false)), "{options}");
    }
}

#[test]
fn a_relative_map_is_translated_by_the_containers_own() {
    let options = r#""bind","ridmap=uids=@0-3-2;gids=0-7-1""#;
    let idmap = plan_in(NEW_USER, &bind(options)).unwrap().0.idmap;
    let maps = IdMaps { uids: vec![map(0, 1003, 2)], gids: vec![map(0, 7, 1)] };
    assert_eq!(idmap, Some((MountIdMap::Maps(maps), true)));
    assert_eq!(
        refusal(&bind(options)),
        "mounts[1].options[1]: \"@0-3-2\" needs the container's own id maps"
    );
}

#[test]
fn maps_that_make_no_sense_are_refused_by_field() {
    for options in [
        r#""bind","uidmap=0:0:1""#,
        r#""bind","uidmap=0:0","gidmap=0:0:1""#,
        r#""bind","uidmap=0:0:0","gidmap=0:0:1""#,
        r#""bind","uidmap=0:0:x","gidmap=0:0:1""#,
        r#""bind","idmap=uids=0-0-1""#,
        r#""bind","idmap=ids=0-0-1""#,
        r#""bind","idmap=""#,
    ] {
        let refused = refusal(&bind(options));
        assert!(refused.starts_with("mounts[1].options[1]: "), "{refused}");
    }
}

fn rootfs(fstype: &str, source: &str, target: &str, options: &[&str]) -> Result<Mount> {
    let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
    rootfs_mount(fstype, source, target, &options)
}

#[test]
fn an_overlay_of_a_client_keeps_its_layers_as_data() {
    let options = ["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/l1:/l0", "volatile", "ro"];
    let mount = rootfs("overlay", "overlay", "", &options).unwrap();
    assert_eq!(mount.destination, Path::new("/"));
    let MountKind::Filesystem { flags, data, .. } = mount.kind else { panic!() };
    assert_eq!(flags, ["ro"]);
    assert_eq!(data[3], ("lowerdir".to_owned(), Some("/l1:/l0".to_owned())));
    assert_eq!(data[4], ("volatile".to_owned(), None));
}

#[test]
fn a_bind_mount_of_a_client_keeps_the_attributes_of_its_source() {
    let mount = rootfs("bind", "/s/fs", "", &["rbind", "rw"]).unwrap();
    assert_eq!(mount.attr_clear_unlocked, 0);
    assert_eq!(mount.attr_clear, 1);
    let mount = rootfs("overlay", "overlay", "usr/lib", &["lowerdir=/a:/b"]).unwrap();
    assert_eq!(mount.destination, Path::new("/usr/lib"));
}

#[test]
fn a_mapped_overlay_of_a_client_carries_its_maps() {
    let options = ["lowerdir=/a:/b", "uidmap=0:1000:10", "gidmap=0:1000:10"];
    let mount = rootfs("overlay", "overlay", "", &options).unwrap();
    let MountKind::Filesystem { data, .. } = &mount.kind else { panic!() };
    assert_eq!(data.len(), 1);
    assert!(matches!(mount.idmap, Some((MountIdMap::Maps(_), false))));
}

#[test]
fn what_a_client_cannot_have_as_root_is_refused() {
    for (fstype, source, options, field) in [
        ("", "x", &[][..], "rootfs.type"),
        ("bind", "", &[], "rootfs.source"),
        ("bind", "a/b", &["rbind"], "rootfs.source"),
        ("erofs", "/x.img", &["ro", "loop"], "rootfs.options[1]"),
        ("overlay", "overlay", &["idmap"], "rootfs.options"),
    ] {
        let refused = rootfs(fstype, source, "", options).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("{field}: ")), "{refused}");
    }
}
