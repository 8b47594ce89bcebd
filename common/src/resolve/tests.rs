//! Tests of precedence, refusals and shape.

use kube::core::ObjectMeta;
use proptest::prelude::*;

use super::*;
use crate::kinds::{
    AutoScaling, EgressRule, Filesystem, FilesystemConfig, NetworkAccess, PoolResources,
    ProfileRef, ResourceDefaults, ResourceRequirements, RuntimeEnvironment, RuntimeEnvironmentSpec,
    SandboxProfile, SandboxProfileSpec, SandboxResources, SandboxSpec, SeccompProfile, SeccompType,
    SecurityContext, SecurityLevel, Storage, WarmPoolSpec,
};
use crate::reasons::{Reason, Refusal};

fn runtime(name: &str, language: &str, version: Option<&str>) -> RuntimeEnvironment {
    let mut runtime = RuntimeEnvironment::new(
        name,
        RuntimeEnvironmentSpec {
            image: format!("registry.example/{name}:1"),
            language: language.into(),
            version: version.map(Into::into),
            ..Default::default()
        },
    );
    runtime.metadata = ObjectMeta {
        name: Some(name.into()),
        ..Default::default()
    };
    runtime
}

fn sandbox(runtime: &str) -> SandboxSpec {
    SandboxSpec {
        runtime: runtime.into(),
        ..Default::default()
    }
}

fn resolve(spec: &SandboxSpec) -> Result<ResolvedSandbox, Refusal> {
    resolve_sandbox(
        "ns",
        spec,
        None,
        &runtime("python", "python", None),
        &Defaults::default(),
    )
}

#[test]
fn a_runtime_is_found_by_name_then_dashed_name_then_language_and_version() {
    let all = [
        runtime("zz", "python", Some("3.10")),
        runtime("aa", "python", Some("3.10")),
        runtime("python-3.11", "python", Some("x")),
    ];
    let find = |name: &str| find_runtime(&all, name).map(|r| r.metadata.name.clone().unwrap());
    assert_eq!(find("zz"), Ok("zz".into()));
    assert_eq!(find("python:3.11"), Ok("python-3.11".into()));
    assert_eq!(find("python:3.10"), Ok("aa".into()));
    assert_eq!(
        find("registry.example/zz:1").unwrap_err().reason,
        Reason::RuntimeNotFound
    );
}

/// A sandbox that asks for `cpu` and for CPUs of its own.
fn pinned(cpu: &str, defaults: &Defaults) -> Result<ResolvedSandbox, Refusal> {
    let mut spec = sandbox("python");
    spec.resources = Some(SandboxResources {
        cpu: Some(cpu.into()),
        cpu_pinning: Some(true),
        ..Default::default()
    });
    let runtime = runtime("python", "python", None);
    resolve_sandbox("ns", &spec, None, &runtime, defaults)
}

#[test]
fn cpus_of_its_own_are_whole_ones_and_at_most_what_the_installation_allows() {
    let defaults = Defaults::default();
    for (asked, given) in [("500m", 1), ("1.0", 1), ("1001m", 2), ("4.0", 4)] {
        let resolved = pinned(asked, &defaults).unwrap();
        assert_eq!(resolved.pinned_cpus, given, "{asked}");
        assert_eq!(resolved.template.cpu.0, u64::from(given) * 1000);
    }
    let bounded = Defaults {
        maximum: Maximum {
            cpu: Some(MilliCpu(1500)),
            ..Maximum::default()
        },
        ..Defaults::default()
    };
    assert!(pinned("1.0", &bounded).is_ok());
    assert_eq!(
        pinned("1200m", &bounded).unwrap_err().reason,
        Reason::ResourcesAboveMaximum
    );
}

#[test]
fn a_pinned_sandbox_takes_the_pods_of_others_where_those_request_their_limits() {
    let mut plain = sandbox("python");
    plain.resources = Some(SandboxResources {
        cpu: Some("2.0".into()),
        ..Default::default()
    });
    let runtime = runtime("python", "python", None);
    for overcommitted in [false, true] {
        let defaults = Defaults {
            overcommitted,
            ..Defaults::default()
        };
        let own = pinned("1500m", &defaults).unwrap();
        let other = resolve_sandbox("ns", &plain, None, &runtime, &defaults).unwrap();
        assert_eq!((own.pinned_cpus, other.pinned_cpus), (2, 0));
        let same = own.template.shape() == other.template.shape();
        assert_eq!(same, !overcommitted);
        assert_eq!(own.template.requests_limits, overcommitted);
    }
}

