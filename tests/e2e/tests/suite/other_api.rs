//! Sandboxes of `agents.x-k8s.io`. (Not called after it: by the order of names, they would come before those that must be alone.)

mod conflicts;
mod lives;
mod manifest;
mod security;
mod versions;
