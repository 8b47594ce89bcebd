//! The README's commands are the ones that exist, and `.ci/run` runs the one it gives for testing.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::read_to_string;
    use std::os::unix::fs::PermissionsExt;

    use pilotlight_common::reasons::Reason;
    use pilotlight_demo::workspace;

    fn read(path: &str) -> String {
        read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Every `make x` of a text.
    fn named_targets(text: &str) -> BTreeSet<String> {
        let marks = |c: char| !c.is_ascii_lowercase();
        text.split("make ")
            .zip(text.split("make ").skip(1))
            // Not "makes a", and only where it is set as code: `make x` or a line of its own.
            .filter(|(before, _)| before.ends_with(['`', '\n']))
            .map(|(_, after)| after.split(marks).next().unwrap_or_default().to_owned())
            .collect()
    }

    fn targets(makefile: &str) -> BTreeSet<String> {
        makefile
            .lines()
            .filter_map(|line| line.split_once(": ## "))
            .map(|(target, _)| target.to_owned())
            .collect()
    }

    #[test]
    fn every_target_the_readme_names_exists_and_every_target_is_named() {
        let named = named_targets(&read("README.md"));
        let mut existing = targets(&read("Makefile"));
        assert!(existing.remove("help"));
        assert_eq!(named, existing);
    }

    #[test]
    fn the_continuous_integration_runs_the_readmes_test_command() {
        let readme = read("README.md");
        let section = readme.split("## Test\n").nth(1).unwrap();
        let command = section
            .split("```sh\n")
            .nth(1)
            .and_then(|block| block.split("\n```").next())
            .unwrap();
        let script = read(".ci/run");
        let run = script.lines().last().unwrap();
        assert_eq!(run, format!("exec {command} </dev/null"));
        let mode = workspace()
            .join(".ci/run")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o111, 0o111, ".ci/run is not executable");
    }

    #[test]
    fn every_path_the_readme_names_exists() {
        let readme = read("README.md");
        let layout = readme.split("## Layout\n").nth(1).unwrap();
        let mut paths: Vec<&str> = layout
            .split_whitespace()
            .filter(|word| word.starts_with("tests/") || word.ends_with('/'))
            .collect();
        paths.extend([
            "deploy/chart/values.yaml",
            "deploy/chart/generated/crds.yaml",
            "common/tests/schema/promised.rs",
            "common/src/resolve",
            "common/src/kinds",
        ]);
        for path in paths {
            assert!(workspace().join(path).exists(), "{path}");
        }
    }

    #[test]
    fn the_refusals_of_the_readme_are_the_programs_words() {
        let readme = read("README.md");
        for reason in [
            Reason::RuntimeNotFound,
            Reason::ProfileNotFound,
            Reason::SeccompProfileUnknown,
            Reason::RuntimeClassNotFound,
            Reason::CpuPinningUnavailable,
            Reason::WaitingForCpus,
            Reason::InvalidNetworkAccess,
            Reason::PreloadUnavailable,
            Reason::PreloadInvalid,
            Reason::ProfileInvalid,
            Reason::PodStarting,
            Reason::WaitingForWarmPod,
        ] {
            assert!(
                readme.contains(&format!("`{}`", reason.as_str())),
                "{}",
                reason.as_str()
            );
        }
    }
}