#[test]
fn a_pool_and_a_sandbox_that_say_the_same_have_one_shape() {
    let mut spec = sandbox("python");
    spec.resources = Some(SandboxResources {
        cpu: Some("0.25".into()),
        memory: Some("64Mi".into()),
        ..Default::default()
    });
    let pool = WarmPoolSpec {
        runtime: "python".into(),
        resources: Some(PoolResources {
            cpu: Some("250m".into()),
            memory: Some("65536Ki".into()),
        }),
        ..Default::default()
    };
    let pool = resolve_pool(
        "ns",
        &pool,
        None,
        &runtime("python", "python", None),
        &Defaults::default(),
    )
    .unwrap()
    .template;
    assert_eq!(resolve(&spec).unwrap().template, pool);
    assert_eq!(resolve(&spec).unwrap().template.shape(), pool.shape());
}

#[test]
fn sandbox_goes_before_profile_before_recommendation_before_default() {
    let mut python = runtime("python", "python", None);
    python.spec.resource_requirements = Some(ResourceRequirements {
        recommended_cpu: Some("2".into()),
        recommended_memory: Some("2Gi".into()),
        ..Default::default()
    });
    let profile = SandboxProfile::new(
        "p",
        SandboxProfileSpec {
            language: "python".into(),
            resource_defaults: Some(ResourceDefaults {
                memory: Some("1Gi".into()),
                ..Default::default()
            }),
            ..Default::default()
        },
    );
    let mut spec = sandbox("python");
    spec.resources = Some(SandboxResources {
        ephemeral_storage: Some("2Gi".into()),
        ..Default::default()
    });
    let template = resolve_sandbox("ns", &spec, Some(&profile), &python, &Defaults::default())
        .unwrap()
        .template;
    assert_eq!(template.cpu, MilliCpu(2000));
    assert_eq!(template.memory, Bytes(1 << 30));
    assert_eq!(template.ephemeral_storage, Bytes(2 << 30));
}

#[test]
fn what_cannot_be_given_is_refused_with_its_reason() {
    let refused = |change: &dyn Fn(&mut SandboxSpec)| {
        let mut spec = sandbox("python");
        change(&mut spec);
        resolve(&spec).unwrap_err().reason
    };
    assert_eq!(
        refused(&|s| s.security_level = Some(SecurityLevel::High)),
        Reason::RuntimeClassNotFound
    );
    assert_eq!(
        refused(&|s| s.resources = Some(SandboxResources {
            memory: Some("99999999999999999999Gi".into()),
            ..Default::default()
        })),
        Reason::InvalidResources
    );
    assert_eq!(
        refused(&|s| s.network_access = Some(NetworkAccess {
            ingress: None,
            egress: Some(vec![EgressRule {
                domain: "192.0.2.1".into(),
                ports: None
            }])
        })),
        Reason::InvalidNetworkAccess
    );
    assert_eq!(
        refused(&|s| s.storage = Some(Storage {
            persistent: Some(true),
            volume_size: Some("0Gi".into())
        })),
        Reason::InvalidResources
    );
    for paths in [
        vec!["/a/../b"],
        vec!["a"],
        vec!["/"],
        vec![""],
        vec!["/a//b"],
        vec!["/proc/x"],
        vec!["/a:/b"],
        vec!["/a", "/b", "/a/c"],
    ] {
        let paths: Vec<String> = paths.into_iter().map(Into::into).collect();
        assert_eq!(
            refused(&|s| s.filesystem = Some(Filesystem {
                writable_paths: Some(paths.clone()),
                read_only_root: None
            })),
            Reason::InvalidFilesystem,
            "{paths:?}"
        );
    }
    for (user, level) in [
        (0, SecurityLevel::Custom),
        (-1, SecurityLevel::Custom),
        (2000, SecurityLevel::Standard),
        (i64::MAX, SecurityLevel::Custom),
    ] {
        let context = SecurityContext {
            run_as_user: Some(user),
            ..Default::default()
        };
        assert_eq!(
            refused(&|s| {
                s.security_context = Some(context.clone());
                s.security_level = Some(level);
            }),
            Reason::InvalidSecurityContext,
            "{user}"
        );
    }
    let seccomp = SecurityContext {
        seccomp_profile: Some(SeccompProfile {
            type_: Some(SeccompType::Localhost),
            localhost_profile: Some("x".into()),
        }),
        ..Default::default()
    };
    assert_eq!(
        refused(&|s| s.security_context = Some(seccomp.clone())),
        Reason::SeccompProfileUnknown
    );
}

