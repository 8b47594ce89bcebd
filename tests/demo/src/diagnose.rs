//! What a person would look at first when an installation does not come up.

use crate::{Installation, NAMESPACE, run};

/// Pods, events and the last words of every container.
pub(crate) fn installation(installation: &Installation) -> String {
    let sections: [(&str, &[&str]); 6] = [
        ("pods", &["get", "pods", "-o", "wide"]),
        ("events", &["get", "events", "--sort-by=.lastTimestamp"]),
        (
            "scheduler",
            &[
                "logs",
                "-l",
                "app.kubernetes.io/component=scheduler",
                "--prefix",
                "--tail=20",
            ],
        ),
        (
            "controller of agents.x-k8s.io",
            &[
                "logs",
                "-l",
                "app.kubernetes.io/component=agents",
                "--prefix",
                "--tail=20",
            ],
        ),
        (
            "node agent",
            &[
                "logs",
                "-l",
                "app.kubernetes.io/component=node-agent",
                "--all-containers",
                "--prefix",
                "--tail=20",
            ],
        ),
        ("nodes", &["get", "nodes", "-L", "llmsafespace.dev/agent"]),
    ];
    let mut found = String::new();
    for (title, arguments) in sections {
        let said = run::read(
            installation
                .kubectl()
                .args(["-n", NAMESPACE])
                .args(arguments),
        )
        .unwrap_or_else(|error| error.to_string());
        found = format!("{found}--- {title}\n{}\n", said.trim_end());
    }
    found
}
