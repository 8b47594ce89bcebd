//! docs/security.md names tests, and each of them exists.

#[cfg(test)]
mod tests {
    use std::fs::{read_dir, read_to_string};
    use std::path::Path;

    use pilotlight_demo::workspace;

    /// The text of all Rust files below a folder.
    fn sources(folder: &Path, text: &mut String) {
        for entry in read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                sources(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn every_claim_of_the_threat_model_has_a_test_that_exists() {
        let text = read_to_string(workspace().join("docs/security.md")).unwrap();
        let mut all = String::new();
        for folder in [
            "common",
            "scheduler",
            "node-agent",
            "tests",
            "seccomp-profiles",
        ] {
            sources(&workspace().join(folder), &mut all);
        }
        let mut count = 0;
        // The tables of attempts; others have no tests.
        let tables = text.split("| attempt | what becomes of it | test |\n|---|---|---|\n");
        let rows = tables
            .skip(1)
            .flat_map(|table| table.lines().take_while(|line| line.starts_with("| ")));
        for row in rows {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [what, _, tests] = cells[..] else {
                panic!("not three cells: {row}");
            };
            assert!(!what.is_empty(), "{row}");
            let claimed: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
            assert!(!claimed.is_empty(), "no test: {row}");
            for name in claimed {
                assert!(
                    all.contains(&format!("fn {name}(")),
                    "no test {name}: {row}"
                );
                count += 1;
            }
        }
        assert!(count > 30, "{count} tests are named");
    }
}