#[test]
fn a_pool_with_its_bounds_crossed_is_refused() {
    let pool = WarmPoolSpec {
        runtime: "python".into(),
        min_size: 3,
        max_size: Some(2),
        ..Default::default()
    };
    let refusal = resolve_pool(
        "ns",
        &pool,
        None,
        &runtime("python", "python", None),
        &Defaults::default(),
    )
    .unwrap_err();
    assert_eq!(refusal.reason, Reason::InvalidPoolSize);
}

#[test]
fn a_profile_only_ever_makes_the_level_stricter() {
    let defaults = Defaults {
        high_runtime_class: Some("gvisor".into()),
        ..Defaults::default()
    };
    for own in [
        SecurityLevel::Standard,
        SecurityLevel::High,
        SecurityLevel::Custom,
    ] {
        for theirs in [
            SecurityLevel::Standard,
            SecurityLevel::High,
            SecurityLevel::Custom,
        ] {
            let mut spec = sandbox("python");
            spec.security_level = Some(own);
            let profile = SandboxProfile::new(
                "p",
                SandboxProfileSpec {
                    language: "python".into(),
                    security_level: Some(theirs),
                    ..Default::default()
                },
            );
            let level = resolve_sandbox(
                "ns",
                &spec,
                Some(&profile),
                &runtime("python", "python", None),
                &defaults,
            )
            .unwrap()
            .template
            .security_level;
            assert_eq!(
                level == SecurityLevel::High,
                own == SecurityLevel::High || theirs == SecurityLevel::High
            );
            assert!(level != SecurityLevel::Custom || own == SecurityLevel::Custom);
        }
    }
}

#[test]
fn a_profile_that_does_not_fit_is_refused() {
    let resolved = |change: &dyn Fn(&mut SandboxProfileSpec)| {
        let mut profile = SandboxProfile::new(
            "p",
            SandboxProfileSpec {
                language: "python".into(),
                ..Default::default()
            },
        );
        change(&mut profile.spec);
        resolve_sandbox(
            "ns",
            &sandbox("python"),
            Some(&profile),
            &runtime("python", "python", None),
            &Defaults::default(),
        )
        .map_err(|r| r.reason)
    };
    let read_only = |path: &str| FilesystemConfig {
        read_only_paths: Some(vec![path.into()]),
        writable_paths: None,
    };
    assert!(resolved(&|_| {}).is_ok());
    assert!(resolved(&|p| p.filesystem_config = Some(read_only("/etc"))).is_ok());
    assert_eq!(
        resolved(&|p| p.language = "nodejs".into()),
        Err(Reason::ProfileInvalid)
    );
    assert_eq!(
        resolved(&|p| p.pre_installed_packages = Some(vec!["numpy".into()])),
        Err(Reason::ProfileInvalid)
    );
    assert_eq!(
        resolved(&|p| p.filesystem_config = Some(read_only("/workspace/a"))),
        Err(Reason::InvalidFilesystem)
    );
    assert_eq!(
        resolved(&|p| p.filesystem_config = Some(read_only("/a/../b"))),
        Err(Reason::ProfileInvalid)
    );
    assert_eq!(
        resolved(&|p| p.seccomp_profile = Some("x".into())),
        Err(Reason::SeccompProfileUnknown)
    );
}

fn pool(change: &dyn Fn(&mut WarmPoolSpec)) -> Result<ResolvedPool, Refusal> {
    let mut spec = WarmPoolSpec {
        runtime: "python".into(),
        ..Default::default()
    };
    change(&mut spec);
    resolve_pool(
        "ns",
        &spec,
        None,
        &runtime("python", "python", None),
        &Defaults::default(),
    )
}

