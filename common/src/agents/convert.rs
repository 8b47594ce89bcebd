//! From one version of the Sandbox to the other. Called by the scheduler's webhook with objects that the API server read or was sent.
//!
//! The versions differ in one field, `replicas` or `operatingMode`, and each value of one has its own of the other: nothing is lost, and
//! nothing has to be kept beside. Every other field is passed on as it is.

use serde_json::{Map, Value};

use super::GROUP;

/// Why an object cannot be converted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConvertError {
    /// Another kind, group or version.
    #[error("{0} cannot be converted: only Sandboxes of {GROUP}/v1alpha1 and v1beta1 can")]
    Unknown(String),
    /// A field that says what has no other form.
    #[error("{field} is {value}, which the other version cannot say; it must be {allowed}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        allowed: &'static str,
    },
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Version {
    Alpha,
    Beta,
}

fn version(api_version: &str) -> Result<Version, ConvertError> {
    match api_version.strip_prefix(GROUP) {
        Some("/v1alpha1") => Ok(Version::Alpha),
        Some("/v1beta1") => Ok(Version::Beta),
        _ => Err(ConvertError::Unknown(api_version.to_owned())),
    }
}

/// The object in the version `to`, such as `agents.x-k8s.io/v1beta1`.
pub fn convert(mut object: Value, to: &str) -> Result<Value, ConvertError> {
    let wanted = version(to)?;
    let said = |object: &Value, field: &str| {
        let said = object.get(field).and_then(Value::as_str);
        said.unwrap_or_default().to_owned()
    };
    let kind = said(&object, "kind");
    if kind != super::KIND {
        return Err(ConvertError::Unknown(kind));
    }
    let is = version(&said(&object, "apiVersion"))?;
    if is != wanted {
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            match wanted {
                Version::Beta => to_beta(spec)?,
                Version::Alpha => to_alpha(spec)?,
            }
        }
        if let Some(object) = object.as_object_mut() {
            object.insert("apiVersion".to_owned(), to.into());
        }
    }
    Ok(object)
}

fn to_beta(spec: &mut Map<String, Value>) -> Result<(), ConvertError> {
    let mode = match spec.remove("replicas") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Number(number)) if number.as_i64() == Some(0) => "Suspended",
        Some(Value::Number(number)) if number.as_i64() == Some(1) => "Running",
        Some(other) => {
            return Err(ConvertError::Field {
                field: "spec.replicas",
                value: other.to_string(),
                allowed: "0 or 1",
            });
        }
    };
    spec.insert("operatingMode".to_owned(), mode.into());
    Ok(())
}

fn to_alpha(spec: &mut Map<String, Value>) -> Result<(), ConvertError> {
    let replicas = match spec.remove("operatingMode") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::String(mode)) if mode == "Suspended" => 0,
        Some(Value::String(mode)) if mode == "Running" => 1,
        Some(other) => {
            return Err(ConvertError::Field {
                field: "spec.operatingMode",
                value: other.to_string(),
                allowed: "Running or Suspended",
            });
        }
    };
    spec.insert("replicas".to_owned(), replicas.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const ALPHA: &str = "agents.x-k8s.io/v1alpha1";
    const BETA: &str = "agents.x-k8s.io/v1beta1";

    /// Any JSON of some depth.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-zA-Z.]{1,8}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn sandbox(
        version: &'static str,
        mode: impl Strategy<Value = Option<(&'static str, Value)>>,
    ) -> impl Strategy<Value = Value> {
        let rest = prop::collection::btree_map("[a-z]{1,6}", any_json(), 0..5);
        (any_json(), rest, any_json(), mode).prop_map(move |(metadata, rest, status, mode)| {
            let mut spec: Map<String, Value> = rest
                .into_iter()
                .filter(|(key, _)| key != "replicas")
                .collect();
            if let Some((key, value)) = mode {
                spec.insert(key.to_owned(), value);
            }
            json!({ "apiVersion": version, "kind": "Sandbox", "metadata": metadata, "spec": spec, "status": status })
        })
    }

    proptest! {
        #[test]
        fn nothing_is_lost_from_the_first_version_and_back(object in sandbox(ALPHA, prop_oneof![
            Just(None),
            (0..=1_i64).prop_map(|n| Some(("replicas", n.into()))),
        ])) {
            let there = convert(object.clone(), BETA).unwrap();
            prop_assert_eq!(&there["apiVersion"], BETA);
            prop_assert!(there["spec"].get("replicas").is_none());
            prop_assert_eq!(convert(there, ALPHA).unwrap(), object);
        }

        #[test]
        fn nothing_is_lost_from_the_second_version_and_back(object in sandbox(BETA, prop_oneof![
            Just(None),
            prop::sample::select(vec!["Running", "Suspended"]).prop_map(|m| Some(("operatingMode", m.into()))),
        ])) {
            let there = convert(object.clone(), ALPHA).unwrap();
            prop_assert!(there["spec"].get("operatingMode").is_none());
            prop_assert_eq!(convert(there, BETA).unwrap(), object);
        }

        #[test]
        fn any_object_is_taken_without_a_panic(object in any_json(), to in "[a-z0-9./-]{0,30}") {
            let _ = convert(object.clone(), &to);
            let _ = convert(object, BETA);
        }
    }

    #[test]
    fn what_is_not_a_sandbox_is_refused_with_what_it_is() {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod" });
        let error = convert(pod, BETA).unwrap_err().to_string();
        assert!(error.starts_with("Pod cannot be converted"), "{error}");
        let sandbox = json!({ "apiVersion": ALPHA, "kind": "Sandbox" });
        assert!(convert(sandbox, "agents.x-k8s.io/v2").is_err());
        let sandbox = json!({ "apiVersion": ALPHA, "kind": "Sandbox", "spec": { "replicas": 2 } });
        let error = convert(sandbox, BETA).unwrap_err().to_string();
        assert!(error.contains("spec.replicas is 2"), "{error}");
    }
}
