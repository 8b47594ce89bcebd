//! Sandboxes of `agents.x-k8s.io`.

mod conflicts;
mod lives;
mod manifest;
mod security;
mod versions;
