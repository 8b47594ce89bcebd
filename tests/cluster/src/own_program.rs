//! The program `pilotlight-cluster` itself, which a cluster runs as its storage component: it is this process, or it is built for
//! it. Called by `up`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cargo::cargo;
use crate::command::run;
use crate::error::{Error, Result};
use crate::files;

const NAME: &str = "pilotlight-cluster";

/// Where the program lies. Tests and `make` use this crate as a library: for them cargo builds it, in a moment where it is built.
pub(crate) fn find() -> Result<PathBuf> {
    let this = std::env::current_exe().map_err(Error::io("find", Path::new("/proc/self/exe")))?;
    if this.file_name().is_some_and(|name| name == NAME) {
        return Ok(this);
    }
    let mut build = cargo();
    build
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            NAME,
            "--bin",
            NAME,
        ])
        .arg("--message-format=json-render-diagnostics");
    executable(&run(&mut build)?).ok_or_else(|| Error::Answer {
        program: "cargo build".into(),
        reason: format!("it names no program {NAME}"),
    })
}

/// The program among what cargo says it has built, a JSON object per line.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == NAME)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// Gives the cluster a copy, which stays when the build goes.
pub(crate) fn install(program: &Path, copy: &Path) -> Result<()> {
    files::create_dir(copy.parent().unwrap_or(copy))?;
    std::fs::copy(program, copy).map_err(Error::io("copy", program))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"serde\"},\"executable\":null}\n\
                        not json\n\
                        {\"target\":{\"name\":\"pilotlight-cluster\"},\"executable\":\"/t/debug/pilotlight-cluster\"}\n\
                        {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(
            executable(messages).as_deref(),
            Some(Path::new("/t/debug/pilotlight-cluster"))
        );
        assert_eq!(executable("{}"), None);
    }
}
