//! Makes a filter of a profile's JSON in the way of runc: by name, through libseccomp, leaving out what that does not
//! know, with its answer for numbers beyond the largest one of the profile put before it.

use pilotlight_seccomp::Arch;
use serde_json::Value;

use crate::bpf::Instruction;
use crate::system::{Added, Compare, compile, resolve};

/// With more calls than this runc asks for a tree instead of a list.
const LIST: usize = 32;

/// How calls get their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// From the libseccomp of this machine, which may be older than the profile.
    Library,
    /// From our own table, as a libseccomp would that knows every call. For the machine's own architecture only.
    Ours,
}

/// A filter, and the largest number that it speaks of.
pub struct Filter {
    pub instructions: Vec<Instruction>,
    pub last: u32,
}

/// The error numbers of a profile replaced by ones that no kernel has, to tell who refused a call.
pub fn made_up(json: &[u8]) -> Vec<u8> {
    let mut profile: Value = serde_json::from_slice(json).unwrap();
    profile["defaultErrnoRet"] = 1337.into();
    for entry in profile["syscalls"].as_array_mut().unwrap() {
        match entry.get("errnoRet").and_then(Value::as_u64) {
            None => {}
            Some(38) => entry["errnoRet"] = 1338.into(),
            Some(22) => entry["errnoRet"] = 1339.into(),
            Some(other) => panic!("no made-up number for {other}"),
        }
    }
    serde_json::to_vec(&profile).unwrap()
}

pub fn filter(json: &[u8], arch: Arch, numbers: Numbers, beyond: u32) -> Filter {
    let profile: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(profile["architectures"], serde_json::json!([arch.oci()]));
    let default = action(&profile["defaultAction"], &profile["defaultErrnoRet"]);
    let native = Arch::native().unwrap();
    let (mut rules, mut last, mut calls) = (Vec::new(), 0, 0);
    for entry in profile["syscalls"].as_array().unwrap() {
        let action = action(
            &entry["action"],
            entry.get("errnoRet").unwrap_or(&Value::Null),
        );
        let compares: Vec<Compare> = entry
            .get("args")
            .and_then(Value::as_array)
            .map(|args| args.iter().map(compare).collect())
            .unwrap_or_default();
        for name in entry["names"].as_array().unwrap() {
            let name = name.as_str().unwrap();
            calls += 1;
            let (number, own) = match numbers {
                Numbers::Library => (
                    resolve(name, None),
                    u32::try_from(resolve(name, Some(arch.audit()))).ok(),
                ),
                Numbers::Ours => {
                    assert_eq!(arch, native);
                    let number = arch.number(name).unwrap();
                    (i32::try_from(number).unwrap(), Some(number))
                }
            };
            // -1 is "unknown"; other negative numbers stand for calls of other architectures.
            if number == -1 || action == default {
                continue;
            }
            last = last.max(own.unwrap_or(0));
            rules.push(Added {
                action,
                number,
                compares: compares.clone(),
            });
        }
    }
    let mut instructions = before(arch, last, beyond);
    instructions.extend(compile(
        arch.audit(),
        native.audit(),
        default,
        calls > LIST,
        &rules,
    ));
    Filter { instructions, last }
}

/// What runc puts before the filter: an answer for numbers beyond `last`, those of x32 excepted.
fn before(arch: Arch, last: u32, errno: u32) -> Vec<Instruction> {
    let instruction = |code, jt, jf, k| Instruction { code, jt, jf, k };
    vec![
        instruction(0x20, 0, 0, 4),
        instruction(0x15, 0, 4, arch.audit()),
        instruction(0x20, 0, 0, 0),
        instruction(0x45, 2, 0, 1 << 30),
        instruction(0x25, 0, 1, last),
        instruction(0x06, 0, 0, 0x0005_0000 | errno),
    ]
}

fn action(name: &Value, errno: &Value) -> u32 {
    match name.as_str().unwrap() {
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | u32::try_from(errno.as_u64().unwrap_or(1)).unwrap(),
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        other => panic!("{other}"),
    }
}

fn compare(arg: &Value) -> Compare {
    let number = |key: &str| arg.get(key).map_or(0, |value| value.as_u64().unwrap());
    let op = match arg["op"].as_str().unwrap() {
        "SCMP_CMP_NE" => 1,
        "SCMP_CMP_LT" => 2,
        "SCMP_CMP_LE" => 3,
        "SCMP_CMP_EQ" => 4,
        "SCMP_CMP_GE" => 5,
        "SCMP_CMP_GT" => 6,
        "SCMP_CMP_MASKED_EQ" => 7,
        other => panic!("{other}"),
    };
    Compare {
        arg: u32::try_from(number("index")).unwrap(),
        op,
        first: number("value"),
        second: number("valueTwo"),
    }
}
