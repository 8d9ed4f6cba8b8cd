//! The kept inputs: those by which libFuzzer found something, and those that reach most.

use std::path::Path;

fn every(target: &str, claim: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration/fuzz/corpus");
    let mut count = 0;
    for entry in std::fs::read_dir(corpus.join(target)).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        claim(&std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0, "{target} has no inputs");
}

macro_rules! kept_inputs {
    ($($target:ident),* $(,)?) => {
        $(#[test]
        fn $target() {
            every(stringify!($target), super::$target);
        })*
    };
}

kept_inputs![
    cgroup_path,
    channel,
    dbus,
    devices,
    mount_options,
    passwd,
    process,
    resources,
    spec,
    state,
    unit_property,
];
