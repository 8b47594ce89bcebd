//! What a pool puts into its pods before they are ready, as init containers: one for the packages, then one for each
//! script. They run as the sandbox itself does: same image, user, limits and security context, and what they write is
//! bounded by the same storage limit.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, EnvVar,
    ObjectFieldSelector, Pod, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pilotlight_common::kinds::GROUP;
use pilotlight_common::names::{PRELOAD_PACKAGES, PRELOAD_SCRIPT};
use pilotlight_common::resolve::{
    PRELOAD_HOME, PRELOAD_PATH, PRELOAD_SCRIPT_PATH, Packages, PodTemplate, Preload, Script,
};

/// Volume that packages are installed into.
const VOLUME: &str = "preload";
/// Volume of the package manager's own files.
const HOME_VOLUME: &str = "preload-home";
/// Scripts can be read and run by everyone, and written by nobody.
const SCRIPT_MODE: i32 = 0o555;

/// Adds the init containers, and what they leave behind for the sandbox.
pub(super) fn add(pod: &mut Pod, preload: &Preload, template: &PodTemplate) {
    let Some(spec) = &mut pod.spec else { return };
    let Some(sandbox) = spec.containers.first_mut() else {
        return;
    };
    let env: Option<Vec<EnvVar>> = preload.packages.as_ref().map(|packages| {
        let (name, value) = packages.manager.search_path();
        vec![variable(name, value)]
    });
    let mut volumes = vec![empty(VOLUME, template)];
    let mut init = Vec::new();
    if let Some(packages) = &preload.packages {
        volumes.push(empty(HOME_VOLUME, template));
        init.push(install(sandbox, packages));
    }
    let mut annotations = BTreeMap::new();
    for (number, script) in preload.scripts.iter().enumerate() {
        let name = format!("{PRELOAD_SCRIPT}{number}");
        let annotation = format!("{GROUP}/{name}");
        let volume = format!("preload-script-{number}");
        volumes.push(file(&volume, &annotation, script));
        init.push(run(sandbox, name, &volume, script, env.as_ref()));
        annotations.insert(annotation, script.content.clone());
    }
    let mounts = sandbox.volume_mounts.get_or_insert_default();
    mounts.push(VolumeMount {
        read_only: Some(true),
        ..mount(VOLUME, PRELOAD_PATH)
    });
    sandbox.env = env;
    spec.init_containers = Some(init);
    spec.volumes.get_or_insert_default().extend(volumes);
    if !annotations.is_empty() {
        pod.metadata
            .annotations
            .get_or_insert_default()
            .extend(annotations);
    }
}

/// A container that is to the pod what the sandbox's own is.
fn like(sandbox: &Container, name: String) -> Container {
    Container {
        name,
        image: sandbox.image.clone(),
        image_pull_policy: sandbox.image_pull_policy.clone(),
        resources: sandbox.resources.clone(),
        security_context: sandbox.security_context.clone(),
        ..Container::default()
    }
}

fn install(sandbox: &Container, Packages { manager, specs }: &Packages) -> Container {
    Container {
        command: Some(manager.command(specs)),
        // The image's own home may not be writable, or not be there.
        env: Some(vec![
            variable("HOME", PRELOAD_HOME.to_owned()),
            variable("TMPDIR", PRELOAD_HOME.to_owned()),
        ]),
        working_dir: Some(PRELOAD_HOME.to_owned()),
        volume_mounts: Some(vec![
            mount(VOLUME, PRELOAD_PATH),
            mount(HOME_VOLUME, PRELOAD_HOME),
        ]),
        ..like(sandbox, PRELOAD_PACKAGES.to_owned())
    }
}

fn run(
    sandbox: &Container,
    name: String,
    volume: &str,
    script: &Script,
    env: Option<&Vec<EnvVar>>,
) -> Container {
    let path = format!("{PRELOAD_SCRIPT_PATH}/{}", script.name);
    let command = if script.content.starts_with("#!") {
        vec![path]
    } else {
        vec!["/bin/sh".to_owned(), path]
    };
    let mut mounts = sandbox.volume_mounts.clone().unwrap_or_default();
    mounts.push(mount(VOLUME, PRELOAD_PATH));
    mounts.push(VolumeMount {
        read_only: Some(true),
        ..mount(volume, PRELOAD_SCRIPT_PATH)
    });
    Container {
        command: Some(command),
        env: env.cloned(),
        volume_mounts: Some(mounts),
        ..like(sandbox, name)
    }
}

