//! Names of the pods and WarmPods that are made. Called by the decisions that make them.

use sha2::{Digest, Sha256};

use super::Index;

impl Index {
    /// `<stem>-<8 characters>`, different for every pod, replica and start. The stem, a pool's or a sandbox's name, is
    /// cut so that the result is a valid host name too (63 characters).
    pub(crate) fn new_name(&mut self, stem: &str) -> String {
        self.names_given += 1;
        let digest = Sha256::digest(format!("{}/{}", self.settings.nonce, self.names_given));
        let stem: String = stem
            .chars()
            .map(|c| if c == '.' { '-' } else { c })
            .take(54)
            .collect();
        format!(
            "{}-{}",
            stem.trim_end_matches('-'),
            hex::encode(&digest[..4])
        )
    }
}
