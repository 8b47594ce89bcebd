//! The memory of which pod has which CPUs, as one file that is written whole. Pure; [`crate::host::cpuset`] keeps the file.
//!
//! It is believed within one boot only, and only where its checksum is right; [`super::adopt`] holds even that against the
//! cgroups that are there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::CpuSet;
use crate::protocol::PodUid;

/// Largest file that is read, in bytes: a pin takes about a hundred.
pub const MAX_BYTES: usize = 1 << 20;
/// The format of this program.
const VERSION: u32 = 1;

/// CPUs by pod.
pub type Pins = BTreeMap<PodUid, CpuSet>;

/// Why a checkpoint is not believed.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// More than [`MAX_BYTES`].
    #[error("it is {0} bytes long, and {MAX_BYTES} are the most")]
    TooLarge(usize),
    /// Not JSON, or of other fields.
    #[error("it cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Of another version of this program.
    #[error("it is of format {0}, and this program writes {VERSION}")]
    Version(u32),
    /// The content is not what was written.
    #[error("its checksum is wrong")]
    Checksum,
    /// It was written before the machine started the last time.
    #[error("it is of another boot")]
    OtherBoot,
}

/// What is remembered.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Checkpoint {
    version: u32,
    boot_id: String,
    /// [`super::Topology::fingerprint`] when it was written: for people who look at the file.
    topology: String,
    pins: Pins,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    checkpoint: Checkpoint,
    sha256: String,
}

impl Checkpoint {
    /// What is to be remembered.
    pub fn new(boot_id: &str, topology: &str, pins: Pins) -> Self {
        Self {
            version: VERSION,
            boot_id: boot_id.to_owned(),
            topology: topology.to_owned(),
            pins,
        }
    }

    /// The content of the file.
    pub fn write(&self) -> Result<Vec<u8>, CheckpointError> {
        let file = File {
            sha256: self.sum()?,
            checkpoint: self.clone(),
        };
        let mut bytes = serde_json::to_vec(&file)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads the content of the file: the pins, where they can be believed in this boot.
    pub fn read(bytes: &[u8], boot_id: &str) -> Result<Pins, CheckpointError> {
        if bytes.len() > MAX_BYTES {
            return Err(CheckpointError::TooLarge(bytes.len()));
        }
        let File { checkpoint, sha256 } = serde_json::from_slice(bytes)?;
        if checkpoint.version != VERSION {
            return Err(CheckpointError::Version(checkpoint.version));
        }
        if checkpoint.sum()? != sha256 {
            return Err(CheckpointError::Checksum);
        }
        if checkpoint.boot_id != boot_id {
            return Err(CheckpointError::OtherBoot);
        }
        Ok(checkpoint.pins)
    }

    /// Fields and pins are in a fixed order, so the text is canonical.
    fn sum(&self) -> Result<String, serde_json::Error> {
        Ok(hex::encode(Sha256::digest(serde_json::to_vec(self)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uid(n: u8) -> PodUid {
        PodUid::try_from(format!("00000000-0000-0000-0000-0000000000{n:02x}")).unwrap()
    }

    fn pins() -> Pins {
        [
            (uid(1), CpuSet::parse("2-3").unwrap()),
            (uid(2), CpuSet::parse("5").unwrap()),
        ]
        .into()
    }

    fn written() -> Vec<u8> {
        Checkpoint::new("boot", "print", pins()).write().unwrap()
    }

    #[test]
    fn what_was_written_is_read_back_in_the_same_boot_only() {
        assert_eq!(Checkpoint::read(&written(), "boot").unwrap(), pins());
        let other = Checkpoint::read(&written(), "another");
        assert!(matches!(other, Err(CheckpointError::OtherBoot)));
    }

    #[test]
    fn a_checkpoint_that_was_tampered_with_or_cut_is_not_believed() {
        let text = String::from_utf8(written()).unwrap();
        for (from, to) in [
            ("2-3", "2-4"),
            ("\"boot\"", "\"baat\""),
            ("print", "paint"),
            ("0001", "0003"),
        ] {
            let lie = text.replacen(from, to, 1);
            assert!(matches!(
                Checkpoint::read(lie.as_bytes(), "boot"),
                Err(CheckpointError::Checksum)
            ));
        }
        for lie in [
            "",
            "{}",
            "null",
            &text[..text.len() / 2],
            &text.replacen("\"version\":1", "\"version\":2", 1),
            &text.replacen("\"5\"", "\"5-99999\"", 1),
            &text.replacen("\"sha256\"", "\"extra\":1,\"sha256\"", 1),
        ] {
            assert!(Checkpoint::read(lie.as_bytes(), "boot").is_err(), "{lie}");
        }
        let long = vec![b' '; MAX_BYTES + 1];
        assert!(matches!(
            Checkpoint::read(&long, "boot"),
            Err(CheckpointError::TooLarge(_))
        ));
    }

    proptest! {
        #[test]
        fn a_changed_byte_never_changes_what_is_believed(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = written();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = Checkpoint::read(&bytes, "boot") {
                prop_assert_eq!(read, pins());
            }
        }
    }
}
