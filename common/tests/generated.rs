//! The chart carries what the generator prints, word for word, and no more than the API server and its clients take.

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::Value;

    fn printed(arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(env!("CARGO_BIN_EXE_crds"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "the generator failed");
        output.stdout
    }

    #[test]
    fn the_chart_carries_the_crds_of_this_source() {
        for (arguments, file) in [(&[][..], "crds.yaml"), (&["agents"], "agents-crd.yaml")] {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/chart/generated/");
            let carried = std::fs::read(format!("{folder}{file}")).unwrap();
            assert!(
                carried == printed(arguments),
                "deploy/chart/generated/{file} is stale; run `make generate` and commit the result"
            );
        }
    }

    #[test]
    fn the_crd_with_whole_pods_fits_into_the_annotation_that_kubectl_apply_writes() {
        // Annotations are at most 256 KiB together.
        let text = String::from_utf8(printed(&["agents"])).unwrap();
        let crd: Value = serde_saphyr::from_str(&text).unwrap();
        let size = crd.to_string().len();
        assert!(size < 200 << 10, "{size} bytes");
    }

    #[test]
    fn quantities_may_be_numbers_in_both_versions() {
        let text = String::from_utf8(printed(&["agents"])).unwrap();
        let crd: Value = serde_saphyr::from_str(&text).unwrap();
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
            let pod = &spec["podTemplate"]["properties"]["spec"]["properties"];
            let limits =
                &pod["containers"]["items"]["properties"]["resources"]["properties"]["limits"];
            assert_eq!(
                limits["additionalProperties"]["x-kubernetes-int-or-string"],
                true
            );
            let claim = &spec["volumeClaimTemplates"]["items"]["properties"]["spec"]["properties"];
            let requests = &claim["resources"]["properties"]["requests"];
            assert_eq!(
                requests["additionalProperties"]["x-kubernetes-int-or-string"],
                true
            );
            let empty = &pod["volumes"]["items"]["properties"]["emptyDir"]["properties"];
            assert_eq!(empty["sizeLimit"]["x-kubernetes-int-or-string"], true);
        }
    }
}
