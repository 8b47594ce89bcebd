//! The condition type that every status here uses, and how a list of them is brought up to date.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One observation about an object. The list is a map by `type`, so that writers touch only their own entries.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Name of the observation, such as `Ready`.
    #[serde(rename = "type")]
    pub type_: String,
    /// Whether the observation holds.
    pub status: ConditionStatus,
    /// Stable CamelCase word for programs: why the status is what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Sentence for people: what happened and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When `status` last changed; an update of the reason or message alone leaves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>")]
    pub last_transition_time: Option<Timestamp>,
}

/// Truth value of a condition.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ConditionStatus {
    /// The observation holds.
    True,
    /// The observation does not hold.
    False,
    /// It is not known whether the observation holds.
    Unknown,
}

impl Condition {
    /// A condition that changed to `status` at `now`.
    pub fn new(
        type_: &str,
        status: ConditionStatus,
        reason: &str,
        message: impl Into<String>,
        now: Timestamp,
    ) -> Self {
        Self {
            type_: type_.to_owned(),
            status,
            reason: Some(reason.to_owned()),
            message: Some(message.into()),
            last_transition_time: Some(now),
        }
    }

    /// Whether both say the same, the time of the transition aside.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.type_ == other.type_
            && self.status == other.status
            && self.reason == other.reason
            && self.message == other.message
    }
}

/// `current` with each of `wanted` put in its place. The transition time of a condition whose status did not
/// change is kept. Returns `None` where nothing would change, so that the caller can leave the write out.
pub fn merge_conditions(current: &[Condition], wanted: Vec<Condition>) -> Option<Vec<Condition>> {
    let mut merged = current.to_vec();
    let mut changed = false;
    for mut condition in wanted {
        if let Some(slot) = merged.iter_mut().find(|c| c.type_ == condition.type_) {
            if slot.says_the_same(&condition) {
                continue;
            }
            if slot.status == condition.status && slot.last_transition_time.is_some() {
                condition.last_transition_time = slot.last_transition_time;
            }
            *slot = condition;
        } else {
            merged.push(condition);
        }
        changed = true;
    }
    changed.then_some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let first = Condition::new("Ready", ConditionStatus::False, "Waiting", "a", at(1));
        let reworded = Condition::new("Ready", ConditionStatus::False, "Waiting", "b", at(2));
        let merged = merge_conditions(&[first], vec![reworded]).unwrap();
        assert_eq!(merged[0].last_transition_time, Some(at(1)));
        assert_eq!(merged[0].message.as_deref(), Some("b"));

        let flipped = Condition::new("Ready", ConditionStatus::True, "Running", "c", at(3));
        let merged = merge_conditions(&merged, vec![flipped]).unwrap();
        assert_eq!(merged[0].last_transition_time, Some(at(3)));
    }

    #[test]
    fn a_repetition_changes_nothing_and_other_types_stay() {
        let ready = Condition::new("Ready", ConditionStatus::True, "Running", "a", at(1));
        let other = Condition::new("Other", ConditionStatus::True, "X", "x", at(1));
        let again = Condition::new("Ready", ConditionStatus::True, "Running", "a", at(9));
        assert_eq!(
            merge_conditions(&[ready.clone(), other.clone()], vec![again]),
            None
        );
        let flipped = Condition::new("Ready", ConditionStatus::False, "Y", "y", at(9));
        let merged = merge_conditions(&[ready, other.clone()], vec![flipped]).unwrap();
        assert_eq!(merged[1], other);
    }
}
