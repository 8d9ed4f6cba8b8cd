//! What is only told: states, lists, features, a specification to begin with.

use std::io::ErrorKind;
use std::process::Command;

use runtime::cgroup::Cgroup;
use runtime::plan::Host;
use runtime::spec::CONFIG_JSON;
use runtime::{Call, Error, Kind, Result, features as document};
use serde_json::Value;

use crate::Context;
use crate::args::{Args, Operands, Takes};
use crate::container::Container;

/// A specification to begin with.
const SPEC: &str = include_str!("spec.json");

/// `--version`.
pub(crate) fn version() {
    println!("myshim-oci version {}", env!("CARGO_PKG_VERSION"));
    println!("spec: {}", document::OCI_VERSIONS.1);
}

/// `state ID`.
pub(crate) fn state(context: &Context, words: Vec<String>) -> Result<()> {
    let mut args = Args::parse(words, &[], Operands::Between)?;
    let container = Container::open(&context.root, &args.operand("container id")?)?;
    println!("{:#}", container.describe()?);
    Ok(())
}

/// `list [-q] [-f table|json]`.
pub(crate) fn list(context: &Context, words: Vec<String>) -> Result<()> {
    let known = [("quiet|q", Takes::Nothing), ("format|f", Takes::Value)];
    let args = Args::parse(words, &known, Operands::Between)?;
    let containers = all(context)?;
    let text = |container: &Value, field: &str| match container.get(field) {
        Some(Value::String(text)) => text.clone(),
        other => other.map(Value::to_string).unwrap_or_default(),
    };
    if args.has("quiet") {
        containers.iter().for_each(|container| println!("{}", text(container, "id")));
    } else if is_json(&args)? {
        println!("{}", Value::from(containers));
    } else {
        println!("{:<24}{:<10}{:<12}{:<48}CREATED", "ID", "PID", "STATUS", "BUNDLE");
        for container in &containers {
            let [id, pid, status, bundle, created] =
                ["id", "pid", "status", "bundle", "created"].map(|field| text(container, field));
            println!("{id:<24}{pid:<10}{status:<12}{bundle:<48}{created}");
        }
    }
    Ok(())
}

fn all(context: &Context) -> Result<Vec<Value>> {
    let entries = match std::fs::read_dir(&context.root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.call(|| format!("opendir({:?})", context.root))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.call(|| format!("readdir({:?})", context.root))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort_unstable();
    let mut containers = Vec::new();
    for name in names {
        // One that is being made or deleted is not there.
        if let Ok(container) = Container::open(&context.root, &name) {
            containers.push(container.describe()?);
        }
    }
    Ok(containers)
}

fn is_json(args: &Args) -> Result<bool> {
    match args.value("format") {
        None | Some("table") => Ok(false),
        Some("json") => Ok(true),
        Some(_) => Err(Error::argument("format", "invalid format option")),
    }
}

/// `ps [-f table|json] ID [ARGUMENT OF PS…]`.
pub(crate) fn ps(context: &Context, words: Vec<String>) -> Result<()> {
    let mut args = Args::parse(words, &[("format|f", Takes::Value)], Operands::Last)?;
    // The flag may also come behind the id; what is left then is for ps(1).
    let container = Container::open(&context.root, &args.operand("container id")?)?;
    let pids = Cgroup::open(&container.state.cgroup).pids()?;
    let json = is_json(&args)?;
    let rest = args.rest();
    if json {
        println!("{}", Value::from(pids));
        return Ok(());
    }
    let options = if rest.is_empty() { vec!["-ef".to_owned()] } else { rest };
    let listed = Command::new("ps").args(&options).output().call(|| "execvp(ps)".into())?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    let mut lines = listed.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_whitespace()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::new(Kind::State(format!("ps shows no column PID: {header:?}"))))?;
    println!("{header}");
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    lines.filter(ours).for_each(|line| println!("{line}"));
    Ok(())
}

/// `features`.
pub(crate) fn features(words: Vec<String>) -> Result<()> {
    Args::parse(words, &[], Operands::Between)?;
    println!("{:#}", document::features(&Host::read(None)?));
    Ok(())
}

/// `spec [--bundle DIR]`.
pub(crate) fn spec(words: Vec<String>) -> Result<()> {
    let known = [("bundle|b", Takes::Value), ("rootless", Takes::Nothing)];
    let args = Args::parse(words, &known, Operands::Between)?;
    if args.has("rootless") {
        return Err(Error::argument("rootless", "is not supported"));
    }
    let path = std::path::Path::new(args.value("bundle").unwrap_or(".")).join(CONFIG_JSON);
    let made = std::fs::File::options().write(true).create_new(true).open(&path);
    if made.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) {
        let why = format!("File {CONFIG_JSON} exists. Remove it first");
        return Err(Error::new(Kind::AlreadyExists(why)));
    }
    made.and_then(|mut file| std::io::Write::write_all(&mut file, SPEC.as_bytes()))
        .call(|| format!("write({path:?})"))
}
