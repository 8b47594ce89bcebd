//! The images: binaries built by cargo, packed without a container tool, named by the hash of what is in them, so
//! that a changed program rolls its pods and an unchanged one does not.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pilotlight_cluster::image::{PYTHON, program_image};
use sha2::{Digest, Sha256};

use crate::progress::say;
use crate::{run, target_dir, workspace};

/// The user the programs run as; that of distroless images, and of the chart.
const USER: &str = "65532:65532";
/// Bytes of the hash that stand in a tag: enough to tell builds apart, short enough to read.
const TAG_BYTES: usize = 6;

/// An archive and the name under which a node has it once loaded.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    /// `repository:tag`.
    pub(crate) name: String,
    /// The archive.
    pub(crate) archive: PathBuf,
}

/// The names of all images an installation needs, as the cluster's nodes know them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageNames {
    /// The scheduler's.
    pub scheduler: String,
    /// The node agent's.
    pub node_agent: String,
    /// One with python3, for sandboxes.
    pub python: String,
}

impl ImageNames {
    /// The names for a given cluster, which must be able to pull them.
    pub(crate) fn from_environment() -> Result<Self> {
        let named = |variable: &str| {
            std::env::var(variable).with_context(|| {
                format!(
                    "KUBECONFIG names a cluster, so {variable} must name an image that it can pull (name:tag); \
                     build it from deploy/docker, or unset KUBECONFIG to use a cluster on this machine"
                )
            })
        };
        Ok(Self {
            scheduler: named("PILOTLIGHT_SCHEDULER_IMAGE")?,
            node_agent: named("PILOTLIGHT_NODE_AGENT_IMAGE")?,
            python: std::env::var("PILOTLIGHT_PYTHON_IMAGE")
                .unwrap_or_else(|_| "python:3.13-slim".into()),
        })
    }
}

/// Builds both programs and packs them. The archives lie in `target/images`.
pub fn pack() -> Result<Vec<(String, PathBuf)>> {
    Ok(packed()?
        .into_iter()
        .map(|image| (image.name, image.archive))
        .collect())
}

/// Scheduler, node agent.
pub(crate) fn packed() -> Result<[Packed; 2]> {
    say(
        "building the scheduler and the node agent (release; first time: about five minutes on two cores)",
    );
    run::show(
        crate::cargo()
            .current_dir(workspace())
            .args(["build", "--release", "--locked"])
            .args([
                "-p",
                "pilotlight-scheduler",
                "-p",
                "pilotlight-node-agent",
                "--bins",
            ]),
    )?;
    let folder = target_dir().join("images");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok([
        pack_program("scheduler", &folder)?,
        pack_program("node-agent", &folder)?,
    ])
}

/// Loads of the local cluster and kind need the Python image as an archive too.
pub(crate) fn python() -> Result<Packed> {
    Ok(Packed {
        name: PYTHON.name.to_owned(),
        archive: PYTHON.archive()?,
    })
}

fn pack_program(part: &str, folder: &Path) -> Result<Packed> {
    let program = target_dir()
        .join("release")
        .join(format!("pilotlight-{part}"));
    let content = std::fs::read(&program).with_context(|| {
        format!(
            "cannot read {}; the build made no such program",
            program.display()
        )
    })?;
    let tag = hex::encode(&Sha256::digest(&content)[..TAG_BYTES]);
    let name = format!("pilotlight.local/{part}:{tag}");
    let archive = folder.join(format!("{part}-{tag}.tar"));
    if !archive.is_file() {
        // Archives of earlier builds are of no more use, and they are large.
        remove_others(folder, part);
        let mut image = program_image(&name, &program)?;
        USER.clone_into(&mut image.user);
        image.write(&archive)?;
    }
    Ok(Packed { name, archive })
}

fn remove_others(folder: &Path, part: &str) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(&format!("{part}-"))
        {
            // One that cannot be removed only takes up room.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
