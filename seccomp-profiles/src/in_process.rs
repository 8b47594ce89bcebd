//! Filters that a process loads for itself, without a container runtime. Called by the node agent at its start.

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::arch::Arch;
use crate::profile::Profile;
use crate::rule::{Action, Condition, Rule, Test};

/// The filters that say together what a profile says, to be loaded in this order.
///
/// One filter knows one answer beside its default. The first lets through what the profile permits and gives the
/// default to the rest; each further one only adds another refusal. The kernel takes the strictest answer, and of two
/// that are equally strict the one loaded last: so a call that is to be absent is, though the first filter says that
/// it is not permitted. The first filter must therefore let `seccomp` through.
///
/// # Errors
/// Where a profile cannot be said so; none of the project's own.
pub fn in_process(profile: &Profile, arch: Arch) -> Result<Vec<BpfProgram>, BackendError> {
    let permitted = filter(
        profile,
        arch,
        SeccompAction::Allow,
        profile.default_action(),
        Action::permits,
    )?;
    let others: BTreeSet<Action> = profile
        .rules()
        .iter()
        .map(|rule| rule.action)
        .filter(|action| !action.permits() && *action != profile.default_action())
        .collect();
    std::iter::once(Ok(permitted))
        .chain(others.into_iter().map(|action| {
            filter(profile, arch, translated(action), Action::Allow, |found| {
                found == action
            })
        }))
        .collect()
}

fn filter(
    profile: &Profile,
    arch: Arch,
    answer: SeccompAction,
    otherwise: Action,
    which: impl Fn(Action) -> bool,
) -> Result<BpfProgram, BackendError> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let rules = profile
        .rules()
        .iter()
        .filter(|rule| which(rule.action) && rule.only.is_none_or(|only| only == arch));
    for Rule {
        names, conditions, ..
    } in rules
    {
        for number in names.iter().filter_map(|name| arch.number(name)) {
            // No conditions at all is an entry without rules.
            let ways = calls.entry(i64::from(number)).or_default();
            if !conditions.is_empty() {
                ways.push(SeccompRule::new(
                    conditions.iter().map(condition).collect::<Result<_, _>>()?,
                )?);
            }
        }
    }
    let target = match arch {
        Arch::X86_64 => TargetArch::x86_64,
        Arch::Aarch64 => TargetArch::aarch64,
    };
    SeccompFilter::new(calls, translated(otherwise), answer, target)?.try_into()
}

fn translated(action: Action) -> SeccompAction {
    match action {
        Action::Allow => SeccompAction::Allow,
        Action::Log => SeccompAction::Log,
        Action::Errno(number) => SeccompAction::Errno(number.into()),
        Action::Trap => SeccompAction::Trap,
        Action::KillProcess => SeccompAction::KillProcess,
    }
}

fn condition(condition: &Condition) -> Result<SeccompCondition, BackendError> {
    let (op, value) = match condition.test {
        Test::NotEqual(value) => (SeccompCmpOp::Ne, value),
        Test::Less(value) => (SeccompCmpOp::Lt, value),
        Test::LessOrEqual(value) => (SeccompCmpOp::Le, value),
        Test::Equal(value) => (SeccompCmpOp::Eq, value),
        Test::GreaterOrEqual(value) => (SeccompCmpOp::Ge, value),
        Test::Greater(value) => (SeccompCmpOp::Gt, value),
        Test::Masked { mask, value } => (SeccompCmpOp::MaskedEq(mask), value),
    };
    SeccompCondition::new(condition.arg, SeccompCmpArgLen::Qword, op, value)
}
