//! Rules that change while a sandbox runs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use pilotlight_bench::outside::{Meaning, Outside};
use pilotlight_e2e::reach::{Tries, egress, ended, refused};
use pilotlight_e2e::scene::Scene;
use serde_json::{Value, json};

use super::{in_background, levels, name_of, sandbox, with_internet};

/// Longer than an edit takes on a machine that does much else; the time itself is printed.
const IN_FORCE: Duration = Duration::from_secs(20);

/// Downloads for ever and writes how much came; once nothing comes any more, when the last of it did. A byte comes every 20 ms, so a
/// second without any is the end.
const DOWNLOAD: &str = "import socket, time
last = 0
def note(what):
    with open('/workspace/note', 'w') as file:
        file.write(what)
try:
    s = socket.create_connection(('NAME', 443), 5)
    s.sendall(b'more')
    s.settimeout(1)
    n = 0
    while True:
        data = s.recv(4096)
        if not data:
            break
        n += len(data)
        last = time.time()
        note(str(n))
except OSError:
    pass
note('cut off at %f' % last)
";

/// Starts a download of a name and waits until it is under way.
pub async fn download(scene: &Scene, pod: &str, name: &str) -> Result<()> {
    in_background(scene, pod, &DOWNLOAD.replace("NAME", name)).await?;
    goes_on(scene, pod).await
}

/// Waits until more comes.
pub async fn goes_on(scene: &Scene, pod: &str) -> Result<()> {
    let wait = "import json, time
def read():
    try:
        with open('/workspace/note') as file:
            return file.read()
    except OSError:
        return ''
first, end = read(), time.time() + 10
seen = first
while time.time() < end and not (seen.isdigit() and seen != first):
    time.sleep(0.05)
    seen = read() or seen
print(json.dumps([first, seen]))";
    let seen = scene.python_json(pod, wait).await?;
    let more = seen[1]
        .as_str()
        .is_some_and(|seen| seen.parse::<u64>().is_ok());
    ensure!(more && seen[0] != seen[1], "the download stands: {seen}");
    Ok(())
}

/// Waits until a download was cut off; when the last of it came.
async fn is_cut_off(scene: &Scene, pod: &str) -> Result<SystemTime> {
    let wait = "import json, time
end = time.time() + 20
seen = ''
while time.time() < end and not seen.startswith('c'):
    time.sleep(0.05)
    with open('/workspace/note') as file:
        seen = file.read() or seen
print(json.dumps(seen))";
    let seen = scene.python_json(pod, wait).await?;
    let cut = seen
        .as_str()
        .and_then(|seen| seen.strip_prefix("cut off at "));
    let cut: f64 = cut
        .with_context(|| format!("the download goes on: {seen}"))?
        .parse()?;
    Ok(UNIX_EPOCH + Duration::from_secs_f64(cut))
}

#[test]
fn an_edit_is_in_force_at_once_and_what_it_takes_away_is_cut_off_under_runc() {
    let [(_, fields), _] = levels();
    with_internet("edit-runc", |scene, outside| async move {
        edits(&scene, outside, fields).await
    });
}

#[test]
fn an_edit_is_in_force_at_once_and_what_it_takes_away_is_cut_off_under_gvisor() {
    let [_, (_, fields)] = levels();
    with_internet("edit-gvisor", |scene, outside| async move {
        edits(&scene, outside, fields).await
    });
}

/// In a sandbox: tries a connection until it opens; when it did.
async fn opens(scene: &Scene, pod: &str, name: &str) -> Result<SystemTime> {
    let program = format!(
        "import json, socket, time
def is_open():
    try:
        with socket.create_connection(('{name}', 443), 5) as s:
            return s.recv(7) == b'outside'
    except OSError:
        return False
start = time.time()
while not is_open() and time.time() < start + 30:
    time.sleep(0.02)
print(json.dumps(time.time()))"
    );
    let end = scene.python_json(pod, &program).await?;
    let end = end.as_f64().context("a time")?;
    Ok(UNIX_EPOCH + Duration::from_secs_f64(end))
}

async fn edits(scene: &Scene, outside: &Outside, fields: Value) -> Result<()> {
    let [first, second, ..] = outside.addresses();
    let stays = name_of(scene, outside, "stays", Meaning::addresses([first]));
    let goes = name_of(scene, outside, "goes", Meaning::addresses([second]));
    let rules = |names: &[&str]| {
        let rules: Vec<Value> = names.iter().map(|name| egress(name, &[443])).collect();
        json!({ "networkAccess": { "egress": rules } })
    };
    let pod = sandbox(
        scene,
        "edited",
        fields,
        rules(&[&stays])["networkAccess"].clone(),
    )
    .await?;
    let before = Tries::default()
        .greeted("stays", &stays, 443)
        .name("goes", &goes)
        .from_inside(scene, &pod)
        .await?;
    ended(&before, &[("stays", "open"), ("goes", "refused")])?;

    let start = SystemTime::now();
    scene.edit("edited", rules(&[&stays, &goes])).await?;
    let end = opens(scene, &pod, &goes).await?;
    let took = end.duration_since(start).unwrap_or_default();
    eprintln!(
        "an allowed name is there {} ms after the edit, with the time to start a program that looks",
        took.as_millis()
    );
    ensure!(took < IN_FORCE, "the edit took {took:?}");
    download(scene, &pod, &goes).await?;

    let start = SystemTime::now();
    scene.edit("edited", rules(&[&stays])).await?;
    let end = is_cut_off(scene, &pod).await?;
    let took = end.duration_since(start).unwrap_or_default();
    eprintln!(
        "the last of a download comes {} ms after the edit that takes it away",
        took.as_millis()
    );
    ensure!(took < IN_FORCE, "the edit took {took:?}");
    let after = Tries::default()
        .greeted("stays", &stays, 443)
        .name("goes", &goes)
        .tcp("its address", second, 443)
        .from_inside(scene, &pod)
        .await?;
    ended(&after, &[("stays", "open"), ("goes", "refused")])?;
    refused(&after, &["its address"])
}
