//! Tests of what a runtime says about itself.

use kube::core::ObjectMeta;
use proptest::prelude::*;

use super::*;
use crate::kinds::{
    ResourceRequirements, RuntimeEnvironment, RuntimeEnvironmentSpec, SandboxProfile,
    SandboxProfileSpec, SandboxResources, SandboxSpec, SecurityLevel,
};
use crate::reasons::{Reason, Refusal};

fn runtime(needs: ResourceRequirements) -> RuntimeEnvironment {
    let mut runtime = RuntimeEnvironment::new(
        "python",
        RuntimeEnvironmentSpec {
            image: "registry.example/python:1".into(),
            language: "python".into(),
            resource_requirements: Some(needs),
            ..Default::default()
        },
    );
    runtime.metadata = ObjectMeta {
        name: Some("python".into()),
        ..Default::default()
    };
    runtime
}

fn maximum(cpu: Option<u64>, memory: Option<u64>) -> Defaults {
    Defaults {
        maximum: Maximum {
            cpu: cpu.map(MilliCpu),
            memory: memory.map(Bytes),
            ..Maximum::default()
        },
        ..Defaults::default()
    }
}

fn asking(cpu: Option<&str>, memory: Option<&str>) -> SandboxSpec {
    SandboxSpec {
        runtime: "python".into(),
        resources: Some(SandboxResources {
            cpu: cpu.map(Into::into),
            memory: memory.map(Into::into),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn resolved(
    spec: &SandboxSpec,
    runtime: &RuntimeEnvironment,
    defaults: &Defaults,
) -> Result<PodTemplate, Refusal> {
    resolve_sandbox("ns", spec, None, runtime, defaults).map(|r| r.template)
}

#[test]
fn less_than_the_minimum_is_refused_and_a_default_is_raised_to_it() {
    let python = runtime(ResourceRequirements {
        min_cpu: Some("1".into()),
        min_memory: Some("1Gi".into()),
        ..Default::default()
    });
    let template = resolved(&asking(None, None), &python, &Defaults::default()).unwrap();
    assert_eq!(
        (template.cpu, template.memory),
        (MilliCpu(1000), Bytes(1 << 30))
    );
    for less in [asking(Some("999m"), None), asking(None, Some("1023Mi"))] {
        let refusal = resolved(&less, &python, &Defaults::default()).unwrap_err();
        assert_eq!(refusal.reason, Reason::InsufficientResources);
    }
}

#[test]
fn what_only_an_administrator_can_mend_is_the_runtimes_fault_whatever_is_asked_for() {
    let asked = asking(Some("1000m"), Some("1Gi"));
    let defaults = maximum(Some(2000), Some(2 << 30));
    let wrong = |change: &dyn Fn(&mut ResourceRequirements)| {
        let mut needs = ResourceRequirements::default();
        change(&mut needs);
        let python = runtime(needs);
        let trial = resolve_runtime("ns", &python, &defaults)
            .unwrap_err()
            .reason;
        let sandbox = resolved(&asked, &python, &defaults).unwrap_err().reason;
        assert_eq!(trial, sandbox);
        sandbox
    };
    let cases: [&dyn Fn(&mut ResourceRequirements); 8] = [
        &|n| n.min_cpu = Some("much".into()),
        &|n| n.min_memory = Some("-1Gi".into()),
        &|n| n.recommended_cpu = Some(String::new()),
        &|n| n.recommended_memory = Some("1Gi ".into()),
        &|n| n.min_cpu = Some("3".into()),
        &|n| n.min_memory = Some("3Gi".into()),
        &|n| {
            n.min_cpu = Some("1".into());
            n.recommended_cpu = Some("500m".into());
        },
        &|n| {
            n.min_memory = Some("1Gi".into());
            n.recommended_memory = Some("1Mi".into());
        },
    ];
    for (number, case) in cases.iter().enumerate() {
        assert_eq!(wrong(case), Reason::RuntimeInvalid, "case {number}");
    }
}

#[test]
fn an_image_or_command_that_nothing_can_run_is_the_runtimes_fault() {
    let mut python = runtime(ResourceRequirements::default());
    let refused = |runtime: &RuntimeEnvironment| {
        resolve_runtime("ns", runtime, &Defaults::default())
            .unwrap_err()
            .reason
    };
    python.spec.image = "two words".into();
    assert_eq!(refused(&python), Reason::RuntimeInvalid);
    python.spec.image = String::new();
    assert_eq!(refused(&python), Reason::RuntimeInvalid);
    python.spec.image = "image".into();
    python.spec.command = Some(vec!["a\0b".into()]);
    assert_eq!(refused(&python), Reason::RuntimeInvalid);
}

#[test]
fn a_trial_pod_is_the_pod_of_a_sandbox_that_says_nothing() {
    let mut python = runtime(ResourceRequirements {
        recommended_cpu: Some("2".into()),
        min_memory: Some("2Gi".into()),
        ..Default::default()
    });
    python.spec.command = Some(vec!["sleep".into(), "infinity".into()]);
    let nothing = SandboxSpec {
        runtime: "python".into(),
        ..Default::default()
    };
    let sandbox = resolved(&nothing, &python, &Defaults::default()).unwrap();
    let trial = resolve_runtime("ns", &python, &Defaults::default()).unwrap();
    assert_eq!(trial, sandbox);
    // A recommendation above the maximum is refused to a sandbox, which can ask for less; a trial asks for less.
    let bounded = maximum(Some(1000), None);
    assert_eq!(
        resolved(&nothing, &python, &bounded).unwrap_err().reason,
        Reason::ResourcesAboveMaximum
    );
    let trial = resolve_runtime("ns", &python, &bounded).unwrap();
    assert_eq!(trial.cpu, MilliCpu(1000));
}

#[test]
fn level_high_needs_a_runtime_class_and_a_runtime_that_does_not_rule_it_out() {
    let spec = SandboxSpec {
        runtime: "python".into(),
        security_level: Some(SecurityLevel::High),
        ..Default::default()
    };
    let with_class = Defaults {
        high_runtime_class: Some("gvisor".into()),
        ..Defaults::default()
    };
    let reason = |features: Option<&[&str]>, defaults: &Defaults| {
        let mut python = runtime(ResourceRequirements::default());
        python.spec.security_features =
            features.map(|list| list.iter().map(|f| (*f).to_owned()).collect());
        resolved(&spec, &python, defaults).map_err(|r| r.reason)
    };
    assert_eq!(
        reason(None, &Defaults::default()).unwrap_err(),
        Reason::RuntimeClassNotFound
    );
    assert_eq!(
        reason(Some(&["seccomp"]), &with_class).unwrap_err(),
        Reason::RuntimeIncompatible
    );
    for fine in [None, Some(&[][..]), Some(&["seccomp", "gVisor"][..])] {
        let template = reason(fine, &with_class).unwrap();
        assert_eq!(template.runtime_class.as_deref(), Some("gvisor"));
    }
}

#[test]
fn a_profile_fits_a_runtime_of_its_language_that_carries_its_packages() {
    let mut python = runtime(ResourceRequirements::default());
    python.spec.pre_installed_packages = Some(vec!["numpy".into(), "pandas".into()]);
    let reason = |language: &str, packages: &[&str]| {
        let profile = SandboxProfile::new(
            "p",
            SandboxProfileSpec {
                language: language.into(),
                pre_installed_packages: Some(packages.iter().map(|p| (*p).to_owned()).collect()),
                ..Default::default()
            },
        );
        resolve_sandbox(
            "ns",
            &asking(None, None),
            Some(&profile),
            &python,
            &Defaults::default(),
        )
        .map_err(|r| r.reason)
    };
    assert!(reason("python", &["pandas"]).is_ok());
    assert_eq!(
        reason("python", &["pandas", "torch"]),
        Err(Reason::ProfileInvalid)
    );
    assert_eq!(reason("nodejs", &[]), Err(Reason::ProfileInvalid));
}

/// A quantity, or nothing of the kind.
fn quantity(unit: &'static str) -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        2 => Just(None),
        8 => (1u64..8).prop_map(move |n| Some(format!("{n}{unit}"))),
        1 => "\\PC{0,8}".prop_map(Some),
    ]
}

proptest! {
    /// Whatever a runtime, a sandbox and an installation say: what comes out lies between the runtime's minimum and
    /// the installation's maximum, and a runtime that cannot be mended by its user is blamed itself.
    #[test]
    fn limits_lie_between_the_runtimes_minimum_and_the_maximum(
        min_cpu in quantity(""), min_memory in quantity("Gi"), recommended_cpu in quantity(""), recommended_memory in quantity("Gi"),
        own_cpu in quantity(""), own_memory in quantity("Gi"), most in prop::option::of(1u64..8),
    ) {
        let needs = ResourceRequirements { min_cpu, min_memory, recommended_cpu, recommended_memory };
        let python = runtime(needs.clone());
        let defaults = maximum(most.map(|n| n * 1000), most.map(|n| n << 30));
        let trial = resolve_runtime("ns", &python, &defaults);
        let sandbox = resolved(&asking(own_cpu.as_deref(), own_memory.as_deref()), &python, &defaults);
        for template in trial.iter().chain(&sandbox) {
            if let Some(min) = needs.min_cpu.as_deref() { prop_assert!(template.cpu >= MilliCpu::parse(min).unwrap()); }
            if let Some(min) = needs.min_memory.as_deref() { prop_assert!(template.memory >= Bytes::parse(min).unwrap()); }
            if let Some(most) = most {
                prop_assert!(template.cpu <= MilliCpu(most * 1000) && template.memory <= Bytes(most << 30));
            }
        }
        let blamed = sandbox.as_ref().is_err_and(|r| r.reason == Reason::RuntimeInvalid);
        prop_assert_eq!(trial.is_err(), blamed, "{:?} {:?}", trial, sandbox);
    }
}