fn variable(name: &str, value: String) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    }
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    }
}

fn empty(name: &str, template: &PodTemplate) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: None,
            size_limit: Some(Quantity(template.ephemeral_storage.to_string())),
        }),
        ..Volume::default()
    }
}

/// One annotation as a file: no ConfigMap to create, and none to leave behind.
fn file(name: &str, annotation: &str, script: &Script) -> Volume {
    Volume {
        name: name.to_owned(),
        downward_api: Some(DownwardAPIVolumeSource {
            default_mode: Some(SCRIPT_MODE),
            items: Some(vec![DownwardAPIVolumeFile {
                path: script.name.clone(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: None,
                    field_path: format!("metadata.annotations['{annotation}']"),
                }),
                mode: Some(SCRIPT_MODE),
                resource_field_ref: None,
            }]),
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests {
    use pilotlight_common::names::OwnerKind;
    use pilotlight_common::resolve::PackageManager;

    use super::super::tests::{owner, template};
    use super::super::{Overcommit, PodPlan, pod};
    use super::*;
    use crate::view::Key;

    fn made(preload: &Preload) -> Pod {
        let overcommit = Overcommit {
            cpu: 1.0,
            memory: 1.0,
        };
        let plan = PodPlan {
            key: &Key::from(&owner()),
            owner_kind: OwnerKind::WarmPod,
            owner: &owner(),
            pool: Some("pool"),
            template: &template(),
            shape: "shape",
            preload: Some(preload),
            nodes: &[],
        };
        pod(&plan, overcommit)
    }

    fn script(name: &str, content: &str) -> Script {
        Script {
            name: name.into(),
            content: content.into(),
        }
    }

    #[test]
    fn packages_come_first_then_the_scripts_in_order_all_confined_like_the_sandbox() {
        let packages = Packages {
            manager: PackageManager::Pip,
            specs: vec!["numpy==1".into()],
        };
        let scripts = vec![script("a", "echo"), script("b", "#!/usr/bin/python3\n")];
        let pod = made(&Preload::new(Some(packages), scripts));
        let spec = pod.spec.unwrap();
        let sandbox = &spec.containers[0];
        let init = spec.init_containers.unwrap();
        let names: Vec<_> = init.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["preload-packages", "preload-0", "preload-1"]);
        for container in &init {
            assert_eq!(container.security_context, sandbox.security_context);
            assert_eq!(container.resources, sandbox.resources);
            assert_eq!(container.image, sandbox.image);
        }
        let install = init[0].command.as_ref().unwrap();
        assert_eq!(install[..2], ["pip", "install"]);
        assert_eq!(install.last().unwrap(), "numpy==1");
        assert_eq!(
            init[1].command.as_ref().unwrap(),
            &["/bin/sh", "/opt/preload-script/a"]
        );
        assert_eq!(
            init[2].command.as_ref().unwrap(),
            &["/opt/preload-script/b"]
        );
        let annotations = pod.metadata.annotations.unwrap();
        assert_eq!(annotations["llmsafespace.dev/preload-0"], "echo");
        let preloads = sandbox.volume_mounts.as_ref().unwrap().iter();
        let preloads: Vec<_> = preloads.filter(|m| m.mount_path == PRELOAD_PATH).collect();
        assert_eq!(preloads.len(), 1);
        assert_eq!(preloads[0].read_only, Some(true));
        assert_eq!(sandbox.env.as_ref().unwrap()[0].name, "PYTHONPATH");
    }

    #[test]
    fn every_mount_has_its_volume_and_a_script_is_seen_by_its_own_container_only() {
        let scripts = vec![script("a", "x"), script("b", "y")];
        let pod = made(&Preload::new(None, scripts));
        let spec = pod.spec.unwrap();
        let volumes: Vec<String> = spec.volumes.unwrap().into_iter().map(|v| v.name).collect();
        let init = spec.init_containers.unwrap();
        for mount in init
            .iter()
            .chain(&spec.containers)
            .flat_map(|c| c.volume_mounts.iter().flatten())
        {
            assert!(volumes.contains(&mount.name), "{}", mount.name);
        }
        let users = |volume: &str| {
            init.iter()
                .chain(&spec.containers)
                .filter(|c| c.volume_mounts.iter().flatten().any(|m| m.name == volume))
                .map(|c| c.name.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(users("preload-script-1"), ["preload-1"]);
        assert_eq!(users("writable-0").len(), 3);
        assert_eq!(spec.containers[0].env, None);
    }
}