#[test]
fn a_pool_that_says_nothing_has_the_defaults_of_the_schema_and_zero_means_never() {
    let silent = pool(&|_| {}).unwrap();
    assert_eq!((silent.min_size, silent.max_size), (0, None));
    assert_eq!(silent.ttl_seconds, Some(3600));
    assert_eq!((silent.scaling, silent.preload), (None, None));
    let zeros = pool(&|p| {
        p.max_size = Some(0);
        p.ttl = Some(0);
        p.auto_scaling = Some(AutoScaling {
            enabled: Some(true),
            scale_down_delay: Some(0),
            ..Default::default()
        });
    })
    .unwrap();
    assert_eq!((zeros.max_size, zeros.ttl_seconds), (None, None));
    let scaling = Scaling {
        target_utilization: 80,
        scale_down_delay: 0,
    };
    assert_eq!(zeros.scaling, Some(scaling));
}

#[test]
fn preloads_leave_the_shape_alone_and_have_a_hash_of_their_own() {
    let plain = pool(&|_| {}).unwrap();
    let with = |version: &str| {
        pool(&|p| p.preload_packages = Some(vec![format!("numpy=={version}")])).unwrap()
    };
    let (one, two) = (with("1"), with("2"));
    assert_eq!(one.template.shape(), plain.template.shape());
    assert_ne!(one.preload.unwrap().hash(), two.preload.unwrap().hash());
    let nothing = pool(&|p| {
        p.preload_packages = Some(vec![]);
        p.preload_scripts = Some(vec![]);
    });
    assert_eq!(nothing.unwrap().preload, None);
}

#[test]
fn a_writable_path_that_overlaps_the_preloads_is_refused_only_with_preloads() {
    let profile = |path: &str| {
        SandboxProfile::new(
            "p",
            SandboxProfileSpec {
                language: "python".into(),
                filesystem_config: Some(FilesystemConfig {
                    writable_paths: Some(vec![path.into()]),
                    ..Default::default()
                }),
                ..Default::default()
            },
        )
    };
    let resolved = |path: &str, packages: &[&str]| {
        let spec = WarmPoolSpec {
            runtime: "python".into(),
            preload_packages: Some(packages.iter().map(|p| (*p).to_owned()).collect()),
            ..Default::default()
        };
        let python = runtime("python", "python", None);
        resolve_pool(
            "ns",
            &spec,
            Some(&profile(path)),
            &python,
            &Defaults::default(),
        )
        .map(|_| ())
        .map_err(|r| r.reason)
    };
    for path in [
        "/opt",
        "/opt/preload",
        "/opt/preload/x",
        "/opt/preload-home",
    ] {
        assert_eq!(resolved(path, &["numpy"]), Err(Reason::InvalidFilesystem));
        assert_eq!(resolved(path, &[]), Ok(()));
    }
    assert_eq!(resolved("/opt/other", &["numpy"]), Ok(()));
}

#[test]
fn a_reference_into_another_namespace_or_without_a_name_is_refused() {
    let reference = |name: Option<&str>, namespace: Option<&str>| ProfileRef {
        name: name.map(Into::into),
        namespace: namespace.map(Into::into),
    };
    assert_eq!(profile_name(None, "ns"), Ok(None));
    assert_eq!(
        profile_name(Some(&reference(Some("p"), Some("ns"))), "ns"),
        Ok(Some("p"))
    );
    assert!(profile_name(Some(&reference(Some("p"), Some("other"))), "ns").is_err());
    assert!(profile_name(Some(&reference(None, None)), "ns").is_err());
}

prop_compose! {
    fn any_template()(
        namespace in "[ab]{0,2}", image in "[ab]{0,2}", command in prop::collection::vec("[ab]{0,2}", 0..3),
        cpu in 1u64..3, memory in 1u64..3, level in 0u8..3, class in prop::option::of("[ab]{0,1}"), seccomp in prop::option::of("[ab]{0,1}"),
        user in 1i64..3, group in 1i64..3, root in any::<bool>(), volume in any::<bool>(),
        writable in prop::collection::vec("[ab]{0,2}", 0..3), read_only in prop::collection::vec("[ab]{0,2}", 0..3),
        requests_limits in any::<bool>(),
    ) -> PodTemplate {
        PodTemplate {
            namespace, image, command, cpu: MilliCpu(cpu), memory: Bytes(memory), ephemeral_storage: Bytes(1),
            security_level: [SecurityLevel::Standard, SecurityLevel::High, SecurityLevel::Custom][usize::from(level)],
            runtime_class: class, seccomp, run_as_user: user, run_as_group: group, read_only_root: root,
            writable_paths: writable, read_only_paths: read_only, has_volume: volume, requests_limits,
        }
    }
}

