//! The chart carries what the generator prints, word for word.

use std::process::Command;

#[test]
fn the_chart_carries_the_crds_of_this_source() {
    let printed = Command::new(env!("CARGO_BIN_EXE_crds")).output().unwrap();
    assert!(printed.status.success(), "the generator failed");
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/chart/generated/crds.yaml"
    );
    let carried = std::fs::read(path).unwrap();
    assert!(
        carried == printed.stdout,
        "deploy/chart/generated/crds.yaml is stale; run `make generate` and commit the result"
    );
}
