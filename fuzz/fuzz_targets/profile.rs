//! Seccomp profiles of users: any bytes are refused, or are a profile whose files are accepted on both architectures.
//!
//! Input: the profile's name, a line break, and its JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilotlight_seccomp::{Arch, Profile, check_any, verify};

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let json = parts.next().unwrap_or_default();
    assert_eq!(check_any(json), Ok(()));
    if let Ok(profile) = Profile::from_user(&name, json) {
        assert_eq!(profile.name(), name);
        // The name becomes a part of a file's.
        assert!(!profile.file_name().contains(['/', '\0']));
        for arch in Arch::ALL {
            assert_eq!(verify(&profile.render(arch), arch), Ok(()));
        }
    }
});