fn any_level() -> impl Strategy<Value = Option<SecurityLevel>> {
    prop::sample::select(vec![
        None,
        Some(SecurityLevel::Standard),
        Some(SecurityLevel::High),
        Some(SecurityLevel::Custom),
    ])
}

fn any_quantity() -> impl Strategy<Value = Option<String>> {
    prop::option::of((1u32..3000).prop_map(|n| format!("{n}Mi")))
}

fn any_cpu() -> impl Strategy<Value = Option<String>> {
    prop::option::of((1u32..3000).prop_map(|n| format!("{n}m")))
}

fn any_paths() -> impl Strategy<Value = Option<Vec<String>>> {
    prop::option::of(prop::collection::vec("/[a-d]{1,2}(/[a-d])?", 0..4))
}

/// Everything that meets in a resolution, as users and administrators would write it.
#[derive(Clone, Debug)]
struct Meeting {
    sandbox: SandboxSpec,
    profile: Option<SandboxProfile>,
    runtime: RuntimeEnvironment,
    defaults: Defaults,
}

impl Meeting {
    fn resolve(&self) -> Result<ResolvedSandbox, Refusal> {
        let profile = self.profile.as_ref();
        resolve_sandbox("ns", &self.sandbox, profile, &self.runtime, &self.defaults)
    }
}

prop_compose! {
    fn any_sandbox()(
        level in any_level(), cpu in any_cpu(), memory in any_quantity(), storage in any_quantity(), paths in any_paths(),
        root in prop::option::of(any::<bool>()), user in prop::option::of(998i64..1003), persistent in prop::option::of(any::<bool>()),
        timeout in prop::option::of(1i64..3600), cpu_pinning in prop::option::of(any::<bool>()),
    ) -> SandboxSpec {
        SandboxSpec {
            runtime: "python".into(), security_level: level, timeout,
            resources: Some(SandboxResources { cpu, memory, ephemeral_storage: storage, cpu_pinning }),
            filesystem: Some(Filesystem { read_only_root: root, writable_paths: paths }),
            storage: Some(Storage { persistent, volume_size: None }),
            security_context: Some(SecurityContext { run_as_user: user, ..Default::default() }),
            ..Default::default()
        }
    }
}

prop_compose! {
    fn any_profile()(level in any_level(), cpu in any_cpu(), memory in any_quantity(), read_only in any_paths(), writable in any_paths()) -> SandboxProfile {
        SandboxProfile::new("p", SandboxProfileSpec {
            language: "python".into(), security_level: level,
            resource_defaults: Some(ResourceDefaults { cpu, memory, ephemeral_storage: None }),
            filesystem_config: Some(FilesystemConfig { read_only_paths: read_only, writable_paths: writable }),
            ..Default::default()
        })
    }
}

prop_compose! {
    fn any_meeting()(
        sandbox in any_sandbox(), profile in prop::option::of(any_profile()), min in any_cpu(), recommended in any_cpu(),
        high in any::<bool>(), overcommitted in any::<bool>(), most_cpu in prop::option::of(1u64..3000), most_memory in prop::option::of(1u64..3000),
    ) -> Meeting {
        let mut runtime = runtime("python", "python", None);
        runtime.spec.resource_requirements = Some(ResourceRequirements {
            min_cpu: min, recommended_cpu: recommended, ..Default::default()
        });
        Meeting {
            sandbox, profile, runtime,
            defaults: Defaults {
                overcommitted,
                high_runtime_class: high.then(|| "gvisor".into()),
                maximum: Maximum { cpu: most_cpu.map(MilliCpu), memory: most_memory.map(|n| Bytes(n << 20)), ..Default::default() },
                seccomp: SeccompProfiles::default(),
                networks_by_policy: false,
            },
        }
    }
}

