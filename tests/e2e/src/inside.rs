//! A sandbox as a program in it sees it.

use anyhow::{Context, Result, ensure};
use kube::api::DynamicObject;
use pilotlight_common::quantity::Bytes;
use serde_json::{Value, json};

use crate::scene::Scene;

/// Limits with which python answers in a second.
pub fn able() -> Value {
    json!({ "cpu": "100m", "memory": "48Mi" })
}

/// Command of a container that ends once `/tmp/stop` is there, and begins anew.
pub const RESTARTABLE: [&str; 3] = [
    "/bin/sh",
    "-c",
    "rm -f /tmp/stop; while [ ! -e /tmp/stop ]; do sleep 0.2; done",
];

/// Prints what a program in the sandbox can find out about it, as JSON; of each path the number of the error that
/// writing there gives, 0 where it can be written.
const LOOK: &str = r"
import json, os
def read(path):
    try:
        with open('/sys/fs/cgroup/' + path) as file:
            return file.read().split()
    except OSError:
        return None
unified = read('cpu.max')
quota, period = unified or (read('cpu/cpu.cfs_quota_us')[0], read('cpu/cpu.cfs_period_us')[0])
memory = (read('memory.max') or read('memory/memory.limit_in_bytes'))[0]
def write(path):
    try:
        with open(path + '/probe', 'w'):
            return 0
    except OSError as error:
        return error.errno
paths = ['/tmp', '/workspace', '/scratch', '/var/deep/er', '/var/cache', '/opt', '/etc']
print(json.dumps({
    'cpu': int(quota) * 1000 // int(period),
    'memory': int(memory) >> 20,
    'user': os.getuid(),
    'group': os.getgid(),
    'read-only': bool(os.statvfs('/').f_flag & os.ST_RDONLY),
    'write': {path: write(path) for path in paths},
}))
";

/// The number of the error where there is no such folder.
pub const MISSING: i64 = 2;
/// Where the user may not write.
pub const DENIED: i64 = 13;
/// Where nobody can.
pub const READ_ONLY: i64 = 30;

/// Looks from inside a sandbox, and checks that it is as it should be: a part of what [`LOOK`] prints.
pub async fn looks(scene: &Scene, name: &str, expected: Value) -> Result<()> {
    let pod = scene.running(name).await?;
    let seen = scene.python_json(&pod, LOOK).await?;
    let mut missing = Vec::new();
    for (key, wanted) in expected.as_object().into_iter().flatten() {
        match wanted.as_object() {
            Some(paths) => {
                let wrong = paths.iter().filter(|(path, e)| seen[key][path] != **e);
                missing.extend(wrong.map(|(path, e)| format!("{path} {e}")));
            }
            None if seen[key] != *wanted => missing.push(format!("{key} {wanted}")),
            None => {}
        }
    }
    ensure!(
        missing.is_empty(),
        "{name} sees {seen}, and not {missing:?}"
    );
    Ok(())
}

/// Checks the limit of everything that is written: of the container, and of each volume for a writable path.
pub fn writes_at_most(pod: &DynamicObject, size: &str, paths: &[&str]) -> Result<()> {
    let wanted = Bytes::parse(size)?;
    let is = |value: &Value| {
        let read = value.as_str().map(Bytes::parse);
        matches!(read, Some(Ok(bytes)) if bytes == wanted)
    };
    let container = &pod.data["spec"]["containers"][0];
    let limit = &container["resources"]["limits"]["ephemeral-storage"];
    ensure!(is(limit), "the container's limit is {limit}");
    let volumes = pod.data["spec"]["volumes"]
        .as_array()
        .context("no volumes")?;
    let mounts = container["volumeMounts"].as_array().context("no mounts")?;
    for path in paths {
        let mount = mounts.iter().find(|m| m["mountPath"] == *path);
        let mount = mount.with_context(|| format!("{path} is not mounted"))?;
        let volume = volumes.iter().find(|v| v["name"] == mount["name"]);
        let limit = volume.map(|v| v["emptyDir"]["sizeLimit"].clone());
        let limit = limit.context("a mount without a volume")?;
        ensure!(is(&limit), "{path} is limited to {limit}");
    }
    Ok(())
}
