//! Overlay roots with many and with long layers.

use super::super::filesystem::Wanted;
use super::super::overlay;
use super::*;

/// `count` layers, of which each has a file of its own, below a directory with a name this long.
fn layers(scene: &Scene, count: usize, length: usize) -> String {
    let mut names = Vec::new();
    for index in 0..count {
        let directory = format!("{}/{index}/fs", "d".repeat(length));
        scene.make_directory(&directory);
        scene.write(&format!("{directory}/file{index}"), "");
        names.push(scene.path(&directory).display().to_string());
    }
    names.join(":")
}

fn overlay(scene: &Scene, lower: &str) -> Mount {
    scene.make_directory("upper");
    scene.make_directory("work");
    let (upper, work) = (scene.path("upper"), scene.path("work"));
    let (upper, work) = (upper.to_str().unwrap(), work.to_str().unwrap());
    filesystem("/", "overlay", &[("lowerdir", lower), ("upperdir", upper), ("workdir", work)])
}

fn enter(scene: &Scene, layer: Mount) {
    let source = RootfsSource::Mounts(vec![layer]);
    scene.enter(&Rootfs { source, ..scene.rootfs(vec![]) });
    std::fs::write("/written", "").unwrap();
}

#[test]
fn an_overlay_of_few_layers_is_a_root() {
    alone(module_path!(), "an_overlay_of_few_layers_is_a_root", |scene| {
        let before = scene.host_mounts();
        enter(scene, overlay(scene, &layers(scene, 2, 3)));
        assert_eq!(names("/"), ["dev", "file0", "file1", "written"]);
        assert_eq!(scene.host_mounts(), before);
    });
}

#[test]
fn an_overlay_of_a_hundred_layers_is_a_root() {
    alone(module_path!(), "an_overlay_of_a_hundred_layers_is_a_root", |scene| {
        let before = scene.host_mounts();
        enter(scene, overlay(scene, &layers(scene, 100, 3)));
        assert_eq!(names("/").len(), 102);
        assert_eq!(scene.host_mounts(), before);
    });
}

#[test]
fn an_overlay_of_long_paths_is_a_root() {
    alone(module_path!(), "an_overlay_of_long_paths_is_a_root", |scene| {
        enter(scene, overlay(scene, &layers(scene, 3, 250)));
        assert_eq!(names("/").len(), 5);
    });
}

#[test]
fn an_escaped_colon_belongs_to_the_layer() {
    alone(module_path!(), "an_escaped_colon_belongs_to_the_layer", |scene| {
        let lower = layers(scene, 20, 3);
        scene.make_directory("a:b");
        scene.write("a:b/mark", "");
        let lower = format!("{lower}:{}", scene.path("a\\:b").display());
        enter(scene, overlay(scene, &lower));
        assert!(Path::new("/mark").exists());
    });
}

/// What a kernel before 6.7 leaves.
#[test]
fn an_overlay_by_mount_options_leaves_no_trace_on_the_host() {
    alone(module_path!(), "an_overlay_by_mount_options_leaves_no_trace_on_the_host", |scene| {
        let lower = layers(scene, 60, 60);
        let mut layer = overlay(scene, &lower);
        layer.attr_set = 0x2;
        let before = scene.host_mounts();
        let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        let cwd = std::env::current_dir().unwrap();
        let wanted = Wanted::of(&layer).unwrap();
        let tree = overlay::by_options(&wanted, &scene.path("site")).unwrap();
        assert_eq!(scene.host_mounts(), before);
        assert_eq!(std::fs::read_link("/proc/self/ns/mnt").unwrap(), own);
        assert_eq!(std::env::current_dir().unwrap(), cwd);

        let rootfs = scene.rootfs(vec![]);
        let prepared = PreparedRootfs { root: tree, below: Vec::new(), sources: Vec::new() };
        scene.become_init();
        let root = scene.build_prepared(&rootfs, prepared).unwrap();
        root.enter(&rootfs).unwrap();
        assert_eq!(names("/").len(), 61);
        assert!(scene.mount_at("/").contains(" rw,nosuid,relatime - overlay "));
        assert_eq!(scene.host_mounts(), before);
    });
}

#[test]
fn a_missing_layer_is_named_in_the_error() {
    alone(module_path!(), "a_missing_layer_is_named_in_the_error", |scene| {
        for lower in ["/no/such/layer".to_owned(), layers(scene, 20, 20) + ":/no/such/layer"] {
            let source = RootfsSource::Mounts(vec![overlay(scene, &lower)]);
            let rootfs = Rootfs { source, ..scene.rootfs(vec![]) };
            let error = scene.prepare(&rootfs).unwrap_err().to_string();
            assert!(error.contains("/no/such/layer"), "{error}");
        }
    });
}