/// What a user would write who wants exactly this, leaving nothing to anybody.
fn spelled_out(resolved: &ResolvedSandbox) -> SandboxSpec {
    let template = &resolved.template;
    SandboxSpec {
        runtime: "python".into(),
        security_level: Some(template.security_level),
        timeout: Some(resolved.timeout_seconds),
        resources: Some(SandboxResources {
            cpu: Some(template.cpu.to_string()),
            memory: Some(template.memory.to_string()),
            ephemeral_storage: Some(template.ephemeral_storage.to_string()),
            cpu_pinning: Some(resolved.pinned_cpus > 0),
        }),
        filesystem: Some(Filesystem {
            read_only_root: Some(template.read_only_root),
            writable_paths: Some(template.writable_paths.clone()),
        }),
        storage: Some(Storage {
            persistent: Some(resolved.volume.is_some()),
            volume_size: resolved.volume.map(|size| size.to_string()),
        }),
        security_context: Some(SecurityContext {
            run_as_user: Some(template.run_as_user),
            run_as_group: Some(template.run_as_group),
            seccomp_profile: None,
        }),
        ..SandboxSpec::default()
    }
}

proptest! {
    #[test]
    fn what_is_resolved_resolves_to_itself(meeting in any_meeting()) {
        if let Ok(resolved) = meeting.resolve() {
            let mut again = meeting.clone();
            again.sandbox = spelled_out(&resolved);
            prop_assert_eq!(again.resolve(), Ok(resolved));
        }
    }

    #[test]
    fn the_level_is_never_weaker_than_sandbox_or_profile_ask_for(meeting in any_meeting()) {
        if let Ok(resolved) = meeting.resolve() {
            let asked = [
                meeting.sandbox.security_level,
                meeting.profile.as_ref().and_then(|p| p.spec.security_level),
            ];
            let high = asked.contains(&Some(SecurityLevel::High));
            prop_assert_eq!(resolved.template.security_level == SecurityLevel::High, high);
            prop_assert_eq!(resolved.template.runtime_class.is_some(), high);
            let own = resolved.template.run_as_user == DEFAULT_USER;
            prop_assert!(own || meeting.sandbox.security_level == Some(SecurityLevel::Custom));
            prop_assert!(resolved.template.run_as_user > 0);
        }
    }

    #[test]
    fn limits_lie_between_the_runtimes_minimum_and_the_installations_maximum(meeting in any_meeting()) {
        if let Ok(resolved) = meeting.resolve() {
            let Maximum { cpu, memory, .. } = meeting.defaults.maximum;
            prop_assert!(cpu.is_none_or(|most| resolved.template.cpu <= most));
            prop_assert!(memory.is_none_or(|most| resolved.template.memory <= most));
            let needs = meeting.runtime.spec.resource_requirements.as_ref().unwrap();
            if let Some(min) = &needs.min_cpu {
                prop_assert!(resolved.template.cpu >= MilliCpu::parse(min).unwrap());
            }
        }
    }

    #[test]
    fn shapes_are_equal_exactly_where_templates_are(a in any_template(), b in any_template()) {
        prop_assert_eq!(a.shape() == b.shape(), a == b);
        prop_assert_eq!(a.shape(), a.clone().shape());
    }

    #[test]
    fn the_order_and_repetition_of_paths_do_not_matter(mut paths in prop::collection::vec("/[a-c]{1,3}", 0..6)) {
        let resolved = |paths: Vec<String>| {
            let mut spec = sandbox("python");
            spec.filesystem = Some(Filesystem { writable_paths: Some(paths), read_only_root: None });
            resolve(&spec).map(|r| r.template.shape())
        };
        let first = resolved(paths.clone());
        paths.reverse();
        paths.extend(paths.clone());
        prop_assert_eq!(first, resolved(paths));
    }

    #[test]
    fn hostile_text_is_refused_or_taken_without_a_panic(text in "\\PC{0,300}", user in any::<i64>()) {
        let mut spec = sandbox("python");
        spec.resources = Some(SandboxResources { cpu: Some(text.clone()), memory: Some(text.clone()), ..Default::default() });
        spec.filesystem = Some(Filesystem { writable_paths: Some(vec![text.clone()]), read_only_root: None });
        spec.security_context = Some(SecurityContext { run_as_user: Some(user), ..Default::default() });
        let _ = resolve(&spec);
        let _ = find_runtime(&[], &text);
        let profile = SandboxProfile::new("p", SandboxProfileSpec {
            language: text.clone(),
            filesystem_config: Some(FilesystemConfig { read_only_paths: Some(vec![text]), writable_paths: None }),
            ..Default::default()
        });
        let _ = resolve_sandbox("ns", &sandbox("python"), Some(&profile), &runtime("python", "python", None), &Defaults::default());
    }
}
