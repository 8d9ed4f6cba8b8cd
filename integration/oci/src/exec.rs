//! `exec`.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use runtime::process::{Created, ExecRequest, Request, WhenPaused};
use runtime::spec::CONFIG_JSON;
use runtime::{At, Call, Error, Kind, Result};
use serde_json::{Map, Value, json};

use crate::args::{Args, Flag, Operands, Takes, number};
use crate::container::Container;
use crate::create::{Stay, absolute, check_console};
use crate::foreground::{self, Signals};
use crate::{Context, chain, fds, terminal};

const FLAGS: [Flag; 18] = [
    ("detach|d", Takes::Nothing),
    ("process|p", Takes::Value),
    ("env|e", Takes::Value),
    ("user|u", Takes::Value),
    ("cwd", Takes::Value),
    ("cap|c", Takes::Value),
    ("tty|t", Takes::Nothing),
    ("pid-file", Takes::Value),
    ("console-socket", Takes::Value),
    ("pidfd-socket", Takes::Value),
    ("additional-gids|g", Takes::Value),
    ("preserve-fds", Takes::Value),
    ("ignore-paused", Takes::Nothing),
    ("no-new-privs", Takes::Nothing),
    ("apparmor", Takes::Value),
    ("process-label", Takes::Value),
    ("cgroup", Takes::Value),
    ("no-subreaper", Takes::Nothing),
];

/// `exec [flags] ID [PROGRAM [ARGUMENT…]]`. The exit status of the program.
pub(crate) fn exec(context: &Context, words: Vec<String>) -> Result<u8> {
    let mut args = Args::parse(words, &FLAGS, Operands::Last)?;
    let preserve = args.number("preserve-fds")?.unwrap_or(0);
    let preserve =
        usize::try_from(preserve).map_err(|_| Error::argument("preserve-fds", "is negative"))?;
    let (extra_fds, extra) = fds::take(0, preserve)?;
    let container = Container::open(&context.root, &args.operand("container id")?)?;
    let init = container.init()?;
    let (stay, socket) = (Stay::of(&args), args.value("console-socket").map(PathBuf::from));
    let (pid_file, paused) = (args.value("pid-file").map(absolute), args.has("ignore-paused"));
    let process = process(&container, args)?;
    let terminal = process.get("terminal") == Some(&Value::Bool(true));
    check_console(stay, terminal, socket.as_deref())?;
    let request = ExecRequest {
        exec_id: "exec".into(),
        state_dir: container.dir.clone(),
        process: process.to_string(),
        pid_file: pid_file.transpose()?,
        extra_fds,
        when_paused: if paused { WhenPaused::Wait } else { WhenPaused::Refuse },
    };
    let mut streams: Vec<BorrowedFd<'_>> = vec![init.as_fd()];
    if !terminal {
        streams.extend(fds::stdio());
    }
    streams.extend(extra.iter().map(AsFd::as_fd));
    let signals = stay.signals()?;
    let created = chain::make(&Request::Exec(request), &streams).at("exec failed")?;
    live(created, signals.as_ref(), socket.as_deref())
}

/// Dropping what was made, when its terminal cannot be handed out, ends it.
fn live(created: Created, signals: Option<&Signals>, socket: Option<&Path>) -> Result<u8> {
    let Created { process, start, mut console, .. } = created;
    if let (Some(master), Some(socket)) = (&console, socket) {
        terminal::send(master.as_fd(), socket)?;
        console = None;
    }
    console.as_ref().map_or(Ok(()), |console| terminal::copy_size(console.as_fd()))?;
    chain::start(&process, start).at("exec failed")?;
    signals.map_or(Ok(0), |signals| foreground::attend(&process, signals, console))
}

/// The process.json: a file, or the one of the bundle with what the flags change.
fn process(container: &Container, args: Args) -> Result<Value> {
    if let Some(path) = args.value("process") {
        return read(Path::new(path));
    }
    let mut config = read(&container.state.container.bundle.join(CONFIG_JSON))?;
    let Some(Value::Object(mut process)) = config.get_mut("process").map(Value::take) else {
        return Err(Error::field("process", "missing"));
    };
    change(&mut process, &args)?;
    let program = args.rest();
    if program.is_empty() {
        return Err(Error::argument("exec", "process args cannot be empty"));
    }
    process.insert("args".into(), json!(program));
    Ok(Value::Object(process))
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).call(|| format!("read({path:?})"))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::new(Kind::Corrupt(format!("{}: {error}", path.display()))))
}

fn change(process: &mut Map<String, Value>, args: &Args) -> Result<()> {
    process.insert("terminal".into(), json!(args.has("tty")));
    if !args.has("tty") {
        process.remove("consoleSize");
    }
    for (flag, field) in
        [("cwd", "cwd"), ("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")]
    {
        if let Some(value) = args.value(flag) {
            process.insert(field.into(), json!(value));
        }
    }
    if args.value("no-new-privs").is_some() {
        process.insert("noNewPrivileges".into(), json!(args.has("no-new-privs")));
    }
    append(process, "env", args.values("env").map(|entry| json!(entry)));
    let capabilities = process.entry("capabilities").or_insert_with(|| json!({}));
    if let Some(sets) = capabilities.as_object_mut() {
        for set in ["bounding", "effective", "permitted"] {
            append(sets, set, args.values("cap").map(|name| json!(name)));
        }
    }
    change_user(process.entry("user").or_insert_with(|| json!({})), args)
}

fn change_user(user: &mut Value, args: &Args) -> Result<()> {
    let Some(user) = user.as_object_mut() else { return Ok(()) };
    if let Some(ids) = args.value("user") {
        let (uid, gid) = ids.split_once(':').map_or((ids, None), |(uid, gid)| (uid, Some(gid)));
        user.insert("uid".into(), json!(number("user", uid)?));
        if let Some(gid) = gid {
            user.insert("gid".into(), json!(number("user", gid)?));
        }
    }
    let gids = args.values("additional-gids").map(|gid| number("additional-gids", gid));
    let gids: Vec<i64> = gids.collect::<Result<_>>()?;
    append(user, "additionalGids", gids.into_iter().map(|gid| json!(gid)));
    Ok(())
}

/// Appends to a list, which may not be there yet.
fn append(object: &mut Map<String, Value>, field: &str, values: impl Iterator<Item = Value>) {
    let mut values = values.peekable();
    if values.peek().is_none() {
        return;
    }
    let list = object.entry(field).or_insert(Value::Null);
    if let Value::Array(list) = list {
        list.extend(values);
    } else {
        *list = values.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_change_the_process_of_the_bundle() {
        let line = "-e B=2 --user 5:6 --cap CAP_KILL -g 7 --cwd /tmp id";
        let args = Args::parse(line.split(' ').map(str::to_owned), &FLAGS, Operands::Last).unwrap();
        let mut process = json!({
            "terminal": true, "cwd": "/", "env": ["A=1"], "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": ["CAP_CHOWN"]},
        });
        change(process.as_object_mut().unwrap(), &args).unwrap();
        let expected = json!({
            "terminal": false, "cwd": "/tmp", "env": ["A=1", "B=2"],
            "user": {"uid": 5, "gid": 6, "additionalGids": [7]},
            "capabilities": {
                "bounding": ["CAP_CHOWN", "CAP_KILL"],
                "effective": ["CAP_KILL"],
                "permitted": ["CAP_KILL"],
            },
        });
        assert_eq!(process, expected);
    }
}
