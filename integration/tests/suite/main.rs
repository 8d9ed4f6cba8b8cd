//! The claims of this project about containers on real containerds. See docs/testing.md.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is how it fails")]

mod apparmor;
mod bad_input;
mod cgroup_v2;
mod cgroups;
mod churn;
mod containerd_deaths;
mod counts;
mod crash;
mod ctr_exec;
mod ctr_run;
mod ctr_tty;
mod deaths;
mod facts;
#[cfg(target_arch = "x86_64")]
mod faults;
mod hazards;
mod hook_lifecycle;
mod hooks;
mod io;
mod lifecycle;
mod mounts;
mod neighbour;
mod net_devices;
mod no_runc;
mod oom;
mod phases;
mod pod;
mod privilege;
mod process;
mod restart;
mod rootless;
mod rpc;
mod scale;
mod scarcity;
mod seccomp;
mod seccomp_notify;
mod selinux;
mod settings;
mod spawner;
mod start_dialects;
mod systemd;
#[cfg(target_arch = "x86_64")]
mod throttled;
mod user_namespaces;

use std::process::ExitCode;

fn main() -> ExitCode {
    myshim_integration::runner::main(&[
        ctr_run::CLAIMS,
        ctr_exec::CLAIMS,
        ctr_tty::CLAIMS,
        lifecycle::CLAIMS,
        process::CLAIMS,
        mounts::CLAIMS,
        cgroups::CLAIMS,
        cgroup_v2::CLAIMS,
        systemd::CLAIMS,
        seccomp::CLAIMS,
        privilege::CLAIMS,
        hazards::binary::CLAIMS,
        hazards::procfs::CLAIMS,
        hazards::root::CLAIMS,
        hazards::devices::CLAIMS,
        hazards::users::CLAIMS,
        hazards::specs::CLAIMS,
        hazards::sizes::CLAIMS,
        hazards::service::CLAIMS,
        hazards::races::CLAIMS,
        apparmor::CLAIMS,
        selinux::CLAIMS,
        hooks::CLAIMS,
        hook_lifecycle::CLAIMS,
        user_namespaces::CLAIMS,
        rootless::CLAIMS,
        net_devices::CLAIMS,
        seccomp_notify::CLAIMS,
        settings::CLAIMS,
        io::CLAIMS,
        phases::CLAIMS,
        pod::CLAIMS,
        oom::CLAIMS,
        bad_input::CLAIMS,
        start_dialects::CLAIMS,
        rpc::CLAIMS,
        no_runc::CLAIMS,
        crash::CLAIMS,
        deaths::CLAIMS,
        spawner::CLAIMS,
        restart::CLAIMS,
        containerd_deaths::CLAIMS,
        scale::CLAIMS,
        churn::CLAIMS,
        scarcity::CLAIMS,
        counts::CLAIMS,
        #[cfg(target_arch = "x86_64")]
        throttled::CLAIMS,
        #[cfg(target_arch = "x86_64")]
        faults::CLAIMS,
    ])
}
